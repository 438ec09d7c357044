"""Recurrent networks and Transformers: one dial, no trace of padding, exact counts, the same answers when exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from sizewise import families, runtimes
from sizewise.errors import UsageError
from sizewise.padding import BEGIN, pad
from sizewise.records import Problem, Signature
from sizewise.runtimes import beam, eager, onnxruntime
from sizewise.tasks import Preprocessor, Split

STEPS, CHANNELS, VOCABULARY, OUTPUTS = 12, 3, 30, 5
WIDTH = 20

PROBLEMS: tuple[Problem, ...] = ("classification", "regression", "tagging", "transcription", "language modelling")
TEXTS = {p: Signature(p, (STEPS,), OUTPUTS, VOCABULARY, dynamic=True) for p in PROBLEMS}
TEXTS["language modelling"] = replace(TEXTS["language modelling"], outputs=VOCABULARY)
SERIES = {p: Signature(p, (STEPS, CHANNELS + 1), OUTPUTS, dynamic=True) for p in PROBLEMS[:-1]}
IMAGES = {p: Signature(p, (3, 16, 24), OUTPUTS) for p in PROBLEMS[:2]}
TRANSLATION = Signature("translation", (STEPS,), VOCABULARY, VOCABULARY, dynamic=True, target_steps=8)
DICTATION = Signature("dictation", (STEPS, CHANNELS + 1), VOCABULARY, dynamic=True, target_steps=8)

ONE_WAY, BOTH_WAYS = ("lstm", "gru", "transformer"), ("bilstm", "bigru")
TASKS = {name: (*TEXTS.values(), *SERIES.values()) for name in ONE_WAY}
TASKS |= {name: (*list(TEXTS.values())[:-1], *SERIES.values()) for name in BOTH_WAYS}
TASKS |= {"translator": (TRANSLATION, DICTATION), "vit": tuple(IMAGES.values())}
CASES = [
    pytest.param(name, task, id=f"{name}-{task.problem}-{task.layout}")
    for name, found in TASKS.items()
    for task in found
]
SEQUENCES = [case for case in CASES if case.values[0] != "vit"]


def samples(task: Signature, counts: tuple[int, ...], seed: int = 0) -> list[NDArray[Any]]:
    """Sequences of these lengths: ids from 3, or numbers."""
    rng = np.random.default_rng(seed)
    if task.vocabulary:
        return [rng.integers(3, VOCABULARY, n) for n in counts]
    return [rng.normal(size=(n, CHANNELS)).astype(np.float32) for n in counts]


def batch(task: Signature, counts: tuple[int, ...], steps: int = 0) -> Tensor:
    return torch.from_numpy(pad(samples(task, counts), steps))


def targets(rows: int) -> tuple[Tensor, ...]:
    """The beginnings of as many translations."""
    ids = np.random.default_rng(1).integers(3, VOCABULARY, (rows, 6))
    ids[:, 0] = BEGIN
    return (torch.from_numpy(ids),)


@pytest.mark.parametrize(("name", "task"), CASES)
@given(width=st.integers(1, 150))
@settings(max_examples=4, deadline=None)
def test_parameters_strictly_increase_with_the_width(name: str, task: Signature, width: int) -> None:
    family = families.load(name, task)
    assert family.params(width) < family.params(width + 1)


@pytest.mark.parametrize(("name", "task"), [case for case in CASES if case.values[1].problem != "regression"])
def test_the_same_seed_gives_the_same_weights(name: str, task: Signature) -> None:
    family = families.load(name, task)
    one, two, other = (family.build(WIDTH, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    drawn = [key for key, tensor in one.items() if tensor.numel() > 1 and tensor.std() > 0]
    assert drawn
    assert not any(torch.equal(one[key], other[key]) for key in drawn if "norm" not in key and "bias_ih" not in key)


@pytest.mark.parametrize(("name", "task"), SEQUENCES)
@torch.no_grad()
def test_a_padded_batch_gives_the_answers_of_single_samples(name: str, task: Signature) -> None:
    counts = (4, STEPS, 1, 7)
    module = families.load(name, task).build(WIDTH, seed=0).eval()
    more = targets(len(counts)) if task.autoregressive else ()
    together = module(batch(task, counts, STEPS), *more)
    for i, sequence in enumerate(samples(task, counts)):
        alone = module(torch.from_numpy(pad([sequence])), *(tensor[i : i + 1] for tensor in more))[0]
        torch.testing.assert_close(
            together[i, : len(alone)] if alone.ndim == 2 else together[i], alone, rtol=1e-4, atol=1e-5
        )
    assert float((together[0] - together[1])[0].abs().max()) > 1e-4, "the comparison must be able to fail"


@pytest.mark.parametrize(("name", "task"), [case for case in SEQUENCES if case.values[1].problem == "transcription"])
@torch.no_grad()
def test_what_is_padding_is_surely_blank(name: str, task: Signature) -> None:
    """So it changes neither the loss nor the answer."""
    module = families.load(name, task).build(WIDTH, seed=0).eval()
    x = batch(task, (4, STEPS), STEPS)
    logits = module(x)
    assert (logits[0, 4:].log_softmax(dim=1)[:, 0] > -1e-12).all()
    assert (logits[1].log_softmax(dim=1)[:, 0] < -0.1).all()


@pytest.mark.parametrize("name", ONE_WAY)
@torch.no_grad()
def test_a_language_model_sees_nothing_of_what_follows(name: str) -> None:
    task = TEXTS["language modelling"]
    module = families.load(name, task).build(WIDTH, seed=0).eval()
    x = batch(task, (STEPS,))
    changed = x.clone()
    changed[:, 7:] = (changed[:, 7:] + 1).clamp(max=VOCABULARY - 1)
    a, b = module(x), module(changed)
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert not torch.allclose(a[:, 7:], b[:, 7:])


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_what_reads_backwards_is_no_language_model(name: str) -> None:
    with pytest.raises(UsageError, match="cannot do language modelling with texts") as caught:
        families.load(name, TEXTS["language modelling"])
    assert "lstm or gru" in caught.value.hint


@pytest.mark.parametrize("name", [*ONE_WAY, *BOTH_WAYS, "translator", "vit"])
def test_what_a_family_cannot_do_is_refused(name: str) -> None:
    known = {(task.problem, task.layout) for task in TASKS[name]}
    numbers = Signature("language modelling", (STEPS, CHANNELS), OUTPUTS)
    detection = Signature("detection", (3, 16, 24), OUTPUTS)
    for task in (*TEXTS.values(), *SERIES.values(), *IMAGES.values(), TRANSLATION, DICTATION, numbers, detection):
        if (task.problem, task.layout) not in known:
            with pytest.raises(UsageError, match=f"the {name} family cannot do {task.problem}"):
                families.load(name, task)


@pytest.mark.parametrize("task", [TRANSLATION, DICTATION], ids=["words", "sound"])
@torch.no_grad()
def test_a_target_taken_step_by_step_is_the_target_as_a_whole(task: Signature) -> None:
    """Several hypotheses of a source beside each other, none of which hears of another."""
    net = families.load("translator", task).build(WIDTH, seed=0).eval()
    said = torch.from_numpy(np.random.default_rng(2).integers(3, VOCABULARY, (2, 3, 6)))
    memory = net.encode(batch(task, (5, STEPS)))
    past, steps = torch.zeros(2, 3, 0, memory.shape[2] - 1), []
    for token in said.unbind(2):
        logits, past = net.step(token, memory, past)
        steps.append(logits)
    for hypothesis in range(3):
        whole = net.head(net.decode(memory, said[:, hypothesis]))
        torch.testing.assert_close(torch.stack(steps, 2)[:, hypothesis], whole, rtol=1e-4, atol=1e-5)


# Counts


def forward_flops(name: str, width: int, task: Signature) -> int:
    return families.flops(families.load(name, task).build(width), task)


@pytest.mark.parametrize(
    ("name", "gates", "directions"), [("lstm", 4, 1), ("gru", 3, 1), ("bilstm", 4, 2), ("bigru", 3, 2)]
)
def test_flops_of_recurrent_layers_are_those_of_the_textbook(name: str, gates: int, directions: int) -> None:
    """Every gate of every step multiplies its inputs and its state; a multiply-add is two."""
    task, w = SERIES["classification"], WIDTH
    first = directions * gates * w * (w + w)
    second = directions * gates * w * (directions * w + w)
    entry, head = (CHANNELS + 1) * w, directions * w * OUTPUTS
    assert forward_flops(name, w, task) == 2 * (STEPS * (entry + first + second) + head)


@pytest.mark.parametrize("width", [16, 48, 96])
@pytest.mark.parametrize("problem", ["classification", "language modelling"])
def test_flops_of_attention_are_those_of_the_textbook(problem: Problem, width: int) -> None:
    """Projections, scores, mixtures and the hidden layer (Kaplan et al. 2020, table 1), all scores counted."""
    task = TEXTS[problem]
    layers, heads = max(2, width // 32), width // 16 * 16
    attention = STEPS * (4 * width * heads) + 2 * STEPS**2 * heads
    hidden = STEPS * 2 * width * 4 * width
    head = (STEPS if problem == "language modelling" else 1) * width * task.outputs
    assert forward_flops("transformer", width, task) == 2 * (layers * (attention + hidden) + head)


def test_flops_of_a_translator_are_those_of_its_halves() -> None:
    w, s, t = 32, STEPS, TRANSLATION.target_steps - 1
    encoder = s * (4 * w * w + 8 * w * w) + 2 * s * s * w
    crossed = t * 2 * w * w + s * 2 * w * w + 2 * t * s * w
    decoder = t * (4 * w * w + 8 * w * w) + 2 * t * t * w + crossed
    assert forward_flops("translator", w, TRANSLATION) == 2 * (2 * encoder + 2 * decoder + t * w * VOCABULARY)


def test_what_comes_in_too_fast_is_read_at_a_quarter_of_the_pace() -> None:
    w = 32
    slow = replace(DICTATION, input_shape=(4 * STEPS, CHANNELS + 1))
    stem = 2 * STEPS * 3 * (CHANNELS + 1) * w + STEPS * 3 * w * w
    after = replace(TRANSLATION, target_steps=slow.target_steps)
    assert forward_flops("translator", w, slow) == 2 * stem + forward_flops("translator", w, after)


def test_flops_of_a_vision_transformer_count_its_patches() -> None:
    """Sides of two pixels: 8 × 12 patches."""
    task, w, patches = IMAGES["classification"], 32, 8 * 12
    block = patches * (4 * w * w + 8 * w * w) + 2 * patches**2 * w
    assert forward_flops("vit", w, task) == 2 * (patches * 3 * 4 * w + 2 * block + w * OUTPUTS)


def test_training_costs_about_three_times_the_forward_pass() -> None:
    task = TEXTS["language modelling"]
    module = families.load("transformer", task).build(64)
    assert families.training_flops(module, task) == pytest.approx(3 * families.flops(module, task), rel=0.02)
    assert all(p.grad is None for p in module.parameters())


def test_parameters_without_embeddings_leave_out_what_is_only_looked_up() -> None:
    for name, tied in (("lstm", False), ("transformer", True)):
        module = families.load(name, TEXTS["language modelling"]).build(WIDTH)
        table = 0 if tied else VOCABULARY * WIDTH
        assert families.non_embedding(module) == families.parameters(module) - table


# Export

EXPORTED = {
    "lstm": TEXTS["language modelling"],
    "gru": SERIES["regression"],
    "bilstm": SERIES["transcription"],
    "bigru": TEXTS["tagging"],
    "transformer": TEXTS["classification"],
    "translator": TRANSLATION,
    "vit": IMAGES["classification"],
}

SOME = [pytest.param(n, marks=pytest.mark.slow) if n in ("gru", "bigru") else n for n in EXPORTED if n != "vit"]
"""An export takes seconds: the two kinds of recurrent layers are treated alike."""


def preprocessor(task: Signature) -> Preprocessor:
    """Fitted on a few samples."""
    x = np.ones((4, *task.input_shape), np.int64) if task.vocabulary else None
    if x is None and task.layout == "series":
        x = pad(samples(task, (5, STEPS, 7, 9)), STEPS)
    elif x is None:
        x = np.random.default_rng(0).integers(0, 255, (4, *task.input_shape)).astype(np.float32)
    y = np.random.default_rng(0).normal(5, 3, (4, OUTPUTS)).astype(np.float32)
    return Preprocessor.fit(Split(x, y), task)


Export = Callable[[str], tuple[runtimes.Session, runtimes.Session]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Each family's session in PyTorch and in ONNX Runtime. All are exported by one process, one after another: so the
    second LSTM and the second GRU are later exports of a recurrent layer, whose steps were once fixed."""

    @cache
    def sessions(name: str) -> tuple[runtimes.Session, runtimes.Session]:
        task, folder = EXPORTED[name], tmp_path_factory.mktemp(name)
        module = eager.Deployable(families.load(name, task).build(32, seed=0), preprocessor(task), task)
        with torch.no_grad():
            for weight in module.net.parameters() if name == "translator" else ():
                weight.mul_(6)  # as they start, all sources get the same answer
        onnxruntime.export(module, task, folder)
        files = ("encoder.onnx", "decoder.onnx") if task.autoregressive else ("model.onnx",)
        graphs = [onnxruntime.open_graph(folder / file, 1) for file in files]
        return eager.session(module, task), beam.session(graphs, task)

    return sessions


