"""Beam search: the likeliest target of a translator that is run as two graphs, whichever runtime runs them.

Scores are mean log probabilities a token: without the mean short targets would win (Wu et al. 2016, arXiv:1609.08144,
section 7, with a length penalty of 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import BEGIN, END, PAD
from sizewise.records import Signature
from sizewise.tasks.problems import Session

BEAMS = 4

Graph = Callable[..., NDArray[Any]]


def session(encode: Graph, decode: Graph, signature: Signature, beams: int = BEAMS) -> Session:
    """Sources (n, steps) to targets (n, at most `target_steps`), without first and last token, padded with 0.

    Args:
        encode: source (n, steps) to memory (n, steps, ...).
        decode: memory, source and target (n, target steps) to logits (n, target steps, tokens).
    """

    def translate(source: NDArray[Any]) -> NDArray[Any]:
        return search(encode, decode, source, signature.target_steps, beams)

    return translate


def search(encode: Graph, decode: Graph, source: NDArray[Any], longest: int, beams: int) -> NDArray[Any]:
    """The best of `beams` hypotheses of each source."""
    n = len(source)
    memory, sources = (np.repeat(array, beams, axis=0) for array in (encode(source), source))
    targets = np.full((n * beams, 2), PAD, np.int64)  # an exported decoder takes two steps at least
    targets[:, 0] = BEGIN
    score = np.full((n, beams), -np.inf)
    score[:, 0] = 0.0  # all beams are alike at first, and only one of them may be continued
    ended = np.zeros((n, beams), bool)
    steps = np.zeros((n, beams))  # tokens after the first
    for step in range(1, longest):
        logs = _log_softmax(decode(memory, sources, targets)[:, step - 1]).reshape(n, beams, -1)
        logs[:, :, [PAD, BEGIN]] = -np.inf
        logs[ended] = -np.inf
        logs[ended, PAD] = 0.0  # what has ended goes on as it is
        total = (score[:, :, None] + logs).reshape(n, -1)
        length = np.where(ended, steps, steps + 1)
        mean = total / np.repeat(length, logs.shape[2], axis=1)
        best = np.argpartition(-mean, beams - 1, axis=1)[:, :beams]
        parent, token = np.divmod(best, logs.shape[2])
        rows = (np.arange(n)[:, None] * beams + parent).ravel()
        score = np.take_along_axis(total, best, axis=1)
        ended, steps = np.take_along_axis(ended, parent, axis=1), np.take_along_axis(length, parent, axis=1)
        grown = targets[rows]
        if grown.shape[1] <= step:
            grown = np.pad(grown, [(0, 0), (0, 1)])
        grown[:, step] = token.ravel()
        targets, ended = grown, ended | (token == END)
        if ended.all():
            break
    winner = (score / steps).argmax(axis=1)
    found = targets.reshape(n, beams, -1)[np.arange(n), winner, 1:]
    return np.where(found == END, PAD, found)


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
