"""Accuracy through loss: a law says what loss a run will have, and a sigmoid what accuracy goes with it.

score = low + (high - low)/(1 + exp(slope·(loss - midpoint))), with low at chance: Owen 2024 (arXiv:2401.04757); Llama 3
(arXiv:2407.21783, section 3.2.1); Gadre et al. 2024 (arXiv:2403.08540) do the same with an exponential. Loss is easier
to extrapolate than accuracy, which stays at chance, then jumps, then saturates.

Runs on one branch of the sigmoid do not determine the other. So each draw of the parameters is a fit to scores drawn
anew that is pulled weakly towards a random draw of what is usual (randomise, then optimise: Bardsley et al. 2014,
doi:10.1137/140964023): what the runs leave open stays open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sizewise.errors import UsageError
from sizewise.laws.forecast import LEVEL, forecast
from sizewise.laws.intake.evidence import Array, Evidence
from sizewise.records import Estimate, Law, Link

NAMES = ("midpoint", "slope", "low", "high")
DRAWS, SAMPLES = 250, 4_000
MOST_RUNS = 2_000
"""A link is fitted to at most this many runs, drawn at random but always the same; `reason` says so."""

FEWEST_LOSSES, FEWEST_VISIBLE = 5, 4
FLAT = 5e-3
"""Two-sided p-value above which a score is not believed to change with loss."""

USUAL, USUAL_SPREAD = np.array([-0.5, 0.6]), np.array([2.0, 0.8])
"""Midpoint and log slope before any run is seen, with the losses standardised; low and high lie anywhere they can."""

END_SPREAD = 0.1
UNKNOWN = 0.1
"""The share of a score's change beyond the losses seen by which the sigmoid may be off."""

HUBER = 1.345
LEAST_NOISE = 1e-4
ITERATIONS = 40


@dataclass(frozen=True)
class _Curve:
    """A fit, with theta = (midpoint, log slope, low, high) for losses less `centre` in units of `unit`.

    Attributes:
        theta: (4,); draws: (DRAWS, 4); noise: standard deviation of each score, (runs,); beyond: as `Link.scatter`.
    """

    centre: float
    unit: float
    theta: Array
    draws: Array
    noise: Array
    beyond: float
    freedom: float

    def natural(self, theta: Array) -> Array:
        midpoint, slope = self.centre + self.unit * theta[:, 0], np.exp(theta[:, 1]) / self.unit
        return np.stack([midpoint, slope, theta[:, 2], theta[:, 3]], axis=1)


def fit_link(
    loss: Sequence[float] | Array,
    score: Sequence[float] | Array,
    *,
    chance: float | None = None,
    examples: int | None = None,
    seed: int = 0,
) -> Link:
    """The link between the losses and the scores of the same runs.

    Args:
        loss: (runs,) in nats; score: (runs,) accuracy or error, in [0, 1].
        chance: the score of guessing; None fits it.
        examples: how many examples each score is a share of; it is then no less noisy than a binomial.

    Raises:
        UsageError: the lengths differ, or a number is outside its range.
    """
    x, y = np.asarray(loss, dtype=float).reshape(-1), np.asarray(score, dtype=float).reshape(-1)
    _check(x, y, chance, examples)
    given, (x, y) = len(x), _thinned(x, y)
    distinct = len(np.unique(x))
    if distinct < FEWEST_LOSSES:
        return _refused(x, examples, "insufficient", f"{distinct} different losses; a link needs {FEWEST_LOSSES}")
    r, p = _correlation(x, y)
    if not p < FLAT:
        return _refused(x, examples, "unreliable", f"the score does not change with loss (p = {p:.2g})")
    kind: Literal["accuracy", "error"] = "error" if r > 0 else "accuracy"
    if kind == "error":
        y, chance = 1 - y, None if chance is None else 1 - chance
    if chance is not None and float(np.median(y)) <= chance:
        return _refused(x, examples, "unreliable", "most scores are no better than chance")
    curve = _fitted(x, y, chance, examples, np.random.default_rng(seed))
    hidden, error, covered, near = _back_test(x, y, chance, examples, seed)
    good = covered >= 0.5 and near
    of = f" of {len(x):,} runs drawn from {given:,}" if given > len(x) else ""
    reason = (
        f"without the {hidden} lowest losses{of} it predicts their scores within {error:.3g}, "
        f"{covered:.0%} of them inside their intervals"
    )
    return Link(
        kind=kind,
        parameters=_estimates(curve, len(x)),
        draws=tuple(tuple(map(float, row)) for row in curve.natural(curve.draws)),
        scatter=curve.beyond,
        examples=examples,
        freedom=curve.freedom,
        box=(float(x.min()), float(x.max())),
        runs=len(x),
        hidden=hidden,
        error=error,
        covered=covered,
        status="supported" if good else "unreliable",
        reason=reason,
    )


