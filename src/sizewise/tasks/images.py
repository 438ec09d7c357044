"""A folder of images, one subfolder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise import room
from sizewise.errors import DataError, UsageError
from sizewise.records import Reading
from sizewise.tasks import IMAGE_ENDINGS, folders
from sizewise.tasks.task import Task

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = folders.Kind("images", IMAGE_ENDINGS)


def load(folder: Path, reading: Reading) -> Task:
    """Images from class subfolders, or from class subfolders inside `train`, `test` and perhaps `val`.

    Classes are the subfolders' names in alphabetical order. All images have one depth, and one size or are brought to
    `reading.size`; when all are grey there is one channel, otherwise three. A few broken files are left out and
    counted; hidden files and files without an image's extension are left alone.

    Raises:
        UsageError: `reading.size` is no height and width.
        DataError: no images, too many broken ones, two sizes or depths, a class or a split that is missing.
    """
    size = reading.size
    if size and (len(size) != 2 or min(size) < 1):
        raise UsageError(f"reading.size is {list(size)}", hint="give height and width in pixels, such as [96, 128]")
    files = folders.find(folder, IMAGES)
    files, images, skipped = folders.opened(files, IMAGES, lambda path: _open(path, size))
    return folders.task(files, together(files.paths, images), skipped)


def together(paths: Sequence[Path], images: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Images of one size and depth as (n, channels, height, width), 1 channel when all are grey and 3 otherwise.

    Values are uint8, or the raw values as float32 when the images are grey ones of more than 8 bits.

    Raises:
        DataError: two differ in size or depth; both are named.
    """
    for path, image in zip(paths, images, strict=True):
        _check_alike(paths[0], images[0], path, image)
    if all(image.ndim == 2 for image in images):
        return room.stacked(images)[:, None]
    return room.stacked([_channels_first(image) for image in images])


def _channels_first(image: NDArray[Any]) -> NDArray[Any]:
    """In three channels, which are one where the image is grey."""
    return np.broadcast_to(image, (3, *image.shape)) if image.ndim == 2 else image.transpose(2, 0, 1)


def _check_alike(first: Path, a: NDArray[Any], path: Path, b: NDArray[Any]) -> None:
    if a.shape[:2] != b.shape[:2]:
        raise DataError(
            f"images differ in size: {first} is {a.shape[1]}×{a.shape[0]}, {path} is {b.shape[1]}×{b.shape[0]}",
            hint="bring all to one size: --image-size 64, or height and width as in --image-size 96x128",
        )
    if a.dtype != b.dtype:
        deep, shallow = (first, path) if a.dtype == np.float32 else (path, first)
        raise DataError(
            f"images differ in depth: {deep} has more than 8 bits a pixel and channel, {shallow} has 8",
            hint="save all images with one depth first",
        )


def _open(path: Path, size: tuple[int, ...]) -> NDArray[Any]:
    """(height, width) for an image whose content is grey, (height, width, 3) for any other.

    Args:
        size: height and width that it is brought to; () leaves it as it is.
    """
    from PIL.Image import open as open_image

    try:
        with open_image(path) as image:
            pixels = _pixels(image)
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise DataError(f"{path} cannot be read as an image: {error}", hint="repair or remove the file") from error
    if not np.isfinite(pixels).all():
        raise DataError(f"{path} has values that are NaN or infinite", hint="repair or remove the file")
    return _resized(pixels, size) if size and pixels.shape[:2] != size else pixels


def _resized(pixels: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Brought to (height, width), each new pixel a weighted mean of all that it covers."""
    from PIL import Image

    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _pixels(image: Image) -> NDArray[Any]:
    if image.mode == "F" or image.mode.startswith("I"):  # 16 or 32 bits, which a conversion to 8 would clip
        return np.asarray(image).astype(np.float32)
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image.convert("RGB"))
    grey = bool((pixels == pixels[:, :, :1]).all())  # GIF and palette PNG store grey images in colour
    return np.ascontiguousarray(pixels[:, :, 0]) if grey else pixels
