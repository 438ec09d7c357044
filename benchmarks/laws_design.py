"""What does it cost to know the compute-optimal size? Runs chosen one after the other, against fixed grids and chance.

    python benchmarks/laws_design.py --laws 200 --json --out design.json

Laws are drawn around published ones. Runs may use up to `MOST` FLOP each; what is to be known is log N_opt at 10 to 30
times that. Every design is fitted by least squares in log y with the form that is true, and gets the same 90 %
interval: delta method, Student's t, the residual variance of its own runs. Every design grows until that interval is as
narrow as asked for, and its compute then is what counts. A fixed design that outgrows its largest budget repeats its
runs, if need be by a fraction (the mean of r runs has the variance s²/r), so that none pays for being coarse.

"Best grid" is the one that needs least on the (geometric) average over all laws, chosen with hindsight; "best grid of
each law" is chosen law by law, which nobody could. Grids may stop growing at a hundredth or a tenth of the largest run
and repeat cheaper ones instead; "with large runs" is the best of those that do not. Ours starts from a pilot of nine
cheap runs, and sees only its own runs. Coverage is how often an interval held the true log N_opt when its design
stopped. Whoever stops at the first interval that is narrow enough, stops a little too often at one that is narrow by
luck; that is so for all designs, and `--looks 2` makes ours, and only ours, pay for a second look, in smaller batches.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from sizewise.laws import Evidence, fit_evidence
from sizewise.laws.decide import optimal_log_params
from sizewise.laws.design import OptimalParams, next_runs
from sizewise.laws.forms import Form, named
from sizewise.records import Law

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
VARIABLES = ("params", "samples")
MOST, RANGE, RATIOS = 1e20, 1e3, (1.0, 1000.0)
"""FLOP of the largest run that can be afforded, how many times smaller the smallest may be, samples per parameter."""

USUAL = 20.0
"""Samples per parameter around which iso-FLOP grids are laid (Hoffmann et al. 2022)."""

CENTRE = np.log([3e8, 6e9])
LEVEL = 0.9
STEP = 2.0
TOTALS = MOST * STEP ** np.arange(-6, 13)
"""Compute of a whole design, from least to most."""

LEAST_EXPONENT = 0.02
PILOT, GROWTH = 300.0, 0.2
"""The pilot's largest run is this many times smaller than the largest; each batch adds this share of what was spent."""


@dataclass(frozen=True)
class Laws:
    """True laws of one form, one a row, and how noisy their runs are.

    Attributes:
        theta: (laws, parameters) in logs centred at CENTRE.
        noise: standard deviation of log y; compute: FLOP to decide for; each (laws,).
    """

    form: Form
    theta: Array
    noise: Array
    compute: Array

    def take(self, rows: Ints) -> Laws:
        return replace(self, theta=self.theta[rows], noise=self.noise[rows], compute=self.compute[rows])

    def __len__(self) -> int:
        return len(self.theta)


@dataclass(frozen=True)
class Runs:
    """What was measured.

    Attributes:
        x: (points, 2) in centred logs; times, log_y: how often and with which mean, (laws, points).
        within: summed squares of log y around the points' means, (laws,).
    """

    x: Array
    times: Array
    log_y: Array
    within: Array

    @classmethod
    def none(cls, laws: int, x: Array) -> Runs:
        """No run has been made at these places yet."""
        times, log_y = np.zeros((2, laws, len(x)))
        return cls(x, times, log_y, np.zeros(laws))

    def add(self, law: int, place: int, log_y: float) -> None:
        """One more run of a law (Welford 1962)."""
        off = log_y - self.log_y[law, place]
        self.times[law, place] += 1
        self.log_y[law, place] += off / self.times[law, place]
        self.within[law] += off * (log_y - self.log_y[law, place])

    def take(self, rows: Ints) -> Runs:
        return replace(self, times=self.times[rows], log_y=self.log_y[rows], within=self.within[rows])


def draw(form: str, count: int, rng: np.random.Generator) -> Laws:
    """Each term is 8 to 60 % of the floor at 10^8 parameters and 10^9 samples, exponents 0.25 to 0.5."""
    alpha, beta = rng.uniform(0.25, 0.5, (2, count))
    floor = rng.uniform(1.0, 2.5, count)
    shares = np.log(floor * rng.uniform(0.08, 0.6, (2, count)))
    columns = [np.log(floor), shares[0] + alpha * np.log(1e8), shares[1] + beta * np.log(1e9), alpha, beta]
    if form == "coupled":
        columns.append(np.log(rng.uniform(0.5, 1.0, count)))
    chosen = named(form, VARIABLES)
    noise = np.exp(rng.uniform(np.log(0.003), np.log(0.02), count))
    theta = chosen.shifted(np.stack(columns, axis=1), CENTRE)
    return Laws(chosen, theta, noise, MOST * np.exp(rng.uniform(np.log(10), np.log(30), count)))


