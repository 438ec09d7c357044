"""Splits lose no example, repeat none, hold every class, and are the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise.records import Signature
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Preprocessor, Split


def numbered(counts: list[int]) -> Split:
    """A split whose images are their own positions."""
    y = np.repeat(np.arange(len(counts)), counts)
    return Split(np.arange(len(y), dtype=np.float32)[:, None, None, None], y)


@given(counts=st.lists(st.integers(3, 300), min_size=2, max_size=8))
@settings(max_examples=50, deadline=None)
def test_three_splits_part_the_examples_and_hold_every_class(counts: list[int]) -> None:
    whole, classes = numbered(counts), tuple(map(str, range(len(counts))))
    parts = in_three(whole, 0.15, 0.15, classes=classes)
    assert sorted(np.concatenate([part.x.ravel() for part in parts])) == list(range(len(whole.y)))
    for part in parts:
        assert set(part.y) == set(range(len(counts)))
        np.testing.assert_array_equal(part.y, whole.y[part.x.ravel().astype(int)])


def test_a_rare_class_is_in_every_split() -> None:
    parts = in_three(numbered([997, 3]), 0.15, 0.15, classes=("healthy", "ill"))
    assert [int((part.y == 1).sum()) for part in parts] == [1, 1, 1]


@given(counts=st.lists(st.integers(2, 100), min_size=2, max_size=5), share=st.sampled_from([0.1, 0.15, 0.25]))
@settings(max_examples=30, deadline=None)
def test_what_is_held_out_has_every_class_in_proportion(counts: list[int], share: float) -> None:
    stays, goes = hold_out(numbered(counts), share, classes=tuple(map(str, range(len(counts)))))
    found = np.bincount(goes.y, minlength=len(counts))
    expected = np.array(counts) * max(share, len(counts) / sum(counts))
    assert np.all(np.abs(found - expected) <= 2)
    assert set(stays.y) == set(goes.y) == set(range(len(counts)))


def test_the_same_data_is_always_divided_in_the_same_way() -> None:
    one, two = (in_three(numbered([30, 40, 50]), 0.15, 0.15, classes=("a", "b", "c")) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.x, b.x)


def images(x: NDArray[Any]) -> tuple[Split, Signature]:
    """Images without classes to speak of, as a training split."""
    return Split(x, np.zeros(len(x), np.int64)), Signature("classification", x.shape[1:], 2)


@pytest.mark.parametrize("value", [0.1, 255, 1e8 / 3])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    x = np.random.default_rng(0).normal(size=(500, 2, 5, 7)).astype(np.float32)
    x[:, 1] = value
    preprocessor = Preprocessor.fit(*images(x))
    assert preprocessor.std[1] == 1
    np.testing.assert_array_equal(preprocessor(x)[:, 1], 0)


def test_each_channel_is_standardised_in_its_own_units() -> None:
    x = np.random.default_rng(0).normal([0, 50, -3], [1, 20, 0.1], size=(5000, 6, 4, 3)).transpose(0, 3, 1, 2)
    out = Preprocessor.fit(*images(x))(x)
    assert out.shape == x.shape
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), 1, atol=1e-4)
