"""Fits a law to evidence: forms compete, the best is printed with its intervals, and all of them predict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from sizewise.laws import parameters, solve
from sizewise.laws.compete import Contender, Origin, centre_of, compete, origins
from sizewise.laws.forecast import LEVEL, calibrate, freedom, scatter
from sizewise.laws.forms import Form, candidates, named
from sizewise.laws.intake.evidence import MOST_EVIDENCE, Evidence
from sizewise.records import BackTest, Exclusion, FittedForm, Law, Run

Status = Literal["supported", "unreliable", "insufficient"]

FEWEST_SETTINGS = 5
FEWEST_DECADES = 1.5
FLAT = 5e-3
"""Two-sided p-value above which a fall with size is not believed."""

FAR = 5.0
"""Residuals this many times the usual one are named as outliers; they are kept, and Huber's loss bounds their pull."""

MOST_POINTS = 2_000
ROWS_FOR_BOOTSTRAP = 5_000


def fit(runs: Sequence[Run], metric: str, *, seed: int = 0) -> Law:
    """Fit a sweep's validation loss or error against parameters.

    Args:
        runs: one recipe and data fraction, several sizes and seeds.
        metric: "loss", or "error": 1 - score, or the score where less is better.
    """
    return fit_evidence(Evidence.of_runs(runs, metric), fewest_repeats=3, seed=seed)


def fit_evidence(
    evidence: Evidence,
    *,
    form: str | None = None,
    delta: float | None = None,
    draws: int = parameters.DRAWS,
    fewest_repeats: int = 1,
    seed: int = 0,
) -> Law:
    """Fit a law to any runs.

    Args:
        form: the one form to fit; None lets all of them compete.
        delta: where Huber's loss turns linear, in log y; None takes 1.345 times the residuals' scale.
        draws: bootstrap resamples for the intervals of the leading form's parameters; 0 leaves the intervals out.
        fewest_repeats: runs of every setting without which the law is called insufficient.
    """
    forms = candidates(evidence.variables) if form is None else (named(form, evidence.variables),)
    given, whole = evidence, evidence.thinned(MOST_EVIDENCE)
    evidence = whole.thinned()
    views = origins(evidence) if evidence.settings >= FEWEST_SETTINGS else []
    found = compete(evidence, forms, views, delta) if evidence.settings >= 3 else []
    if not found:
        return _refusal(whole, f"{evidence.settings} settings cannot determine {_letters(evidence)}")
    factor, tests = calibrate(evidence, found, views)
    lead = _on_all_rows(found[0], whole, evidence)
    missing = _missing(evidence, found, tests)
    status, reason = _judge(evidence, found, tests, fewest_repeats)
    x = whole.log_x
    return Law(
        metric=whole.metric,
        variables=whole.variables,
        forms=tuple(_record(c, evidence, whole, lead if c is found[0] else None, draws, seed) for c in found),
        centre=tuple(map(float, centre_of(evidence))),
        box={v: (float(np.exp(x[:, j].min())), float(np.exp(x[:, j].max()))) for j, v in enumerate(whole.variables)},
        largest=float(whole.scale.max()),
        points=_points(evidence),
        runs=len(whole.y),
        settings=evidence.settings,
        scatter=max(scatter(found), _seed_scatter(evidence)),
        seed_scatter=_seed_scatter(evidence),
        inflation=factor,
        freedom=freedom(evidence, found),
        backtests=tests,
        excluded=whole.excluded,
        outliers=_outliers(evidence, found[0]),
        missing=missing,
        notes=(*whole.notes, *_thinning(given, whole, evidence)),
        status=status,
        reason=reason,
    )


def _on_all_rows(lead: Contender, whole: Evidence, thin: Evidence) -> Contender:
    """The leading form refitted to every row, when it competed on a sample of them."""
    if whole is thin:
        return lead
    moved = lead.form.shifted(lead.plain[None], centre_of(whole) - centre_of(thin))[0]
    x = whole.log_x - centre_of(whole)
    refit = solve.refit(lead.form, moved, x, whole.log_y, whole.weight[None], lead.delta)
    return replace(lead, plain=refit.theta[0], objective=float(refit.loss[0]))


