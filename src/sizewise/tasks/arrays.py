"""Arrays in an .npz file: images, volumes or series, with classes or numbers to learn."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sizewise import padding, room
from sizewise.errors import DataError
from sizewise.records import Problem, Reading, Signature
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Split, Task, check_classes, check_examples, make_task

Arrays = Mapping[str, NDArray[Any]]

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15
WHOLE = {"": ("x", "y")}
KEYS = (
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)
"""Names in use: the textbooks' and MedMNIST's (Yang et al. 2023)."""

CHANNELS = (1, 3, 4)
LABEL_LIMIT = 2.0**53
"""Labels beyond are not exact in every number format that holds them."""

AXES = {"image": (3, 4), "volume": (4, 5), "series": (3,)}
"""How many axes the samples of each layout may have, that of the samples included."""


def load(path: Path, reading: Reading) -> Task:
    """Samples and targets from an .npz file, undivided (`x`, `y`) or divided.

    Keys are `x` and `y`; or `x_train`, `y_train`, `x_test`, `y_test` and perhaps `x_val`, `y_val`; or MedMNIST's.

    What samples are, an entry `layout` says: "image", "volume" or "series". Without it,

    - three axes are grey images (n, height, width);
    - four are images (n, height, width, channels) or (n, channels, height, width), or, with all three sides equal as in
      MedMNIST's, volumes (n, depth, height, width);
    - five are volumes (n, depth, height, width, channels) or (n, channels, depth, height, width);
    - series (n, steps, channels) are never guessed. NaN at the end of one makes it shorter.

    Channels are the last axis if it has 1, 3 or 4 entries, else the second. Targets are classes if they are whole
    numbers, (n,) or (n, 1), numbered from 0 without gaps; an optional `classes` names them. So they are, one a step, if
    samples are series and targets integers (n, steps). Other numbers, and several a sample, (n, numbers), are learned
    as numbers.

    Raises:
        DataError: no such file, none of these keys, pickled objects, or samples and targets that do not fit.
    """
    arrays = _read(path)
    for keys in (WHOLE, *KEYS):
        present = {name: pair for name, pair in keys.items() if name != "validation" or arrays.keys() & set(pair)}
        if all(key in arrays for name, pair in present.items() if name != "validation" for key in pair):
            return _task(_File(path, arrays, present))
    raise DataError(
        f"{path} has the keys {', '.join(sorted(arrays)) or 'none'}",
        hint="name the arrays x and y, or x_train, y_train, x_val, y_val, x_test, y_test",
    )


@dataclass(frozen=True)
class _File:
    """The arrays of a file, and which of them are the samples and targets of each split."""

    path: Path
    arrays: Arrays
    keys: Mapping[str, tuple[str, str]]

    def __post_init__(self) -> None:
        for x, y in self.keys.values():
            for key in (x, y):
                if key not in self.arrays:
                    raise DataError(
                        f"{self.path} has no {key}, only its partner", hint=f"give both {x} and {y}, or neither"
                    )

    def where(self, split: str) -> str:
        return f"{self.path}, {' and '.join(self.keys[split])}"


def _task(file: _File) -> Task:
    problem = _problem(file)
    series = _layout(file) == "series"
    samples, dynamic = _all_series(file) if series else (_all_images(file), False)
    splits = {name: Split(x, _targets(file, name, problem)) for name, x in samples.items()}
    for name, split in splits.items():  # here, where positions are those in the user's file
        check_examples(file.where(name), split.x, split.y)
    first = next(iter(splits.values()))
    if problem == "tagging":
        return _tagged(file, splits, dynamic)
    classes = _classes(file.arrays, first.y, file.path) if problem == "classification" else ()
    outputs = len(classes) or first.y.shape[1]
    signature = Signature(problem, tuple(first.x.shape[1:]), outputs, dynamic=dynamic)
    divided = _divided(file, splits, classes)
    return make_task(file.path.stem, str(file.path), classes, *divided, signature=signature)


def _tagged(file: _File, splits: dict[str, Split], dynamic: bool) -> Task:
    """Series with a class at each step: ids from 1, 0 where there is no step."""
    said = np.concatenate([split.y[padding.mask(split.x)] if dynamic else split.y.ravel() for split in splits.values()])
    classes = ("", *_classes(file.arrays, said, file.path))
    check_classes(str(file.path), said, classes[1:])
    counted = {
        name: Split(split.x, (split.y + 1) * (padding.mask(split.x) if dynamic else 1))
        for name, split in splits.items()
    }
    shape = next(iter(splits.values())).x.shape[1:]
    signature = Signature("tagging", tuple(shape), len(classes), dynamic=dynamic)
    divided = _divided(file, counted, ())
    return make_task(file.path.stem, str(file.path), classes, *divided, signature=signature)


def _divided(file: _File, splits: dict[str, Split], classes: tuple[str, ...]) -> tuple[Split, Split, Split]:
    """Training, validation and test splits."""
    if "validation" in splits:
        return splits["train"], splits["validation"], splits["test"]
    name, first = next(iter(splits.items()))
    if classes:
        check_classes(f"{file.path}, {file.keys[name][1]}" if name else str(file.path), first.y, classes)
    if not name:
        return in_three(first, VALIDATION_SHARE, TEST_SHARE, classes=classes)
    return *hold_out(first, VALIDATION_SHARE, classes=classes), splits["test"]


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive by name; what is no array is left alone."""
    try:
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            entries = {} if isinstance(file, np.ndarray) else {name: _entry(path, file, name) for name in file.files}
    except ValueError as error:
        raise DataError(
            f"{path} holds pickled objects or is no .npz file: {error}", hint="save plain arrays with numpy.savez"
        ) from error
    except Exception as error:  # zip files and their compressions raise whatever they stumble over
        raise DataError(f"{path} cannot be read: {error}", hint="save it again with numpy.savez") from error
    return {name: entry for name, entry in entries.items() if isinstance(entry, np.ndarray)}


