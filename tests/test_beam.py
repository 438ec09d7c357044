"""Beam search against a made model whose best target is known by trying all of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import families
from sizewise.padding import BEGIN, END, PAD, lengths, pad
from sizewise.records import Signature
from sizewise.runtimes import beam, eager
from sizewise.tasks import Preprocessor

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

    def encode(self, source: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(source[:, :, None], np.float32)

    def decode(self, memory: NDArray[Any], source: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        return np.array([self.next(s, words(t)) for s, t in zip(source, target, strict=True)], np.float32)

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
    found = beam.search(model.encode, model.decode, SOURCE[:2], LONGEST, EVERYTHING)
    for row, source in zip(found, SOURCE, strict=False):
        assert words(row) == tuple(token for token in best(model, source) if token != END)


@given(MODELS)
@settings(max_examples=20, deadline=None)
def test_one_beam_is_greedy(model: Made) -> None:
    found = beam.search(model.encode, model.decode, SOURCE, LONGEST, 1)
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
    found = beam.search(model.encode, model.decode, SOURCE, LONGEST, beams)
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
    together = beam.search(model.encode, model.decode, np.pad(SOURCE, [(0, 0), (0, 4)]), LONGEST, beams)
    for row, source in zip(together, SOURCE, strict=True):
        alone = beam.search(model.encode, model.decode, source[source != PAD][None], LONGEST, beams)[0]
        assert words(alone) == words(row)


@given(MODELS)
@settings(max_examples=15, deadline=None)
def test_more_beams_never_find_less_than_all_of_them(model: Made) -> None:
    (everything,) = beam.search(model.encode, model.decode, SOURCE[:1], LONGEST, EVERYTHING)
    (few,) = beam.search(model.encode, model.decode, SOURCE[:1], LONGEST, 2)
    assert score(model, SOURCE[0], few) <= score(model, SOURCE[0], everything) + 1e-6


def score(model: Made, source: NDArray[Any], row: NDArray[Any]) -> float:
    said = words(row)
    return model.score(source, said if len(said) == LONGEST - 1 else (*said, END))


def test_a_longer_target_that_is_likelier_a_token_beats_a_short_one() -> None:
    """Sums of log probabilities would favour whatever ends first."""

    def decode(memory: NDArray[Any], source: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        logits, said = np.full((len(target), TOKENS), -20.0, np.float32), lengths(target)
        logits[np.ix_(said == 1, [END, 3])] = np.log([0.55, 0.45])  # ending at once is the best first step ...
        logits[(said == 2) | (said == 3), 4] = 0.0  # ... and all that follows the other is certain
        logits[said > 3, END] = 0.0
        return logits

    (found,) = beam.search(lambda source: source, decode, SOURCE[:1], LONGEST, 2)
    assert words(found) == (3, 4, 4)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_real_translator_says_the_same_in_a_padded_batch(beams: int) -> None:
    task = Signature("translation", (9,), 20, vocabulary=20, dynamic=True, target_steps=8)
    net = families.load("translator", task).build(32, seed=0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(6)  # as they start, all sources get the same answer
    encoder, decoder = (
        eager._run(part.eval(), task) for part in eager.parts(eager.Deployable(net, Preprocessor(), task))
    )
    translate = beam.session(encoder, decoder, task, beams)
    rng = np.random.default_rng(0)
    sources = [rng.integers(3, 20, length) for length in (9, 1, 4, 6)]
    together = translate(pad(sources, 9))
    for row, source in zip(together, sources, strict=True):
        assert words(translate(source[None])[0]) == words(row)
    assert len({words(row) for row in together}) > 1, "the comparison must be able to fail"
