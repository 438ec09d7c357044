"""What limits the runs: too few parameters or too few samples, and whether larger is better at all.

Curves that rise are found by a scan: each group of neighbouring settings against each later one of as many, along one
variable with the others equal. Its threshold is what the largest rise would be by noise alone if the curve were flat,
which among all falling curves is the one that rises most often by luck (as for isotonic regression: Robertson, Wright &
Dykstra 1988, chapter 2; scans over scales: Dümbgen & Spokoiny 2001, doi:10.1214/aos/996986504).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sizewise.errors import UsageError
from sizewise.laws.decide.draws import belief, refused
from sizewise.laws.decide.shortages import Shortages
from sizewise.laws.intake.evidence import Array, Evidence, Ints
from sizewise.records import Estimate, Finding, Law

FALSE_ALARM = 0.02
DRAWS = 499
WINDOWS = (1, 2, 4)
FEWEST_SETTINGS, MOST_PLACES = 4, 32
SPARE = 5
"""Degrees of freedom between repeats from which these tell the noise; with fewer, neighbours do."""

MATTERS = 0.005
"""Relative rise below which a curve counts as flat."""

ALIKE = math.log(1.1)
"""Runs closer than this are of one size: what sets them apart is something else, such as their shape."""

MEDIAN = math.pi / 2
"""Variance of a median over that of a mean."""

NEXT = {"params": "more parameters", "samples": "more samples"}


@dataclass(frozen=True)
class _Slice:
    """Settings along one variable, the others equal, in its order; each array is (places,).

    Attributes:
        at: log of the variable; middle: median log y of a setting's runs; weight: what that is worth in runs.
        rows: of the evidence, for each place.
    """

    variable: str
    at: Array
    middle: Array
    weight: Array
    rows: tuple[Ints, ...]
    others: str


@dataclass(frozen=True)
class _Rise:
    """The largest rise of a slice: from a window of places to a later one, in units of its standard error."""

    z: float
    start: int
    end: int
    window: int


def limits(law: Law, evidence: Evidence, *, at: dict[str, float] | None = None) -> tuple[Finding, ...]:
    """What limits the runs that a law was fitted to, the most pressing first.

    Args:
        at: the run in question, by variable; None takes the largest.

    Raises:
        UsageError: the run in question lacks a variable.
    """
    if at is not None and not all(at.get(v, 0.0) > 0 for v in law.variables):
        raise UsageError(f"the run in question is {at}", hint=f"give positive {' and '.join(law.variables)}")
    evidence = evidence.thinned()
    return (*_rises(evidence), *_shares(law, evidence, at), *_outliers(law))


# Capacity or data


def _shares(law: Law, evidence: Evidence, at: dict[str, float] | None) -> tuple[Finding, ...]:
    """Which of the two, taken without end, would take away more of the loss above the floor."""
    if refused(law):
        return ()
    place = evidence.log_x[evidence.scale.argmax()] if at is None else np.log([at[v] for v in law.variables])
    held = belief(law)
    gains, drawn = _gains(held.centre, place) @ held.weight, _gains(held.drawn, place)
    of_params, of_samples = (held.plain(float(gains[i]), drawn[i]) for i in range(2))
    difference = held.plain(float(gains[0] - gains[1]), drawn[0] - drawn[1])
    n, d = np.exp(place[:2])
    where = f"{'At the largest run' if at is None else 'At'} ({n:.3g} params, {d:.3g} samples)"
    said = (
        f"{where} unlimited parameters would take away {_percent(of_params)} of the reducible loss, "
        f"unlimited samples {_percent(of_samples)}"
    )
    shown = (of_params, of_samples, difference)
    if difference.low > 0:
        return (Finding("capacity-limited", f"{said}: the models are too small.", shown, f"spend on {NEXT['params']}"),)
    if difference.high < 0:
        return (Finding("data-limited", f"{said}: data is what is missing.", shown, f"spend on {NEXT['samples']}"),)
    step = "grow both together, or train runs that differ in one of them alone"
    return (Finding("not-enough-evidence", f"{said}: which of them limits is undetermined.", shown, step),)


def _gains(laws: Shortages, place: Array) -> Array:
    """Shares of the loss above the floor that go with infinite N and with infinite D, (2, rows)."""
    rest = laws.log_rest(place[0], place[1])
    p, q = laws.log_a - laws.alpha * place[0], laws.log_b - laws.beta * place[1]
    return np.asarray(-np.expm1(np.minimum(np.stack([q - rest, p - rest]), 0.0)))


def _percent(e: Estimate) -> str:
    return f"{e.value:.0%} [{e.low:.0%}, {e.high:.0%}]"


# Curves that rise


def _rises(evidence: Evidence) -> tuple[Finding, ...]:
    """At most one finding of a kind, for the slice that shows it most clearly."""
    slices = _slices(evidence)
    if not slices:
        return ()
    weights = [s.weight for s in slices]
    noise, spare = _repeats(evidence)
    observed = [s.middle[None] for s in slices]
    if spare < SPARE:
        noise = float(_neighbours(slices, observed)[0])
    noise = max(noise, 1e-9)
    threshold = _threshold(slices, weights, spare)
    found: dict[str, tuple[float, Finding]] = {}
    for s in slices:
        rise = _largest(s.middle / noise, s.weight)
        if rise.z > threshold and (finding := _named(s, rise, noise, threshold, evidence)) is not None:
            known = found.get(finding.code)
            if known is None or known[0] < rise.z:
                found[finding.code] = (rise.z, finding)
    return tuple(finding for _, finding in sorted(found.values(), key=lambda pair: -pair[0]))


def _slices(evidence: Evidence) -> list[_Slice]:
    """Along each variable, where there are enough settings with the others equal (within one per cent)."""
    made = []
    for j, variable in enumerate(evidence.variables):
        if variable == "unique" or len(evidence.y) == 0:
            continue
        rest = np.round(np.delete(evidence.log_x, j, axis=1), 2)
        _, group = np.unique(rest, axis=0, return_inverse=True)
        order = np.lexsort((evidence.log_x[:, j], group.reshape(-1)))
        for rows in np.split(order, np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1):
            names = [v for v in evidence.variables if v != variable]
            others = ", ".join(f"{np.exp(v):.3g} {n}" for v, n in zip(rest[rows[0]], names, strict=True))
            if (found := _slice(evidence, variable, j, rows, others)) is not None:
                made.append(found)
    return made


def _slice(evidence: Evidence, variable: str, j: int, rows: Ints, others: str) -> _Slice | None:
    places = np.split(rows, np.flatnonzero(np.diff(evidence.log_x[rows, j]) > 1e-9) + 1)
    if len(places) < FEWEST_SETTINGS:
        return None
    if len(places) > MOST_PLACES:
        ends = np.linspace(0, len(places), MOST_PLACES + 1).astype(int)
        places = [np.concatenate(places[a:b]) for a, b in pairwise(ends)]
    at = np.array([evidence.log_x[r, j].mean() for r in places])
    middle = np.array([np.median(evidence.log_y[r]) for r in places])
    weight = np.array([len(r) / (MEDIAN if len(r) > 2 else 1.0) for r in places])
    return _Slice(variable, at, middle, weight, tuple(places), others)


def _repeats(evidence: Evidence) -> tuple[float, int]:
    """Standard deviation of log y between repeats of a setting, and its degrees of freedom."""
    counts = np.bincount(evidence.setting)
    means = np.bincount(evidence.setting, evidence.log_y) / counts
    spare = len(evidence.y) - len(counts)
    squares = float(((evidence.log_y - means[evidence.setting]) ** 2).sum())
    return (math.sqrt(squares / spare) if spare else math.nan), spare


def _neighbours(slices: Sequence[_Slice], curves: Sequence[Array]) -> Array:
    """Noise from how far settings lie from the line between their neighbours (Gasser, Sroka & Jennen-Steinmetz 1986),
    the median over all slices, so that one outlier does not hide behind itself. Curves: (draws, places) each: (draws,).
    """
    off = []
    for s, curve in zip(slices, curves, strict=True):
        a = (s.at[2:] - s.at[1:-1]) / (s.at[2:] - s.at[:-2])
        variance = a**2 / s.weight[:-2] + 1 / s.weight[1:-1] + (1 - a) ** 2 / s.weight[2:]
        line = a * curve[:, :-2] + (1 - a) * curve[:, 2:]
        off.append(np.abs(curve[:, 1:-1] - line) / np.sqrt(variance))
    return np.asarray(1.4826 * np.median(np.concatenate(off, axis=1), axis=1))


def _threshold(slices: Sequence[_Slice], weights: Sequence[Array], spare: int) -> float:
    """The largest rise of all slices that noise around flat curves stays below, but for a share `FALSE_ALARM`."""
    rng = np.random.default_rng(0)
    curves = [rng.standard_normal((DRAWS, len(w))) / np.sqrt(w) for w in weights]
    noise = np.sqrt(rng.chisquare(spare, DRAWS) / spare) if spare >= SPARE else _neighbours(slices, curves)
    top = np.max([_scan(c / noise[:, None], w)[0] for c, w in zip(curves, weights, strict=True)], axis=0)
    return float(np.quantile(top, 1 - FALSE_ALARM))


def _scan(curve: Array, weight: Array) -> tuple[Array, Array]:
    """Largest rise of each curve (draws, places), in standard errors for unit noise: (draws,), and by window (windows,
    draws)."""
    tops = []
    for window in WINDOWS:
        if 2 * window > curve.shape[1]:
            break
        gap, error = _contrasts(curve, weight, window)
        tops.append((gap / error).max(axis=(1, 2)))
    each = np.stack(tops)
    return each.max(axis=0), each


def _contrasts(curve: Array, weight: Array, window: int) -> tuple[Array, Array]:
    """For windows starting at i < j, mean at j minus mean at i, (draws, i, j), and its standard error; no rise where
    they overlap."""
    total = np.concatenate([np.zeros((len(curve), 1)), (curve * weight).cumsum(axis=1)], axis=1)
    mass = np.concatenate([[0.0], weight.cumsum()])
    size = mass[window:] - mass[:-window]
    mean = (total[:, window:] - total[:, :-window]) / size
    gap = mean[:, None, :] - mean[:, :, None]
    start = np.arange(len(size))
    gap[:, start[None, :] < start[:, None] + window] = -1e9
    return gap, np.sqrt(1 / size[None, :] + 1 / size[:, None])


def _largest(curve: Array, weight: Array) -> _Rise:
    _, each = _scan(curve[None], weight)
    window = WINDOWS[int(each[:, 0].argmax())]
    gap, error = _contrasts(curve[None], weight, window)
    z = gap[0] / error
    i, j = np.unravel_index(int(z.argmax()), z.shape)
    return _Rise(float(z[i, j]), int(i), int(j), window)


def _named(s: _Slice, rise: _Rise, noise: float, threshold: float, evidence: Evidence) -> Finding | None:
    """What a rise is: with a fall behind it that takes back at least half, a double descent, else a divergence.

    None when it does not matter.
    """
    gap, error = _contrasts(s.middle[None], s.weight, rise.window)
    size, reach = float(gap[0, rise.start, rise.end]), noise * float(error[rise.start, rise.end]) * threshold
    if size < MATTERS or s.at[rise.end] - s.at[rise.start] < ALIKE:
        return None
    after = -gap[0, rise.end, rise.end + rise.window :]  # how far later windows lie below the peak
    clear = after > threshold * noise * error[rise.end, rise.end + rise.window :]
    falls = bool(clear.any() and after[-1] > size / 2)
    low, high = (slice(i, i + rise.window) for i in (rise.start, rise.end))
    ratio = Estimate(
        math.exp(size), math.exp(size - reach), math.exp(size + reach), 1 - FALSE_ALARM,
        "ratio of medians, threshold of the scan", sum(len(r) for r in (*s.rows[low], *s.rows[high])),
    )  # fmt: skip
    upper = np.concatenate(s.rows[high])
    labels = ", ".join(str(int(v)) for v in evidence.label[upper][:10]) + (" …" if len(upper) > 10 else "")
    start, end = (float(np.exp(np.mean(s.at[k]))) for k in (low, high))
    said = (
        f"From {start:.3g} to {end:.3g} {s.variable}{f' (at {s.others})' if s.others else ''} {evidence.metric} rises "
        f"{100 * (ratio.value - 1):.2g} % [{100 * (ratio.low - 1):.2g}, {100 * (ratio.high - 1):.2g}], more than noise "
        f"({'row' if len(upper) == 1 else 'rows'} {labels})"
    )
    alone = "; it is one run: repeat it with other seeds first" if len(upper) == 1 else ""
    if falls:
        return Finding(
            "double-descent",
            f"{said}, and falls again beyond: a law that only falls does not describe these runs.",
            (ratio,),
            f"fit the runs beyond the peak alone, or regularise those at it{alone}",
        )
    return Finding(
        "divergence",
        f"{said}, and does not come back: the largest runs are worse than smaller ones.",
        (ratio,),
        f"tune the learning rate and check the training of the largest runs{alone}",
    )


# Outliers


def _outliers(law: Law) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            "outliers",
            f"{o.count} of {law.runs} runs lie far from the law (rows {', '.join(map(str, o.rows))}"
            f"{' …' if o.count > len(o.rows) else ''}): {o.reason}.",
            (),
            "check how these runs were trained and recorded; repeat them with other seeds",
        )
        for o in law.outliers
    )


__all__ = ["limits"]
