"""Stratified splits with a fixed seed: the same data is always divided in the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError
from sizewise.tasks.task import Split

SEED = 0


def hold_out(split: Split, share: float, *, classes: tuple[str, ...], fewest: int = 2) -> tuple[Split, Split]:
    """Part `share` of a split off, every class in proportion.

    Args:
        classes: names by label; () where targets are no classes, and then any examples are parted off.
        fewest: examples of each class that are needed, so that every part gets one.

    Returns:
        what stays, and what was parted off.

    Raises:
        DataError: a class has too few examples.
    """
    from sklearn.model_selection import train_test_split

    if not classes:
        return _any(split, share, fewest)
    counts = np.bincount(split.y, minlength=len(classes))
    scarce = int(counts.argmin())
    if counts[scarce] < fewest:
        raise DataError(
            f"class {classes[scarce]!r} has {counts[scarce]} examples; splitting needs at least {fewest}",
            hint="add examples of this class or leave it out",
        )
    indices = np.arange(len(split.y))
    parted = max(round(share * len(indices)), len(classes))  # at least one of every class
    stays, goes = _lend(split.y, *train_test_split(indices, test_size=parted, stratify=split.y, random_state=SEED))
    return split.take(stays), split.take(goes)


def in_three(split: Split, validation: float, test: float, *, classes: tuple[str, ...]) -> tuple[Split, Split, Split]:
    """Training, validation and test splits; the shares are of the whole."""
    rest, test_split = hold_out(split, test, classes=classes, fewest=3)
    train, validation_split = hold_out(rest, validation / (1 - test), classes=classes)
    return train, validation_split, test_split


def _any(split: Split, share: float, fewest: int) -> tuple[Split, Split]:
    """Part `share` of a split off, at random."""
    if len(split) < fewest:
        raise DataError(
            f"there are {len(split)} examples; splitting needs at least {fewest}", hint="give more examples"
        )
    order, parted = np.random.default_rng(SEED).permutation(len(split)), max(round(share * len(split)), 1)
    return split.take(np.sort(order[parted:])), split.take(np.sort(order[:parted]))


def _lend(
    y: NDArray[np.int64], giver: NDArray[np.int64], taker: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Move one example of each class that `taker` lacks: stratification rounds a rare class's share down to none."""
    lent = np.array([giver[y[giver] == c][0] for c in np.setdiff1d(y, y[taker])], np.int64)
    return giver[~np.isin(giver, lent)], np.concatenate([taker, lent])