def _record(
    contender: Contender, evidence: Evidence, whole: Evidence, lead: Contender | None, draws: int, seed: int
) -> FittedForm:
    form = contender.form
    if lead is None or draws == 0:
        estimates, profile = parameters.points(evidence, contender), {}
    elif len(whole.y) <= ROWS_FOR_BOOTSTRAP:
        estimates = parameters.intervals(whole, lead, parameters.bootstrap(whole, lead, draws, seed))
        profile = parameters.profile(whole, lead)
    else:
        estimates, profile = parameters.wald(whole, lead), {}
    return FittedForm(
        form=form.name,
        formula=form.formula,
        source=form.source,
        weight=contender.weight,
        parameters=estimates,
        profile=profile,
        theta=tuple(map(float, contender.theta)),
        covariance=tuple(tuple(map(float, row)) for row in contender.covariance),
        predicting=parameters.written(evidence, form, contender.theta),
        scatter=math.sqrt(contender.variance),
        objective=(lead or contender).objective,
        backtest_error=math.sqrt(contender.error) if math.isfinite(contender.error) else math.nan,
        agreeing=contender.agreeing,
    )


def _points(evidence: Evidence) -> tuple[tuple[float, ...], ...]:
    step = max(1, -(-len(evidence.y) // MOST_POINTS))
    rows = np.column_stack([evidence.x, evidence.y])[::step]
    return tuple(tuple(map(float, row)) for row in rows)


def _seed_scatter(evidence: Evidence) -> float:
    """Standard deviation of log y between repeats of one setting; 0 when nothing was repeated."""
    counts = np.bincount(evidence.setting)
    if counts.max() < 2:
        return 0.0
    means = np.bincount(evidence.setting, evidence.log_y) / counts
    spare = len(evidence.y) - len(counts)
    return float(np.sqrt(((evidence.log_y - means[evidence.setting]) ** 2).sum() / spare))


def _outliers(evidence: Evidence, lead: Contender) -> tuple[Exclusion, ...]:
    x = evidence.log_x - centre_of(evidence)
    residual = lead.form.value(lead.plain[None], x)[0] - evidence.log_y
    usual = float(solve.scales(lead.form, lead.plain[None], x, evidence.log_y, evidence.weight[None])[0])
    far = np.flatnonzero(np.abs(residual) > FAR * max(usual, 1e-6))
    if not len(far):
        return ()
    worst = far[np.argsort(-np.abs(residual[far]))]
    reason = f"more than {FAR:g} times the usual distance from the {lead.form.name} law; kept, with bounded pull"
    return (Exclusion(reason, len(far), tuple(int(evidence.label[i]) for i in worst[:10])),)


def _thinning(given: Evidence, whole: Evidence, thin: Evidence) -> tuple[str, ...]:
    notes = []
    if given is not whole:
        notes.append(f"{len(whole.y):,} of {len(given.y):,} rows were drawn, and weigh as much as all of them")
    if whole is not thin:
        notes.append(
            f"forms competed on {len(thin.y):,} rows drawn from {len(whole.y):,}; the winner is fitted to all of them"
        )
    return tuple(notes)


def _judge(
    evidence: Evidence, found: Sequence[Contender], tests: Sequence[BackTest], fewest_repeats: int
) -> tuple[Status, str]:
    decades = evidence.decades
    if evidence.settings < FEWEST_SETTINGS or decades < FEWEST_DECADES or evidence.repeats < fewest_repeats:
        return "insufficient", (
            f"{evidence.settings} settings over {decades:.1f} decades with at least {evidence.repeats} runs each; "
            f"a law needs {FEWEST_SETTINGS} settings, {FEWEST_DECADES} decades and {fewest_repeats} runs"
        )
    flat = [v for j, v in enumerate(evidence.variables) if v != "unique" and not _falls(evidence, j)]
    if flat:
        return "unreliable", f"{evidence.metric} does not fall with {' or '.join(flat)}"
    if not tests:
        return "insufficient", "too few settings are left when the largest are hidden, so nothing tests the law"
    nearest = tests[0]
    sentence = _sentence(nearest)
    if not _agrees(nearest):
        return "unreliable", sentence
    return "supported", sentence


def _agrees(test: BackTest) -> bool:
    """Whether the nearest back-test speaks for the law: its largest setting near the interval, half of all inside."""
    e = test.predicted
    distance = abs(math.log(test.observed / e.value)) / math.log(e.high / e.value)
    return distance <= 2 and test.covered >= 0.5


def _sentence(test: BackTest) -> str:
    e = test.predicted
    where = ", ".join(f"{value:.4g} {name}" for name, value in test.at.items())
    verdict = "inside" if e.low <= test.observed <= e.high else "outside"
    return (
        f"from runs {test.reach:.3g} times smaller it predicts {e.value:.4g} [{e.low:.4g}, {e.high:.4g}] at {where}; "
        f"{test.observed:.4g} was measured, {verdict} the interval"
    )


def _falls(evidence: Evidence, variable: int) -> bool:
    """Whether log y depends on one variable beside the others.

    An F test compares quadratic surfaces through the settings' means, with that variable and without it. A
    single variable must also make y fall, not rise.
    """
    from scipy.special import fdtrc

    counts = np.bincount(evidence.setting)
    first = np.unique(evidence.setting, return_index=True)[1]
    y = np.bincount(evidence.setting, evidence.log_y) / counts
    x = evidence.log_x[first] - evidence.log_x[first].mean(axis=0)
    with_it, without = _surface(x), _surface(np.delete(x, variable, axis=1))
    (more, left), (fewer, before) = _residual(with_it, y), _residual(without, y)
    spare, gained = len(y) - more, more - fewer
    if spare < 1 or gained < 1:
        return False
    ratio = ((before - left) / gained) / max(left / spare, 1e-300)
    rises = x.shape[1] == 1 and float(x[:, 0] @ y) >= 0
    return bool(fdtrc(gained, spare, ratio) < FLAT) and not rises


def _surface(x: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    """1, x, and products of x's columns: (rows, terms)."""
    products = [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i + 1)]
    return np.column_stack([np.ones(len(x)), *x.T, *products])


def _residual(design: np.typing.NDArray[np.float64], y: np.typing.NDArray[np.float64]) -> tuple[int, float]:
    """Rank of a least-squares fit, and the squares it leaves."""
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return int(rank), float(((y - design @ solution) ** 2).sum())


def _missing(evidence: Evidence, found: Sequence[Contender], tests: Sequence[BackTest]) -> tuple[str, ...]:
    """What the evidence lacks, in words."""
    gaps = []
    if evidence.repeats < 2:
        gaps.append("one run a setting: luck and misfit cannot be told apart")
    if not tests:
        gaps.append("too few settings for a back-test")
    if len(evidence.variables) > 1 and (tied := _tied(evidence)):
        gaps.append(tied)
    lead = found[0]
    gaps += [f"{name} lies at the end of the range that was searched" for name in _at_an_end(evidence, lead)]
    floor = lead.form.names.index("E") if "E" in lead.form.names else None
    rivals = [c for c in found if "E" not in c.form.names and c.variance < 1.2 * lead.variance]
    if floor is None or rivals:
        gaps.append("no curvature that shows a floor: larger models may go on improving, or not")
    return tuple(gaps)


def _at_an_end(evidence: Evidence, lead: Contender) -> list[str]:
    """Parameters of the leading form that its search could not move further. A floor at nothing is no such case."""
    x = evidence.log_x - centre_of(evidence)
    bounds = lead.form.bounds(x, evidence.log_y)
    free = bounds.high > bounds.low
    stuck = free & ((lead.plain <= bounds.low + 1e-9) | (lead.plain >= bounds.high - 1e-9))
    return [name for name, end in zip(lead.form.names, stuck, strict=True) if end and name not in ("E", "A", "B")]


def _tied(evidence: Evidence) -> str:
    """Whether parameters and samples vary together, so that their exponents cannot be told apart."""
    x = evidence.log_x[:, :2]
    same = np.ptp(x, axis=0) == 0
    if same.any():
        return f"only one value of {evidence.variables[int(same.argmax())]}"
    centred = x - x.mean(axis=0)
    a, b = centred.T
    if abs(float(a @ b)) > 0.98 * float(np.sqrt((a @ a) * (b @ b))):
        return "parameters and samples grow together: their exponents cannot be told apart"
    return ""


def _letters(evidence: Evidence) -> str:
    return f"a law of {' and '.join(evidence.variables)}"


def _refusal(evidence: Evidence, reason: str) -> Law:
    x = evidence.x
    return Law(
        metric=evidence.metric,
        variables=evidence.variables,
        forms=(),
        centre=(),
        box={v: (float(x[:, j].min()), float(x[:, j].max())) for j, v in enumerate(evidence.variables) if len(x)},
        largest=float(evidence.scale.max(initial=-math.inf)),
        points=_points(evidence) if len(x) else (),
        runs=len(evidence.y),
        settings=evidence.settings,
        scatter=math.nan,
        seed_scatter=math.nan,
        inflation=math.nan,
        freedom=math.nan,
        backtests=(),
        excluded=evidence.excluded,
        outliers=(),
        missing=("more settings",),
        notes=evidence.notes,
        status="insufficient",
        reason=reason,
    )


__all__ = ["LEVEL", "Form", "Origin", "fit", "fit_evidence"]