# Fixed designs: the compute of the largest run -> settings, (points, 3) in FLOP, samples per parameter and repeats.

Layout = Callable[[float], Array]


def isoflop(budgets: int, sizes: int, span: float, factor: float, *, even: bool = False) -> Layout:
    """Budgets over a range of `span`, each with sizes within `factor` of the usual optimum.

    Args:
        even: every budget gets the same share of all compute, so that cheap runs are repeated.
    """

    def lay(top: float) -> Array:
        compute = np.maximum(np.geomspace(top / span, top, budgets), MOST / RANGE)
        ratio = USUAL * np.geomspace(1 / factor, factor, sizes) ** 2
        crossed = np.stack(np.meshgrid(compute, ratio, indexing="ij"), axis=2).reshape(-1, 2)
        return np.column_stack([crossed, top / crossed[:, 0] if even else np.ones(len(crossed))])

    return lay


def factorial(sizes: int, amounts: int, span: float) -> Layout:
    """Sizes × amounts of data, each over a range of `span`, the largest of both at the usual ratio."""

    def lay(top: float) -> Array:
        largest = math.sqrt(top / 6 / USUAL)
        params, samples = np.meshgrid(
            np.geomspace(largest / span, largest, sizes), USUAL * np.geomspace(largest / span, largest, amounts)
        )
        return np.column_stack([6 * (params * samples).ravel(), (samples / params).ravel(), np.ones(params.size)])

    return lay


def chance(runs: int, seed: int) -> Layout:
    """Log-uniform in compute and ratio."""

    def lay(top: float) -> Array:
        u = np.random.default_rng(seed).uniform(size=(runs, 2))
        low = min(MOST / RANGE, top)
        compute = low * (top / low) ** u[:, 0]
        return np.column_stack([compute, RATIOS[0] * (RATIOS[1] / RATIOS[0]) ** u[:, 1], np.ones(runs)])

    return lay


@dataclass(frozen=True)
class Design:
    """A layout that grows with its compute: larger runs up to `top` of the largest there may be, then repeats."""

    layout: Layout
    top: float = 1.0

    def at(self, total: float) -> tuple[Array, Array]:
        """Settings and how often each is run: (points, 2) and (points,)."""
        x, times = settings(self.layout(MOST * self.top))
        price = float(cost_of(x) @ times)
        if price <= total:
            return x, times * total / price
        low, high = math.log(MOST / RANGE), math.log(MOST * self.top)
        for _ in range(20):
            middle = (low + high) / 2
            x, times = settings(self.layout(math.exp(middle)))
            low, high = (middle, high) if float(cost_of(x) @ times) <= total else (low, middle)
        return settings(self.layout(math.exp(low)))


LAYOUTS: dict[str, Layout] = {
    **{
        f"iso-FLOP {b} budgets over {span:g} × {s} sizes within {factor:g}": isoflop(b, s, span, factor)
        for b, s in ((3, 4), (5, 6), (9, 9))
        for span in (10, 100, 1000)
        for factor in (2, 4.4)
    },
    **{
        f"iso-FLOP {b} budgets over {span:g} × {s} sizes within 4.4, compute shared evenly": isoflop(
            b, s, span, 4.4, even=True
        )
        for b, s in ((3, 4), (5, 6))
        for span in (10, 100, 1000)
    },
    **{f"{n} sizes × {n} amounts over {span:g}": factorial(n, n, span) for n in (3, 5) for span in (5, 15, 31)},
}
GRIDS = {f"{name}, up to {top:g}": Design(lay, top) for name, lay in LAYOUTS.items() for top in (1.0, 0.1, 0.01)}
CHANCE = {f"random {n}, draw {seed}": Design(chance(n, seed)) for n in (12, 40) for seed in range(4)}


def settings(places: Array) -> tuple[Array, Array]:
    """Centred logs of parameters and samples, (points, 2), and repeats, (points,); those out of bounds are left out."""
    compute, ratio, times = places.T
    inside = (compute <= MOST * 1.001) & (compute >= MOST / RANGE * 0.999)
    inside &= (ratio >= RATIOS[0] * 0.999) & (ratio <= RATIOS[1] * 1.001)
    params = np.sqrt(compute / 6 / ratio)[inside]
    return np.log(np.column_stack([params, ratio[inside] * params])) - CENTRE, times[inside]


