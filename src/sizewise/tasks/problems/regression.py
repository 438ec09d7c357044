"""Numbers from a sample. A model gives them standardised, a deployed one in the user's unit, shape (n, numbers)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.records import Metric, Recipe
from sizewise.tasks.problems.losses import NUMERIC, mse
from sizewise.tasks.problems.problem import Judged, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from sizewise.tasks.task import Split

MARGIN = 0.01
"""Of the squared error, as a share of the targets' variance: a hundredth of R²."""

SAME = 1e-3
"""Answers this near, in standard deviations of the targets, count as one."""


class Regression(Problem):
    """Numbers (n, numbers) against targets of the same shape. The loss is between standardised targets, by default
    their squared error."""

    quick = False
    losses_known = tuple(NUMERIC)

    def metrics(self) -> tuple[Metric, ...]:
        std = np.asarray(self.target_std or (1.0,))
        squared = MARGIN * float((std**2).mean())
        return (
            Metric("MSE", higher=False, share=False, margin=squared),
            Metric("MAE", higher=False, share=False, margin=MARGIN * float(std.mean())),
        )

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        losses = NUMERIC.get(recipe.loss, mse)(outputs, y)
        return losses, losses.new_ones(len(y))

    def same(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((np.abs(a - b) <= SAME * np.asarray(self.target_std)).all(axis=1))

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

        y, values = split.y, {"MSE": float("nan"), "MAE": float("nan"), "R2": float("nan")}
        if np.isfinite(answers).all():  # a run that diverged answers nothing
            values["MSE"], values["MAE"] = float(mean_squared_error(y, answers)), float(mean_absolute_error(y, answers))
            values["R2"] = float(r2_score(y, answers)) if len(y) > 1 else float("nan")
        off = np.asarray(answers, float) - y
        loss = float(((off / np.asarray(self.target_std)) ** 2).mean())
        return Judged(values, {"MSE": (off**2).mean(axis=1), "MAE": np.abs(off).mean(axis=1)}, loss=loss)
