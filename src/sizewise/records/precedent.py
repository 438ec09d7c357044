"""What finished studies leave for later ones, and what these take from it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from sizewise.records.estimate import Estimate
from sizewise.records.trial import Recipe
from sizewise.records.tuned import Proposal


@dataclasses.dataclass(frozen=True)
class Precedent:
    """A finished study in numbers: its task, its recipe and its answer, and none of its data.

    Attributes:
        key: hash of what it was about; the same study again takes the old one's place.
        name: of the task, without its folder.
        features: of the task, by the names in `library.SCALES`.
        recipe: that it trained with, at the reference width; `recipes` are the best of a search, if there was one.
        smallest, largest: parameters of the ends of its ladder.
        width, params, status: of its choice.
        exponents: by metric, of the power of parameters that its law falls with, where it has one to rely on.
        seconds: of training, of all `runs` of the sweep.
    """

    key: str
    name: str
    problem: str
    layout: str
    family: str
    metric: str
    features: dict[str, float]
    recipe: Recipe
    smallest: int
    largest: int
    width: int
    params: int
    status: Literal["supported", "extrapolated", "undetermined"]
    margin: float
    score: Estimate
    exponents: dict[str, Estimate]
    runs: int
    seconds: float
    recipes: tuple[Proposal, ...] = ()


@dataclasses.dataclass(frozen=True)
class Guess:
    """Where the right size may lie, before anything is trained. It decides nothing.

    Attributes:
        width: of the plan's, the nearest in parameters.
        params: what is guessed; `uninformed` is what would be without precedents: the ladder's middle and its ends.
        precedents: the name of each and how far it is, nearest first, see `library.distance`.
        weight: share of the guess that comes from them and not from the ladder, in [0, 1].
        exponents: by metric, of the law that may be found.
    """

    width: int
    params: Estimate
    uninformed: Estimate
    precedents: tuple[tuple[str, float], ...]
    weight: float
    exponents: dict[str, Estimate]
