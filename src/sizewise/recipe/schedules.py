"""Learning rates over the steps of a run, as factors of the recipe's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from sizewise.recipe.optimizers import OPTIMIZERS
from sizewise.records import Recipe, Trial

Factor = Callable[[int], float]


def schedule(recipe: Recipe, steps: int) -> Factor:
    """Factor of the learning rate at each step in [0, steps), in (0, 1].

    All but "constant" warm up linearly (an optimizer that needs no schedule does only that). Then "linear" and
    "cosine" go to zero (Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts); "wsd" stays and
    falls in the last epochs as 1 - √share (Hägele et al. 2024, arXiv:2405.18392, equation 1 and section 4).
    """
    if not OPTIMIZERS[recipe.optimizer].scheduled:
        return _warmed(lambda done, steps: 1.0, recipe.warmup, steps)
    if recipe.schedule == "constant":
        return lambda step: 1.0
    if recipe.schedule == "wsd":
        return _stable(recipe, steps)
    return _warmed(_SHAPES[recipe.schedule], recipe.warmup, steps)


def stable_epochs(recipe: Recipe) -> int:
    """Epochs of "wsd" before the rate falls: the part of the run that does not depend on its length."""
    return recipe.epochs - max(1, round(recipe.decay * recipe.epochs))


def trunk_of(trial: Trial) -> str | None:
    """What runs of different lengths have in common before their rates fall, as a key; None where they have nothing.

    With "wsd" the stable part of a run does not know how long the run will be, so that shorter and longer ones branch
    off one trunk (Hägele et al. 2024, arXiv:2405.18392, section 4). The mean of "swa" does know.
    """
    recipe = trial.recipe
    if recipe.schedule != "wsd" or recipe.average == "swa" or not OPTIMIZERS[recipe.optimizer].scheduled:
        return None
    return replace(trial, recipe=replace(recipe, epochs=1, decay=Recipe.decay)).key


_Shape = Callable[[int, int], float]

_SHAPES: dict[str, _Shape] = {
    "linear": lambda done, steps: 1 - done / steps,
    "cosine": lambda done, steps: 0.5 * (1 + math.cos(math.pi * done / steps)),
}
"""Factors after the warm-up, when so many of the steps after it are done."""


def _warmed(shape: _Shape, warmup: float, steps: int) -> Factor:
    """A shape after a linear warm-up over a share of the steps."""
    warm = max(1, round(warmup * steps))
    return lambda step: (step + 1) / warm if step < warm else shape(step - warm, max(steps - warm, 1))


def _stable(recipe: Recipe, steps: int) -> Factor:
    """The warm-up is a share of one epoch here, and not of the run, so that runs of all lengths begin alike."""
    epoch = steps // recipe.epochs
    warm, falling = max(1, round(recipe.warmup * epoch)), stable_epochs(recipe) * epoch

    def factor(step: int) -> float:
        fall = 1 - math.sqrt(max(0, step - falling) / (steps - falling))
        return min((step + 1) / warm, 1.0) * fall

    return factor


__all__ = ["Factor", "schedule", "stable_epochs", "trunk_of"]
