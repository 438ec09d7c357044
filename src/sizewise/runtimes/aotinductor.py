"""AOTInductor: PyTorch's compiler, ahead of time, to machine code that needs no Python to run.

Its files hold a shared library for the kind of processor that it was compiled on. It is off unless asked for: each
model takes a C++ compiler tens of seconds.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import MissingExtraError
from sizewise.records import Precision
from sizewise.runtimes import Config
from sizewise.tasks.problems import Session

if TYPE_CHECKING:
    from sizewise.runtimes.source import Source

_COMPILERS = ("g++", "clang++", "c++")


def missing() -> str:
    """What to do where there is no C++ compiler; empty where there is one. Loading needs none."""
    named = os.environ.get("CXX")
    found = any(map(shutil.which, [named] if named else _COMPILERS))
    return "" if found else "install a C++ compiler such as g++, or name one in the environment variable CXX"


def convert(source: Source, precision: Precision, folder: Path) -> None:
    """Compile a model to `model.pt2`.

    Raises:
        MissingExtraError: there is no C++ compiler.
        ConversionError: it answers token by token.
    """
    if hint := missing():
        raise MissingExtraError("a model for AOTInductor needs a C++ compiler, and there is none", hint=hint)
    import torch._inductor

    from sizewise.runtimes.parts import whole

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's advice to its developers
        program = whole(source.module, source.signature).program()
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))


def load(folder: Path, config: Config, threads: int) -> Session:
    """Load the folder's library. As with PyTorch itself, the latest load decides the threads of all."""
    import torch._inductor

    torch.set_num_threads(threads)
    graph = torch._inductor.aoti_load_package(str(folder / "model.pt2"))

    def run(x: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            said = graph(torch.from_numpy(np.ascontiguousarray(x)))
            answers: NDArray[Any] = (said[0] if isinstance(said, tuple | list) else said).numpy()
            return answers

    return run


def layers(folder: Path, config: Config, source: Source, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """None: layers are fused into loops that have no names."""
    return {}
