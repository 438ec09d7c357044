"""What runs a model: one interface, `load(folder) -> Session`, and one file for each runtime behind it, see `registry`.

A model folder holds `config.json` and the files of one runtime. Its preprocessing is part of the model, so a session
takes raw samples and gives answers, whichever runtime answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sizewise.errors import IntegrityError, SizewiseError
from sizewise.records import Precision, RuntimeName, Signature
from sizewise.runtimes.registry import RUNTIMES, Runtime
from sizewise.store import read_json, sha256, write_json
from sizewise.tasks import Preprocessor
from sizewise.tasks.problems import Session

T = TypeVar("T")

FORMAT = 1
"""Version of config.json and manifest.json; a reader refuses any other."""

OUTPUTS = {
    "classification": "logits",
    "regression": "values",
    "tagging": "logits",
    "language modelling": "logits",
    "transcription": "logits",
    "translation": "tokens",
    "dictation": "tokens",
    "detection": "boxes",
}
"""Name of a session's output. Shapes: logits (n, classes), or (n, steps, outputs) where there are steps; values
(n, numbers); tokens (n, steps), padded with 0; boxes (n, most boxes, 6) of class from 1, score, left, top, right and
bottom in pixels, best first, filled up with class 0. The input is named after its layout."""


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
    runtime: RuntimeName
    precision: Precision
    family: str
    width: int
    signature: Signature
    classes: tuple[str, ...]
    preprocessor: Preprocessor

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold the model."""
        return RUNTIMES[self.runtime].files(self.signature.autoregressive)

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
        return RUNTIMES[config.runtime].backend.load(folder, config, threads)
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
        IntegrityError: the first file that is missing, changed, not listed, or outside the folder, by name.
    """
    manifest = _read(folder / "manifest.json", Manifest)
    _check_format(manifest.format, folder / "manifest.json")
    for name, expected in manifest.files.items():
        _check_inside(folder, name)
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder / name} is missing; the manifest lists it", hint=_AGAIN)
        if (found := sha256(folder / name)) != expected:
            raise IntegrityError(f"{folder / name} was changed: sha256 {found}, exported {expected}", hint=_AGAIN)
    for path in (folder / "config.json", *files(folder)):
        if path.name not in manifest.files:
            raise IntegrityError(f"{path} is not in the manifest", hint=_AGAIN)
    return Config.read(folder)


def _check_inside(folder: Path, name: str) -> None:
    """Refuse names that are paths, and links that lead elsewhere: a folder speaks of its own files alone."""
    if Path(name).name != name:
        raise IntegrityError(f"the manifest of {folder} lists {name!r}, which is no name of a file in it", hint=_AGAIN)
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise IntegrityError(f"{folder / name} leads out of the folder", hint=_AGAIN)


def missing() -> dict[str, str]:
    """The runtimes that cannot be used here, each with the line that installs it."""
    return {name: hint for name, runtime in RUNTIMES.items() if (hint := runtime.missing())}


_AGAIN = "take an intact copy of the folder, or make it anew with `sizewise export`"


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


__all__ = [
    "FORMAT", "OUTPUTS", "RUNTIMES", "Config", "Manifest", "Runtime", "Session", "files", "load", "missing", "verify",
]  # fmt: skip
