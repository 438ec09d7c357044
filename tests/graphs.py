"""An encoder and a decoder as beam search takes them, made of a function that says what comes next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.runtimes.beam import Graph

Next = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]
"""Ids of a source and of all that was said, the first token included, to logits (tokens,)."""


def made(following: Next) -> tuple[Graph, Graph]:
    """Memory is the source's ids, and the past is what was said."""

    def encode(source: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return (np.stack([source, source != 0], axis=2).astype(np.float32),)

    def decode(token: NDArray[Any], memory: NDArray[Any], past: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        past = np.concatenate([past, token[:, :, None, None].astype(np.float32)], axis=2)
        sources, said = memory[:, :, 0].astype(np.int64), past[..., 0].astype(np.int64)
        logits = [[following(source, ids) for ids in rows] for source, rows in zip(sources, said, strict=True)]
        return np.array(logits, np.float32), past

    return encode, decode
