"""The next run is the one that most reduces the uncertainty of a decision per unit of cost."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sizewise.errors import UsageError
from sizewise.laws import Evidence, fit_evidence
from sizewise.laws.design import (
    Belief,
    LossAt,
    OptimalParams,
    belief,
    default_cost,
    greedy,
    lattice,
    next_runs,
)
from sizewise.laws.forms import named
from sizewise.records import Law, from_json, to_json

Array = NDArray[np.float64]
BOTH = ("params", "samples")
ADDITIVE = named("additive", BOTH)
TRUTH = ADDITIVE.theta(np.array([[1.8, 480.0, 2090.0, 0.35, 0.37]]))
NOISE = 0.005
TARGET = OptimalParams(2e21)


def measured(x: Array, rng: np.random.Generator, noise: float = NOISE) -> Evidence:
    log_y = ADDITIVE.value(TRUTH, np.log(x))[0] + noise * rng.normal(size=len(x))
    rows = np.arange(len(x))
    return Evidence("loss", BOTH, x, np.exp(log_y), np.ones(len(x)), rows, rows, rows + 1)


def grid(largest: float = 1e20, repeats: int = 1) -> Array:
    """Five budgets of compute × five sizes."""
    budgets = np.geomspace(largest / 300, largest, 5)
    sizes = np.sqrt(budgets / 120)[:, None] * np.geomspace(0.25, 4, 5)
    x = np.column_stack([sizes.ravel(), (budgets[:, None] / (6 * sizes)).ravel()])
    return np.repeat(x, repeats, axis=0)


@pytest.fixture(scope="module")
def law() -> Law:
    return fit_evidence(measured(grid(1e19), np.random.default_rng(0)), form="additive", draws=0)


@pytest.fixture(scope="module")
def several() -> Law:
    return fit_evidence(measured(grid(1e19), np.random.default_rng(0)), draws=0)


@pytest.fixture
def candidates(law: Law) -> Array:
    return lattice(law, 1e20, reach=4, steps=8)


def brute_force(law: Law, x: Array, extra: Array, decision: OptimalParams | LossAt) -> float:
    """Variance of the decision by least squares over all runs and the extra ones, with next to no prior."""
    form, theta, centre = named(law.forms[0].form, BOTH), np.array(law.forms[0].theta), np.array(law.centre)
    rows = np.concatenate([np.array(law.points)[:, :2], extra.reshape(-1, 2)])
    slope = form.jacobian(theta[None], np.log(rows) - centre)[1][0]
    step = 1e-5 * np.eye(len(theta))
    ahead, behind = (decision.of(form, form.shifted(theta + s * step, -centre)) for s in (1, -1))
    gradient = (ahead - behind) / 2e-5
    return float(gradient @ np.linalg.solve(slope.T @ slope / law.scatter**2, gradient))


@pytest.mark.parametrize("decision", [TARGET, LossAt({"params": 1e10, "samples": 2e11})])
def test_gain_is_the_fall_of_the_recomputed_variance(
    law: Law, candidates: Array, decision: OptimalParams | LossAt
) -> None:
    held = belief(law, candidates, decision)
    nothing = np.zeros((0, 2))
    before = brute_force(law, candidates, nothing, decision)
    assert held.variance == pytest.approx(before, rel=0.01)
    for i in range(0, len(candidates), 7):
        after = brute_force(law, candidates, candidates[i], decision)
        assert held.gains[i] == pytest.approx(before - after, rel=0.05, abs=1e-4 * before)
        assert held.after(i).variance == pytest.approx(held.variance - held.gains[i], rel=1e-9)


def test_batch_is_the_posterior_of_all_its_runs(law: Law, candidates: Array) -> None:
    chosen = greedy(belief(law, candidates, TARGET), default_cost(BOTH, candidates), 5e19)
    extra = candidates[[i for i, _ in chosen]]
    assert len(chosen) > 3
    assert chosen[-1][1].variance == pytest.approx(brute_force(law, candidates, extra, TARGET), rel=0.02)


def test_a_form_that_the_runs_leave_open_does_not_hide_the_others() -> None:
    """One break may lie anywhere beyond the runs, and no run within them says whether it does."""
    x, rng = np.geomspace(1e5, 1e9, 12)[:, None], np.random.default_rng(0)
    log_y = np.log(2 + 300 * x[:, 0] ** -0.3) + 0.02 * rng.normal(size=12)
    rows = np.arange(12)
    law = fit_evidence(Evidence("loss", ("params",), x, np.exp(log_y), np.ones(12), rows, rows, rows + 1), draws=0)
    held = belief(law, x, LossAt({"params": 1e10}))
    assert len(law.forms) > 3
    assert sum(part for _, part in held.sources) == pytest.approx(1)
    assert held.gains.max() > 0.01 * held.variance


def test_a_short_batch_spends_where_it_gains_most(law: Law, candidates: Array) -> None:
    """Where the number of runs is the limit, the best ones for their cost are not the best ones."""
    start, price = belief(law, candidates, TARGET), default_cost(BOTH, candidates)
    runs = next_runs(law, candidates, TARGET, float(price.max()), most=2)
    cheap = greedy(start, price, float(price.max()), 2)[-1][1].variance
    dear = greedy(start, price, float(price.max()), 2, thrifty=False)[-1][1].variance
    assert runs[-1].removed == pytest.approx(1 - math.sqrt(min(cheap, dear) / start.variance))


def test_repeat_of_an_informative_setting_beats_a_useless_new_one() -> None:
    # The decision is log y at a first place; at the second one nothing is to be learned about it.
    held = Belief(np.array([[1.0, 0.0], [1.0, 0.0], [0.01, 1.0]]), np.array([3, 0]), seed=0.5, setting=0.0)
    assert greedy(held, np.ones(2), 1.0)[0][0] == 0
    assert held.noise == pytest.approx([0.5, 0.5])


def test_repeat_says_less_where_settings_have_their_own_deviation() -> None:
    held = Belief(np.eye(3)[:, :2], np.array([2, 0]), seed=0.5, setting=0.5)
    assert held.noise[1] == pytest.approx(1.0)
    precision = 1 / (1 / (0.5 + 0.5 / 3) - 1 / (0.5 + 0.5 / 2))
    assert held.noise[0] == pytest.approx(precision)


def test_repeats_are_counted_from_the_runs_that_were_made(law: Law) -> None:
    made = np.array(law.points)[:, :2]
    runs = next_runs(law, made, TARGET, 3 * default_cost(BOTH, made).max())
    assert all(run.repeats >= 1 for run in runs)


def test_plan_respects_the_budget_and_narrows_the_interval(law: Law, candidates: Array) -> None:
    runs = next_runs(law, candidates, TARGET, 7e19)
    widths = [run.width for run in runs]
    assert sum(run.cost for run in runs) <= 7e19
    assert widths == sorted(widths, reverse=True)
    assert 0 < runs[0].removed < runs[-1].removed < 1
    assert all(run.cost == pytest.approx(6 * run.at["params"] * run.at["samples"]) for run in runs)
    assert from_json(type(runs[0]), to_json(runs[0])) == runs[0]


def test_cost_of_the_user_decides(law: Law, candidates: Array) -> None:
    dear = np.full(len(candidates), 1.0)
    first = next_runs(law, candidates, TARGET, 1.0, cost=dear)[0]
    gains = belief(law, candidates, TARGET).gains
    assert list(first.at.values()) == pytest.approx(candidates[gains.argmax()])


def test_forms_that_disagree_make_telling_them_apart_worth_more(several: Law, candidates: Array) -> None:
    far = LossAt({"params": 1e11, "samples": 1e12})
    alone = replace(several, forms=several.forms[:1])
    assert len(several.forms) > 1
    assert belief(several, candidates, far).variance > belief(alone, candidates, far).variance
    runs = next_runs(several, candidates, far, 1e20)
    assert 0 < runs[-1].removed < 1


def test_floor_fitted_as_nothing_still_leaves_doubt(law: Law, candidates: Array) -> None:
    theta = np.array(law.forms[0].theta)
    theta[[0, 3, 4]] = -13.8, 0.08, 0.05  # shallow exponents are what a fit without a floor finds
    gone = replace(law, forms=(replace(law.forms[0], theta=tuple(theta.tolist())),))
    powers = named("powers", BOTH)
    without = replace(law, forms=(replace(law.forms[0], form="powers", theta=tuple(theta[1:].tolist())),))
    assert powers.names == ADDITIVE.names[1:]
    far = LossAt({"params": 1e11, "samples": 2e12})
    assert belief(gone, candidates, far).variance > 2 * belief(without, candidates, far).variance


def test_one_variable_law_plans_for_a_prediction() -> None:
    x = np.geomspace(1e4, 1e6, 9)[:, None]
    log_y = np.log(0.05 + 30 * x[:, 0] ** -0.5) + 0.01 * np.random.default_rng(1).normal(size=9)
    rows = np.arange(9)
    made = fit_evidence(Evidence("error", ("params",), x, np.exp(log_y), np.ones(9), rows, rows, rows), draws=0)
    runs = next_runs(made, lattice(made, 4e6, reach=4), LossAt({"params": 1e7}), 4e6)
    assert runs
    assert sum(run.cost for run in runs) <= 4e6


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((0, 2)), "no candidate"),
        (np.array([[1e8, -1.0]]), "not positive"),
        (np.array([[1e8, np.nan]]), "not positive"),
        (np.array([[1e8]]), "shape"),
        (np.array([[1e12, 1e12]]), "cheapest candidate"),
    ],
)
def test_bad_candidates_are_usage_errors(law: Law, bad: Array, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        next_runs(law, bad, TARGET, 1e20)
    assert caught.value.hint


@pytest.mark.parametrize("cost", [np.ones(3), np.zeros(2), np.array([1.0, np.nan])])
def test_bad_costs_are_usage_errors(law: Law, cost: Array) -> None:
    with pytest.raises(UsageError, match="cost"):
        next_runs(law, np.full((2, 2), 1e8), TARGET, 1e20, cost=cost)


def test_what_cannot_be_decided_is_a_usage_error(law: Law, candidates: Array) -> None:
    with pytest.raises(UsageError, match="no law"):
        next_runs(replace(law, forms=()), candidates, TARGET, 1e20)
    with pytest.raises(UsageError, match="positive samples"):
        next_runs(law, candidates, LossAt({"params": 1e9}), 1e20)
    theta = np.array(law.forms[0].theta)
    theta[2] = -300.0
    flat = replace(law, forms=(replace(law.forms[0], theta=tuple(theta.tolist())),))
    with pytest.raises(UsageError, match="finite decision"):
        next_runs(flat, candidates, TARGET, 1e20)


def half_width(law: Law) -> float:
    return math.sqrt(belief(law, grid(), TARGET).variance)


@pytest.mark.slow
def test_chosen_runs_need_less_compute_than_a_grid() -> None:
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = grid(1e20, repeats=2)
        wanted = half_width(fit_evidence(measured(x, rng), form="additive", draws=0))
        ratios.append(_spent(wanted, rng) / default_cost(BOTH, x).sum())
    assert np.exp(np.mean(np.log(ratios))) < 0.7


def _spent(wanted: float, rng: np.random.Generator) -> float:
    """Compute that chosen runs need for that width, from a pilot of cheap runs on."""
    x = grid(1e18)[::2]
    places = np.unique(np.concatenate([grid(c) for c in (1e18, 1e19, 1e20)]), axis=0)
    evidence = measured(x, rng)
    for _ in range(60):
        law = fit_evidence(evidence, form="additive", draws=0)
        spent = float(default_cost(BOTH, evidence.x).sum())
        if half_width(law) <= wanted:
            break
        runs = next_runs(law, places, TARGET, max(0.3 * spent, default_cost(BOTH, places).min() * 1.01))
        more = measured(np.array([list(run.at.values()) for run in runs]), rng)
        x, y = np.concatenate([evidence.x, more.x]), np.concatenate([evidence.y, more.y])
        rows = np.arange(len(x))
        evidence = Evidence("loss", BOTH, x, y, np.ones(len(x)), rows, rows, rows + 1)
    return spent
