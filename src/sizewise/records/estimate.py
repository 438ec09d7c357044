"""An uncertain number, and what is measured by it."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An uncertain number: the only way one leaves this library.

    Attributes:
        value: point estimate, in the unit named by the field that holds it.
        low, high: ends of the interval, same unit.
        level: nominal coverage of the interval, in (0, 1).
        method: how the interval was made, in words.
        n: how many independent repeats (seeds, examples or blocks; `method` says which) stand behind it.
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    n: int


@dataclasses.dataclass(frozen=True)
class Metric:
    """The score that sizes are chosen by.

    Attributes:
        name: as the field writes it, for example "accuracy".
        higher: whether more is better.
        share: whether it lies in [0, 1] and is written in per cent, and its differences in points.
        margin: difference that does not matter unless the study says otherwise, in the metric's unit.
    """

    name: str
    higher: bool = True
    share: bool = True
    margin: float = 0.005

    @property
    def range(self) -> tuple[float, float]:
        """Least and largest value; an error rate counts what is too much as well, and may go beyond 1."""
        if not self.share:
            return -math.inf, math.inf
        return 0.0, 1.0 if self.higher else math.inf

    def gain(self, a: float, b: float) -> float:
        """How much better a is than b, in the metric's unit."""
        return a - b if self.higher else b - a
