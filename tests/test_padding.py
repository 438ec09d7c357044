"""Sequences of any lengths go into one array and come out as they were; a batch carries its own mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from sizewise.padding import PAD, lengths, mask, pad, trim

IDS = st.lists(arrays.arrays(np.int64, st.integers(0, 9), elements=st.integers(1, 99)), min_size=1, max_size=6)
"""Texts of ids from 1: 0 is padding."""

SERIES = st.integers(1, 3).flatmap(
    lambda channels: st.lists(
        arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(channels)), elements=st.floats(-9, 9, width=32)),
        min_size=1,
        max_size=6,
    )
)
"""Series with steps that are all 0, too, which only the mask tells from padding."""

SEQUENCES = IDS | SERIES


@given(SEQUENCES, st.integers(0, 14))
def test_what_is_padded_comes_out_as_it_went_in(sequences: list[NDArray[Any]], steps: int) -> None:
    padded = pad(sequences, steps)
    assert padded.shape[:2] == (len(sequences), max(steps, *map(len, sequences)))
    for row, there, sequence in zip(padded, mask(padded), sequences, strict=True):
        values = row[there] if sequence.ndim == 1 else row[there][:, :-1]
        np.testing.assert_array_equal(values, sequence)


@given(SEQUENCES, st.integers(0, 14))
def test_a_batch_knows_where_its_steps_are(sequences: list[NDArray[Any]], steps: int) -> None:
    padded = pad(sequences, steps)
    assert lengths(padded).tolist() == [len(sequence) for sequence in sequences]
    for there, sequence in zip(mask(padded), sequences, strict=True):
        assert there.tolist() == [True] * len(sequence) + [False] * (len(there) - len(sequence))


@given(SEQUENCES, st.integers(0, 14))
def test_padding_is_zero_all_over(sequences: list[NDArray[Any]], steps: int) -> None:
    padded = pad(sequences, steps)
    assert (padded[~mask(padded)] == PAD).all()


@given(SEQUENCES, st.integers(0, 14))
def test_trimming_takes_what_all_lack_and_nothing_else(sequences: list[NDArray[Any]], steps: int) -> None:
    padded = pad(sequences, steps)
    kept = trim(padded)
    assert kept.shape[1] == max(1, *map(len, sequences)) or padded.shape[1] == 0
    np.testing.assert_array_equal(kept, padded[:, : kept.shape[1]])
    np.testing.assert_array_equal(lengths(kept), lengths(padded))
    np.testing.assert_array_equal(trim(kept), kept)


@given(SEQUENCES, st.integers(1, 14))
def test_tensors_and_arrays_agree(sequences: list[NDArray[Any]], steps: int) -> None:
    padded = pad(sequences, steps)
    tensor = torch.from_numpy(padded)
    for function in (mask, lengths, trim):
        np.testing.assert_array_equal(function(tensor).numpy(), function(padded))


def test_one_sequence_is_a_batch_too() -> None:
    assert pad([np.array([5, 6])]).tolist() == [[5, 6]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_ids_keep_their_type(dtype: type[np.generic]) -> None:
    assert pad([np.array([5], dtype), np.array([6, 7], dtype)]).dtype == dtype
