"""All that the page knows of a law: its curve to draw and its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from sizewise import laws
from sizewise.records import Law, Run
from sizewise.report import format as f

BAND = 0.9
BAND_NOTE = "90% band for a new run"
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
    if not law.forms:
        return None
    first, last = law.box["params"]
    # The ends of the evidence are points of the grid, so that what is inside meets what is outside.
    params = np.unique([*np.geomspace(*reach, POINTS), first, last])
    said = laws.predict(law, [{"params": float(n)} for n in params], level=BAND)
    value, low, high = (np.array([getattr(e, name) for e in said]) for name in ("value", "low", "high"))
    return Curve(params, value, low, high, first, last)


def formula(law: Law) -> Markup | None:
    """The leading form with its parameters and their intervals, None if nothing could be fitted."""
    if not law.forms:
        return None
    lead = law.forms[0]
    shown = [(name, f.shown(e, "number")) for name, e in lead.parameters.items()]
    values = Markup(", ").join(
        Markup('{} = {} <span title="{}">{}</span>').format(name, one.value, one.note, one.interval)
        for name, one in shown
    )
    level = f"{100 * next(iter(lead.parameters.values())).level:.0f}% intervals"
    others = ", ".join(f"{form.form} {100 * form.weight:.0f}%" for form in law.forms)
    return Markup("{} with {} ({}, {}). The curve weighs {}.").format(
        lead.formula, values, level, f.counted(law.runs, "run"), others
    )


def observed(law: Law) -> Callable[[Run], float]:
    """What the law speaks of, for one run."""
    if law.metric == "loss":
        return lambda run: run.validation.loss
    return lambda run: run.validation.error
