"""A folder of files in class subfolders, perhaps inside `train`, `test` and `val`: what is there, and what opens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import room
from sizewise.errors import DataError
from sizewise.records import Exclusion
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Split, Task, make_task

VALIDATION_NAMES = ("val", "valid", "validation")
SPLIT_NAMES = {"train", "test", *VALIDATION_NAMES}
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15

MOST_BROKEN = 0.05
"""Share of the files that may be broken; from there on something is wrong with the whole, and it is an error."""


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        plural: what they are called in messages, such as "images".
        endings: of their names, in small letters.
    """

    plural: str
    endings: Collection[str]

    def __contains__(self, path: Path) -> bool:
        return path.name.lower().endswith(tuple(self.endings))


@dataclass(frozen=True)
class Files:
    """The files of a folder in a fixed order.

    Attributes:
        paths: of all splits, one after the other.
        y: class of each file, shape (n,).
        sizes: files of the undivided whole, or of train, test and perhaps validation.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    y: NDArray[np.int64]
    sizes: tuple[int, ...]

    @property
    def part(self) -> NDArray[np.int64]:
        """Which of the splits each file belongs to, shape (n,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def find(folder: Path, kind: Kind) -> Files:
    """Files from class subfolders, or from class subfolders inside `train`, `test` and perhaps `val`.

    Classes are the subfolders' names in alphabetical order. Hidden files and files of another kind are left alone.

    Raises:
        DataError: no files of this kind, or a class or a split that is missing.
    """
    divided = _is_divided(folder)
    places = _splits(folder) if divided else [folder]
    classes = _classes(places[0], kind)
    groups = [_files(place, classes, kind) for place in places]
    pairs = [pair for group in groups for pair in group]
    y = np.array([index for _, index in pairs], np.int64)
    return Files(folder, classes, tuple(path for path, _ in pairs), y, tuple(map(len, groups)))


def opened(
    files: Files, kind: Kind, opener: Callable[[Path], NDArray[Any]]
) -> tuple[Files, list[NDArray[Any]], tuple[Exclusion, ...]]:
    """The arrays of all files that open, those files, and how many others were left out.

    Args:
        opener: raises DataError for a file that it cannot read.

    Raises:
        DataError: the first broken file's, when too many are broken or a class loses all of its files.
    """
    shelf = room.Shelf()
    found: list[NDArray[Any] | DataError] = [_tried(lambda path: shelf.put(opener(path)), path) for path in files.paths]
    broken = [(path, error) for path, error in zip(files.paths, found, strict=True) if isinstance(error, DataError)]
    if not broken:
        return files, [array for array in found if not isinstance(array, DataError)], ()
    good = np.array([not isinstance(array, DataError) for array in found])
    kept = Files(
        files.folder,
        files.classes,
        tuple(path for path, fine in zip(files.paths, good, strict=True) if fine),
        files.y[good],
        tuple(np.bincount(files.part[good], minlength=len(files.sizes)).tolist()),
    )
    (path, first), many = broken[0], len(broken) >= MOST_BROKEN * len(found)
    if many or _labels(kept) != _labels(files):
        others = f"; {len(broken):,} of {len(found):,} {kind.plural} are broken" if len(broken) > 1 else ""
        raise DataError(f"{first.message}{others}", hint=first.hint)
    which = (
        f"{kind.plural[:-1]} that cannot be read:" if len(broken) == 1 else f"{kind.plural} that cannot be read, first"
    )
    return (
        kept,
        [array for array in found if not isinstance(array, DataError)],
        (Exclusion(f"{which} {path}", len(broken), ()),),
    )


def task(files: Files, x: NDArray[Any], skipped: Sequence[Exclusion]) -> Task:
    """Classification of samples x (n, ...), one a file, in the folder's own division or in a stratified one.

    Raises:
        DataError: as `make_task`, or a class too small to be divided.
    """
    whole, classes = Split(x, files.y), files.classes
    if len(files.sizes) == 1:
        splits = in_three(whole, VALIDATION_SHARE, TEST_SHARE, classes=classes)
    else:
        train, test, *validation = (whole.take(np.flatnonzero(files.part == i)) for i in range(len(files.sizes)))
        train, held = (train, validation[0]) if validation else hold_out(train, VALIDATION_SHARE, classes=classes)
        splits = train, held, test
    return make_task(files.folder.resolve().name, str(files.folder), classes, *splits, skipped=skipped)


def _tried(opener: Callable[[Path], NDArray[Any]], path: Path) -> NDArray[Any] | DataError:
    try:
        return opener(path)
    except DataError as error:
        return error


def _labels(files: Files) -> set[tuple[int, int]]:
    """Every class that occurs, in every split."""
    return set(zip(files.part.tolist(), files.y.tolist(), strict=True))


def _is_divided(folder: Path) -> bool:
    """Whether the subfolders are splits; a flat one on its own may be a class, such as `train` beside `bus`."""
    inside = _subfolders(folder)
    return len(inside & SPLIT_NAMES) > 1 or ("train" in inside and bool(_subfolders(folder / "train")))


def _splits(folder: Path) -> list[Path]:
    """The folders of train, test and, if there is one, validation."""
    inside = _subfolders(folder)
    for needed in ("train", "test"):
        if needed not in inside:
            raise DataError(
                f"{folder} is divided into {', '.join(sorted(inside))}, without {needed}",
                hint=f"add {folder / needed}, or put the class subfolders directly into {folder}",
            )
    names = ["train", "test", *(name for name in VALIDATION_NAMES if name in inside)][:3]
    return [folder / name for name in names]


def _subfolders(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}


def _classes(folder: Path, kind: Kind) -> tuple[str, ...]:
    found = tuple(sorted(_subfolders(folder)))
    if len(found) < 2:
        raise DataError(
            f"{folder} has {len(found)} class subfolders" + (f": {found[0]!r}" if found else ""),
            hint=f"put the {kind.plural} of each class into a subfolder of its own; at least two classes",
        )
    return found


def _files(folder: Path, classes: tuple[str, ...], kind: Kind) -> list[tuple[Path, int]]:
    """Every file of the kind with its class, in a fixed order."""
    strangers = sorted(_subfolders(folder) - set(classes))
    if strangers:
        raise DataError(
            f"{folder} has the class {strangers[0]!r}, which the training split lacks",
            hint="give every split the same class subfolders",
        )
    found = []
    for index, name in enumerate(classes):
        inside = folder / name
        paths = sorted(p for p in inside.rglob("*") if _is_one(p.relative_to(inside), kind) and p.is_file())
        if not paths:
            raise DataError(
                f"{inside} has no {kind.plural}",
                hint=f"put {kind.plural} there ({', '.join(sorted(kind.endings))}) or remove the class",
            )
        found += [(path, index) for path in paths]
    return found


def _is_one(inside: Path, kind: Kind) -> bool:
    """Whether a path inside a class folder is named so and not hidden, as in `.thumbnails/cat.png`."""
    return inside in kind and not any(part.startswith(".") for part in inside.parts)
