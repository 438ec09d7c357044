"""The convolutional network over time: every problem of series, padding that changes nothing, and pruning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sizewise import families
from sizewise.compress.narrow import narrow
from sizewise.errors import UsageError
from sizewise.families import Family
from sizewise.padding import lengths, pad
from sizewise.records import Problem, Signature

PROBLEMS: tuple[tuple[Problem, int], ...] = (
    ("classification", 10),
    ("regression", 2),
    ("tagging", 5),
    ("transcription", 11),
)


def family(problem: Problem, outputs: int, *, dynamic: bool = True, name: str = "cnn1d") -> Family:
    return families.load(name, Signature(problem, (60, 8), outputs, dynamic=dynamic))


def series(*steps: int) -> Tensor:
    """Random series of these lengths, padded."""
    generator = torch.Generator().manual_seed(0)
    return torch.from_numpy(pad([torch.randn(n, 7, generator=generator).numpy() for n in steps]))


@pytest.mark.parametrize(("problem", "outputs"), PROBLEMS)
def test_a_padded_batch_gives_the_answers_of_single_samples(problem: Problem, outputs: int) -> None:
    module = family(problem, outputs).build(6, seed=0).eval()
    batch = series(60, 37, 4, 1)
    together = module(batch)
    for x, steps, answers in zip(batch, lengths(batch), together, strict=True):
        (alone,) = module(x[None, : int(steps)])
        torch.testing.assert_close(alone, answers[: len(alone)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("problem", "outputs"), PROBLEMS)
def test_shapes_of_the_answers(problem: Problem, outputs: int) -> None:
    shape = {"tagging": (2, 58, outputs), "transcription": (2, 15, outputs)}.get(problem, (2, outputs))
    for dynamic in (True, False):
        module = family(problem, outputs, dynamic=dynamic).build(3, seed=0)
        assert module(series(58, 20)).shape == shape


@pytest.mark.parametrize("name", ["cnn1d", "bigru", "lstm", "transformer"])
def test_transcripts_have_a_step_for_every_fourth_frame_and_blanks_behind_their_end(name: str) -> None:
    module = family("transcription", 11, name=name).build(4, seed=0).eval()
    batch = series(58, 9)
    answers = module(batch)
    assert answers.shape == (2, 15, 11)
    assert (answers[1, 3:].argmax(dim=1) == 0).all()
    assert answers[1, 3:].softmax(dim=1)[:, 0].min() > 0.999
    (alone,) = module(batch[1:, :9])
    torch.testing.assert_close(alone, answers[1, :3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("problem", "outputs"), PROBLEMS)
def test_parameters_grow_with_the_width_and_start_from_the_seed(problem: Problem, outputs: int) -> None:
    sizes = family(problem, outputs)
    counts = [sizes.params(width) for width in (1, 2, 3, 5, 8, 16, 64)]
    assert counts == sorted(set(counts))
    one, same, other = (sizes.build(4, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["first.layer.weight"], other["first.layer.weight"])


@pytest.mark.parametrize(("problem", "outputs"), PROBLEMS)
def test_it_is_cut_to_a_smaller_member_of_the_family(problem: Problem, outputs: int) -> None:
    sizes = family(problem, outputs)
    smaller = sizes.build(5)
    smaller.load_state_dict(narrow(sizes.build(8, seed=0), sizes, 5))
    assert families.parameters(smaller) == sizes.params(5)


def test_activations_start_at_the_scale_of_the_input() -> None:
    module = family("classification", 10).build(32, seed=0).eval()
    x = series(*[60] * 64)
    assert 0.1 < float(module(x).detach().std()) < 3


def test_what_it_cannot_do() -> None:
    for signature in (
        Signature("classification", (3, 8, 8), 2),
        Signature("classification", (20,), 2, vocabulary=9),
        Signature("translation", (20, 4), 9, target_steps=5),
    ):
        with pytest.raises(UsageError, match="cnn1d"):
            families.load("cnn1d", signature)
