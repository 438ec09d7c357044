"""What a search may vary around a study's own: the recipe, and the shape of models that have as many parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

import torch

from sizewise import families
from sizewise.config import Study
from sizewise.errors import UsageError
from sizewise.recipe import OPTIMIZERS, dropout_layers
from sizewise.records import Proposal, Recipe, Signature

RATES = (0.1, 10.0)
"""Factors of an optimizer's usual learning rate, which is the study's own. One that finds its rate takes a factor of
that, and is less sensitive to it: the root of these."""

CLOSE = 1.05
"""Factor within which a rate counts as an end of the range."""

STEP = 3.0
"""Factor of the rate that is tried at once."""

DECAYS = (1e-6, 1e-1)
DOUBLINGS = (-1, 1)
"""Of the study's own batch."""

SCHEDULES = ("cosine", "linear", "constant")
DROPOUTS = (0.0, 0.5)
LENGTHS = (0.1, 1.0)
"""Shares of the study's own epochs, where training time is to be short, too."""

USUAL = 0.1
"""Dropout of the built-in families that have any."""

PACKAGES = {"schedule-free": "schedulefree", "prodigy": "prodigyopt"}


def optimizers(own: Recipe) -> tuple[str, ...]:
    """The study's own, AdamW, and those that adapt more than a step's size, as far as their packages are there."""
    adaptive = [name for name, package in PACKAGES.items() if find_spec(package)]
    return tuple(dict.fromkeys((own.optimizer, "adamw", *adaptive)))


def schedules(own: Recipe) -> tuple[str, ...]:
    """The study's own, and the usual ones."""
    return tuple(dict.fromkeys((own.schedule, *SCHEDULES)))


def decays(own: Recipe) -> tuple[float, float]:
    """The range of weight decay, which the study's own lies in."""
    return DECAYS[0], max(own.weight_decay, DECAYS[1])


@dataclass(frozen=True)
class Space:
    """What may be varied at one size.

    Attributes:
        own: the study's recipe and family; what is not varied is theirs.
        shapes: families that differ in depth, each with the width at which it has as many parameters as the study's own
            has at the size in question, as nearly as may be. Its own is among them.
        drops: whether the models have layers of dropout.
        shortened: whether shorter training is tried, too.
    """

    own: Proposal
    signature: Signature
    shapes: Mapping[str, int]
    drops: bool
    shortened: bool = False

    @classmethod
    def of(
        cls, study: Study, signature: Signature, width: int, *, shaped: bool = True, shortened: bool = False
    ) -> Space:
        """The space around a study at a width; without `shaped` its depth is kept."""
        names = families.shapes(study.family) if shaped else (study.family,)
        with torch.device("meta"):
            module = families.load(study.family, signature).build(width)
        return cls(
            own=Proposal(study.recipe, study.family),
            signature=signature,
            shapes={name: w for name in names if (w := equal_width(study.family, width, name, signature))},
            drops=any(True for _ in dropout_layers(module)),
            shortened=shortened,
        )

    def propose(self, trial: Any) -> Proposal:
        """What Optuna chooses, by one of its trials.

        All parameters are asked for whatever the optimizer, so that what is learned of one serves the others. A
        schedule does nothing where the optimizer needs none.
        """
        own = self.own.recipe
        name = trial.suggest_categorical("optimizer", optimizers(own))
        rate, schedule = (
            trial.suggest_float("rate", *RATES, log=True),
            trial.suggest_categorical("schedule", schedules(own)),
        )
        method = OPTIMIZERS[name]
        recipe = replace(
            own,
            optimizer=name,
            lr=math.sqrt(rate) if method.factor else own_rate(own) * rate,
            weight_decay=self._decay(trial),
            batch_size=max(1, round(own.batch_size * 2.0 ** trial.suggest_int("batch doublings", *DOUBLINGS))),
            schedule=schedule if method.scheduled else own.schedule,
            augment=trial.suggest_categorical("augment", (False, True)) if self._augments else own.augment,
            dropout=self._dropout(trial) if self.drops else own.dropout,
            epochs=self._epochs(trial) if self.shortened else own.epochs,
        )
        shapes = tuple(self.shapes)
        return Proposal(recipe, trial.suggest_categorical("shape", shapes) if len(shapes) > 1 else self.own.family)

    def values_of(self, recipe: Recipe, family: str = "") -> dict[str, Any] | None:
        """What `propose` would have to be told to make a recipe that is like this one; None if none is like it.

        A number outside its range becomes the end of the range: the study's own rate may be so small that what served
        others lies beyond.

        Args:
            family: a shape of the study's own; what is none that may be tried stands for the study's own.
        """
        own, method = self.own.recipe, OPTIMIZERS[recipe.optimizer]
        rate = recipe.lr**2 if method.factor else recipe.lr / own_rate(own)
        low, high = decays(own)
        if recipe.optimizer not in optimizers(own) or recipe.schedule not in schedules(own):
            return None
        doublings = round(math.log2(recipe.batch_size / own.batch_size))
        values: dict[str, Any] = {
            "optimizer": recipe.optimizer,
            "rate": min(max(rate, RATES[0]), RATES[1]),
            "schedule": recipe.schedule,
            "weight decay": min(max(recipe.weight_decay, low), high),
            "batch doublings": min(max(doublings, DOUBLINGS[0]), DOUBLINGS[1]),
        }
        if self._augments:
            values["augment"] = recipe.augment
        if self.drops:
            values["dropout"] = min(USUAL if recipe.dropout is None else recipe.dropout, DROPOUTS[1])
        if len(self.shapes) > 1:
            values["shape"] = family if family in self.shapes else self.own.family
        if self.shortened:
            values["length"] = min(max(recipe.epochs / own.epochs, LENGTHS[0]), LENGTHS[1])
        return values

    def first(self, known: Sequence[Proposal]) -> list[dict[str, Any]]:
        """What is tried before anything is learned: the study's own recipe, known ones, and two that differ from it in
        what is likeliest to be wrong with it: the rate, found by an optimizer itself, with augmentation where there can
        be any, and a larger rate without.
        """
        own = self.own.recipe
        finding = replace(own, optimizer="prodigy", lr=1.0, augment=own.augment or self._augments)
        guesses = (finding, replace(own, lr=own.lr * STEP))
        tried = (self.own, *known, *(Proposal(one, self.own.family) for one in guesses))
        return [values for one in tried if (values := self.values_of(one.recipe, one.family)) is not None]

    def _epochs(self, trial: Any) -> int:
        share: float = trial.suggest_float("length", *LENGTHS, log=True)
        return max(1, round(self.own.recipe.epochs * share))

    def _decay(self, trial: Any) -> float:
        """The lower end of the range stands for none, which a logarithm has no place for."""
        decay: float = trial.suggest_float("weight decay", *decays(self.own.recipe), log=True)
        return 0.0 if decay == DECAYS[0] else decay

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


def at_an_end(own: Recipe, recipe: Recipe) -> Literal["smallest", "largest"] | None:
    """Which end of the rates that are tried a recipe's lies at, if it does: a better one may lie beyond.

    An optimizer that finds its rate lies nowhere: its factor seldom matters so much.
    """
    if OPTIMIZERS[recipe.optimizer].factor:
        return None
    low, high = (own_rate(own) * factor for factor in RATES)
    if recipe.lr >= high / CLOSE:
        return "largest"
    return "smallest" if recipe.lr <= low * CLOSE else None


def shown(values: Mapping[str, Any]) -> str:
    """Values in a few words."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
