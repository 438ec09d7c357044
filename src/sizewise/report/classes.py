"""How a model does on each class, from its confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sizewise import stats
from sizewise.records import Estimate

Matrix = Sequence[Sequence[int]]

MOST_CLASSES = 20
"""More classes than this make a matrix that nobody reads; the most frequent mistakes are listed instead."""

MOST_MISTAKES = 15


@dataclass(frozen=True)
class PerClass:
    """Scores of one class, each with an interval over the examples that it is a share of."""

    name: str
    examples: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class Mistake:
    """Examples of `truth` that were taken for `answer`, and their share of all examples of `truth`."""

    truth: str
    answer: str
    count: int
    share: Estimate


def per_class(matrix: Matrix, names: Sequence[str]) -> list[PerClass]:
    """Precision, recall and F1 of every class, by scikit-learn.

    Args:
        matrix: counts, shape (classes, classes); rows are the truth, columns the answer.
    """
    from sklearn.metrics import precision_recall_fscore_support

    counts = np.asarray(matrix)
    truth, answer = np.indices(counts.shape)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth.ravel(),
        answer.ravel(),
        labels=np.arange(len(counts)),
        sample_weight=counts.ravel(),
        average=None,
        zero_division=0,
    )
    hits, rows, columns = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    return [
        PerClass(
            name,
            int(rows[i]),
            _share(float(precision[i]), hits[i], columns[i], "examples called so"),
            _share(float(recall[i]), hits[i], rows[i], "examples of the class"),
            _f1(float(f1[i]), hits[i], rows[i] + columns[i] - hits[i]),
        )
        for i, name in enumerate(names)
    ]


def mistakes(matrix: Matrix, names: Sequence[str], most: int = MOST_MISTAKES) -> list[Mistake]:
    """The most frequent confusions, most frequent first."""
    counts = np.array(matrix)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [divmod(int(flat), len(counts)) for flat in order]
    return [
        Mistake(names[i], names[j], int(counts[i, j]), stats.proportion(int(counts[i, j]), int(totals[i])))
        for i, j in pairs
        if counts[i, j]
    ]


def heat(matrix: Matrix, names: Sequence[str]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of the confusion matrix: (class, [(count, share of its row)])."""
    return [
        (name, [(count, count / (sum(row) or 1)) for count in row]) for name, row in zip(names, matrix, strict=True)
    ]


def _share(value: float, hits: int, total: int, what: str) -> Estimate:
    if not total:
        return Estimate(value, float("nan"), float("nan"), stats.LEVEL, f"no interval: no {what}", 0)
    found = stats.proportion(int(hits), int(total))
    return replace(found, value=value, method=f"Wilson over {total:,} {what}")


def _f1(value: float, hits: int, union: int) -> Estimate:
    """F1 = 2J/(1 + J) rises with the Jaccard index J, which is a share: the ends of J's interval give its own."""
    jaccard = _share(value, hits, union, "examples of the class or called so")
    low, high = (2 * j / (1 + j) for j in (jaccard.low, jaccard.high))
    return replace(jaccard, low=low, high=high, method=jaccard.method.replace("Wilson", "Wilson on the Jaccard index"))