def cost_of(x: Array) -> Array:
    """FLOP of a run at each setting, (points,)."""
    return np.asarray(6 * np.exp((x + CENTRE).sum(axis=1)))


# The fit and its interval, the same for every design.


def fit(form: Form, runs: Runs, starts: Array) -> Array:
    """Least squares in log y from each start, (laws, starts, parameters); the best theta, (laws, parameters)."""
    laws, count, size = starts.shape
    owner = np.repeat(np.arange(laws), count)
    bounds = form.bounds(runs.x, runs.log_y[np.isfinite(runs.log_y)])
    theta = bounds.clip(starts.reshape(-1, size))
    weights, log_y = runs.times[owner], runs.log_y[owner]
    damping, loss = np.full(len(theta), 1e-3), _squares(form, theta, runs.x, log_y, weights)
    active = np.arange(len(theta))
    for _ in range(40):
        value, slope = form.jacobian(theta[active], runs.x)
        pull = weights[active][:, :, None] * slope
        gradient = np.einsum("rpk,rp->rk", pull, value - log_y[active])
        stuck = ((theta[active] <= bounds.low) & (gradient > 0)) | ((theta[active] >= bounds.high) & (gradient < 0))
        normal = np.matmul(pull.transpose(0, 2, 1), slope)
        normal[stuck[:, :, None] | stuck[:, None, :]] = 0.0
        diagonal = np.einsum("rkk->rk", normal)
        lift = damping[active][:, None] * np.maximum(diagonal, 1e-6 * diagonal.max(axis=1, keepdims=True)) + 1e-12
        step = -np.linalg.solve(normal + lift[:, :, None] * np.eye(size), np.where(stuck, 0, gradient)[:, :, None])
        trial = bounds.clip(theta[active] + step[:, :, 0])
        trial_loss = _squares(form, trial, runs.x, log_y[active], weights[active])
        gain = loss[active] - trial_loss
        better = gain > 0
        theta[active[better]], loss[active[better]] = trial[better], trial_loss[better]
        damping[active] *= np.where(better, 0.1, 8.0)
        active = active[~((np.abs(gain) < 1e-7 * loss[active]) | (damping[active] > 1e8))]
        if not len(active):
            break
    best = loss.reshape(laws, count).argmin(axis=1)
    return np.asarray(theta.reshape(starts.shape)[np.arange(laws), best])


def _squares(form: Form, theta: Array, x: Array, log_y: Array, weights: Array) -> Array:
    return np.asarray(np.einsum("rp,rp->r", weights, (form.value(theta, x) - log_y) ** 2))


def starts(form: Form, runs: Runs, count: int = 2) -> Array:
    """The form's own starts for each law, (laws, count, parameters)."""
    found = []
    for times, log_y in zip(runs.times, runs.log_y, strict=True):
        made = times > 0
        found.append(form.starts(runs.x[made], log_y[made], times[made], count))
    return np.stack(found)


def followed(form: Form, runs: Runs, before: Array | None) -> Array:
    """The fits to more runs than before, from the fits to those and from a start that knows nothing of them."""
    begun = starts(form, runs, 3 if before is None else 1)
    return fit(form, runs, begun if before is None else np.concatenate([before[:, None], begun], axis=1))


def optimum(laws: Laws, theta: Array) -> Array:
    """log N_opt of each row, (laws,); NaN where a fit puts it at no parameters or no samples."""
    product = np.log(laws.compute / 6)
    best = optimal_log_params(laws.form, laws.form.shifted(theta, -CENTRE), product)
    return np.where((best > 0) & (best < product), best, np.nan)


