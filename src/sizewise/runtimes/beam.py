"""Beam search: the likeliest target of a model that is run as two graphs, whichever runtime runs them.

The encoder reads the source once. The decoder takes one step of all hypotheses of a source, and what it has computed of
the steps before is handed back to it, so that no step is computed twice.

Scores are mean log probabilities a token: without the mean short targets would win (Wu et al. 2016, arXiv:1609.08144,
section 7, with a length penalty of 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import BEGIN, END, PAD, trim
from sizewise.records import Signature
from sizewise.tasks.problems import Session

BEAMS = 4

Graph = Callable[..., tuple[NDArray[Any], ...]]
"""A graph that is run: its inputs to its outputs, both in their order."""


def session(graphs: Sequence[Graph], signature: Signature, beams: int = BEAMS) -> Session:
    """A model of one graph, or of an encoder and a decoder: sources (n, steps, ...) to targets (n, at most
    `target_steps`), without first and last token, padded with 0."""
    if not signature.autoregressive:
        return first(graphs[0])
    encode, decode = graphs
    return lambda source: search(encode, decode, source, signature.target_steps, beams)


def first(graph: Graph) -> Session:
    """The first output of a graph."""
    return lambda x: graph(x)[0]


@dataclass(frozen=True)
class Hypotheses:
    """The best beginnings of targets of n sources, (n, beams, ...), and what they are scored by.

    Attributes:
        sources: numbers of the sources that these are of, shape (n,).
        targets: ids (n, beams, steps).
        score: sum of log probabilities. All beams are alike at first, and only one of them may be continued.
        steps: tokens that the sum is over.
        ended: whether the last token was reached.
        memory: of the sources, (n, its steps, numbers + 1).
        past: what the decoder keeps of the targets but for their last tokens, (n, beams, steps - 1, numbers).
    """

    sources: NDArray[np.intp]
    targets: NDArray[np.int64]
    score: NDArray[np.float64]
    steps: NDArray[np.int64]
    ended: NDArray[np.bool_]
    memory: NDArray[Any]
    past: NDArray[Any]

    @classmethod
    def begin(cls, memory: NDArray[Any], beams: int) -> Hypotheses:
        """Nothing but the first token."""
        n, score = len(memory), np.full((len(memory), beams), -np.inf)
        score[:, 0] = 0.0
        past = np.zeros((n, beams, 0, memory.shape[2] - 1), memory.dtype)
        targets, steps = np.full((n, beams, 1), BEGIN, np.int64), np.zeros((n, beams), np.int64)
        return cls(np.arange(n), targets, score, steps, np.zeros((n, beams), bool), memory, past)

    def take(self, chosen: NDArray[np.bool_]) -> Hypotheses:
        """Those of some of the sources."""
        return Hypotheses(
            self.sources[chosen],
            self.targets[chosen],
            self.score[chosen],
            self.steps[chosen],
            self.ended[chosen],
            self.memory[chosen],
            self.past[chosen],
        )

    def grown(self, logits: NDArray[Any], past: NDArray[Any]) -> Hypotheses:
        """The best of all continuations by one token. `logits`: (n, beams, tokens)."""
        n, beams = self.score.shape
        found = _best(logits.reshape(n * beams, -1), min(beams, logits.shape[2]))
        tokens, logs = (values.reshape(n, beams, -1) for values in found)
        tokens[self.ended], logs[self.ended] = PAD, -np.inf
        logs[self.ended, 0] = 0.0  # what has ended goes on as it is
        total, each = (self.score[:, :, None] + logs).reshape(n, -1), logs.shape[2]
        length = self.steps + ~self.ended
        order = np.argsort(-total / np.repeat(length, each, axis=1), axis=1, kind="stable")[:, :beams]
        rows, parent, token = np.arange(n)[:, None], order // each, np.take_along_axis(tokens.reshape(n, -1), order, 1)
        return Hypotheses(
            sources=self.sources,
            targets=np.concatenate([self.targets[rows, parent], token[:, :, None]], axis=2),
            score=np.take_along_axis(total, order, axis=1),
            steps=length[rows, parent],
            ended=self.ended[rows, parent] | (token == END),
            memory=self.memory,
            past=past[rows, parent],
        )


def search(encode: Graph, decode: Graph, source: NDArray[Any], longest: int, beams: int) -> NDArray[Any]:
    """The best of `beams` hypotheses of each source; one whose hypotheses have all ended is not looked at again.

    Args:
        encode: source to memory (n, its steps, numbers + 1), whose last number says where there is a step.
        decode: last token of each hypothesis (n, beams), memory, and the past (n, beams, steps before, numbers), to
            logits (n, beams, tokens) of the next one and the past with one more step.
        longest: tokens of a target, the first and the last included.
    """
    found = np.full((len(source), longest - 1), PAD, np.int64)
    alive = Hypotheses.begin(encode(source)[0], beams)
    for step in range(1, longest):
        alive = alive.grown(*decode(alive.targets[:, :, -1], alive.memory, alive.past))
        done: NDArray[np.bool_] = np.all(alive.ended | (step == longest - 1), axis=1)
        if done.any():
            found[alive.sources[done], :step] = _winners(alive.take(done))
            alive = alive.take(~done)
        if not len(alive.sources):
            break
    return trim(np.where(found == END, PAD, found))


def _winners(hypotheses: Hypotheses) -> NDArray[np.int64]:
    """The best target of each source, without the first token."""
    winner = (hypotheses.score / hypotheses.steps).argmax(axis=1)
    return hypotheses.targets[np.arange(len(winner)), winner, 1:]


def _best(logits: NDArray[Any], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and log probabilities of the `count` likeliest tokens (n, count), best first. No more of a hypothesis's
    continuations can be among the `count` best of all."""
    peak = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - peak).sum(axis=1, keepdims=True, dtype=np.float64))
    worst = -logits
    worst[:, [PAD, BEGIN]] = np.inf
    ids = np.argpartition(worst, count - 1, axis=1)[:, :count]
    logs = -np.take_along_axis(worst, ids, axis=1).astype(np.float64) - peak - total
    order = np.argsort(-logs, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(logs, order, axis=1)