def through(
    law: Law, link: Link, points: Sequence[dict[str, float]], level: float = LEVEL, *, seed: int = 0
) -> list[Estimate]:
    """The score of one new run at each point; its interval holds the law's uncertainty, the link's and the scatter.

    Args:
        law: of the same loss that the link was fitted to; points: its variables by name, in its units.
        level: nominal coverage in (0, 1).
    """
    if not law.forms or link.status != "supported":
        why = f"no law: {law.reason}" if not law.forms else f"no link: {link.reason}"
        return [Estimate(math.nan, math.nan, math.nan, level, why, 0) for _ in points]
    from scipy.special import stdtrit

    x = np.array([[point[v] for v in law.variables] for point in points], dtype=float).reshape(-1, len(law.variables))
    said, rng = forecast(law, x), np.random.default_rng(seed)
    t = stdtrit(law.freedom, (rng.permutation(SAMPLES) + 0.5) / SAMPLES)
    draws = np.resize(np.array(link.draws), (SAMPLES, len(NAMES)))
    noise = rng.standard_t(link.freedom, SAMPLES), rng.standard_normal(SAMPLES)
    centre = np.array([[link.parameters[name].value for name in NAMES]])
    made = []
    for mean, spread in zip(said.mean, said.spread, strict=True):
        losses = np.exp(np.minimum(mean + spread * t, 700.0))
        drawn = _scores(draws, losses, link, *noise)
        value = float(_curve(centre, np.array([math.exp(mean)]))[0])
        low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
        low, high = min(float(low), value), max(float(high), value)
        if link.kind == "error":
            value, low, high = 1 - value, 1 - high, 1 - low
        where = "within" if link.box[0] <= math.exp(mean) <= link.box[1] else "beyond"
        method = f"{SAMPLES:,} draws of the law's loss through the link, {where} the losses seen"
        made.append(Estimate(value, low, high, level, method, min(law.runs, link.runs)))
    return made


def _scores(draws: Array, losses: Array, link: Link, heavy: Array, normal: Array) -> Array:
    """Scores of single runs with these losses, each by its own draw, (draws,)."""
    score = _curve(draws, losses)
    # Beyond the losses seen a share of the change is unknown, as it is for laws.
    unknown = UNKNOWN * np.abs(score - _curve(draws, np.clip(losses, *link.box)))
    binomial = 0.0 if link.examples is None else score * (1 - score) / link.examples
    return np.clip(score + link.scatter * heavy + np.sqrt(unknown**2 + binomial) * normal, 0.0, 1.0)


def _curve(natural: Array, losses: Array) -> Array:
    from scipy.special import expit

    midpoint, slope, low, high = natural.T
    return np.asarray(low + (high - low) * expit(-slope * (losses - midpoint)))


def _check(x: Array, y: Array, chance: float | None, examples: int | None) -> None:
    if len(x) != len(y):
        raise UsageError(f"{len(x)} losses and {len(y)} scores", hint="give one score for each loss")
    if not (np.isfinite(x).all() and (y >= 0).all() and (y <= 1).all()):
        raise UsageError("losses must be finite and scores in [0, 1]", hint="divide percentages by 100")
    if (chance is not None and not 0 <= chance < 1) or (examples is not None and examples < 1):
        raise UsageError("chance is a share and examples a count", hint="for example chance=0.25, examples=1000")


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    if len(x) <= MOST_RUNS:
        return x, y
    rows = np.sort(np.random.default_rng(0).choice(len(x), MOST_RUNS, replace=False))
    return x[rows], y[rows]


def _correlation(x: Array, y: Array) -> tuple[float, float]:
    """Pearson's correlation and its two-sided p-value."""
    from scipy.special import stdtr

    if np.ptp(y) == 0:
        return 0.0, 1.0
    r = float(np.corrcoef(x, y)[0, 1])
    t = abs(r) * math.sqrt((len(x) - 2) / max(1 - r * r, 1e-15))
    return r, 2 * float(stdtr(len(x) - 2, -t))