@pytest.mark.parametrize("counts", [(1,), (5,), (STEPS,), (3, STEPS, 1, 7, 7, 2, 9), (2, 6, 1)], ids=str)
@pytest.mark.parametrize("name", SOME)
def test_an_exported_model_takes_batches_and_lengths_of_any_size(
    exported: Export, name: str, counts: tuple[int, ...]
) -> None:
    torch_session, onnx_session = exported(name)
    x = pad(samples(EXPORTED[name], counts))
    expected = torch_session(x)
    assert len(expected) == len(counts)
    np.testing.assert_allclose(onnx_session(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 7])
def test_an_exported_vision_transformer_takes_batches_of_any_size(exported: Export, rows: int) -> None:
    torch_session, onnx_session = exported("vit")
    x = np.random.default_rng(1).integers(0, 255, (rows, 3, 16, 24)).astype(np.float32)
    np.testing.assert_allclose(onnx_session(x), torch_session(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SOME)
def test_exported_answers_depend_on_what_is_asked(exported: Export, name: str) -> None:
    answers = exported(name)[1](pad(samples(EXPORTED[name], (6, 9, 4))))
    assert not np.allclose(answers[0], answers[1], atol=1e-3)


@pytest.mark.slow
def test_numbers_leave_an_exported_model_in_the_users_unit(
    exported: Export,
) -> None:
    """Targets have a mean of about 5; a fresh model answers about 0 standard deviations from it."""
    answers = exported("gru")[1](pad(samples(EXPORTED["gru"], (6, 9))))
    assert answers.mean() == pytest.approx(np.mean(preprocessor(EXPORTED["gru"]).target_mean), abs=2)
