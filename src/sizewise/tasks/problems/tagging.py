"""A class at each step. Outputs are logits (n, steps, classes); targets are ids from 1, 0 where there is no step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import PAD, mask
from sizewise.records import Metric, Recipe
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.problem import Judged, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from sizewise.tasks.task import Split


class Tagging(Problem):
    """Logits (n, steps, classes + 1) against classes (n, steps) from 1; output 0 is never right."""

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("accuracy"),)

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        return token_losses(outputs, y, recipe)

    def read(self, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        said = outputs[..., 1:].argmax(axis=-1) + 1
        return np.pad(said, [(0, 0), (0, y.shape[1] - said.shape[1])])

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        there = mask(split.y)
        hits = influence.ratio(
            ((answers == split.y) & there).sum(axis=1).astype(float), there.sum(axis=1).astype(float)
        )
        return Judged({"accuracy": float(hits.mean())}, {"accuracy": hits})


def token_losses(outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of logits (n, steps, outputs) against ids (n, at least as many steps), padding left out."""
    import torch.nn.functional as F

    y = y[:, : outputs.shape[1]]
    losses = F.cross_entropy(
        outputs.flatten(0, 1), y.flatten(), reduction="none", ignore_index=PAD, label_smoothing=recipe.label_smoothing
    )
    return losses.view(y.shape).sum(dim=1), mask(y).sum(dim=1)
