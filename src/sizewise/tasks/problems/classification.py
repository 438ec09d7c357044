"""One class a sample. Outputs are logits (n, classes); metrics are scikit-learn's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.records import Metric, Recipe
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.losses import ELEMENTWISE
from sizewise.tasks.problems.problem import Array, Judged, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from sizewise.tasks.task import Split

BINS = 15
"""Of the calibration error, as usual (Guo et al. 2017, arXiv:1706.04599)."""


class Classification(Problem):
    """Logits (n, classes) against classes (n,). With two classes, the second one is the positive."""

    distils = True
    losses_known = tuple(ELEMENTWISE)

    def metrics(self) -> tuple[Metric, ...]:
        return Metric("accuracy"), Metric("F1"), Metric("AUROC")

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats, or a loss between outputs and one-hot targets."""
        import torch.nn.functional as F

        if recipe.loss == "cross_entropy":
            losses = F.cross_entropy(outputs, y, reduction="none", label_smoothing=recipe.label_smoothing)
        else:
            one_hot = F.one_hot(y, outputs.shape[1]).to(outputs.dtype)
            losses = ELEMENTWISE[recipe.loss](outputs, one_hot)
        return losses, losses.new_ones(len(y))

    def same(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(a.argmax(axis=1) == b.argmax(axis=1))

    def score(self, answers: NDArray[Any], split: Split) -> float:
        if self.metric.name == "accuracy":  # at every epoch of every run, and cheaper than all the rest
            return float((answers.argmax(axis=1) == split.y).mean())
        return super().score(answers, split)

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        from scipy.special import log_softmax

        y = split.y
        logs = log_softmax(np.asarray(answers, np.float64), axis=1)
        counts = confusion(answers.argmax(axis=1), y, len(self.classes))
        areas = _areas(logs, y)
        values = _agreement(counts) | {
            "AUROC": float(areas.mean()),
            "calibration error": _calibration_error(logs, y),
            "Brier score": float(((np.exp(logs) - np.eye(logs.shape[1])[y]) ** 2).sum(axis=1).mean()),
        }
        examples = {
            "accuracy": (answers.argmax(axis=1) == y).astype(float),
            "F1": _f1_of_each(counts, answers.argmax(axis=1), y),
            "AUROC": areas,
        }
        loss = float(-logs[np.arange(len(y)), y].mean())
        return Judged(values, examples, tuple(tuple(map(int, row)) for row in counts), loss)


def confusion(predicted: NDArray[Any], y: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes); rows are the truth."""
    from sklearn.metrics import confusion_matrix

    counts: NDArray[np.int64] = confusion_matrix(y, predicted, labels=np.arange(classes))
    return counts


def _agreement(counts: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, and macro averages. A class that is never predicted has precision 0, one that never occurs recall 0."""
    hits, truth, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    precision, recall = hits / np.maximum(said, 1), hits / np.maximum(truth, 1)
    values = {
        "accuracy": float(hits.sum() / counts.sum()),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "F1": macro_f1(counts),
    }
    return values | ({"sensitivity": float(recall[1]), "specificity": float(recall[0])} if len(counts) == 2 else {})


def macro_f1(counts: NDArray[Any], classes: NDArray[Any] | slice = slice(None)) -> float:
    """Mean F1 over `classes` (default: all) of counts (classes, classes) whose rows are the truth."""
    scores = 2 * counts.diagonal() / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    return float(scores[classes].mean())


def _f1_of_each(counts: NDArray[np.int64], predicted: NDArray[Any], y: NDArray[Any]) -> Array:
    """Jackknife over cells of the confusion matrix: examples in one cell have one value."""
    n, whole = int(counts.sum()), macro_f1(counts)
    cells = np.full(counts.shape, whole)
    for cell in zip(*np.nonzero(counts), strict=True):
        fewer = counts.copy()
        fewer[cell] -= 1
        cells[cell] = n * whole - (n - 1) * macro_f1(fewer)
    values = cells[y, predicted]
    return np.asarray(values - values.mean() + whole)


def _areas(logs: Array, y: NDArray[Any]) -> Array:
    """Influence values of the area under the curve; of several classes, the mean over one against all others."""
    present = np.unique(y)
    if len(present) < 2:
        return np.full(len(y), np.nan)
    positives = present[1:] if logs.shape[1] == 2 else present
    return np.asarray(np.mean([influence.area_under_curve(logs[:, c], y == c) for c in positives], axis=0))


def _calibration_error(logs: Array, y: NDArray[Any]) -> float:
    """Mean distance of confidence and accuracy over bins of confidence (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    confidence, hits = np.exp(logs.max(axis=1)), logs.argmax(axis=1) == y
    if not np.isfinite(confidence).all():  # the run diverged
        return float("nan")
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, hits - confidence, BINS)).sum() / len(y))
