"""Labels without their places in time, by connectionist temporal classification (Graves et al. 2006).

Outputs are logits (n, frames, labels + 1), of which number 0 is the blank; frames that a sample lacks are surely blank,
which changes neither its loss nor its answer. Answers are label ids, padded with 0.
"""

from __future__ import annotations

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


class Transcription(Problem):
    """Logits (n, frames, labels + 1) against label ids (n, most labels) from 1, padded with 0."""

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("word error rate", higher=False), Metric("sentence accuracy"))

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
        with extra("speech", needed_for="the word error rate"):
            import jiwer

        said, meant = self._texts(answers), self._texts(split.y)
        found = [jiwer.process_words(truth, guess) for truth, guess in zip(meant, said, strict=True)]
        wrong = np.array([f.substitutions + f.deletions + f.insertions for f in found], float)
        right = np.array([a == b for a, b in zip(said, meant, strict=True)], float)
        rates = influence.ratio(wrong, lengths(split.y).astype(float))
        values = {"word error rate": float(rates.mean()), "sentence accuracy": float(right.mean())}
        return Judged(values, {"word error rate": rates, "sentence accuracy": right})

    def _texts(self, ids: NDArray[Any]) -> list[str]:
        return [" ".join(self.classes[i] for i in row if i != BLANK) for row in ids.astype(int)]


def collapse(frames: NDArray[Any]) -> NDArray[Any]:
    """Label ids (n, labels) of the best ids of each frame (n, frames): repeats merged, blanks left out."""
    changed = np.diff(frames, axis=1, prepend=-1) != 0
    rows = [row[kept & (row != BLANK)] for row, kept in zip(frames, changed, strict=True)]
    return pad(rows, 1)
