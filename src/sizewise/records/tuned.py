"""A recipe that was searched for, and what it is worth."""

from __future__ import annotations

import dataclasses
from typing import Literal

from sizewise.records.choice import Comparison
from sizewise.records.estimate import Estimate
from sizewise.records.trial import Recipe


@dataclasses.dataclass(frozen=True)
class Verification:
    """The tuned recipe (a) beside the study's own (b) at one width, over seeds that the search did not see.

    Attributes:
        validation: on the validation split, which the search looked at.
        fresh: on the part of the training split that neither recipe learned from, of `samples` examples.
        optimism: how much larger the gain is on validation than on the fresh part, in the metric's unit, over seeds.
        verdict: by the fresh part.
    """

    width: int
    params: int
    validation: Comparison
    fresh: Comparison
    optimism: Estimate
    samples: int
    verdict: Literal["better", "worse", "undetermined"]


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What a search tries: a recipe, at the reference width, and the family that is trained by it."""

    recipe: Recipe
    family: str


@dataclasses.dataclass(frozen=True)
class Tried:
    """A recipe that a search trained once.

    Attributes:
        loss: of the validation split, as small as any that took no longer.
        seconds: of training.
    """

    recipe: Recipe
    family: str
    loss: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class TunedRecipe:
    """What `tune` found.

    Attributes:
        own, recipe: the study's recipe, and of the few with the lowest validation losses the one that is best over
            other seeds, both at the reference width.
        own_family, family: the study's, and the one that did best, which may differ in depth.
        width: that it was searched for at, of the study's own family.
        tried, stopped: proposals, and those among them that were stopped early.
        failed: why proposals could not be done.
        seconds, early_seconds: of training the search and the best few over other seeds, and of what was stopped early;
            `verify_seconds` came after.
        verified: at `width`, and at a larger one.
        leaders: the best few, best first, for the library.
        frontier: where training time was to be short, too: the recipes with the lowest loss for their time, fastest
            first, of one run each.
    """

    own: Recipe
    recipe: Recipe
    own_family: str
    family: str
    width: int
    tried: int
    stopped: int
    failed: tuple[str, ...]
    seconds: float
    early_seconds: float
    verify_seconds: float
    verified: tuple[Verification, ...]
    leaders: tuple[Proposal, ...] = ()
    frontier: tuple[Tried, ...] = ()
