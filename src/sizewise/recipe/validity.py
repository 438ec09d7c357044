"""Which recipes can train, and what a batch and an epoch are."""

from __future__ import annotations

import math

from sizewise.errors import UsageError
from sizewise.recipe.optimizers import LEAST_PRODIGY_RATE, OPTIMIZERS
from sizewise.records import Recipe


def check(recipe: Recipe) -> None:
    """Refuse values that cannot train.

    Raises:
        UsageError: with the field, its value and its range.
    """
    rules: dict[str, tuple[bool, str]] = {
        "lr": (recipe.lr > 0 and math.isfinite(recipe.lr), "above 0"),
        "momentum": (0 <= recipe.momentum < 1, "in [0, 1)"),
        "weight_decay": (recipe.weight_decay >= 0, "at least 0"),
        "batch_size": (recipe.batch_size >= 1, "at least 1"),
        "epochs": (recipe.epochs >= 1, "at least 1"),
        "warmup": (0 <= recipe.warmup < 1, "in [0, 1)"),
        "decay": (0 < recipe.decay <= 1, "in (0, 1]"),
        "label_smoothing": (0 <= recipe.label_smoothing < 1, "in [0, 1)"),
        "clip": (recipe.clip >= 0, "at least 0"),
        "patience": (recipe.patience >= 0, "at least 0"),
        "accumulate": (recipe.accumulate >= 1, "at least 1"),
        "dropout": (recipe.dropout is None or 0 <= recipe.dropout < 1, "in [0, 1)"),
        "average_decay": (0 < recipe.average_decay < 1, "in (0, 1)"),
    }
    for field, (valid, domain) in rules.items():
        if not valid:
            value = getattr(recipe, field)
            raise UsageError(f"recipe.{field} is {value}", hint=f"it must be {domain}")
    if OPTIMIZERS[recipe.optimizer].factor and recipe.lr < LEAST_PRODIGY_RATE:
        raise UsageError(
            f"recipe.lr is {recipe.lr} with {recipe.optimizer}, which finds its rate itself",
            hint="there lr is a factor of that rate: --lr 1",
        )
    if recipe.optimizer == "nesterov" and not recipe.momentum:
        raise UsageError("recipe.momentum is 0 with nesterov", hint="give a momentum above 0, or take sgd")


def batch_of(recipe: Recipe, samples: int) -> int:
    """Samples of one optimizer step when there are `samples` to train on."""
    return samples if recipe.optimizer == "gd" else min(recipe.batch_size, samples)


def batches_per_epoch(recipe: Recipe, samples: int) -> int:
    """Optimizer steps in one pass over `samples`."""
    return math.ceil(samples / batch_of(recipe, samples))