def interval(laws: Laws, runs: Runs, theta: Array) -> tuple[Array, Array, Array]:
    """log N_opt, half the width of its 90 % interval, and the residuals' standard deviation, each (laws,)."""
    form, size = laws.form, theta.shape[1]
    value, slope = form.jacobian(theta, runs.x)
    freedom = runs.times.sum(axis=1) - size
    squares = runs.within + (runs.times * (value - runs.log_y) ** 2).sum(axis=1)
    variance = squares / np.maximum(freedom, 1e-9)
    best = optimum(laws, theta)
    sides = [optimum(laws, theta + e) - optimum(laws, theta - e) for e in 1e-5 * np.eye(size)]
    gradient = np.stack(sides, axis=1) / 2e-5
    # By the amplitudes themselves, not their logs: a floor fitted as nothing still makes the exponents uncertain.
    unit = np.ones_like(theta)
    unit[:, :3] = np.exp(theta[:, :3])
    slope, gradient = slope / unit[:, None], gradient / unit
    precision = np.matmul((slope * runs.times[:, :, None]).transpose(0, 2, 1), slope) + 1e-9 * np.eye(size)
    along = np.linalg.solve(precision, gradient[:, :, None])[:, :, 0]
    error = np.sqrt(variance * np.einsum("rk,rk->r", gradient, along))
    half = np.where(freedom >= 1, student.ppf(0.5 + LEVEL / 2, np.maximum(freedom, 1)) * error, np.inf)
    return best, np.where(np.isfinite(half), half, np.inf), np.sqrt(variance)


@dataclass(frozen=True)
class Outcome:
    """Where a design stopped: compute (FLOP), runs, whether the interval held the truth, each (laws, targets)."""

    compute: Array
    runs: Array
    held: Array

    @classmethod
    def nowhere(cls, laws: int, targets: int) -> Outcome:
        """No design has stopped yet."""
        nothing = np.full((laws, targets), np.nan)
        return cls(np.full((laws, targets), np.inf), nothing, nothing.copy())


def fixed(laws: Laws, design: Design, targets: Array, rng: np.random.Generator) -> Outcome:
    """The least compute at which a fixed design's interval is as narrow as each target."""
    truth = optimum(laws, laws.theta)
    result = Outcome.nowhere(len(laws), len(targets))
    before, theta = np.full(len(laws), np.inf), np.zeros_like(laws.theta)
    active, started = np.arange(len(laws)), False
    for total in TOTALS:
        x, times = design.at(total)
        if len(x) <= theta.shape[1]:
            continue
        some = laws.take(active)
        made = _measured(some, x, times, rng)
        theta[active] = followed(laws.form, made, theta[active] if started else None)
        started = True
        value, half, _ = interval(some, made, theta[active])
        held = np.abs(value - truth[active]) <= half
        for j, target in enumerate(targets):
            new = (half <= target) & ~np.isfinite(result.compute[active, j])
            # log-log between two totals, so that no design pays for the steps between them
            with np.errstate(invalid="ignore"):
                back = np.log(target / half) / np.log(before[active] / half)
            back = np.where(np.isfinite(before[active]), np.clip(back, 0, 1), 0.0)
            result.compute[active[new], j] = (total * STEP**-back)[new]
            result.runs[active[new], j], result.held[active[new], j] = times.sum(), held[new]
        before[active] = half
        active = active[~np.isfinite(result.compute[active]).all(axis=1)]
        if not len(active):
            break
    return result


def _measured(laws: Laws, x: Array, times: Array, rng: np.random.Generator) -> Runs:
    shape = (len(laws), len(x))
    log_y = laws.form.value(laws.theta, x) + laws.noise[:, None] / np.sqrt(times) * rng.normal(size=shape)
    within = laws.noise**2 * rng.gamma((times.sum() - len(x)) / 2 + 1e-12, 2.0, len(laws))
    return Runs(x, np.broadcast_to(times, shape), log_y, within)


# Ours


def places() -> Array:
    """Where a run can be made, (candidates, 2): ten amounts of compute × nine ratios."""
    return crossed(np.geomspace(MOST / RANGE, MOST, 10), np.geomspace(*RATIOS, 9))


def crossed(compute: Array, ratio: Array) -> Array:
    both = np.meshgrid(compute, ratio, indexing="ij")
    return settings(np.column_stack([both[0].ravel(), both[1].ravel(), np.ones(both[0].size)]))[0]


def pilot(x: Array) -> Ints:
    """Nine cheap candidates: three ratios at each of three amounts of compute."""
    wanted = crossed(np.geomspace(MOST / RANGE, MOST / PILOT, 3), np.geomspace(2, 500, 3))
    return np.array([((x - w) ** 2).sum(axis=1).argmin() for w in wanted])


def measure(laws: Laws, runs: Runs, law: int, chosen: Ints, rng: np.random.Generator) -> None:
    """Run one law at the chosen places."""
    log_y = laws.form.value(laws.theta[law][None], runs.x[chosen])[0] + laws.noise[law] * rng.normal(size=len(chosen))
    for place, value in zip(chosen, log_y, strict=True):
        runs.add(law, int(place), float(value))


