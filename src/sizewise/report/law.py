"""All that the page knows of a law: its curve to draw and its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from sizewise.records import Law, Run
from sizewise.report import format as f

BAND = 0.9
BAND_NOTE = "90% band of the law, if its form is right"
POINTS = 60


@dataclass(frozen=True)
class Curve:
    """A law over a range of sizes.

    Attributes:
        params, value, low, high: shape (points,), sizes increasing; low and high bound the band.
        first, last: ends of the evidence, both among `params`.
    """

    params: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    first: float
    last: float


def curve(law: Law, reach: tuple[float, float]) -> Curve | None:
    """The law from `reach[0]` to `reach[1]` parameters, None if nothing could be fitted."""
    if not law.draws:
        return None
    first, last = map(float, law.params_range)
    # The ends of the evidence are points of the grid, so that what is inside meets what is outside.
    params = np.unique([*np.geomspace(*reach, POINTS), first, last])
    draws = np.array(law.draws)
    curves = draws[:, 0:1] + draws[:, 1:2] * params[None] ** -draws[:, 2:3]
    low, high = np.quantile(curves, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    return Curve(params, law.floor + law.amplitude * params**-law.exponent, low, high, first, last)


def formula(law: Law) -> Markup | None:
    """The fitted formula with its intervals, None if nothing could be fitted."""
    if not law.draws:
        return None
    floor, exponent = f.shown(law.floor_interval, "number"), f.shown(law.exponent_interval, "number")
    return Markup(
        "{metric}(N) = {floor} + {amplitude} · N<sup>−{exponent}</sup>, "
        'floor <span title="{floor_note}">{floor_interval}</span>, '
        'exponent <span title="{exponent_note}">{exponent_interval}</span> '
        "({level}, {runs}; N is the number of parameters)"
    ).format(
        metric=law.metric,
        floor=floor.value,
        amplitude=f.number(law.amplitude),
        exponent=exponent.value,
        floor_interval=floor.interval,
        exponent_interval=exponent.interval,
        floor_note=floor.note,
        exponent_note=exponent.note,
        level=f"{100 * law.exponent_interval.level:.0f}% intervals",
        runs=f.counted(len(law.points), "run"),
    )


def observed(law: Law) -> Callable[[Run], float]:
    """What the law speaks of, for one run."""
    if law.metric == "loss":
        return lambda run: run.validation.loss
    return lambda run: 1 - run.validation.accuracy
