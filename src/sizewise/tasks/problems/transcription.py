"""Labels without their places in time, by connectionist temporal classification (Graves et al. 2006).

Outputs are logits (n, frames, labels + 1), of which number 0 is the blank; frames that a sample lacks are surely blank,
which changes neither its loss nor its answer. Answers are label ids, padded with 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.padding import lengths, pad
from sizewise.records import Metric, Recipe
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.problem import Judged, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from sizewise.tasks.task import Split

BLANK = 0

METRICS = (Metric("word error rate", higher=False), Metric("sentence accuracy"))
"""Of words that were heard, however they are found."""


class Transcription(Problem):
    """Logits (n, frames, labels + 1) against label ids (n, most labels) from 1, padded with 0."""

    def metrics(self) -> tuple[Metric, ...]:
        return METRICS

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """CTC loss in nats, per label."""
        import torch.nn.functional as F

        frames, labels = outputs.new_full((len(y),), outputs.shape[1]).long(), lengths(y)
        logs = F.log_softmax(outputs, dim=2).transpose(0, 1)
        losses = F.ctc_loss(logs, y, frames, labels, blank=BLANK, reduction="none", zero_infinity=True)
        return losses, labels

    def read(self, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Greedy decoding: the best label of each frame, repeats merged, blanks left out; ids padded with 0."""
        return collapse(outputs.argmax(axis=2))

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        return judged(spoken(answers, self.classes), spoken(split.y, self.classes))


def spoken(ids: NDArray[Any], classes: Sequence[str]) -> list[str]:
    """Texts of label ids (n, labels); ids that stand for no word, such as padding, have no name among the classes."""
    return [" ".join(classes[i] for i in row if classes[i]) for row in ids.astype(int)]


def judged(said: Sequence[str], meant: Sequence[str]) -> Judged:
    """Word error rate and share of right answers of texts against what they should be, none of which is empty."""
    with extra("speech", needed_for="the word error rate"):
        import jiwer

    found = [jiwer.process_words(truth, guess) for truth, guess in zip(meant, said, strict=True)]
    wrong = np.array([f.substitutions + f.deletions + f.insertions for f in found], float)
    words = np.array([f.hits + f.substitutions + f.deletions for f in found], float)
    right = np.array([a == b for a, b in zip(said, meant, strict=True)], float)
    rates = influence.ratio(wrong, words)
    values = {"word error rate": float(rates.mean()), "sentence accuracy": float(right.mean())}
    return Judged(values, {"word error rate": rates, "sentence accuracy": right})


def collapse(frames: NDArray[Any]) -> NDArray[Any]:
    """Label ids (n, labels) of the best ids of each frame (n, frames): repeats merged, blanks left out."""
    changed = np.diff(frames, axis=1, prepend=-1) != 0
    rows = [row[kept & (row != BLANK)] for row, kept in zip(frames, changed, strict=True)]
    return pad(rows, 1)
