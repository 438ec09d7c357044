"""Arrays that do not fit together are refused with the positions of the user's own file; what fits is kept as it is."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import tasks
from sizewise.errors import DataError

COUNT = 40
X = np.random.default_rng(0).normal(size=(COUNT, 6, 6)).astype(np.float32)
Y = np.arange(COUNT) % 2
DIVIDED: dict[str, NDArray[Any]] = {"x_train": X, "y_train": Y, "x_test": X[:10], "y_test": Y[:10]}


def save(folder: Path, **arrays: NDArray[Any]) -> str:
    np.savez(folder / "a.npz", **arrays)  # type: ignore[arg-type]
    return str(folder / "a.npz")


def refuse(words: str, path: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        tasks.load(path)
    assert caught.value.hint


@pytest.mark.parametrize(("images", "labels"), [(40, 30), (30, 40)])
def test_as_many_labels_as_images(tmp_path: Path, images: int, labels: int) -> None:
    refuse(f"x and y: {images} samples and {labels} labels", save(tmp_path, x=X[:images], y=Y[:labels]))


def test_each_split_has_as_many_labels_as_images(tmp_path: Path) -> None:
    refuse("x_test and y_test: 9 samples and 10 labels", save(tmp_path, **(DIVIDED | {"x_test": X[:9]})))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_are_finite_and_the_position_is_that_in_the_file(tmp_path: Path, value: float) -> None:
    x = X.copy()
    x[3, 0, 0] = x[17, 2, 2] = value
    refuse("a.npz, x and y: 2 values are NaN or infinite, the first in sample 3", save(tmp_path, x=x, y=Y))


@pytest.mark.filterwarnings("error")
def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    x = X.astype(np.float64)
    x[5, 1, 1] = 1e300
    refuse("1 values are NaN or infinite, the first in sample 5", save(tmp_path, x=x, y=Y))


@pytest.mark.parametrize("shape", [(40, 0, 6), (0, 6, 6)])
def test_images_without_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refuse("empty, samples of shape", save(tmp_path, x=np.zeros(shape), y=Y[: shape[0]]))


@pytest.mark.parametrize("key", ["train", "test"])
def test_an_empty_split(tmp_path: Path, key: str) -> None:
    refuse(f"x_{key} and y_{key}: empty", save(tmp_path, **(DIVIDED | {f"x_{key}": X[:0], f"y_{key}": Y[:0]})))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.where(Y == 1, np.nan, 0), "the label nan at position 1"),
        (np.where(Y == 1, np.inf, 0), "the label inf at position 1"),
        (np.where(Y == 1, 2**64 - 1, 0).astype(np.uint64), "the label 18446744073709551615 at position 1"),
        (np.where(Y == 1, 10**12, 0), "no example of class 1, though its labels go up to 1000000000000"),
        (Y + 1, "no example of class 0"),
        (Y - 1, "label -1, out of range"),
        (np.array(["cat", "dog"])[Y], "y in .* is <U3"),
        (np.eye(2, dtype=int)[Y], r"y in .* of shape \(40, 2\)"),
    ],
)
def test_labels_are_numbered_from_zero(tmp_path: Path, y: NDArray[Any], words: str) -> None:
    refuse(words, save(tmp_path, x=X, y=y))


def test_classes_may_be_named(tmp_path: Path) -> None:
    assert tasks.load(save(tmp_path, x=X, y=Y, classes=np.array(["cat", "dog"]))).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (np.array("cat"), "classes in .* is 'cat'"),
        (np.array(["cat", "cat"]), "classes in .* is"),
        (np.array([["cat"], ["dog"]]), "classes in .* is"),
        (np.array(["cat", "dog", "eel"]), r"no example of class 2 \('eel'\) of its 3 classes"),
        (np.array(["cat"]), "one class only: 'cat'"),
        (np.array(["cat", "dog"], dtype=object), "pickled"),
    ],
)
def test_names_of_classes_fit_the_labels(tmp_path: Path, classes: NDArray[Any], words: str) -> None:
    refuse(words, save(tmp_path, x=X, y=Y, classes=classes))


def test_more_labels_than_names(tmp_path: Path) -> None:
    y = np.r_[np.zeros(20, int), np.ones(17, int), 2, 2, 2]
    refuse("label 2, out of range 0 to 1, at position 37", save(tmp_path, x=X, y=y, classes=np.array(["cat", "dog"])))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_split_has_every_class_and_no_other(tmp_path: Path, split: str) -> None:
    short = {"validation": "val", "test": "test"}[split]
    validation = {"x_val": X, "y_val": Y}
    one = {f"x_{short}": X[:1], f"y_{short}": Y[:1]}
    refuse(f"the {split} split has no example of class 1", save(tmp_path, **(DIVIDED | validation | one)))
    more = {f"x_{short}": X, f"y_{short}": Y + 1}
    refuse(f"the {split} split has the label 2, out of range 0 to 1", save(tmp_path, **(DIVIDED | validation | more)))


def test_splits_of_different_sizes(tmp_path: Path) -> None:
    refuse("test split has samples of shape", save(tmp_path, **(DIVIDED | {"x_test": X[:10, :5]})))


def test_validation_images_without_labels_are_not_passed_over(tmp_path: Path) -> None:
    refuse("has no y_val", save(tmp_path, **(DIVIDED | {"x_val": X})))


def test_the_users_own_division_is_kept_to_the_byte(tmp_path: Path) -> None:
    task = tasks.load(save(tmp_path, **(DIVIDED | {"x_val": X[10:20], "y_val": Y[10:20, None]})))
    np.testing.assert_array_equal(task.train.x[:, 0], X)
    np.testing.assert_array_equal(task.validation.x[:, 0], X[10:20])
    np.testing.assert_array_equal(task.test.x[:, 0], X[:10])
    np.testing.assert_array_equal(task.validation.y, Y[10:20])


def test_a_part_of_the_training_split_becomes_validation(tmp_path: Path) -> None:
    task = tasks.load(save(tmp_path, **DIVIDED))
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [34, 6, 10]
    together = np.concatenate([task.train.x, task.validation.x])[:, 0]
    assert {image.tobytes() for image in together} == {image.tobytes() for image in X}


def test_a_single_array_called_npz(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, X)
    refuse("has the keys none", str(tmp_path / "a.npz"))


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x", b"text")
        file.writestr("y", b"text")
    refuse("has the keys none", str(tmp_path / "a.npz"))


def test_a_header_that_promises_more_than_any_memory(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    refuse("cannot be read", str(tmp_path / "a.npz"))


@given(cut=st.floats(0, 1, exclude_max=True), compress=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_truncated_file_is_one_error(tmp_path_factory: pytest.TempPathFactory, cut: float, compress: bool) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.npz"
    (np.savez_compressed if compress else np.savez)(path, x=X, y=Y)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    refuse("a.npz", str(path))


def test_damage_inside_a_compressed_file(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=X, y=Y)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[200:260] = b"\xff" * 60
    (tmp_path / "a.npz").write_bytes(data)
    refuse("a.npz cannot be read", str(tmp_path / "a.npz"))
