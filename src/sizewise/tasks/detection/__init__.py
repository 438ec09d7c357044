"""Images with boxes, as Pascal VOC (Everingham et al. 2010) or COCO (Lin et al. 2014, arXiv:1405.0312) write them.

A split's y is float32 (n, most boxes, 5): class from 1, left, top, right and bottom in pixels of the image as the model
sees it; rows of 0 fill up. Every edge is taken as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError
from sizewise.records import Reading, Signature
from sizewise.tasks.detection import coco, voc
from sizewise.tasks.detection.annotated import Annotated, Skipped
from sizewise.tasks.detection.files import Files
from sizewise.tasks.detection.pictures import read_all, size_of
from sizewise.tasks.splits import SEED
from sizewise.tasks.task import Split, Task, make_task

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15

SHORT_SIDE = 96
"""Pixels of the shorter side of an image unless the reading says otherwise; the longer one follows the data."""

CELL = 16
"""Both sides are made multiples of this, so that a detector can halve them without a rest."""


def load(path: Path, reading: Reading) -> Task:
    """Images with boxes from a folder or a .zip, brought to one size.

    `Annotations/*.xml` are Pascal VOC, with its splits in `ImageSets/Main` where they are there; JSON files with
    "images" and "annotations" are COCO's, split by their names ("instances_train2017.json"). A split that is missing is
    parted off the training split, once and with a fixed seed. Boxes are cut to the image; those without anything in it,
    images that are missing or broken and regions of crowds are left out, and counted in `Task.skipped`.

    Args:
        reading: `size` is the (height, width) that images are brought to, without regard to their own aspect.

    Raises:
        DataError: neither form is there, an annotation cannot be read, or too few images are left.
    """
    skipped = Skipped()
    with Files(path) as files:
        read = voc.read if voc.found(files) else coco.read
        groups, classes = read(files, skipped)
        size = size_of(reading.size) if reading.size else _size(files, groups)
        splits = {name: _split(files, group, size, skipped) for name, group in groups.items()}
    most = max((len(found) for _, boxes in splits.values() for found in boxes), default=0)
    if not any(len(x) for x, _ in splits.values()):
        raise _unreadable(path)
    if not most:
        raise DataError(f"{path} has no boxes at all", hint="a detector needs images with boxes in them")
    parts = _in_three({name: Split(x, _padded(boxes, most)) for name, (x, boxes) in splits.items()}, path)
    _check_classes(parts[0], classes)
    signature = Signature("detection", (3, *size), len(classes))
    name = path.resolve().name.removesuffix(".zip")
    return make_task(name, str(path), classes, *parts, signature=signature, skipped=skipped.exclusions())


def _size(files: Files, groups: Mapping[str, Sequence[Annotated]]) -> tuple[int, int]:
    """(height, width) with the aspect of the first image that can be opened."""
    for image in (image for group in groups.values() for image in group):
        if opened := files.picture_size(image.file):
            width, height = opened
            scale = SHORT_SIDE / min(width, height)
            return tuple(max(CELL, CELL * round(side * scale / CELL)) for side in (height, width))  # type: ignore[return-value]
    raise _unreadable(files.path)


def _unreadable(path: Path) -> DataError:
    return DataError(f"none of the images in {path} can be read", hint="give the images with their annotations")


def _split(
    files: Files, group: Sequence[Annotated], size: tuple[int, int], skipped: Skipped
) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
    """Pixels (n, 3, height, width) and the boxes of each image."""
    pixels, boxes, images = read_all(files, group, size, skipped)
    skipped.note_empty([image for image, found in zip(images, boxes, strict=True) if not len(found)])
    return pixels, boxes


def _padded(boxes: Sequence[NDArray[np.float32]], most: int) -> NDArray[np.float32]:
    out = np.zeros((len(boxes), most, 5), np.float32)
    for row, found in zip(out, boxes, strict=True):
        row[: len(found)] = found
    return out


def _in_three(splits: Mapping[str, Split], path: Path) -> tuple[Split, Split, Split]:
    """The data's own splits; what is missing is parted off the training split."""
    train, whole = splits["train"], len(splits["train"])
    held: dict[str, Split] = {}
    rng = np.random.default_rng(SEED)
    for name, share in (("test", TEST_SHARE), ("val", VALIDATION_SHARE)):
        held[name] = splits.get(name) or Split(train.x[:0], train.y[:0])
        if name not in splits:
            order, count = rng.permutation(len(train)), max(1, round(share * whole))
            held[name], train = train.take(np.sort(order[:count])), train.take(np.sort(order[count:]))
    if min(len(train), *(len(split) for split in held.values())) < 1:
        raise DataError(
            f"{path} leaves {len(train)} images to train on, {len(held['val'])} to validate and {len(held['test'])} to "
            "test",
            hint="give more images, or none of the splits and they are made",
        )
    return train, held["val"], held["test"]


def _check_classes(train: Split, classes: Sequence[str]) -> None:
    there = np.unique(train.y[..., 0])
    for number, name in enumerate(classes, 1):
        if number not in there:
            raise DataError(
                f"the training split has no box of class {name!r}",
                hint="give every class at least one box to learn from, or leave the class out",
            )
