"""What is learned: tasks, their preprocessing, their problems and their metrics."""

from __future__ import annotations

import difflib
import importlib
import itertools
import os
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from sizewise.errors import DataError, UsageError
from sizewise.records import Reading
from sizewise.tasks.task import Preprocessor, Split, Task, make_task

__all__ = ["FORMATS", "NAMES", "Preprocessor", "Split", "Task", "load", "make_task"]

NAMES = ("digits", "mnist")
"""Built-in tasks."""


IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
"""Endings of files that hold an image."""


@dataclass(frozen=True)
class Format:
    """A form that a user's data may have.

    Attributes:
        module: the file beside this one that loads it: `load(path, reading) -> Task`.
        what: for help and hints.
        uses: the fields of `Reading` that it takes.
        endings: of files that are this form when they are given alone.
        holds: endings of the files in a folder that is this form when it is given alone.
    """

    module: str
    what: str
    uses: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


FORMATS = {
    "images": Format("images", "a folder of images in class subfolders", ("size",), holds=IMAGE_ENDINGS),
    "npz": Format("arrays", "an .npz file of arrays", endings=(".npz",)),
    "volumes": Format(
        "volumes", "a folder of scans in class subfolders (NIfTI or .npz)", holds=(".nii", ".gz", ".npz")
    ),
    "series": Format("series", "a table of measurements over time", ("steps", "target")),
    "text": Format(
        "text",
        "a table of texts and labels, or a folder of one file of lines a class",
        ("steps", "vocabulary", "text", "target"),
        (".csv", ".tsv"),
    ),
    "tagged": Format(
        "tagged", "sentences in columns, one word and its tag a line", ("steps", "vocabulary"), (".conll", ".iob")
    ),
    "language": Format("language", "text to continue", ("steps", "vocabulary"), (".txt",)),
    "parallel": Format(
        "parallel", "a folder or .tsv of sentences in two languages", ("steps", "vocabulary", "text", "target")
    ),
    "sounds": Format("sounds", "a folder or .zip of sounds, one class each", ("steps",), holds=(".wav", ".flac")),
    "utterances": Format("utterances", "a folder or .zip of sounds with what is said in them", ("steps",)),
    "dictation": Format("dictation", "the same, to be written down word by word by a decoder", ("steps",)),
    "detection": Format("detection", "a folder or .zip of images with boxes (Pascal VOC or COCO)", ("size",)),
}
"""What a study calls its task when its data is given apart from it."""

LOOKED_AT = 1000
"""Files of a folder that tell what form it has."""


def load(name: str, data: Path | None = None, reading: Reading | None = None, *, download: bool = True) -> Task:
    """Load a task.

    Args:
        name: a built-in task, a path to data, or the form of the data.
        data: where the files of "mnist" lie (default: downloaded once into a cache); or the path itself, when `name` is
            a form of data.
        reading: what the data's form leaves open.
        download: whether the files of "mnist" may be fetched when the cache has not got them.

    Raises:
        UsageError: there is no such task, or it takes no data, or not this of `reading`.
        DataError: the data is missing, or cannot be learned from as it is.
    """
    reading = reading or Reading()
    if name in NAMES:
        _check(name, (), reading)
    if name == "mnist":
        from sizewise.tasks import idx
        from sizewise.tasks.download import mnist

        return idx.load(data or mnist(download=download))
    if name == "digits" and data is None:
        from sizewise.tasks import digits

        return digits.load()
    if data is None:
        path = _named(name)
        return _load(_form(path), path, reading)
    if name not in FORMATS:
        raise UsageError(
            f"the task {name!r} takes no data, and {str(data)!r} was given",
            hint=f"{_suggestion(name)}to use that data, give its path alone, or its form: {', '.join(FORMATS)}",
        )
    return _load(name, data, reading)


def _named(name: str) -> Path:
    """The path that a name is, if it exists or at least looks like one."""
    path = Path(name)
    if path.exists() or path.suffix or os.sep in name:
        return path
    if name in FORMATS:
        raise UsageError(f"{name!r} is a form of data, and no data is given", hint="name it: --data PATH")
    raise UsageError(
        f"there is no task and no path {name!r}",
        hint=f"{_suggestion(name)}give {' or '.join(NAMES)}, a folder of images or an .npz file",
    )


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, (*NAMES, *FORMATS), n=1)
    return f"did you mean {near[0]!r}? " if near and near[0] != name else ""


def _form(path: Path) -> str:
    """The form of data that a path is by its looks."""
    if not path.exists():
        return next(iter(FORMATS))
    if path.is_dir():
        return _form_of_folder(path)
    for name, form in FORMATS.items():
        if path.suffix.lower() in form.endings:
            return name
    known = sorted({ending for form in FORMATS.values() for ending in form.endings})
    raise DataError(
        f"{path} is neither a folder nor one of {', '.join(known)}",
        hint=f"say what it is: --data {path} with one of {', '.join(FORMATS)} as the task",
    )


def _form_of_folder(folder: Path) -> str:
    """The first form that the folder holds files of; a folder with images is one of images whatever else it holds."""
    files = (file for file in folder.rglob("[!.]*") if file.is_file())
    found = Counter(file.suffix.lower() for file in itertools.islice(files, LOOKED_AT))
    for name, form in FORMATS.items():
        if any(found[ending] for ending in form.holds):
            return name
    held = f"{folder} holds {', '.join(ending or 'files without ending' for ending, _ in found.most_common(3))}"
    raise DataError(
        held if found else f"{folder} holds no files",
        hint=f"say what it is: --data {folder} with one of {', '.join(FORMATS)} as the task",
    )


def _load(name: str, path: Path, reading: Reading) -> Task:
    if not path.exists():
        raise DataError(f"there is no file or folder {path}", hint="check the path; it is relative to where you are")
    form = FORMATS[name]
    _check(name, form.uses, reading)
    task: Task = importlib.import_module(f"sizewise.tasks.{form.module}").load(path, reading)
    return task


def _check(name: str, uses: tuple[str, ...], reading: Reading) -> None:
    """Refuse what would be ignored."""
    for field in fields(Reading):
        if getattr(reading, field.name) != field.default and field.name not in uses:
            raise UsageError(
                f"reading.{field.name} means nothing to the task {name!r}",
                hint=f"it takes {', '.join(uses) or 'nothing of the kind'}",
            )