def _entry(path: Path, file: Any, name: str) -> NDArray[Any]:
    """An array of an archive: in memory, or, if it is too large, where it lies in the file.

    One that is compressed is unpacked into a file of its own.
    """
    member = next(info for info in file.zip.infolist() if info.filename in (name, f"{name}.npy"))
    if member.file_size <= room.limit():
        array: NDArray[Any] = file[name]
        return array
    with file.zip.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = header(stream)
        if dtype.hasobject:
            raise ValueError(f"{name} is an array of objects")
        begin = stream.tell()
        if member.compress_type == zipfile.ZIP_STORED:
            place, order = _data_offset(path, member) + begin, "F" if columns_first else "C"
            return np.asarray(np.memmap(path, dtype, "r", place, shape, order))  # type: ignore[call-overload]
        return _unpacked(stream, shape[::-1], dtype).T if columns_first else _unpacked(stream, shape, dtype)


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of an archive's member begin: after a header of its own, with its name and what else is said."""
    with path.open("rb") as raw:
        raw.seek(member.header_offset + 26)
        name, more = struct.unpack("<HH", raw.read(4))
    return int(member.header_offset + 30 + name + more)


def _unpacked(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    out = room.empty(shape, dtype)
    flat, filled = out.reshape(-1).view(np.uint8), 0
    while piece := stream.read(min(room.PIECE, len(flat) - filled)):
        flat[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if filled < len(flat):
        raise EOFError(f"{len(flat) - filled:,} bytes are missing")
    return out


def _layout(file: _File) -> str:
    """What a sample is: "image", "volume" or "series"."""
    key = next(iter(file.keys.values()))[0]
    x = file.arrays[key]
    if "layout" in file.arrays:
        said = str(file.arrays["layout"])
        if said not in AXES:
            raise DataError(f"layout in {file.path} is {said!r}", hint=f"give one of {', '.join(AXES)}")
    else:
        said = "volume" if x.ndim == 5 or (x.ndim == 4 and len(set(x.shape[1:])) == 1) else "image"
    for key, _ in file.keys.values():
        x = file.arrays[key]
        if x.dtype.kind not in "uif" or x.ndim not in AXES[said]:
            raise DataError(
                f"{key} in {file.path} is {x.dtype} of shape {x.shape}",
                hint="give numbers: images (n, height, width) or with channels, volumes (n, depth, height, width) or "
                'with channels, or, with an entry layout="series", series (n, steps, channels)',
            )
    return said


def _all_images(file: _File) -> dict[str, NDArray[Any]]:
    """Images or volumes of every split, channels first, in uint8 or float32."""
    most = max(AXES[_layout(file)])
    return {name: _channels_first(file.arrays[x], most) for name, (x, _) in file.keys.items()}


def _channels_first(x: NDArray[Any], axes: int) -> NDArray[Any]:
    if x.ndim < axes:
        x = x[:, None]
    elif x.shape[-1] in CHANNELS:
        x = np.moveaxis(x, -1, 1)
    with np.errstate(over="ignore"):  # as in `_float32`
        return room.contiguous(x, None if x.dtype == np.uint8 else np.float32)


def _float32(x: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused with its position
        return x.astype(np.float32)


def _all_series(file: _File) -> tuple[dict[str, NDArray[Any]], bool]:
    """Series of every split in one number of steps, and whether they differ in length and are therefore padded."""
    series = {name: _float32(file.arrays[x]) for name, (x, _) in file.keys.items()}
    lengths = {name: _lengths(x) for name, x in series.items()}
    for name, x in series.items():
        if not x.size or not lengths[name].all():
            empty = f"sample {int(lengths[name].argmin())} is NaN from its first step on" if x.size else "empty"
            raise DataError(f"{file.where(name)}: {empty}", hint="give every series at least one step of numbers")
    if len({n for found in lengths.values() for n in found.tolist()}) == 1:
        return series, False
    steps = max(int(found.max()) for found in lengths.values())
    padded = {
        name: padding.pad([row[:n] for row, n in zip(x, lengths[name], strict=True)], steps)
        for name, x in series.items()
    }
    return padded, True


def _lengths(x: NDArray[np.float32]) -> NDArray[np.intp]:
    """Steps of each series up to the last one that has a number in any channel, shape (n,)."""
    there = ~np.isnan(x).all(axis=2)
    return np.asarray((there * np.arange(1, x.shape[1] + 1)).max(axis=1, initial=0))


def _problem(file: _File) -> Problem:
    """Tagging of series by integers at each step; regression of several numbers a sample, or of any not whole."""
    pairs = [(file.arrays[x], file.arrays[y]) for x, y in file.keys.values()]
    if _layout(file) == "series" and all(y.dtype.kind in "ui" and y.shape == x.shape[:2] for x, y in pairs):
        return "tagging"
    for _, y in pairs:
        if y.dtype.kind == "f":
            finite = y[np.isfinite(y)]
            if (finite != np.floor(finite)).any():
                return "regression"
        if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "uif" and not _one_hot(y):
            return "regression"
    return "classification"


def _one_hot(y: NDArray[Any]) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def _targets(file: _File, split: str, problem: Problem) -> NDArray[Any]:
    key = file.keys[split][1]
    y = file.arrays[key]
    if problem == "tagging":
        return y.astype(np.int64)
    if problem == "classification":
        return _labels(y, key, file.path)
    if y.dtype.kind not in "uif" or y.ndim not in (1, 2):
        raise DataError(
            f"{key} in {file.path} is {y.dtype} of shape {y.shape}",
            hint="targets are numbers of shape (n,) or (n, numbers)",
        )
    return _float32(y.reshape(len(y), -1))


def _labels(y: NDArray[Any], key: str, path: Path) -> NDArray[np.int64]:
    flat = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    hint = "labels are whole numbers of shape (n,) or (n, 1), from 0 to the number of classes - 1"
    if flat.dtype.kind not in "uif" or flat.ndim != 1:
        raise DataError(f"{key} in {path} is {y.dtype} of shape {y.shape}", hint=hint)
    bad = np.flatnonzero(~((flat == np.floor(flat)) & (np.abs(flat.astype(np.float64)) < LABEL_LIMIT)))
    if len(bad):
        raise DataError(f"{key} in {path} has the label {flat[bad[0]]} at position {bad[0]}", hint=hint)
    return flat.astype(np.int64)


def _classes(arrays: Arrays, y: NDArray[np.int64], path: Path) -> tuple[str, ...]:
    """The file's own class names, or the labels, which must then be numbered without gaps."""
    if "classes" in arrays:
        names = arrays["classes"]
        if names.ndim != 1 or len(np.unique(names)) != len(names):
            raise DataError(
                f"classes in {path} is {names.tolist()!r}", hint="give a list of names, each different, in label order"
            )
        return tuple(map(str, names.tolist()))
    found = np.unique(y)
    gaps = np.flatnonzero(found != np.arange(len(found)))
    if found[0] < 0:
        raise DataError(f"{path} has the label {found[0]}, out of range", hint="number the classes from 0")
    if len(gaps):
        raise DataError(
            f"{path} has no example of class {gaps[0]}, though its labels go up to {found[-1]}",
            hint="number the classes from 0 without gaps",
        )
    return tuple(map(str, range(len(found))))
