"""Arrays that are no images: which axes are which, series of different lengths, and targets that are no classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import tasks
from sizewise.errors import DataError
from sizewise.tasks import Task

COUNT = 40
Y = np.arange(COUNT) % 2
RNG = np.random.default_rng(0)


def load(folder: Path, **arrays: NDArray[Any] | str) -> Task:
    np.savez(folder / "a.npz", **arrays)  # type: ignore[arg-type]
    return tasks.load(str(folder / "a.npz"))


def refuse(words: str, folder: Path, **arrays: NDArray[Any] | str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load(folder, **arrays)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("shape", "said", "layout", "expected"),
    [
        ((6, 7), "", "image", (1, 6, 7)),
        ((6, 7, 3), "", "image", (3, 6, 7)),
        ((3, 6, 7), "", "image", (3, 6, 7)),
        ((9, 6, 7), "", "image", (9, 6, 7)),
        ((6, 6, 6), "", "volume", (1, 6, 6, 6)),
        ((6, 6, 6), "image", "image", (6, 6, 6)),
        ((5, 6, 7), "volume", "volume", (1, 5, 6, 7)),
        ((5, 6, 3), "volume", "volume", (1, 5, 6, 3)),
        ((5, 6, 7, 1), "", "volume", (1, 5, 6, 7)),
        ((2, 5, 6, 7), "", "volume", (2, 5, 6, 7)),
        ((6, 7), "series", "series", (6, 7)),
    ],
)
def test_the_axes_say_what_samples_are_unless_the_file_does(
    tmp_path: Path, shape: tuple[int, ...], said: str, layout: str, expected: tuple[int, ...]
) -> None:
    x = RNG.normal(size=(COUNT, *shape)).astype(np.float32)
    task = load(tmp_path, x=x, y=Y, **({"layout": said} if said else {}))
    assert (task.signature.layout, task.signature.input_shape) == (layout, expected)
    splits = (task.train, task.validation, task.test)
    assert {sum_of(row) for split in splits for row in split.x} == {sum_of(row) for row in x}


def sum_of(x: NDArray[Any]) -> float:
    """The same for any order of the axes."""
    return float(np.sort(x.ravel()).sum())


def test_channels_come_first(tmp_path: Path) -> None:
    for number, sides in enumerate(((6, 7), (5, 6, 7))):
        x = RNG.normal(size=(COUNT, *sides, 3)).astype(np.float32)
        (tmp_path / str(number)).mkdir()
        task = load(tmp_path / str(number), x_train=x, y_train=Y, x_val=x, y_val=Y, x_test=x, y_test=Y)
        np.testing.assert_array_equal(task.train.x, np.moveaxis(x, -1, 1))


@pytest.mark.parametrize(
    ("shape", "said", "words"),
    [
        ((6,), "", "is float64 of shape"),
        ((6, 7, 3), "series", "is float64 of shape"),
        ((6, 7), "volume", "is float64 of shape"),
        ((6, 7), "movie", "layout in .* is 'movie'"),
    ],
)
def test_axes_that_do_not_fit(tmp_path: Path, shape: tuple[int, ...], said: str, words: str) -> None:
    refuse(words, tmp_path, x=np.zeros((COUNT, *shape)), y=Y, **({"layout": said} if said else {}))


def test_every_split_has_the_layout_of_the_first(tmp_path: Path) -> None:
    x = RNG.normal(size=(COUNT, 6, 6, 6))
    refuse("x_test in .* is float64 of shape", tmp_path, x_train=x, y_train=Y, x_test=x[:, 0, 0], y_test=Y)


@given(lengths=st.lists(st.integers(1, 5), min_size=10, max_size=20))
@settings(max_examples=20, deadline=None)
def test_nan_at_the_end_makes_a_series_shorter(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    lengths = [*lengths, 2, 4]
    x = np.full((len(lengths), 7, 2), np.nan)
    for row, (i, steps) in zip(x, enumerate(lengths), strict=True):
        row[:steps] = 100 + i
    task = load(tmp_path_factory.mktemp("nan"), x=x, y=np.arange(len(lengths)) % 2, layout="series")
    assert task.signature.dynamic
    assert task.signature.input_shape == (max(lengths), 3)
    found = {int(r[0, 0]) - 100: int(r[:, 2].sum()) for s in (task.train, task.validation, task.test) for r in s.x}
    assert found == dict(enumerate(lengths))


def test_series_of_one_length_are_kept_as_they_are(tmp_path: Path) -> None:
    x = RNG.normal(size=(COUNT, 5, 2)).astype(np.float32)
    task = load(tmp_path, x_train=x, y_train=Y, x_val=x, y_val=Y, x_test=x, y_test=Y, layout="series")
    assert not task.signature.dynamic
    np.testing.assert_array_equal(task.train.x, x)


def test_splits_of_series_may_have_different_lengths(tmp_path: Path) -> None:
    long, short = np.ones((COUNT, 6, 2)), np.ones((COUNT, 4, 2))
    task = load(tmp_path, x_train=short, y_train=Y, x_val=long, y_val=Y, x_test=short, y_test=Y, layout="series")
    assert task.signature.dynamic
    assert [split.x.shape for split in (task.train, task.validation, task.test)] == [(COUNT, 6, 3)] * 3


@pytest.mark.parametrize(("place", "channel"), [(1, 0), (1, slice(None)), (4, 1)])
def test_nan_elsewhere_is_refused_with_its_position(tmp_path: Path, place: int, channel: int | slice) -> None:
    x = np.zeros((COUNT, 5, 2))
    x[17, place, channel] = np.nan
    refuse("x and y: . values are NaN or infinite, the first in sample 17", tmp_path, x=x, y=Y, layout="series")


def test_a_series_without_a_step(tmp_path: Path) -> None:
    x = np.zeros((COUNT, 5, 2))
    x[17] = np.nan
    refuse("sample 17 is NaN from its first step on", tmp_path, x=x, y=Y, layout="series")
    refuse("x and y: empty", tmp_path, x=x[:, :0], y=Y, layout="series")


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_numbers_that_are_not_whole_are_learned_as_numbers(tmp_path: Path, columns: int) -> None:
    y = RNG.normal(size=(COUNT, columns) if columns else COUNT)
    task = load(tmp_path, x=RNG.normal(size=(COUNT, 6, 6)), y=y)
    assert (task.signature.problem, task.signature.outputs, task.classes) == ("regression", columns or 1, ())
    assert [len(s) for s in (task.train, task.validation, task.test)] == [28, 6, 6]
    together = np.concatenate([split.y for split in (task.train, task.validation, task.test)])
    np.testing.assert_allclose(np.sort(together.ravel()), np.sort(y.ravel()), rtol=1e-6)


def test_several_whole_numbers_a_sample_are_learned_as_numbers(tmp_path: Path) -> None:
    assert load(tmp_path, x=np.zeros((COUNT, 6, 6)), y=np.c_[Y, 3 * Y]).signature.problem == "regression"


def test_floats_that_are_all_whole_are_classes(tmp_path: Path) -> None:
    assert load(tmp_path, x=np.zeros((COUNT, 6, 6)), y=Y.astype(float)).signature.problem == "classification"


def test_one_number_out_of_many_may_be_whole(tmp_path: Path) -> None:
    x, y = np.zeros((COUNT, 6, 6)), Y.astype(float)
    task = load(tmp_path, x_train=x, y_train=y, x_test=x, y_test=y + 0.5)
    assert task.signature.problem == "regression"


def test_targets_that_are_not_finite(tmp_path: Path) -> None:
    y = RNG.normal(size=COUNT)
    y[17] = np.nan
    refuse("x and y: 1 values are NaN or infinite, the first in target 17", tmp_path, x=np.zeros((COUNT, 6, 6)), y=y)


def test_the_pneumonia_set_says_what_it_found(shared_data: Path) -> None:
    task = tasks.load(str(shared_data / "pneumonia" / "pneumoniamnist.npz"))
    assert (task.signature.input_shape, task.classes) == ((1, 28, 28), ("0", "1"))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [2428, 270, 468]
    assert task.scored_by("AUROC").metric.name == "AUROC"
