"""What a search may vary around a study's own: the recipe, and the shape of models that have as many parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch

from sizewise import families
from sizewise.config import Study
from sizewise.errors import UsageError
from sizewise.recipe import OPTIMIZERS, dropout_layers
from sizewise.records import Recipe, Signature

RATES = (0.1, 10.0)
"""Factors of the study's own learning rate."""

FACTORS = (0.3, 3.0)
"""What an optimizer that finds its rate takes as a factor of it."""

DECAYS = (1e-6, 1e-1)
BATCHES = (0.5, 1.0, 2.0)
"""Of the study's own batch."""

SCHEDULES = ("cosine", "linear", "constant")
DROPOUTS = (0.0, 0.5)
USUAL = 0.1
"""Dropout of the built-in families that have any."""

PACKAGES = {"schedule-free": "schedulefree", "prodigy": "prodigyopt"}


def optimizers(own: Recipe) -> tuple[str, ...]:
    """The study's own, AdamW, and those that adapt more than a step's size, as far as their packages are there."""
    adaptive = [name for name, package in PACKAGES.items() if find_spec(package)]
    return tuple(dict.fromkeys((own.optimizer, "adamw", *adaptive)))


@dataclass(frozen=True)
class Proposal:
    """What a search tries: a recipe, at the reference width, and the family that is trained by it."""

    recipe: Recipe
    family: str


@dataclass(frozen=True)
class Space:
    """What may be varied at one size.

    Attributes:
        own: the study's recipe and family; what is not varied is theirs.
        shapes: families that differ in depth, each with the width at which it has as many parameters as the study's own
            has at the size in question, as nearly as may be. Its own is among them.
        drops: whether the models have layers of dropout.
    """

    own: Proposal
    signature: Signature
    shapes: Mapping[str, int]
    drops: bool

    @classmethod
    def of(cls, study: Study, signature: Signature, width: int, *, shaped: bool = True) -> Space:
        """The space around a study at a width; without `shaped` its depth is kept."""
        names = families.shapes(study.family) if shaped else (study.family,)
        with torch.device("meta"):
            module = families.load(study.family, signature).build(width)
        return cls(
            own=Proposal(study.recipe, study.family),
            signature=signature,
            shapes={name: w for name in names if (w := equal_width(study.family, width, name, signature))},
            drops=any(True for _ in dropout_layers(module)),
        )

    def propose(self, trial: Any) -> Proposal:
        """What Optuna chooses, by one of its trials."""
        own = self.own.recipe
        name = trial.suggest_categorical("optimizer", optimizers(own))
        method = OPTIMIZERS[name]
        if method.factor:
            rate = trial.suggest_float("factor", *FACTORS, log=True)
        else:
            rate = own_rate(own) * trial.suggest_float("rate", *RATES, log=True)
        batch = trial.suggest_categorical("batch", BATCHES)
        schedule = trial.suggest_categorical("schedule", SCHEDULES) if method.scheduled else None
        augment = trial.suggest_categorical("augment", (False, True)) if self._augments else own.augment
        recipe = replace(
            own,
            optimizer=name,
            lr=rate,
            weight_decay=trial.suggest_float("weight decay", *DECAYS, log=True),
            batch_size=max(1, round(own.batch_size * batch)),
            schedule=schedule or own.schedule,
            augment=augment,
            dropout=self._dropout(trial) if self.drops else own.dropout,
        )
        shapes = tuple(self.shapes)
        return Proposal(recipe, trial.suggest_categorical("shape", shapes) if len(shapes) > 1 else self.own.family)

    def values_of(self, recipe: Recipe) -> dict[str, Any] | None:
        """What `propose` would have to be told to make a recipe that is like this one, of the study's own shape; None
        if it never would."""
        own, method = self.own.recipe, OPTIMIZERS[recipe.optimizer]
        low, high = FACTORS if method.factor else RATES
        rate = recipe.lr if method.factor else recipe.lr / own_rate(own)
        inside = low <= rate <= high and recipe.optimizer in optimizers(own) and recipe.weight_decay <= DECAYS[1]
        if not inside or recipe.schedule not in SCHEDULES:
            return None
        ratio = recipe.batch_size / own.batch_size
        values: dict[str, Any] = {
            "optimizer": recipe.optimizer,
            "factor" if method.factor else "rate": rate,
            "weight decay": max(recipe.weight_decay, DECAYS[0]),
            "batch": min(BATCHES, key=lambda known: abs(math.log(known / ratio))),
        }
        if method.scheduled:
            values["schedule"] = recipe.schedule
        if self._augments:
            values["augment"] = recipe.augment
        if self.drops:
            values["dropout"] = min(USUAL if recipe.dropout is None else recipe.dropout, DROPOUTS[1])
        if len(self.shapes) > 1:
            values["shape"] = self.own.family
        return values

    def _dropout(self, trial: Any) -> float | None:
        share: float = trial.suggest_float("dropout", *DROPOUTS)
        return None if share == USUAL else share

    @property
    def _augments(self) -> bool:
        return self.signature.layout in ("image", "volume") and find_spec("kornia") is not None


def equal_width(own: str, width: int, other: str, signature: Signature) -> int:
    """The width at which another family has as many parameters as a study's own has at `width`, as nearly as may be; 0
    if its smallest model has more."""
    if other == own:
        return width
    try:
        return families.load(other, signature).at(families.load(own, signature).params(width))
    except UsageError:
        return 0


def own_rate(own: Recipe) -> float:
    """The rate that others are factors of; an optimizer that finds its own says nothing of theirs."""
    return Recipe().lr if OPTIMIZERS[own.optimizer].factor else own.lr


def shown(values: Mapping[str, Any]) -> str:
    """Values in a few words."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
