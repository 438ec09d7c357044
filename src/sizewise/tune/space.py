"""What may be varied in a recipe, around the study's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from sizewise.recipe import OPTIMIZERS
from sizewise.records import Recipe, Signature

RATES = (0.1, 10.0)
"""Factors of the study's own learning rate."""

FACTORS = (0.3, 3.0)
"""What an optimizer that finds its rate takes as a factor of it."""

DECAYS = (1e-6, 1e-1)
BATCHES = (0.5, 1.0, 2.0)
"""Of the study's own batch."""

PACKAGES = {"schedule-free": "schedulefree", "prodigy": "prodigyopt"}


def optimizers(own: Recipe) -> tuple[str, ...]:
    """The study's own, AdamW, and those that adapt more than a step's size, as far as their packages are there."""
    adaptive = [name for name, package in PACKAGES.items() if find_spec(package)]
    return tuple(dict.fromkeys((own.optimizer, "adamw", *adaptive)))


def propose(trial: Any, own: Recipe, signature: Signature) -> Recipe:
    """A recipe of Optuna's choice, at the reference width.

    Args:
        trial: an Optuna trial.
        own: the study's recipe; what is not varied is its.
    """
    name = trial.suggest_categorical("optimizer", optimizers(own))
    method = OPTIMIZERS[name]
    if method.factor:
        rate = trial.suggest_float("factor", *FACTORS, log=True)
    else:
        rate = own_rate(own) * trial.suggest_float("rate", *RATES, log=True)
    batch = trial.suggest_categorical("batch", BATCHES)
    schedule = trial.suggest_categorical("schedule", ("cosine", "linear", "constant")) if method.scheduled else None
    augment = trial.suggest_categorical("augment", (False, True)) if _augments(signature) else own.augment
    return replace(
        own,
        optimizer=name,
        lr=rate,
        weight_decay=trial.suggest_float("weight decay", *DECAYS, log=True),
        batch_size=max(1, round(own.batch_size * batch)),
        schedule=schedule or own.schedule,
        augment=augment,
    )


def values_of(recipe: Recipe, own: Recipe, signature: Signature) -> dict[str, Any] | None:
    """What `propose` would have to be told to make a recipe that is like this one; None if it never would."""
    method, batch = OPTIMIZERS[recipe.optimizer], recipe.batch_size / own.batch_size
    low, high = FACTORS if method.factor else RATES
    rate = recipe.lr if method.factor else recipe.lr / own_rate(own)
    inside = low <= rate <= high and recipe.optimizer in optimizers(own) and recipe.weight_decay <= DECAYS[1]
    if not inside or recipe.schedule not in ("cosine", "linear", "constant"):
        return None
    values: dict[str, Any] = {
        "optimizer": recipe.optimizer,
        "factor" if method.factor else "rate": rate,
        "weight decay": max(recipe.weight_decay, DECAYS[0]),
        "batch": min(BATCHES, key=lambda known: abs(math.log(known / batch))),
    }
    if method.scheduled:
        values["schedule"] = recipe.schedule
    if _augments(signature):
        values["augment"] = recipe.augment
    return values


def own_rate(own: Recipe) -> float:
    """The rate that others are factors of; an optimizer that finds its own says nothing of theirs."""
    return Recipe().lr if OPTIMIZERS[own.optimizer].factor else own.lr


def shown(values: Mapping[str, Any]) -> str:
    """Values in a few words."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def _augments(signature: Signature) -> bool:
    return signature.layout in ("image", "volume") and find_spec("kornia") is not None
