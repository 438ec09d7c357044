"""Which layers quantization to int8 costs answers, and which time: each one alone, measured on ONNX Runtime.

Mixed precision follows from it: the layers that cost the most stay at full precision, as few as needed. This is the
sensitivity analysis of Wu et al. 2020 (arXiv:2004.09602, section 5.2), with the runtime's own clock beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import stats
from sizewise.compress import quantize
from sizewise.errors import ConversionError
from sizewise.records import Blame, Estimate
from sizewise.runtimes import onnxruntime

MOST_CHANGED = 0.002
"""Share of the samples whose answers may change before a layer goes back to full precision."""

BATCH, ROUNDS = 64, 15
"""Samples of a timed batch, and how often the two sides take turns."""

Array = NDArray[Any]
Same = Callable[[Array, Array], NDArray[np.bool_]]
"""Whether two models' answers are the same, sample by sample."""


def blame(graph: Path, samples: Array, same: Same) -> tuple[Blame, ...]:
    """Each layer quantized alone, the one that changes most answers first.

    Args:
        graph: an ONNX file at full precision.
        samples: raw training samples (n, ...): no other split decides anything here.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = quantize.prepared(graph, Path(folder))
        full = onnxruntime.open_file(prepared, threads=1)
        expected, found = full(samples), []
        for name, layer in quantize.layers(prepared).items():
            alone = Path(folder) / "alone.onnx"
            quantize.nodes_to_int8(prepared, alone, [name], samples)
            session = onnxruntime.open_file(alone, threads=1)
            changed = stats.proportion(int((~same(session(samples), expected)).sum()), len(samples))
            x = np.resize(samples, (BATCH, *samples.shape[1:]))
            found.append(Blame(layer, name, changed, _speedup(full, session, x)))
    return tuple(sorted(found, key=lambda b: (-b.changed.value, b.speedup.value)))


def mixed(graph: Path, target: Path, samples: Array, same: Same) -> tuple[Blame, ...]:
    """Quantize the layers that int8 makes faster, all but the fewest that must stay so that answers stay the same.

    Raises:
        ConversionError: no layer gains by it.
    """
    found = blame(graph, samples, same)
    chosen = [b for b in found if b.speedup.value > 1]
    with tempfile.TemporaryDirectory() as folder:
        prepared = quantize.prepared(graph, Path(folder))
        expected = onnxruntime.open_file(prepared, threads=1)(samples)
        while chosen:
            quantize.nodes_to_int8(prepared, target, [b.node for b in chosen], samples)
            session = onnxruntime.open_file(target, threads=1)
            if 1 - same(session(samples), expected).mean() <= MOST_CHANGED:
                return found
            chosen = chosen[1:]
    target.unlink(missing_ok=True)
    raise ConversionError(
        "no layer is faster in int8 and leaves the answers as they are", hint="leave mixed precision out"
    )


def _speedup(full: Callable[..., Array], quantized: Callable[..., Array], x: Array) -> Estimate:
    """How many times as fast the whole model is with the layer in int8, the two timed in alternation."""
    times: Sequence[list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for session, taken in zip((full, quantized), times, strict=True):
            began = time.perf_counter()
            session(x)
            taken.append(time.perf_counter() - began)
    return stats.log_ratio(np.array(times[0][1:]), np.array(times[1][1:]))
