"""Images of any size brought to one, and their boxes with them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError, UsageError
from sizewise.tasks.detection.annotated import Annotated, Skipped
from sizewise.tasks.detection.files import Files

SMALLEST = 16


def size_of(size: Sequence[int]) -> tuple[int, int]:
    """The reading's (height, width), checked.

    Raises:
        UsageError: it is not two numbers of at least 16.
    """
    if len(size) != 2 or min(size) < SMALLEST:
        raise UsageError(
            f"reading.size is {list(size)}", hint=f"give [height, width] in pixels, each at least {SMALLEST}"
        )
    return size[0], size[1]


def read_all(
    files: Files, images: Sequence[Annotated], size: tuple[int, int], skipped: Skipped
) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]], list[Annotated]]:
    """Pixels (n, 3, height, width), boxes in them, and the images that these are; broken ones are counted."""
    kept: list[Annotated] = []
    boxes: list[NDArray[np.float32]] = []
    pixels = np.empty((len(images), 3, *size), np.uint8)
    for image in images:
        try:
            pixels[len(kept)], scale = _open(files.read(image.file), size)
        except DataError:
            raise
        except Exception:  # decoders of damaged files raise whatever they stumble over
            skipped.note("images that cannot be read: left out", image)
            continue
        kept.append(image)
        boxes.append(_inside(image, scale, size, skipped))
    return pixels[: len(kept)].copy(), boxes, kept


def _open(content: bytes, size: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Pixels (3, height, width), and what boxes are multiplied with, across and down."""
    from PIL.Image import Resampling
    from PIL.Image import open as open_image

    height, width = size
    with open_image(BytesIO(content)) as image:
        scale = width / image.width, height / image.height
        small = image.convert("RGB").resize((width, height), Resampling.BILINEAR)
        return np.asarray(small).transpose(2, 0, 1), scale


def _inside(
    image: Annotated, scale: tuple[float, float], size: tuple[int, int], skipped: Skipped
) -> NDArray[np.float32]:
    """Boxes in pixels of the smaller image, cut to it; those with nothing left are dropped."""
    height, width = size
    boxes = image.boxes * np.array([1.0, *scale, *scale])
    cut = boxes.copy()
    cut[:, 1::2], cut[:, 2::2] = boxes[:, 1::2].clip(0, width), boxes[:, 2::2].clip(0, height)
    full = (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])
    there = (cut[:, 3] > cut[:, 1]) & (cut[:, 4] > cut[:, 2])
    shortened = there & (np.abs(cut - boxes).max(axis=1, initial=0) > 1e-6)
    for reason, which in (
        ("boxes without width or height: left out", ~full),
        ("boxes outside their image: left out", full & ~there),
        ("boxes that reach out of their image: cut to it", full & shortened),
    ):
        if which.any():
            skipped.note(reason, image, int(which.sum()))
    return np.asarray(cut[full & there], np.float32)
