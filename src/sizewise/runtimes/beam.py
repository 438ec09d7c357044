"""Beam search: the likeliest target of a translator that is run as two graphs, whichever runtime runs them.

Scores are mean log probabilities a token: without the mean short targets would win (Wu et al. 2016, arXiv:1609.08144,
section 7, with a length penalty of 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import BEGIN, END, PAD, trim
from sizewise.records import Signature
from sizewise.tasks.problems import Session

BEAMS = 4

Graph = Callable[..., NDArray[Any]]


def session(encode: Graph, decode: Graph, signature: Signature, beams: int = BEAMS) -> Session:
    """Sources (n, steps) to targets (n, at most `target_steps`), without first and last token, padded with 0.

    Args:
        encode: source (n, steps) to memory (n, steps, ...).
        decode: memory, source and the target's beginning (n, target steps), padded, to logits (n, tokens) of the token
            that comes next.
    """

    def translate(source: NDArray[Any]) -> NDArray[Any]:
        return search(encode, decode, source, signature.target_steps, beams)

    return translate


@dataclass
class Hypotheses:
    """The best beginnings of targets of n sources, (n, beams, ...), and what they are scored by.

    Attributes:
        sources: numbers of the sources that these are of, shape (n,).
        targets: ids (n, beams, steps); an exported decoder takes two steps at least.
        score: sum of log probabilities. All beams are alike at first, and only one of them may be continued.
        steps: tokens that the sum is over.
        ended: whether the last token was reached.
    """

    sources: NDArray[np.intp]
    targets: NDArray[np.int64]
    score: NDArray[np.float64]
    steps: NDArray[np.int64]
    ended: NDArray[np.bool_]

    @classmethod
    def begin(cls, n: int, beams: int) -> Hypotheses:
        """Nothing but the first token."""
        targets, score = np.full((n, beams, 2), PAD, np.int64), np.full((n, beams), -np.inf)
        targets[:, :, 0], score[:, 0] = BEGIN, 0.0
        return cls(np.arange(n), targets, score, np.zeros((n, beams), np.int64), np.zeros((n, beams), bool))

    def take(self, chosen: NDArray[np.bool_]) -> Hypotheses:
        """Those of some of the sources."""
        return Hypotheses(
            self.sources[chosen], self.targets[chosen], self.score[chosen], self.steps[chosen], self.ended[chosen]
        )

    def grown(self, logits: NDArray[Any], step: int) -> Hypotheses:
        """The best of all continuations by the token at `step`. `logits`: (n · beams, tokens)."""
        n, beams = self.score.shape
        tokens, logs = (values.reshape(n, beams, -1) for values in _best(logits, min(beams, logits.shape[1])))
        tokens[self.ended], logs[self.ended] = PAD, -np.inf
        logs[self.ended, 0] = 0.0  # what has ended goes on as it is
        total, each = (self.score[:, :, None] + logs).reshape(n, -1), logs.shape[2]
        length = self.steps + ~self.ended
        order = np.argsort(-total / np.repeat(length, each, axis=1), axis=1, kind="stable")[:, :beams]
        parent, token = order // each, np.take_along_axis(tokens.reshape(n, -1), order, axis=1)
        targets = np.take_along_axis(self.targets, parent[:, :, None], axis=1)
        targets = np.concatenate([targets[:, :, :step], token[:, :, None]], axis=2)
        score, steps = np.take_along_axis(total, order, axis=1), np.take_along_axis(length, parent, axis=1)
        ended = np.take_along_axis(self.ended, parent, axis=1) | (token == END)
        return Hypotheses(self.sources, targets, score, steps, ended)


def search(encode: Graph, decode: Graph, source: NDArray[Any], longest: int, beams: int) -> NDArray[Any]:
    """The best of `beams` hypotheses of each source; one whose hypotheses have all ended is not looked at again."""
    found, memory = np.full((len(source), longest - 1), PAD, np.int64), encode(source)
    alive = Hypotheses.begin(len(source), beams)
    for step in range(1, longest):
        rows = np.repeat(alive.sources, beams)
        flat = alive.targets.reshape(len(rows), -1)
        alive = alive.grown(decode(memory[rows], source[rows], flat), step)
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
