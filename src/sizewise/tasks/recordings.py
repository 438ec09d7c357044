"""Sound files of a folder or a .zip: what their names say, and how they are divided."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from sizewise.errors import DataError
from sizewise.tasks.audio import EXTENSIONS, Files, is_sound, named
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Split

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15
PARTS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}
TAKE = re.compile(r"(?P<label>.+)_(?P<speaker>[^_]+)_(?P<take>\d+)")
"""How the Free Spoken Digit Dataset names its recordings, for example 7_jackson_32.wav."""

TEST_TAKES = 5
"""Its official test split: takes 0 to 4 of every speaker and digit."""


@dataclass(frozen=True)
class Recording:
    """What a file's name says.

    Attributes:
        part: "train", "validation" or "test"; "" where it does not say.
        speaker: "" where it does not say.
    """

    name: str
    label: str
    part: str = ""
    speaker: str = ""


@contextmanager
def opened(path: Path) -> Iterator[Files]:
    """Files of a folder or a .zip by their names inside it, in a fixed order; hidden ones are left alone.

    Raises:
        DataError: it is neither.
    """
    if path.is_dir():
        inside = ((p.relative_to(path).as_posix(), p) for p in sorted(path.rglob("*")) if p.is_file())
        yield {name: p.read_bytes for name, p in inside if _visible(name)}
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no .zip: {error}", hint="give a folder or a .zip of sound files") from error
    with archive:
        members = (member.filename for member in archive.infolist() if not member.is_dir())
        yield {name: partial(archive.read, name) for name in sorted(members) if _visible(name)}


def recordings(path: Path, files: Files) -> tuple[Recording, ...]:
    """Every sound file and what its name says: in class subfolders, those perhaps in train, test and val, or as takes.

    Raises:
        DataError: no sound files, or names that say nothing.
    """
    names = [name for name in files if is_sound(name)]
    if not names:
        raise DataError(f"{path} has no sound files", hint=f"put some there: {', '.join(sorted(EXTENSIONS))}")
    inside = _without_common(names)
    if all(len(parts) == 1 for parts in inside):
        return tuple(_take(name) for name in names)
    shallow = [name for name, parts in zip(names, inside, strict=True) if len(parts) == 1]
    if shallow:
        raise DataError(
            f"{path} has sound files outside its class subfolders: {named(shallow)}",
            hint="put every sound into the subfolder of its class",
        )
    divided = {parts[0] for parts in inside} <= PARTS.keys()
    return tuple(_in_folder(name, parts, divided) for name, parts in zip(names, inside, strict=True))


def takes(path: Path, files: Files) -> tuple[Recording, ...]:
    """Recordings whose names say label, speaker and take.

    Raises:
        DataError: no sound files, or names that say something else.
    """
    found = recordings(path, files)
    for recording in found:
        if not recording.speaker:
            _take(recording.name)
    return found


def _in_folder(name: str, parts: tuple[str, ...], divided: bool) -> Recording:
    if not divided:
        return Recording(name, parts[0])
    if len(parts) < 3:
        raise DataError(f"{name} lies in no class subfolder", hint=f"put it into {parts[0]}/CLASS/{parts[-1]}")
    return Recording(name, parts[1], PARTS[parts[0]])


def _take(name: str) -> Recording:
    match = TAKE.fullmatch(PurePosixPath(name).stem)
    if match is None:
        raise DataError(
            f"{name} says neither by its folder nor by its name what is heard in it",
            hint="put sounds into class subfolders, or name them LABEL_SPEAKER_TAKE.wav with a number for the take",
        )
    part = "test" if int(match["take"]) < TEST_TAKES else "train"
    return Recording(name, match["label"], part, match["speaker"])


def divide(found: Sequence[Recording], classes: tuple[str, ...]) -> tuple[list[Recording], ...]:
    """Training, validation and test recordings: as their names say, the rest a fixed share of each class and speaker.

    Raises:
        DataError: no recording in the training or the test split, or too few of a class.
    """
    parts = np.array([recording.part for recording in found])
    if not parts.any():
        return _picked(found, *in_three(_numbered(found, classes), VALIDATION_SHARE, TEST_SHARE, classes=classes))
    for needed, which in (("train", "from 5 on"), ("test", "0 to 4")):
        if needed not in parts:
            raise DataError(
                f"there is no recording for the {needed} split",
                hint=f"it takes the subfolder {needed}/, or of recordings named LABEL_SPEAKER_TAKE the takes {which}",
            )
    train, test = ([r for r in found if r.part == part] for part in ("train", "test"))
    given = [r for r in found if r.part == "validation"]
    if given:
        return train, given, test
    return (*_held_out(train, classes), test)


def _held_out(train: list[Recording], classes: tuple[str, ...]) -> tuple[list[Recording], ...]:
    """Validation out of training, by class and speaker where there is enough of each pair, otherwise by class."""
    pairs = tuple(sorted({f"{r.label} by {r.speaker}" for r in train}))
    index = {pair: i for i, pair in enumerate(pairs)}
    y = np.array([index[f"{r.label} by {r.speaker}"] for r in train], np.int64)
    if np.bincount(y).min() < 2:
        return _picked(train, *hold_out(_numbered(train, classes), VALIDATION_SHARE, classes=classes))
    return _picked(train, *hold_out(Split(np.arange(len(train)), y), VALIDATION_SHARE, classes=pairs))


def _numbered(found: Sequence[Recording], classes: tuple[str, ...]) -> Split:
    """Positions and classes."""
    return Split(np.arange(len(found)), np.array([classes.index(r.label) for r in found], np.int64))


def _picked(found: Sequence[Recording], *splits: Split) -> tuple[list[Recording], ...]:
    return tuple([found[i] for i in np.sort(split.x)] for split in splits)


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _without_common(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Folders and name of each file, without folders around all of them."""
    inside = [tuple(name.split("/")) for name in names]
    while min(map(len, inside)) > 1 and len({parts[0] for parts in inside}) == 1:
        inside = [parts[1:] for parts in inside]
    return inside