def sequential(
    laws: Laws, targets: Array, rng: np.random.Generator, say: Callable[[str], None], looks: int = 1
) -> Outcome:
    """A pilot, then batches chosen by `next_runs` from what was measured until then, until the interval is narrow."""
    x, truth = places(), optimum(laws, laws.theta)
    price, made, template = cost_of(x), Runs.none(len(laws), x), any_law()
    result, before = Outcome.nowhere(len(laws), len(targets)), np.full(len(laws), np.inf)
    theta, rows, batches = np.zeros_like(laws.theta), np.arange(len(laws)), [pilot(x)] * len(laws)
    started = False
    while len(rows):
        for law, chosen in zip(rows, batches, strict=True):
            measure(laws, made, int(law), chosen, rng)
        runs, some = made.take(rows), laws.take(rows)
        theta[rows] = followed(laws.form, runs, theta[rows] if started else None)
        started = True
        value, half, scatter = interval(some, runs, theta[rows])
        spent = runs.times @ price
        width = half if looks == 1 else np.maximum(half, before[rows])
        new, before[rows] = (width[:, None] <= targets) & ~np.isfinite(result.compute[rows]), half
        for answer, said in (
            (result.compute, spent),
            (result.runs, runs.times.sum(axis=1)),
            (result.held, np.abs(value - truth[rows]) <= half),
        ):
            answer[rows] = np.where(new, said[:, None], answer[rows])
        going = np.flatnonzero(~np.isfinite(result.compute[rows]).all(axis=1) & (spent < TOTALS[-1]))
        say(f"{len(laws) - len(going)} of {len(laws)} laws done, up to {spent.max() / MOST:.2g} largest runs spent")
        batches = []
        for i in going:
            known = told(template, laws.form, theta[rows[i]], float(scatter[i]), runs, int(i))
            batches.append(plan(known, x, float(some.compute[i]), GROWTH / looks * float(spent[i]), price))
        rows = rows[going]
    return result


def plan(known: Law, x: Array, compute: float, budget: float, price: Array) -> Ints:
    """The next batch, as indices of candidates."""
    budget = max(budget, float(price.min()) * 1.001)
    chosen = next_runs(known, np.exp(x + CENTRE), OptimalParams(compute), budget, cost=price)
    wanted = np.log([[run.at[v] for v in VARIABLES] for run in chosen]) - CENTRE
    return np.asarray(((wanted[:, None] - x) ** 2).sum(axis=2).argmin(axis=1))


def any_law() -> Law:
    """A record to fill in."""
    x = np.exp(places()[::4] + CENTRE)
    rows = np.arange(len(x))
    made = Evidence("loss", VARIABLES, x, 1 + x[:, 0] ** -0.1, np.ones(len(x)), rows, rows, rows)
    return fit_evidence(made, form="additive", draws=0)


def told(template: Law, form: Form, theta: Array, scatter: float, runs: Runs, row: int) -> Law:
    """What the planner is told: the fit, its scatter, and where runs were made."""
    rows = np.repeat(np.arange(len(runs.x)), runs.times[row].astype(int))
    points = np.exp(np.column_stack([runs.x + CENTRE, runs.log_y[row]]))[rows]
    # A fit that found no fall at all has its optimum at infinity; what to run next is asked of a slight fall.
    theta = np.concatenate([theta[:3], np.maximum(theta[3:5], LEAST_EXPONENT), theta[5:]])
    fitted = replace(template.forms[0], form=form.name, weight=1.0, theta=tuple(theta.tolist()))
    return replace(
        template,
        forms=(fitted,),
        centre=tuple(CENTRE.tolist()),
        points=tuple(map(tuple, points.tolist())),
        runs=len(points),
        scatter=scatter,
        seed_scatter=0.0,
    )


# The comparison


def ratio(ours: Array, theirs: Array, rng: np.random.Generator) -> dict[str, object]:
    """Ours over theirs, law by law: median, geometric mean with a 95 % bootstrap interval, how often ours needs less.

    A law that one of the two never settles counts as the end of the range of compute for it.
    """
    end = TOTALS[-1]
    logs = np.log(np.minimum(ours, end) / np.minimum(theirs, end))
    means = np.exp(rng.choice(logs, (4000, len(logs))).mean(axis=1))
    return {
        "median": round(float(np.exp(np.median(logs))), 3),
        "geometric mean": round(float(np.exp(logs.mean())), 3),
        "interval": np.round(np.percentile(means, [2.5, 97.5]), 3).tolist(),
        "total": round(float(np.minimum(ours, end).sum() / np.minimum(theirs, end).sum()), 3),
        "less": round(float((logs < 0).mean()), 3),
    }


