"""ExecuTorch with XNNPACK: PyTorch's runtime for phones and small machines."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import ConversionError, extra
from sizewise.records import Precision
from sizewise.runtimes import Config
from sizewise.tasks.problems import Session

if TYPE_CHECKING:
    from executorch.runtime import Method

    from sizewise.runtimes.source import Source

MOST_BATCH = 64
"""Samples a call, for which memory is planned when a model is converted. Larger batches are run in parts."""

_NEEDED_FOR = "a model for ExecuTorch"


def missing() -> str:
    """The line that installs ExecuTorch, or nothing if it is installed."""
    return "" if importlib.util.find_spec("executorch") else "pip install 'sizewise[executorch]'"


def convert(source: Source, precision: Precision, folder: Path) -> None:
    """Lower a model to `model.pte`; XNNPACK takes the operators that it has, portable kernels the rest.

    Raises:
        MissingExtraError: ExecuTorch is not installed.
        ConversionError: the model answers token by token, or memory was planned for shorter sequences than it takes.
    """
    with _quiet(), extra("executorch", needed_for=_NEEDED_FOR):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        from sizewise.runtimes.parts import whole

        program = whole(source.module, source.signature, MOST_BATCH).program()
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        (folder / "model.pte").write_bytes(lowered.to_executorch().buffer)
        planned, steps = _planned(_method(folder / "model.pte"))[1], source.signature.input_shape[0]
    if source.signature.dynamic and planned < steps:
        raise ConversionError(f"memory was planned for {planned} of {steps} steps", hint="leave executorch out")


def load(folder: Path, config: Config, threads: int) -> Session:
    """Open the folder's program. A process has one pool of threads: the latest load decides its size.

    Raises:
        MissingExtraError: ExecuTorch is not installed.
    """
    import torch  # whose libraries ExecuTorch's own need

    with extra("executorch", needed_for=_NEEDED_FOR):
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    _unsafe_reset_threadpool(threads)
    method = _method(folder / "model.pte")
    most = _planned(method)[0]

    def run(x: NDArray[Any]) -> NDArray[Any]:
        found = []
        for start in range(0, len(x), most):
            batch = torch.from_numpy(np.ascontiguousarray(x[start : start + most]))
            # The answer lies in memory that the next call writes to.
            found.append(method.execute([batch])[0].numpy().copy())
        return np.concatenate(found) if len(found) > 1 else found[0]

    return run


def layers(folder: Path, config: Config, source: Source, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """None: what is lowered keeps no names of layers."""
    return {}


def _method(path: Path) -> Method:
    import torch  # noqa: F401  # whose libraries ExecuTorch's own need
    from executorch.runtime import Runtime

    return Runtime.get().load_program(path).load_method("forward")


def _planned(method: Method) -> tuple[int, ...]:
    """Largest shape of the input that memory is planned for, which may be less than what was asked for."""
    return tuple(method.metadata.input_tensor_meta(0).sizes())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the compiler's advice to its developers out of the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
