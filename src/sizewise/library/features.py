"""A task in a few numbers that cost little to know.

Sizes and the entropy of labels, and landmarks (Pfahringer, Bensusan & Giraud-Carrier 2000): how well simple learners do
on a part of the training split. They say how hard the task is, and in which way: a nearest centroid needs classes that
lie apart, a logistic regression such as planes divide, and the share of samples whose nearest neighbour has another
label bounds what noise leaves to learn (Cover & Hart 1967).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.tasks import Task

Array = NDArray[np.float64]

SCALES = {
    "log samples": math.log(10),
    "log outputs": math.log(4),
    "log inputs": math.log(10),
    "label entropy": 0.2,
    "nearest centroid": 0.2,
    "logistic": 0.2,
    "nearest neighbour": 0.2,
}
"""The features, and the difference in each that counts as one unit of distance."""

SAMPLES = 1_000
"""That landmarks look at: half of them are learned from, half are answered."""

NUMBERS = 1_024
"""To which a sample is brought, by averaging neighbours."""

AT_ONCE = 50


def features(task: Task) -> dict[str, float]:
    """The features of a task, by its training split; landmarks and entropy only where a sample has one label."""
    signature = task.signature
    found = {
        "log samples": math.log(len(task.train)),
        "log outputs": math.log(max(signature.outputs, 1)),
        "log inputs": math.log(math.prod(signature.input_shape)),
    }
    return found | _landmarks(task) if signature.problem == "classification" else found


def _landmarks(task: Task) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

    counts = np.bincount(task.train.y, minlength=task.signature.outputs)
    shares = counts[counts > 0] / counts.sum()
    found = {"label entropy": float(-(shares * np.log(shares)).sum() / math.log(max(len(counts), 2)))}
    chosen = np.random.default_rng(0).permutation(len(task.train))[:SAMPLES]
    part = task.train.take(np.sort(chosen))
    x, y = _flat(task, part.x), part.y
    learn, answer = np.arange(len(y)) % 2 == 0, np.arange(len(y)) % 2 == 1
    learners = {
        "nearest centroid": NearestCentroid(),
        "logistic": LogisticRegression(max_iter=100),
        "nearest neighbour": KNeighborsClassifier(1),
    }
    if len(np.unique(y[learn])) < 2:
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that were not enough: a landmark need not be the best
        scores = {name: float(m.fit(x[learn], y[learn]).score(x[answer], y[answer])) for name, m in learners.items()}
    chance = float(shares.max())
    return found | {name: max(0.0, (score - chance) / max(1 - chance, 1e-9)) for name, score in scores.items()}


def _flat(task: Task, x: NDArray[Any]) -> Array:
    """Samples as rows of at most `NUMBERS` numbers, a few samples at a time, since they may be large."""
    return np.concatenate([_rows(task, x[start : start + AT_ONCE]) for start in range(0, len(x), AT_ONCE)])


def _rows(task: Task, x: NDArray[Any]) -> Array:
    """Texts as the share of each token, all others by averaging neighbours."""
    if task.signature.layout == "tokens":
        counts = np.stack([np.bincount(row[row > 0], minlength=task.signature.vocabulary) for row in x]).astype(float)
        return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    rows = task.preprocessor(x).reshape(len(x), -1).astype(float)
    if rows.shape[1] <= NUMBERS:
        return np.asarray(rows)
    return np.stack([part.mean(axis=1) for part in np.array_split(rows, NUMBERS, axis=1)], axis=1)
