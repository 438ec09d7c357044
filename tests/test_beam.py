"""Beam search against a made model whose best target is known by trying all of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import families
from sizewise.padding import BEGIN, END, PAD, pad
from sizewise.records import Signature
from sizewise.runtimes import beam, eager, onnxruntime, openvino
from sizewise.tasks import Preprocessor
from tests.graphs import made

TOKENS = 6
WORDS = range(3, TOKENS)
LONGEST = 5
"""With the first token: four are chosen."""

EVERYTHING = 200
"""More beams than there are hypotheses."""

Ids = tuple[int, ...]


class Made:
    """A translator whose next token depends on the source and on everything said so far, in no pattern."""

    def __init__(self, seed: int, eager_to_end: float = 0.0) -> None:
        self.seed, self.eager_to_end = seed, eager_to_end
        self.known: dict[tuple[int, ...], NDArray[Any]] = {}

    def search(self, source: NDArray[Any], beams: int) -> NDArray[Any]:
        return beam.search(*made(lambda ids, said: self.next(ids, words(said))), source, LONGEST, beams)

    def next(self, source: NDArray[Any], said: Ids) -> NDArray[Any]:
        """Logits (tokens,) after what was said, its first token included."""
        key = (self.seed, *(int(i) for i in source if i != PAD), 99, *map(int, said))
        if key not in self.known:
            self.known[key] = (2 * np.random.default_rng(key).normal(size=TOKENS)).astype(np.float32)
            self.known[key][END] += self.eager_to_end
        return self.known[key]

    def score(self, source: NDArray[Any], target: Ids) -> float:
        """Mean log probability of a target without its first token."""
        total = 0.0
        for i, token in enumerate(target):
            logits = self.next(source, (BEGIN, *target[:i])).astype(float)
            total += logits[token] - np.log(np.exp(logits).sum())
        return total / len(target)


def every_target() -> Iterator[Ids]:
    for words in range(LONGEST):
        for said in product(WORDS, repeat=words):
            yield said if words == LONGEST - 1 else (*said, END)


def best(model: Made, source: NDArray[Any]) -> Ids:
    return max(every_target(), key=lambda target: model.score(source, target))


def words(row: NDArray[Any]) -> Ids:
    return tuple(int(i) for i in row if i != PAD)


SOURCE = np.array([[3, 4, 5], [5, 3, 0], [4, 0, 0]])
MODELS = st.builds(Made, st.integers(0, 10_000), st.sampled_from([-2.0, 0.0, 1.0, 3.0]))


@given(MODELS)
@settings(max_examples=25, deadline=None)
def test_a_beam_that_is_wide_enough_finds_the_best_target_of_all(model: Made) -> None:
    found = model.search(SOURCE[:2], EVERYTHING)
    for row, source in zip(found, SOURCE, strict=False):
        assert words(row) == tuple(token for token in best(model, source) if token != END)


@given(MODELS)
@settings(max_examples=20, deadline=None)
def test_one_beam_is_greedy(model: Made) -> None:
    found = model.search(SOURCE, 1)
    for row, source in zip(found, SOURCE, strict=True):
        said: Ids = ()
        while len(said) < LONGEST - 1 and END not in said:
            logits = model.next(source, (BEGIN, *said)).copy()
            logits[[PAD, BEGIN]] = -np.inf
            said = (*said, int(logits.argmax()))
        assert words(row) == tuple(token for token in said if token != END)


@given(MODELS, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_what_has_ended_stays_as_it_is(model: Made, beams: int) -> None:
    """Nothing is said after the end, nothing but words before, and no more than fits."""
    found = model.search(SOURCE, beams)
    assert found.shape[0] == len(SOURCE)
    assert found.shape[1] <= LONGEST - 1
    for row in found:
        length = len(words(row))
        assert (row[length:] == PAD).all()
        assert np.isin(row[:length], WORDS).all()


@given(MODELS, st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_each_source_gets_its_answer_whatever_lies_beside_it(model: Made, beams: int) -> None:
    """Some end at once and wait for the others; padding of the source is not read."""
    together = model.search(np.pad(SOURCE, [(0, 0), (0, 4)]), beams)
    for row, source in zip(together, SOURCE, strict=True):
        alone = model.search(source[source != PAD][None], beams)[0]
        assert words(alone) == words(row)


@given(MODELS)
@settings(max_examples=15, deadline=None)
def test_more_beams_never_find_less_than_all_of_them(model: Made) -> None:
    (everything,) = model.search(SOURCE[:1], EVERYTHING)
    (few,) = model.search(SOURCE[:1], 2)
    assert score(model, SOURCE[0], few) <= score(model, SOURCE[0], everything) + 1e-6


def score(model: Made, source: NDArray[Any], row: NDArray[Any]) -> float:
    said = words(row)
    return model.score(source, said if len(said) == LONGEST - 1 else (*said, END))


def test_a_longer_target_that_is_likelier_a_token_beats_a_short_one() -> None:
    """Sums of log probabilities would favour whatever ends first."""

    def following(source: NDArray[Any], said: NDArray[Any]) -> NDArray[Any]:
        logits = np.full(TOKENS, -20.0, np.float32)
        if len(said) == 1:
            logits[[END, 3]] = np.log([0.55, 0.45])  # ending at once is the best first step ...
        else:
            logits[4 if len(said) <= 3 else END] = 0.0  # ... and all that follows the other is certain
        return logits

    (found,) = beam.search(*made(following), SOURCE[:1], LONGEST, 2)
    assert words(found) == (3, 4, 4)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_real_translator_says_the_same_in_a_padded_batch(beams: int) -> None:
    task = Signature("translation", (9,), 20, vocabulary=20, dynamic=True, target_steps=8)
    net = families.load("translator", task).build(32, seed=0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(6)  # as they start, all sources get the same answer
    halves = eager.parts(eager.Deployable(net, Preprocessor(), task))
    translate = beam.session([eager.graph(half.eval(), task) for half in halves], task, beams)
    rng = np.random.default_rng(0)
    sources = [rng.integers(3, 20, length) for length in (9, 1, 4, 6)]
    together = translate(pad(sources, 9))
    for row, source in zip(together, sources, strict=True):
        assert words(translate(source[None])[0]) == words(row)
    assert len({words(row) for row in together}) > 1, "the comparison must be able to fail"


def test_a_step_after_many_is_the_same_in_every_runtime(tmp_path: Path) -> None:
    """OpenVINO's fused attention of one step to sixteen and more is wrong."""
    task = Signature("translation", (9,), 20, vocabulary=20, dynamic=True, target_steps=50)
    module = eager.Deployable(families.load("translator", task).build(32, seed=0), Preprocessor(), task).eval()
    onnxruntime.export(module, task, tmp_path)
    openvino.convert_file(tmp_path / "decoder.onnx", tmp_path / "decoder.xml")
    encoder, decoder = (eager.graph(half.eval(), task) for half in eager.parts(module))
    others = (
        onnxruntime.open_graph(tmp_path / "decoder.onnx", 1),
        openvino.open_graph(tmp_path / "decoder.xml", "fp32", 1),
    )
    (memory,), rng = encoder(SOURCE), np.random.default_rng(0)
    for steps in (0, 1, 15, 40):
        past = rng.normal(size=(len(SOURCE), 4, steps, memory.shape[2] - 1)).astype(np.float32)
        inputs = rng.integers(3, 20, (len(SOURCE), 4)), memory, past
        for other in others:
            for ours, theirs in zip(other(*inputs), decoder(*inputs), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-4)
