"""Sequences of different lengths in one array: the one place that knows what padding looks like.

A text is padded with token 0, and so is any other sequence of ids: a class at each step counts from 1. A series of
numbers gets one more channel, the last, which is 1 where there is a step and 0 where there is none, and is 0 all over
there. So a batch carries its own mask, and every model, runtime and client passes one tensor around.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

PAD, BEGIN, END = 0, 1, 2
"""Ids with a meaning of their own in every vocabulary: no step, and the first and last token of a target."""

Array = TypeVar("Array", "NDArray[Any]", "Tensor")


def pad(sequences: Sequence[NDArray[Any]], steps: int = 0) -> NDArray[Any]:
    """Sequences in one array, filled up at their ends.

    Args:
        sequences: ids of shape (steps,), or numbers of shape (steps, channels); at least one.
        steps: length of the result; the longest sequence's when that is more.

    Returns:
        ids (n, steps), or numbers (n, steps, channels + 1) whose last channel says where there is a step.
    """
    steps = max(steps, *(len(sequence) for sequence in sequences))
    first = sequences[0]
    if first.ndim == 1:
        out = np.full((len(sequences), steps), PAD, first.dtype)
        for row, sequence in zip(out, sequences, strict=True):
            row[: len(sequence)] = sequence
        return out
    out = np.zeros((len(sequences), steps, first.shape[1] + 1), np.float32)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence), :-1] = sequence
        row[: len(sequence), -1] = 1
    return out


def framed(ids: NDArray[Any]) -> NDArray[np.int64]:
    """A target (tokens,) with its first and last token around it."""
    return np.concatenate([[BEGIN], ids, [END]]).astype(np.int64)


def mask(x: Array) -> Array:
    """Where there is a step, as booleans (n, steps), of ids (n, steps) or of numbers (n, steps, channels + 1)."""
    there: Array = x != PAD if x.ndim == 2 else x[..., -1] != 0
    return there


def lengths(x: Array) -> Array:
    """Steps of each sequence, shape (n,)."""
    steps: Array = mask(x).sum(1)
    return steps


def trim(x: Array) -> Array:
    """Without the steps that all sequences lack; at least one step is left."""
    return x[:, : max(int(lengths(x).max()), 1)]
