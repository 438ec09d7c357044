"""Folders of images: what counts as an image, as grey, and as a split."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sizewise import tasks
from sizewise.errors import DataError


def write(
    folder: Path,
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    count: int = 8,
    end: str = "png",
    mode: str = "L",
    values: NDArray[Any] | None = None,
) -> Path:
    """`count` images of 6×6 pixels in each class subfolder, random ones or all of the same values."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (6, 6), dtype=np.uint8) if values is None else values
            image = Image.fromarray(pixels)
            (image.convert(mode) if values is None else image).save(folder / name / f"{i}.{end}")
    return folder


def refuse(words: str, folder: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        tasks.load(str(folder))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("end", "mode"),
    [("png", "L"), ("png", "LA"), ("png", "P"), ("bmp", "L"), ("gif", "L"), ("tiff", "L"), ("jpg", "L")],
)
def test_grey_images_have_one_channel_in_every_format(tmp_path: Path, end: str, mode: str) -> None:
    task = tasks.load(str(write(tmp_path, end=end, mode=mode)))
    assert task.signature.input_shape == (1, 6, 6)
    assert task.train.x.dtype == np.uint8


@pytest.mark.parametrize("end", ["png", "jpeg", "bmp", "gif", "tif", "webp"])
def test_coloured_images_have_three_channels_in_every_format(tmp_path: Path, end: str) -> None:
    red = np.zeros((6, 6, 3), np.uint8)
    red[..., 0] = 200
    task = tasks.load(str(write(tmp_path, end=end, values=red)))
    assert task.signature.input_shape == (3, 6, 6)
    assert task.train.x[0, 0].mean() > 150
    assert task.train.x[0, 2].mean() < 50


@pytest.mark.parametrize(
    ("dtype", "end"), [(np.uint16, "png"), (np.uint16, "tiff"), (np.int32, "tiff"), (np.float32, "tiff")]
)
def test_deep_images_keep_their_raw_values(tmp_path: Path, dtype: type, end: str) -> None:
    values = np.arange(36).reshape(6, 6).astype(dtype) * dtype(1000) / 8
    task = tasks.load(str(write(tmp_path, end=end, values=values.astype(dtype))))
    assert task.train.x.dtype == np.float32
    np.testing.assert_array_equal(task.train.x[0, 0], values.astype(dtype).astype(np.float32))


def test_images_of_two_depths(tmp_path: Path) -> None:
    folder = write(tmp_path)
    Image.fromarray(np.full((6, 6), 4000, np.uint16)).save(folder / "dog" / "deep.png")
    refuse("differ in depth: .*deep.png has more than 8 bits.*0.png has 8", folder)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    folder = write(tmp_path, end="tiff", values=np.ones((6, 6), np.float32))
    Image.fromarray(np.full((6, 6), np.nan, np.float32)).save(folder / "dog" / "3.tiff")
    refuse("3.tiff has values that are NaN", folder)


def test_hidden_and_other_files_are_left_alone(tmp_path: Path) -> None:
    alone = write(tmp_path / "alone")
    littered = write(tmp_path / "littered")
    hidden = littered / "cat" / ".thumbnails"
    hidden.mkdir()
    for path in (hidden / "9.png", littered / "cat" / "._0.png"):
        Image.new("L", (3, 3)).save(path)
    (littered / "cat" / "folder.png").mkdir()
    (littered / "cat" / "notes.txt").write_text("nothing")
    (littered / ".git").mkdir()
    assert tasks.load(str(littered)).fingerprint == tasks.load(str(alone)).fingerprint


def test_images_may_lie_deeper(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "cat" / "old").mkdir()
    Image.new("L", (6, 6)).save(folder / "cat" / "old" / "0.PNG")
    task = tasks.load(str(folder))
    assert sum(len(s.y) for s in (task.train, task.validation, task.test)) == 17


def test_the_fingerprint_knows_a_pixel_and_not_the_place(tmp_path: Path) -> None:
    here = write(tmp_path / "here")
    before = tasks.load(str(here)).fingerprint
    there = Path(shutil.move(here, tmp_path / "there"))
    assert tasks.load(str(there)).fingerprint == before
    path = there / "cat" / "0.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert tasks.load(str(there)).fingerprint != before


def test_the_name_is_the_folders_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "pets"))
    task = tasks.load(".")
    assert (task.name, task.source) == ("pets", ".")


def test_splits_are_never_taken_for_classes(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write(tmp_path / name)
    refuse("divided into train, val, without test", tmp_path)
    write(tmp_path / "test")
    (tmp_path / "train").rename(tmp_path / "training")
    refuse("divided into test, training, val, without train", tmp_path)


def test_a_training_split_alone(tmp_path: Path) -> None:
    write(tmp_path / "train")
    refuse("divided into train, without test", tmp_path)


def test_splits_without_classes(tmp_path: Path) -> None:
    refuse("train has 0 class subfolders", write(tmp_path, classes=("train", "test")))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert tasks.load(str(write(tmp_path, classes=("bus", "train")))).classes == ("bus", "train")


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_validation_split_goes_by_three_names(tmp_path: Path, name: str) -> None:
    for split, count in (("train", 10), (name, 3), ("test", 4)):
        write(tmp_path / split, count=count)
    task = tasks.load(str(tmp_path))
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [20, 6, 8]


def test_without_one_it_is_taken_from_the_training_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split, count=20)
    task = tasks.load(str(tmp_path))
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [34, 6, 40]


def test_splits_have_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "test", classes=("cat",))
    refuse("dog has no images", tmp_path)
    write(tmp_path / "test", classes=("dog", "eel"))
    refuse("test has the class 'eel', which the training split lacks", tmp_path)


def test_images_of_two_sizes_in_two_splits(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "test", values=np.zeros((7, 8), np.uint8))
    refuse("train/cat/0.png is 6×6, .*test/cat/0.png is 8×7", tmp_path)


@pytest.mark.parametrize("end", ["png", "jpg", "bmp", "gif", "webp"])
def test_a_truncated_image_is_named(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, end=end) / "cat" / f"0.{end}"
    path.write_bytes(path.read_bytes()[:40])
    refuse(f"cat/0.{end} cannot be read as an image", tmp_path)


def test_an_image_that_claims_to_be_huge(tmp_path: Path) -> None:
    path = write(tmp_path) / "cat" / "0.png"
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    refuse("0.png cannot be read as an image", tmp_path)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_to_split(tmp_path: Path, count: int) -> None:
    refuse(f"class 'cat' has {count} examples; splitting needs at least 3", write(tmp_path, count=count))


def test_three_of_every_class_are_enough(tmp_path: Path) -> None:
    task = tasks.load(str(write(tmp_path, count=3)))
    for split in (task.train, task.validation, task.test):
        assert sorted(split.y) == [0, 1]


def test_an_empty_folder(tmp_path: Path) -> None:
    refuse("holds no files", tmp_path)