def described(outcome: Outcome, j: int) -> dict[str, object]:
    """A design at one target."""
    done = np.isfinite(outcome.compute[:, j])
    return {
        "compute": round(float(np.exp(np.log(np.minimum(outcome.compute[:, j], TOTALS[-1])).mean()) / MOST), 3),
        "settled": round(float(done.mean()), 3),
        "runs": float(np.median(outcome.runs[done, j])) if done.any() else None,
        "coverage": round(float(np.nanmean(outcome.held[:, j])), 3) if done.any() else None,
    }


def joined(parts: list[Outcome]) -> Outcome:
    return Outcome(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("compute", "runs", "held")))


class Progress:
    """One line on stderr, with the time that is left."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.start = steps, 0, time.monotonic()

    def step(self, what: str) -> None:
        self.done += 1
        passed = time.monotonic() - self.start
        left = passed / self.done * (self.steps - self.done)
        print(f"\r{what[:70]:70} {passed:4.0f} s, about {left:.0f} s left ", end="", file=sys.stderr, flush=True)

    def note(self, what: str) -> None:
        print(f"\r{what[:70]:70} {time.monotonic() - self.start:4.0f} s", end="", file=sys.stderr, flush=True)


def compare(count: int, targets: Array, seed: int, coupled: float, looks: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    kinds = [("additive", count - round(coupled * count)), ("coupled", round(coupled * count))]
    truths = [draw(form, laws, rng) for form, laws in kinds if laws]
    progress = Progress(len(truths) * (len(GRIDS) + len(CHANCE)))
    ours = joined([sequential(laws, targets, rng, progress.note, looks) for laws in truths])
    found = {}
    for name, design in (GRIDS | CHANCE).items():
        parts = []
        for laws in truths:
            parts.append(fixed(laws, design, targets, rng))
            progress.step(name)
        found[name] = joined(parts)
    print(file=sys.stderr)
    return {
        "laws": dict(kinds),
        "targets": [verdict(ours, found, j, float(target), rng) for j, target in enumerate(targets)],
    }


def verdict(
    ours: Outcome, found: dict[str, Outcome], j: int, target: float, rng: np.random.Generator
) -> dict[str, object]:
    """Ours against all others at one width."""
    mine, end = ours.compute[:, j], TOTALS[-1]
    need = {name: np.minimum(o.compute[:, j], end) for name, o in found.items()}
    average = {name: float(np.log(c).mean()) for name, c in need.items()}
    best = min(GRIDS, key=average.__getitem__)
    usual = min((name for name in GRIDS if name.endswith("up to 1")), key=average.__getitem__)
    lucky = min(CHANCE, key=average.__getitem__)
    oracle = np.min([need[name] for name in GRIDS], axis=0)
    return {
        "half width": target,
        "ours": described(ours, j),
        "best grid": {"name": best, **described(found[best], j)},
        "best grid with large runs": {"name": usual, **described(found[usual], j)},
        "best random": {"name": lucky, **described(found[lucky], j)},
        "against best grid": ratio(mine, need[best], rng),
        "against best grid of each law": ratio(mine, oracle, rng),
        "against best grid with large runs": ratio(mine, need[usual], rng),
        "against best random": ratio(mine, need[lucky], rng),
        "all": {name: described(o, j) for name, o in found.items()},
    }


def lines(answer: dict[str, object]) -> Iterator[str]:
    for at in answer["targets"]:  # type: ignore[attr-defined]
        yield f"log N_opt to ± {at['half width']:g}, compute in largest runs"
        for who in ("ours", "best grid", "best grid with large runs", "best random"):
            yield f"  {who:25} {at[who]}"
        for against in ("best grid", "best grid of each law", "best grid with large runs", "best random"):
            yield f"  ours / {against:25} {at['against ' + against]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", type=int, default=200)
    parser.add_argument("--coupled", type=float, default=0.25, help="share of laws whose shortages are coupled")
    parser.add_argument("--half", type=float, nargs="+", default=[0.5, 0.35, 0.25], help="half widths asked for")
    parser.add_argument(
        "--looks",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: ours goes on until its interval was narrow twice in a row",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="all designs, as JSON")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    answer = compare(options.laws, np.array(options.half), options.seed, options.coupled, options.looks)
    if options.out:
        options.out.write_text(json.dumps(answer, indent=1))
    print(json.dumps(answer, indent=1) if options.json else "\n".join(lines(answer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