def _fitted(x: Array, y: Array, chance: float | None, examples: int | None, rng: np.random.Generator) -> _Curve:
    centre, unit = float(np.median(x)), float(x.std())
    z = (x - centre) / unit
    bounds = _bounds(y, chance)
    middle = np.concatenate([USUAL, bounds[:, 2:].mean(axis=0)])
    starts = np.array([[m, s, bounds[0, 2], bounds[1, 3]] for m in (-2.0, -1.0, 0.0, 1.0) for s in (-0.3, 0.6, 1.5)])
    noise, beyond = np.full(len(x), max(0.1 * float(y.std()), LEAST_NOISE)), 0.0
    freedom = float(max(len(x) - (3 if chance is not None else 4), 2))
    for _ in range(3):  # the noise decides how much the usual pulls, and the fit what is noise
        theta, cost = _descend(starts, z, np.broadcast_to(y, (len(starts), len(y))), noise, middle, bounds)
        best = theta[cost.argmin()]
        fit = _sigmoid(best[None], z)[0][0]
        residual = np.abs(fit - y)
        clipped = np.minimum(residual, 3 * 1.4826 * float(np.median(residual)) + LEAST_NOISE)
        variance = float((clipped**2).sum()) / freedom
        # Add-two counts: a score of exactly 1 is not free of noise.
        binomial = np.zeros(len(x)) if examples is None else _wary(fit, examples) / examples
        beyond = math.sqrt(max(variance - float(binomial.mean()), 0.0))
        noise = np.sqrt(np.maximum(binomial + beyond**2, LEAST_NOISE**2))
    heavy = np.sqrt(freedom / rng.chisquare(freedom, (DRAWS, 1)))
    anew = np.clip(fit + heavy * noise * rng.standard_normal((DRAWS, len(x))), 0.0, 1.0)
    usual = USUAL + USUAL_SPREAD * rng.standard_normal((DRAWS, 2))
    ends = bounds[0, 2:] + (bounds[1, 2:] - bounds[0, 2:]) * rng.random((DRAWS, 2))
    draws, _ = _descend(np.tile(best, (DRAWS, 1)), z, anew, noise, np.concatenate([usual, ends], axis=1), bounds)
    return _Curve(centre, unit, best, draws, noise, beyond, freedom)


def _wary(share: Array, examples: int) -> Array:
    p = (share * examples + 2) / (examples + 4)
    return np.asarray(p * (1 - p))


def _bounds(y: Array, chance: float | None) -> Array:
    """Where theta may be, (2, 4): the lower end not far above the lowest scores, the upper not far below the highest.

    Scores scatter, so an end may lie a little inside of them.
    """
    lowest, highest = np.quantile(y, [0.1, 0.9])
    low, room = (0.0, float(lowest) + 0.02) if chance is None else (chance, chance)
    return np.array([[-8.0, -2.5, low, max(float(highest) - 0.02, low + 0.01)], [8.0, 3.5, room, 1.0]])


def _sigmoid(theta: Array, z: Array) -> tuple[Array, Array]:
    """Scores (rows, points) and their derivatives (rows, points, 4)."""
    from scipy.special import expit

    slope = np.exp(theta[:, 1, None])
    u = -slope * (z - theta[:, 0, None])
    s, reach = expit(u), (theta[:, 3] - theta[:, 2])[:, None]
    bend = reach * s * (1 - s)
    return theta[:, 2, None] + reach * s, np.stack([bend * slope, bend * u, 1 - s, s], axis=2)


