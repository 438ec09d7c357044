"""The list of runtimes: what each one is called, which files it takes, and which module of this room knows it.

A runtime is one module with the functions of `Backend`. To add one, write that module, its name in
`records.RuntimeName`, and a line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from numpy.typing import NDArray

from sizewise.records import Precision, RuntimeName

if TYPE_CHECKING:
    from sizewise.runtimes import Config
    from sizewise.runtimes.source import Source
    from sizewise.tasks.problems import Session


class Backend(Protocol):
    """What the module of a runtime offers."""

    def missing(self) -> str:
        """The line that installs what is lacking here; empty where nothing is."""

    def convert(self, source: Source, precision: Precision, folder: Path) -> None:
        """Write the runtime's files of a trained model into `folder`; int8 and int4 are made by `compress`.

        Raises:
            MissingExtraError: the runtime is not installed.
        """

    def load(self, folder: Path, config: Config, threads: int) -> Session:
        """Open the files of a folder on the CPU.

        Raises:
            MissingExtraError: the runtime is not installed.
        """

    def layers(self, folder: Path, config: Config, source: Source, x: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """What the layers of `source` say in the folder's files when these are given `x`, by layer; those that the
        files hold under no name are left out."""


@dataclass(frozen=True)
class Runtime:
    """One way to run a model.

    Attributes:
        label: its name as people write it.
        module: of this room.
        suffixes: of the files that hold one graph.
        precisions: arithmetics that it has.
        platform: what the Open Inference Protocol calls it.
        halves: whether what answers token by token is two graphs: the source is read once, and the target grows.
        native: whether its files hold machine code, which runs with all that the user may do.
    """

    name: RuntimeName
    label: str
    module: str
    suffixes: tuple[str, ...]
    precisions: tuple[Precision, ...]
    platform: str
    halves: bool = True
    native: bool = False

    @property
    def backend(self) -> Backend:
        """Its module, imported when first asked for: a server needs one runtime, not all."""
        return cast(Backend, importlib.import_module(f"sizewise.runtimes.{self.module}"))

    def missing(self) -> str:
        """The line that installs what is lacking here; empty where nothing is."""
        return self.backend.missing()

    def files(self, autoregressive: bool = False) -> tuple[str, ...]:
        """Names of the files that hold a model, or one that answers token by token."""
        stems = ("encoder", "decoder") if self.halves and autoregressive else ("model",)
        return tuple(stem + suffix for stem in stems for suffix in self.suffixes)


RUNTIMES: Mapping[RuntimeName, Runtime] = MappingProxyType(
    {
        runtime.name: runtime
        for runtime in (
            Runtime(
                "torch", "PyTorch", "eager", (".safetensors",), ("fp32", "bf16"), "pytorch_safetensors", halves=False
            ),
            Runtime("onnxruntime", "ONNX Runtime", "onnxruntime", (".onnx",), ("fp32", "int8"), "onnxruntime_onnx"),
            Runtime(
                "openvino",
                "OpenVINO",
                "openvino",
                (".xml", ".bin"),
                ("fp32", "bf16", "fp16", "int8", "int4"),
                "openvino_ir",
            ),
            Runtime(
                "aotinductor", "AOTInductor", "aotinductor", (".pt2",), ("fp32",), "pytorch_aotinductor", native=True
            ),
            Runtime("executorch", "ExecuTorch", "executorch", (".pte",), ("fp32",), "executorch_program"),
        )
    }
)
"""Every runtime by its name; the reference first."""


if TYPE_CHECKING:  # a module that lacks a function of the protocol is a type error
    from sizewise.runtimes import aotinductor, eager, executorch, onnxruntime, openvino

    _BACKENDS: tuple[Backend, ...] = (eager, onnxruntime, openvino, aotinductor, executorch)
