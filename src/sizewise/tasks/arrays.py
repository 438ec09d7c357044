"""Arrays in an .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError
from sizewise.records import Reading
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Split, Task, check_classes, check_examples, make_task

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15
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


def load(path: Path, reading: Reading) -> Task:
    """Images and labels from an .npz file, undivided (`x`, `y`) or divided.

    Keys are `x` and `y`; or `x_train`, `y_train`, `x_test`, `y_test` and perhaps `x_val`, `y_val`; or MedMNIST's.
    Images are (n, height, width), (n, height, width, channels) or (n, channels, height, width); with four axes the
    channels are the last one if it has 1, 3 or 4 entries, else the second. Labels are integers, (n,) or (n, 1),
    numbered from 0 without gaps. An optional `classes` names them.

    Raises:
        DataError: no such file, none of these keys, pickled objects, or labels and images that do not fit.
    """
    arrays = _read(path)
    if {"x", "y"} <= arrays.keys():
        everything = _split(arrays, "x", "y", path)
        classes = _classes(arrays, everything.y, path)
        check_classes(str(path), everything.y, classes)
        splits = in_three(everything, VALIDATION_SHARE, TEST_SHARE, classes=classes)
        return make_task(path.stem, str(path), classes, *splits)
    for keys in KEYS:
        if {*keys["train"], *keys["test"]} <= arrays.keys():
            return _divided(arrays, keys, path)
    raise DataError(
        f"{path} has the keys {', '.join(sorted(arrays)) or 'none'}",
        hint="name the arrays x and y, or x_train, y_train, x_val, y_val, x_test, y_test",
    )


def _divided(arrays: dict[str, NDArray[Any]], keys: dict[str, tuple[str, str]], path: Path) -> Task:
    train, test = _split(arrays, *keys["train"], path), _split(arrays, *keys["test"], path)
    classes = _classes(arrays, train.y, path)
    if arrays.keys() & set(keys["validation"]):
        validation = _split(arrays, *keys["validation"], path)
    else:
        check_classes(f"{path}, {keys['train'][1]}", train.y, classes)
        train, validation = hold_out(train, VALIDATION_SHARE, classes=classes)
    return make_task(path.stem, str(path), classes, train, validation, test)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive by name; what is no array is left alone."""
    try:
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            entries = {} if isinstance(file, np.ndarray) else {name: file[name] for name in file.files}
    except ValueError as error:
        raise DataError(
            f"{path} holds pickled objects or is no .npz file: {error}", hint="save plain arrays with numpy.savez"
        ) from error
    except Exception as error:  # zip files and their compressions raise whatever they stumble over
        raise DataError(f"{path} cannot be read: {error}", hint="save it again with numpy.savez") from error
    return {name: entry for name, entry in entries.items() if isinstance(entry, np.ndarray)}


def _split(arrays: dict[str, NDArray[Any]], x: str, y: str, path: Path) -> Split:
    for key in (x, y):
        if key not in arrays:
            raise DataError(f"{path} has no {key}, only its partner", hint=f"give both {x} and {y}, or neither")
    split = Split(_images(arrays[x], x, path), _labels(arrays[y], y, path))
    check_examples(f"{path}, {x} and {y}", split.x, split.y)  # here, where positions are those in the user's file
    return split


def _images(x: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    if x.dtype.kind not in "uif" or x.ndim not in (3, 4):
        raise DataError(
            f"{key} in {path} is {x.dtype} of shape {x.shape}",
            hint="images are numbers of shape (n, height, width), (n, height, width, channels) or channels first",
        )
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[3] in CHANNELS:
        x = x.transpose(0, 3, 1, 2)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused with its position
        return np.ascontiguousarray(x.astype(np.float32))


def _labels(y: NDArray[Any], key: str, path: Path) -> NDArray[np.int64]:
    flat = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    hint = "labels are whole numbers of shape (n,) or (n, 1), from 0 to the number of classes - 1"
    if flat.dtype.kind not in "uif" or flat.ndim != 1:
        raise DataError(f"{key} in {path} is {y.dtype} of shape {y.shape}", hint=hint)
    bad = np.flatnonzero(~((flat == np.floor(flat)) & (np.abs(flat.astype(np.float64)) < LABEL_LIMIT)))
    if len(bad):
        raise DataError(f"{key} in {path} has the label {flat[bad[0]]} at position {bad[0]}", hint=hint)
    return flat.astype(np.int64)


def _classes(arrays: dict[str, NDArray[Any]], y: NDArray[np.int64], path: Path) -> tuple[str, ...]:
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