def _descend(theta: Array, z: Array, y: Array, noise: Array, usual: Array, bounds: Array) -> tuple[Array, Array]:
    """Levenberg-Marquardt on Huber's loss plus a pull to what is usual, all rows at once: theta and cost, (rows,)."""
    spread = np.array([*USUAL_SPREAD, END_SPREAD, END_SPREAD])
    pull, free = np.diag(1 / spread**2), (bounds[0] < bounds[1]).astype(float)
    damping = np.full(len(theta), 1e-2)

    def cost_of(candidate: Array) -> Array:
        r = np.abs(_sigmoid(candidate, z)[0] - y) / noise
        huber = np.where(r < HUBER, r**2, HUBER * (2 * r - HUBER)).sum(axis=1)
        return np.asarray(huber + (((candidate - usual) / spread) ** 2).sum(axis=1))

    theta = np.clip(theta, *bounds)
    cost = cost_of(theta)
    for _ in range(ITERATIONS):
        value, slope = _sigmoid(theta, z)
        r = (value - y) / noise
        slope = slope * free / noise[:, None]
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(r), 1e-12))
        weighted = (slope * weight[:, :, None]).transpose(0, 2, 1)
        hessian = weighted @ slope + pull
        gradient = (weighted @ r[:, :, None])[:, :, 0] + (theta - usual) / spread**2
        damped = hessian * (1 + damping[:, None, None] * np.eye(4))
        trial = np.clip(theta - np.linalg.solve(damped, gradient[:, :, None])[:, :, 0], *bounds)
        new = cost_of(trial)
        better = new < cost
        damping = np.where(better, damping / 5, np.minimum(damping * 4, 1e8))
        if (np.abs(new - cost) <= 1e-6 * (1 + cost)).all():
            break
        theta, cost = np.where(better[:, None], trial, theta), np.where(better, new, cost)
    return theta, cost


def _back_test(
    x: Array, y: Array, chance: float | None, examples: int | None, seed: int
) -> tuple[int, float, float, bool]:
    """Fitted without the lowest third of the losses: how many runs that hides, the error and coverage of their scores,
    and whether the lowest one is within twice its interval."""
    distinct = np.unique(x)
    visible = x >= distinct[min(max(len(distinct) // 3, 1), len(distinct) - FEWEST_VISIBLE)]
    rng = np.random.default_rng(seed)
    curve = _fitted(x[visible], y[visible], chance, examples, rng)
    link = _bare(curve, examples, (float(x[visible].min()), float(x[visible].max())))
    draws, hidden = np.array(link.draws), np.flatnonzero(~visible)
    centre = _curve(curve.natural(curve.theta[None]), x[hidden])
    ends = []
    for i in hidden:
        heavy, normal = rng.standard_t(link.freedom, DRAWS), rng.standard_normal(DRAWS)
        drawn = _scores(draws, np.full(DRAWS, x[i]), link, heavy, normal)
        ends.append(np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
    low, high = np.array(ends).T
    inside = (low - LEAST_NOISE <= y[hidden]) & (y[hidden] <= high + LEAST_NOISE)
    last = int(x[hidden].argmin())
    reach = high[last] - low[last] + 2 * LEAST_NOISE
    near = low[last] - reach / 2 <= y[hidden][last] <= high[last] + reach / 2
    error = float(np.sqrt(np.mean((centre - y[hidden]) ** 2)))
    return len(hidden), error, float(inside.mean()), bool(near)


def _bare(curve: _Curve, examples: int | None, box: tuple[float, float]) -> Link:
    draws = tuple(tuple(map(float, row)) for row in curve.natural(curve.draws))
    return Link("accuracy", {}, draws, curve.beyond, examples, curve.freedom, box, 0, 0, 0, 0, "supported", "")


def _estimates(curve: _Curve, runs: int) -> dict[str, Estimate]:
    values, drawn = curve.natural(curve.theta[None])[0], curve.natural(curve.draws)
    low, high = np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    low, high = np.minimum(low, values), np.maximum(high, values)
    return {
        name: Estimate(float(v), float(a), float(b), LEVEL, f"{DRAWS} refits to scores drawn anew", runs)
        for name, v, a, b in zip(NAMES, values, low, high, strict=True)
    }


def _refused(x: Array, examples: int | None, status: Literal["unreliable", "insufficient"], reason: str) -> Link:
    box = (float(x.min()), float(x.max())) if len(x) else (math.nan, math.nan)
    return Link("accuracy", {}, (), math.nan, examples, math.nan, box, len(x), 0, math.nan, math.nan, status, reason)


def link_of(evidence: Evidence, *, chance: float | None = None, examples: int | None = None) -> Link | None:
    """The link between the losses and the scores of a table's runs; None when it names no scores."""
    if evidence.score is None:
        return None
    scored = np.isfinite(evidence.score)
    return fit_link(evidence.y[scored], evidence.score[scored], chance=chance, examples=examples)


__all__ = ["fit_link", "link_of", "through"]
