"""What runs a model: one interface, `load(folder) -> Session`, and one file for each runtime behind it.

A model folder holds `config.json` and the files of one runtime. Its preprocessing is part of the model, so a session
takes raw samples and gives answers, whichever runtime answers.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from sizewise.errors import IntegrityError, SizewiseError
from sizewise.records import Signature
from sizewise.store import read_json, sha256, write_json
from sizewise.tasks import Preprocessor
from sizewise.tasks.problems import Session

T = TypeVar("T")

Runtime = Literal["torch", "onnxruntime", "openvino"]

FORMAT = 1
"""Version of config.json and manifest.json; a reader refuses any other."""

FILES: dict[Runtime, tuple[str, ...]] = {
    "torch": ("model.safetensors",),
    "onnxruntime": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
}
"""The files that hold a model, for each runtime."""

TRANSLATOR_FILES: dict[Runtime, tuple[str, ...]] = {
    "torch": ("model.safetensors",),
    "onnxruntime": ("encoder.onnx", "decoder.onnx"),
    "openvino": ("encoder.xml", "encoder.bin", "decoder.xml", "decoder.bin"),
}
"""A translator is two graphs: the source is read once, and the target grows token by token."""

OUTPUTS = {
    "classification": "logits",
    "regression": "values",
    "tagging": "logits",
    "language modelling": "logits",
    "transcription": "logits",
    "translation": "tokens",
    "detection": "boxes",
}
"""Name of a session's output. Shapes: logits (n, classes), or (n, steps, outputs) where there are steps; values
(n, numbers); tokens (n, steps), padded with 0; boxes (n, most boxes, 6) of class from 1, score, left, top, right and
bottom in pixels, best first, filled up with class 0. The input is named after its layout."""

_PIP = {
    "torch": "pip install sizewise",
    "onnxruntime": "pip install sizewise",
    "openvino": "pip install 'sizewise[openvino]'",
}


@dataclass(frozen=True)
class Config:
    """A model folder's config.json.

    Attributes:
        signature: what goes in and comes out.
        classes: name of each class, label or token, by index.
        preprocessor: what the model does with raw samples itself.
    """

    format: int
    name: str
    runtime: Runtime
    precision: Literal["fp32", "int8"]
    family: str
    width: int
    signature: Signature
    classes: tuple[str, ...]
    preprocessor: Preprocessor

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold the model."""
        table = TRANSLATOR_FILES if self.signature.problem == "translation" else FILES
        return table[self.runtime]

    @classmethod
    def read(cls, folder: Path) -> Config:
        """Read `folder/config.json`.

        Raises:
            IntegrityError: it is missing, damaged, or of another format.
        """
        config = _read(folder / "config.json", cls)
        _check_format(config.format, folder / "config.json")
        return config

    def write(self, folder: Path) -> None:
        """Write `folder/config.json`, atomically."""
        write_json(folder / "config.json", self)


@dataclass(frozen=True)
class Manifest:
    """An exported folder's manifest.json: the sha256 of every other file, by name."""

    format: int
    files: dict[str, str]


def load(folder: Path, *, threads: int = 1) -> Session:
    """Open a model folder in its runtime, on the CPU.

    Args:
        threads: how many threads one call may use. PyTorch knows one number a process: the latest load decides.

    Raises:
        IntegrityError: a file is missing or damaged.
        MissingExtraError: the runtime is not installed.
    """
    config = Config.read(folder)
    for path in files(folder):
        if not path.is_file():
            raise IntegrityError(f"{path} is missing; {config.runtime} needs it", hint=_AGAIN)
    try:
        return _open(folder, config, threads)
    except SizewiseError:
        raise
    except Exception as error:  # every runtime has its own exceptions for a file it cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise IntegrityError(f"{config.runtime} cannot load {folder}: {reason}", hint=_AGAIN) from error


def files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the model: its size on disk.

    Raises:
        IntegrityError: config.json is missing or damaged.
    """
    return tuple(folder / name for name in Config.read(folder).files)


def verify(folder: Path) -> Config:
    """Compare an exported folder with its manifest; every file it is loaded from must be listed there.

    Raises:
        IntegrityError: the first file that is missing, changed, or not listed, by name.
    """
    manifest = _read(folder / "manifest.json", Manifest)
    _check_format(manifest.format, folder / "manifest.json")
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder / name} is missing; the manifest lists it", hint=_AGAIN)
        if (found := sha256(folder / name)) != expected:
            raise IntegrityError(f"{folder / name} was changed: sha256 {found}, exported {expected}", hint=_AGAIN)
    for path in (folder / "config.json", *files(folder)):
        if path.name not in manifest.files:
            raise IntegrityError(f"{path} is not in the manifest", hint=_AGAIN)
    return Config.read(folder)


def missing() -> dict[str, str]:
    """The runtimes that are not installed, each with the pip line that installs it."""
    return {runtime: pip for runtime, pip in _PIP.items() if importlib.util.find_spec(runtime) is None}


_AGAIN = "take an intact copy of the folder, or make it anew with `sizewise export`"


def _open(folder: Path, config: Config, threads: int) -> Session:
    match config.runtime:
        case "torch":
            from sizewise.runtimes import eager

            return eager.load(folder, config, threads)
        case "onnxruntime":
            from sizewise.runtimes import onnxruntime

            return onnxruntime.load(folder, config, threads)
        case "openvino":
            from sizewise.runtimes import openvino

            return openvino.load(folder, config, threads)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return read_json(path, kind)
    except FileNotFoundError as error:
        raise IntegrityError(f"{path.parent} has no {path.name}", hint=_AGAIN) from error
    except IntegrityError as error:
        raise IntegrityError(error.message, hint=_AGAIN) from error


def _check_format(found: int, path: Path) -> None:
    if found != FORMAT:
        raise IntegrityError(
            f"{path} has format {found}; this version reads format {FORMAT}",
            hint="use the version of sizewise that wrote it, or export the model again",
        )
