"""A folder of images, one subfolder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError
from sizewise.records import Reading
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Split, Task, make_task

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
VALIDATION_NAMES = ("val", "valid", "validation")
SPLIT_NAMES = {"train", "test", *VALIDATION_NAMES}
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15


def load(folder: Path, reading: Reading) -> Task:
    """Images from class subfolders, or from class subfolders inside `train`, `test` and perhaps `val`.

    Classes are the subfolders' names in alphabetical order. All images have one size and one depth; when all are grey
    there is one channel, otherwise three. Hidden files and files without an image's extension are left alone.

    Raises:
        DataError: no images, an unreadable one, two sizes or depths, a class or a split that is missing.
    """
    if _is_divided(folder):
        return _divided(folder)
    classes = _classes(folder)
    files = _files(folder, classes)
    everything = Split(read([path for path, _ in files]), np.array([y for _, y in files], np.int64))
    splits = in_three(everything, VALIDATION_SHARE, TEST_SHARE, classes=classes)
    return make_task(folder.resolve().name, str(folder), classes, *splits)


def _is_divided(folder: Path) -> bool:
    """Whether the subfolders are splits; a flat one on its own may be a class, such as `train` beside `bus`."""
    inside = _subfolders(folder)
    return len(inside & SPLIT_NAMES) > 1 or ("train" in inside and bool(_subfolders(folder / "train")))


def _divided(folder: Path) -> Task:
    """The user's own division."""
    inside = _subfolders(folder)
    for needed in ("train", "test"):
        if needed not in inside:
            raise DataError(
                f"{folder} is divided into {', '.join(sorted(inside))}, without {needed}",
                hint=f"add {folder / needed}, or put the class subfolders directly into {folder}",
            )
    classes = _classes(folder / "train")
    names = ["train", "test", *(name for name in VALIDATION_NAMES if name in inside)][:3]
    files = [_files(folder / name, classes) for name in names]
    images = read([path for group in files for path, _ in group])  # read at once: all have the same channels
    bounds = np.cumsum([0, *map(len, files)])
    parts = [
        Split(images[a:b], np.array([y for _, y in group], np.int64))
        for a, b, group in zip(bounds, bounds[1:], files, strict=False)
    ]
    train, test = parts[:2]
    train, validation = (train, parts[2]) if len(parts) > 2 else hold_out(train, VALIDATION_SHARE, classes=classes)
    return make_task(folder.resolve().name, str(folder), classes, train, validation, test)


def _subfolders(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}


def _classes(folder: Path) -> tuple[str, ...]:
    found = tuple(sorted(_subfolders(folder)))
    if len(found) < 2:
        raise DataError(
            f"{folder} has {len(found)} class subfolders" + (f": {found[0]!r}" if found else ""),
            hint="put the images of each class into a subfolder of its own; at least two classes",
        )
    return found


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Every image file with its class, in a fixed order."""
    strangers = sorted(_subfolders(folder) - set(classes))
    if strangers:
        raise DataError(
            f"{folder} has the class {strangers[0]!r}, which the training split lacks",
            hint="give every split the same class subfolders",
        )
    found = []
    for index, name in enumerate(classes):
        inside = folder / name
        paths = sorted(p for p in inside.rglob("*") if _is_image(p.relative_to(inside)) and p.is_file())
        if not paths:
            raise DataError(
                f"{inside} has no images",
                hint=f"put images there ({', '.join(sorted(EXTENSIONS))}) or remove the class",
            )
        found += [(path, index) for path in paths]
    return found


def _is_image(inside: Path) -> bool:
    """Whether a path inside a class folder is named like an image and not hidden, as in `.thumbnails/cat.png`."""
    return inside.suffix.lower() in EXTENSIONS and not any(part.startswith(".") for part in inside.parts)


def read(paths: Sequence[Path]) -> NDArray[Any]:
    """Images of one size and depth as (n, channels, height, width), 1 channel when all are grey and 3 otherwise.

    Values are uint8, or the raw values as float32 when the images are grey ones of more than 8 bits.

    Raises:
        DataError: a file is no image, or two differ in size or depth; both are named.
    """
    images = [_open(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        _check_alike(paths[0], images[0], path, image)
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[:, None]
    coloured = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in images]
    return np.ascontiguousarray(np.stack(coloured).transpose(0, 3, 1, 2))


def _check_alike(first: Path, a: NDArray[Any], path: Path, b: NDArray[Any]) -> None:
    if a.shape[:2] != b.shape[:2]:
        raise DataError(
            f"images differ in size: {first} is {a.shape[1]}×{a.shape[0]}, {path} is {b.shape[1]}×{b.shape[0]}",
            hint="bring all images to one size first",
        )
    if a.dtype != b.dtype:
        deep, shallow = (first, path) if a.dtype == np.float32 else (path, first)
        raise DataError(
            f"images differ in depth: {deep} has more than 8 bits a pixel and channel, {shallow} has 8",
            hint="save all images with one depth first",
        )


def _open(path: Path) -> NDArray[Any]:
    """(height, width) for an image whose content is grey, (height, width, 3) for any other."""
    from PIL.Image import open as open_image

    try:
        with open_image(path) as image:
            pixels = _pixels(image)
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise DataError(f"{path} cannot be read as an image: {error}", hint="repair or remove the file") from error
    if not np.isfinite(pixels).all():
        raise DataError(f"{path} has values that are NaN or infinite", hint="repair or remove the file")
    return pixels


def _pixels(image: Image) -> NDArray[Any]:
    if image.mode == "F" or image.mode.startswith("I"):  # 16 or 32 bits, which a conversion to 8 would clip
        return np.asarray(image).astype(np.float32)
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image.convert("RGB"))
    grey = bool((pixels == pixels[:, :, :1]).all())  # GIF and palette PNG store grey images in colour
    return np.ascontiguousarray(pixels[:, :, 0]) if grey else pixels
