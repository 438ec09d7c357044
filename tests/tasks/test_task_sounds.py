"""Sounds to classify: folders, splits and takes, on small files and on the real spoken digits."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.sounds import takes, tone, write

from sizewise import tasks
from sizewise.errors import DataError
from sizewise.padding import lengths
from sizewise.records import Reading
from sizewise.tasks import Task


def load(path: Path, steps: int = 0) -> Task:
    return tasks.load("sounds", path, Reading(steps=steps))


def subfolders(folder: Path, names: tuple[str, ...] = ("high", "low"), count: int = 10) -> Path:
    for i, name in enumerate(names):
        for take in range(count):
            write(folder / name / f"{take}.wav", tone(0.2 + 0.02 * take, pitch=300 + 500 * i + take))
    return folder


def test_class_subfolders_are_divided_by_a_fixed_share(tmp_path: Path) -> None:
    task = load(subfolders(tmp_path))
    assert task.classes == ("high", "low")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [14, 3, 3]
    assert task.signature.dynamic
    assert task.signature.input_shape == (38, 41)
    assert task.fingerprint == load(tmp_path).fingerprint
    assert not task.skipped


def test_every_sound_keeps_its_own_length(tmp_path: Path) -> None:
    task = load(subfolders(tmp_path))
    everything = np.concatenate([lengths(split.x) for split in (task.train, task.validation, task.test)])
    assert sorted(everything) == sorted([20 + 2 * take for take in range(10)] * 2)


def test_the_users_own_division(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 3), ("test", 4)):
        subfolders(tmp_path / part, count=count)
    task = load(tmp_path)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [10, 6, 8]


def test_validation_comes_out_of_training_where_it_is_not_given(tmp_path: Path) -> None:
    for part in ("train", "test"):
        subfolders(tmp_path / part)
    task = load(tmp_path)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [17, 3, 20]


def test_takes_0_to_4_are_the_test_split(tmp_path: Path) -> None:
    task = load(takes(tmp_path))
    assert task.classes == ("a", "b")
    assert len(task.test) == 2 * 2 * 5
    assert (np.bincount(task.validation.y) == 2).all(), "one of each speaker and label"
    assert len(task.train) == 16


def test_a_zip_with_a_folder_around_its_files(tmp_path: Path) -> None:
    takes(tmp_path / "takes")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "takes").iterdir()):
            archive.write(path, f"recordings/{path.name}")
        archive.writestr("recordings/README.md", "about")
    assert load(tmp_path / "set.zip").fingerprint == load(tmp_path / "takes").fingerprint


def test_long_sounds_are_cut_and_counted(tmp_path: Path) -> None:
    task = load(subfolders(tmp_path), steps=30)
    assert task.signature.input_shape == (30, 41)
    (cut,) = task.skipped
    assert cut.count == 2 * 4
    assert "cut to the first 30 steps" in cut.reason


def test_broken_sounds_are_left_out_and_counted(tmp_path: Path) -> None:
    subfolders(tmp_path)
    (tmp_path / "low" / "3.wav").write_bytes(b"")
    task = load(tmp_path)
    assert sum(len(split) for split in (task.train, task.validation, task.test)) == 19
    assert [(e.reason, e.count, e.rows) for e in task.skipped] == [("cannot be read as sound: low/3.wav", 1, (14,))]


def test_a_class_whose_sounds_are_all_broken(tmp_path: Path) -> None:
    subfolders(tmp_path)
    for path in (tmp_path / "low").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="class 'low' has 0 examples"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "has no sound files"),
        (("one.wav",), "one.wav says neither"),
        (("a/1.wav", "b/1.wav", "c.wav"), "outside its class subfolders: c.wav"),
        (("train/1.wav", "test/a/1.wav"), "lies in no class subfolder"),
        (("train/a/1.wav", "val/a/1.wav"), "no recording for the test split"),
        (("7_ann_0.wav", "8_ann_1.wav"), "no recording for the train split"),
    ],
)
def test_names_that_say_too_little(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    for file in files:
        write(tmp_path / file)
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path)
    assert caught.value.hint


def test_the_spoken_digits(shared_data: Path) -> None:
    task = load(shared_data / "fsdd" / "recordings.zip")
    assert task.classes == tuple("0123456789")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [2295, 405, 300]
    assert (np.bincount(task.test.y) == 30).all()
    assert not task.skipped
    standardised = task.preprocessor(task.train.x)
    there = task.train.x[..., -1] == 1
    np.testing.assert_allclose(standardised[there][:, :-1].std(axis=0), 1, atol=0.01)
    assert not standardised[~there].any()
