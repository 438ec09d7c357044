"""Images of many sizes brought to one, and broken files that are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sizewise import tasks
from sizewise.errors import DataError, UsageError
from sizewise.records import Reading
from sizewise.tasks import Task


def write(folder: Path, count: int = 12, *, mode: str = "L") -> Path:
    """`count` images of different sizes in each of two class subfolders, brighter in the second."""
    for i, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.full((20 + number, 40 - number, 3), 50 + 100 * i, np.uint8)
            pixels[..., 1] += 0 if mode == "L" else 30
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number:02}.png")
    return folder


def load(folder: Path, *size: int) -> Task:
    return tasks.load("images", folder, Reading(size=size))


def refuse(words: str, folder: Path, *size: int) -> None:
    with pytest.raises((DataError, UsageError), match=words) as caught:
        load(folder, *size)
    assert caught.value.hint


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_images_of_any_size_are_brought_to_one(tmp_path: Path, mode: str, channels: int) -> None:
    task = load(write(tmp_path, mode=mode), 8, 12)
    assert task.signature.input_shape == (channels, 8, 12)
    assert task.train.x.dtype == np.uint8
    for y, value in ((0, 50), (1, 150)):
        assert set(task.train.x[task.train.y == y][:, 0].ravel()) == {value}


def test_without_a_size_two_sizes_are_an_error_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"00.png is 40×20, .*01.png is 39×21") as caught:
        load(write(tmp_path))
    assert "--image-size" in caught.value.hint


def test_smaller_images_are_means_of_what_they_cover(tmp_path: Path) -> None:
    """A fine chequerboard becomes grey: picking single pixels would leave it black and white."""
    folder = write(tmp_path)
    board = (255 * (np.indices((64, 64)).sum(axis=0) % 2)).astype(np.uint8)
    for path in folder.rglob("*.png"):
        Image.fromarray(board).save(path)
    assert np.abs(load(folder, 8, 8).train.x.astype(int) - 127).max() <= 3


def test_deep_images_keep_their_range(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for path in folder.rglob("*.png"):
        Image.fromarray(np.full((30, 30), 4000, np.uint16)).save(path)
    task = load(folder, 8, 8)
    assert task.train.x.dtype == np.float32
    assert set(task.train.x.ravel()) == {4000.0}


def test_images_that_have_the_size_are_left_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    folder = write(tmp_path)
    for path in folder.rglob("*.png"):
        Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(load(folder, 9, 7).train.x[0, 0], pixels)


@pytest.mark.parametrize("size", [(8,), (8, 8, 3), (0, 8)])
def test_a_size_is_height_and_width(tmp_path: Path, size: tuple[int, ...]) -> None:
    refuse(r"reading.size is \[", write(tmp_path), *size)


def test_one_broken_image_of_many_is_left_out_and_counted(tmp_path: Path) -> None:
    folder = write(tmp_path)
    damage(folder / "dog" / "05.png")
    task = load(folder, 8, 8)
    assert sum(len(split) for split in (task.train, task.validation, task.test)) == 23
    (left_out,) = task.skipped
    assert left_out.count == 1
    assert str(folder / "dog" / "05.png") in left_out.reason


def test_nothing_is_left_out_of_a_whole_folder(tmp_path: Path) -> None:
    assert load(write(tmp_path), 8, 8).skipped == ()


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    folder = write(tmp_path, 40)
    for number in (0, 7, 39):
        damage(folder / "cat" / f"{number:02}.png")
    task = load(folder, 8, 8)
    for split in (task.train, task.validation, task.test):
        np.testing.assert_array_equal(split.x[:, 0, 0, 0] > 100, split.y == 1)
    assert task.skipped[0].count == 3


def test_many_broken_images_are_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for number in (3, 5):
        damage(folder / "dog" / f"{number:02}.png")
    refuse("dog/03.png cannot be read as an image: .*; 2 of 24 images are broken", folder, 8, 8)


def test_a_class_that_would_lose_its_last_image_is_an_error(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("val", 2), ("test", 1)):
        write(tmp_path / split, count)
    damage(tmp_path / "test" / "cat" / "00.png")
    refuse("test/cat/00.png cannot be read", tmp_path, 8, 8)


def test_the_users_own_division_is_kept_without_the_broken_ones(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("val", 3), ("test", 4)):
        write(tmp_path / split, count)
    damage(tmp_path / "train" / "cat" / "02.png")
    damage(tmp_path / "test" / "dog" / "03.png")
    task = load(tmp_path, 8, 8)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [59, 6, 7]
