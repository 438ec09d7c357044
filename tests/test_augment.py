"""Samples that are changed at random, in ways that do not matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sizewise import config, tasks
from sizewise.errors import UsageError
from sizewise.records import Recipe, Signature
from sizewise.study import Workspace
from sizewise.tasks.problems import make
from sizewise.tasks.problems.augment import DEGREES, SCALE, SHIFT, moved
from tests.builders import toy_task, train, trial, weights

RECIPE = Recipe(lr=0.01, batch_size=16, epochs=2, augment=True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre(image: Tensor) -> Tensor:
    """Centre of mass of an image (height, width), in pixels."""
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in image.shape), indexing="ij")
    return torch.stack([(rows * image).sum(), (columns * image).sum()]) / image.sum()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_an_image_is_moved_a_little(seed: int) -> None:
    image = torch.zeros(8, 1, 40, 40)
    image[:, :, 16:24, 12:28] = 1.0
    changed = moved(image, seeded(seed))
    assert not torch.equal(changed, image)
    most = SHIFT * 40 * SCALE[1] + 1
    for before, after in zip(image[:, 0], changed[:, 0], strict=True):
        assert (centre(after) - centre(before)).abs().max() < most
        assert SCALE[0] ** 2 * 0.9 < after.sum() / before.sum() < SCALE[1] ** 2 * 1.1
        across, down = (after.sum(side).count_nonzero() for side in (0, 1))
        assert across > down, f"a turn of {DEGREES}° makes nothing upright"


def test_what_lies_outside_is_the_edge() -> None:
    image = torch.full((4, 3, 16, 16), -0.4)
    assert torch.allclose(moved(image, seeded(0)), image)


@pytest.mark.parametrize("shape", [(4, 3, 12, 10), (4, 1, 8, 10, 12)])
def test_one_generator_changes_alike_and_nothing_else_is_drawn(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    torch.manual_seed(5)
    a, b, c = (moved(x, seeded(seed)) for seed in (1, 1, 2))
    after = torch.rand(1)
    assert a.shape == x.shape
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)


def test_a_run_sees_changed_samples_and_is_the_same_again(tmp_path: Path) -> None:
    task = toy_task()
    first, again = (train(trial(task, 4, recipe=RECIPE), task, tmp_path / name) for name in ("a", "b"))
    plain = train(trial(task, 4, recipe=Recipe(lr=0.01, batch_size=16, epochs=2)), task, tmp_path / "c")
    assert first.files == again.files
    assert first.files != plain.files
    assert weights(first, tmp_path / "a").keys() == weights(plain, tmp_path / "c").keys()


def test_augmentation_is_refused_where_there_is_none() -> None:
    problem = make(Signature("classification", (16,), 2, vocabulary=10, dynamic=True), ("a", "b"))
    with pytest.raises(UsageError, match="tokens of classification cannot be augmented"):
        problem.check(RECIPE)


def test_it_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    text = tmp_path / "text.csv"
    text.write_text("text,label\n" + "".join(f"word{i} more,{'ab'[i % 2]}\n" for i in range(40)))
    study = config.structure({"task": str(text), "recipe": {"augment": True}}, "test")
    with pytest.raises(UsageError, match="cannot be augmented"):
        Workspace.create(study, tmp_path / "study").plan()
    assert tasks.load(str(text)).signature.layout == "tokens"
