"""What a task is called, and what happens when there is none of that name."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sizewise import tasks
from sizewise.errors import DataError, UsageError
from sizewise.tasks import idx


def test_images_by_format_and_path(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (6, 6), 10 * i).save(tmp_path / "pets" / name / f"{i}.png")
    by_format, by_path = tasks.load("images", tmp_path / "pets"), tasks.load(str(tmp_path / "pets"))
    assert by_format.name == by_path.name == "pets"
    assert by_format.source == by_path.source == str(tmp_path / "pets")
    assert by_format.fingerprint == by_path.fingerprint


def test_a_folder_of_sounds_is_one_of_sounds(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next((shared_data / "fsdd").glob("*.zip"))) as packed:
        wanted = [name for name in packed.namelist() if Path(name).name.startswith(("0_", "1_"))][::20]
        packed.extractall(tmp_path / "digits", wanted)
    by_format, by_path = tasks.load("sounds", tmp_path / "digits"), tasks.load(str(tmp_path / "digits"))
    assert by_format.fingerprint == by_path.fingerprint


def test_a_folder_of_texts_has_to_be_said_to_be_one(shared_data: Path) -> None:
    """Files of lines have any ending."""
    folder = shared_data / "rt-polarity"
    with pytest.raises(DataError, match=rf"{folder} holds .*\nhint: say what it is: --data {folder} with"):
        tasks.load(str(folder))


def test_arrays_by_format_and_path(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 6, 6)), y=np.arange(40) % 2)
    assert tasks.load("npz", tmp_path / "a.npz").fingerprint == tasks.load(str(tmp_path / "a.npz")).fingerprint


@pytest.mark.parametrize("name", ["nowhere.npz", "some/folder"])
def test_a_path_that_does_not_exist(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"there is no file or folder {name}"):
        tasks.load(name)


@pytest.mark.parametrize("name", ["images", "npz"])
def test_data_that_does_not_exist(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"there is no file or folder .*nowhere"):
        tasks.load(name, tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "near"), [("mnits", "mnist"), ("image", "images")])
def test_a_misspelt_name_beside_data(tmp_path: Path, name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{near}'"):
        tasks.load(name, tmp_path)


def test_data_is_not_silently_left_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the task 'digits' takes no data"):
        tasks.load("digits", tmp_path)


def test_a_file_of_no_known_format(tmp_path: Path) -> None:
    (tmp_path / "a.odt").write_text("1,2")
    with pytest.raises(DataError, match=r"neither a folder nor one of .*\.npz") as caught:
        tasks.load(str(tmp_path / "a.odt"))
    assert "images" in caught.value.hint


def test_mnist_is_not_downloaded_when_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="downloading is off") as caught:
        tasks.load("mnist", download=False)
    assert "--data DIR" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_every_spelling_is_named_when_a_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        tasks.load("mnist", tmp_path)
    for spelling in ("train-images-idx3-ubyte", "train-images.idx3-ubyte"):
        assert f"{spelling}," in caught.value.message
        assert f"{spelling}.gz" in caught.value.message


def test_idx_files_without_images(tmp_path: Path) -> None:
    for label, stem in idx.STEMS.items():
        header = (0x0803, 0, 28, 28) if "images" in label else (0x0801, 0)
        (tmp_path / stem).write_bytes(struct.pack(f">{len(header)}I", *header))
    with pytest.raises(DataError, match="the training files: empty"):
        tasks.load("mnist", tmp_path)


def test_no_images_of_an_impossible_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(struct.pack(">4I", 0x0803, 0, 2**32 - 1, 2**32 - 1))
    with pytest.raises(DataError, match="says that its shape is"):
        idx.parse(tmp_path / "a", 3)
