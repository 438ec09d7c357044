"""Decisions have their closed forms, their intervals hold the truth, and a law that is refused decides nothing."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise.errors import UsageError
from sizewise.laws import Evidence, decide, fit_evidence
from sizewise.laws.decide import Shortages
from sizewise.laws.decide.draws import belief
from sizewise.laws.forms import known
from sizewise.records import ComputeOptimal, Estimate, Law, from_json, to_json

Array = NDArray[np.float64]

BOTH = ("params", "samples")
E, A, B, ALPHA, BETA = 1.7, 400.0, 1500.0, 0.34, 0.37
NAMES = [form.name for form in known(BOTH)]


def evidence(x: Array, log_y: Array) -> Evidence:
    rows = np.arange(len(x))
    return Evidence("loss", BOTH, x, np.exp(log_y), np.ones(len(x)), rows, rows, rows + 1)


def additive(n: Array | float, d: Array | float) -> Array:
    return np.asarray(np.log(E + A * n**-ALPHA + B * d**-BETA))


def optimum(compute: float) -> float:
    """Hoffmann et al. 2022, equation 4."""
    g = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    return float(g * (compute / 6) ** (BETA / (ALPHA + BETA)))


def grid(noise: float, seed: int = 0) -> Evidence:
    sizes, data = np.geomspace(1e7, 1e9, 7), np.geomspace(2e8, 2e10, 7)
    x = np.stack([a.ravel() for a in np.meshgrid(sizes, data)], axis=1)
    return evidence(x, additive(x[:, 0], x[:, 1]) + noise * np.random.default_rng(seed).standard_normal(len(x)))


def iso_flops(noise: float, seed: int = 0) -> Evidence:
    """Nineteen sizes around the optimum at each of seven budgets."""
    rows = [(n, c / 6 / n) for c in np.geomspace(1e18, 1e21, 7) for n in optimum(c) * np.geomspace(1 / 8, 8, 19)]
    x = np.array(rows)
    return evidence(x, additive(x[:, 0], x[:, 1]) + noise * np.random.default_rng(seed).standard_normal(len(x)))


def steep() -> Evidence:
    rows, losses = [], []
    for c in np.geomspace(1e18, 1e21, 7):
        best = 1e8 * (c / 1e18) ** 0.75
        for n in best * np.geomspace(1 / 8, 8, 9):
            rows.append((n, c / 6 / n))
            losses.append(1.2 - 0.02 * math.log(c / 1e18) + 0.01 * math.log(n / best) ** 2)
    noise = 0.001 * np.random.default_rng(0).standard_normal(len(rows))
    return evidence(np.array(rows), np.array(losses) + noise)


@cache
def law(noise: float = 0.003, form: str | None = None) -> Law:
    return fit_evidence(grid(noise), form=form, draws=0)


def published(data: Path) -> tuple[Array, Array]:
    """Besiroglu et al. 2024's 240 points: x and log y."""
    with (data / "scaling" / "chinchilla_fig4.csv").open() as file:
        rows = [(float(r["Model Size"]), float(r["Training FLOP"]), float(r["loss"])) for r in csv.DictReader(file)]
    table = np.array(sorted(rows, key=lambda r: r[2])[:-5])
    return np.stack([table[:, 0], table[:, 1] / (6 * table[:, 0])], axis=1), np.log(table[:, 2])


def shortages(name: str, rng: np.random.Generator) -> tuple[Shortages, Array, int]:
    """A random law of a form: in one shape, and as its own theta."""
    index = NAMES.index(name)
    form = known(BOTH)[index]
    draw = {
        "E": rng.uniform(0.5, 2.0),
        "A": math.exp(rng.uniform(3, 7)),
        "B": math.exp(rng.uniform(3, 8)),
        "alpha": rng.uniform(0.2, 0.6),
        "beta": rng.uniform(0.2, 0.6),
        "kappa": rng.uniform(0.3, 2.0),
    }
    theta = form.theta(np.array([[draw[n] for n in form.names]]))
    return Shortages.of(form, theta), theta, index


@pytest.mark.parametrize("name", NAMES)
def test_one_shape_says_what_each_form_says_and_finds_its_minimum(name: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        laws, theta, index = shortages(name, rng)
        form, log_product = known(BOTH)[index], 46.0
        log_n = np.linspace(0, log_product, 20_001)
        line = form.value(theta, np.stack([log_n, log_product - log_n], axis=1))[0]
        best = float(laws.optimal_log_params(log_product)[0])
        assert laws.log_loss(15.0, 20.0)[0] == pytest.approx(form.value(theta, np.array([[15.0, 20.0]]))[0, 0])
        assert best == pytest.approx(log_n[line.argmin()], abs=0.01)
        assert decide.optimal_log_params(form, theta, log_product)[0] == best


def test_the_optimum_of_the_additive_law_is_the_published_formula() -> None:
    form = known(BOTH)[0]
    theta = form.theta(np.array([[E, A, B, ALPHA, BETA]]))
    for compute in (1e18, 1e21, 1e25):
        found = decide.optimal_log_params(form, theta, math.log(compute / 6))
        assert math.exp(found[0]) == pytest.approx(optimum(compute), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.floats(12, 26), st.floats(14, 30), st.floats(0, 1e15))
def test_contours_optima_and_serving(name: str, seed: int, log_n: float, log_d: float, served: float) -> None:
    laws, _, _ = shortages(name, np.random.default_rng(seed))
    rest, loss = laws.log_rest(log_n, log_d), laws.log_loss(log_n, log_d)
    for other in log_n + np.array([-0.2, 0.3, 2.0]):
        samples = laws.log_samples(other, rest)
        if np.isfinite(samples[0]):
            assert laws.log_loss(other, samples)[0] == pytest.approx(loss[0], abs=1e-9)
        else:
            assert other <= laws.least_log_params(rest)[0] + 1e-9
    usual_n, usual_d = laws.at(laws.optimal_logit(), rest)
    best_n, best_d = laws.at(laws.serving_logit(rest, served / 3), rest)
    assert laws.log_loss(best_n, best_d)[0] == pytest.approx(loss[0], abs=1e-9)
    assert best_n[0] <= usual_n[0] + 1e-9
    # The training-optimal model of a loss is the compute-optimal model of its compute, unless it has half a parameter.
    if usual_n[0] > 0 and usual_d[0] > 0:
        assert laws.optimal_log_params(float((usual_n + usual_d)[0]))[0] == pytest.approx(usual_n[0], abs=1e-6)

    def lifetime(at_n: float) -> float:
        return at_n + float(np.logaddexp(math.log(6) + laws.log_samples(at_n, rest)[0], math.log(2 * served + 1e-300)))

    assert lifetime(best_n[0]) <= min(lifetime(best_n[0] + s) for s in (-0.1, -0.01, 0.01, 0.1)) + 1e-9
    sizes = laws.optimal_log_params(np.array([30.0, 40.0, 50.0]))
    assert (np.diff(sizes) >= 0).all()


def test_near_the_optimum_the_loss_is_within_the_tolerance() -> None:
    laws = belief(law()).centre
    low, high = laws.near(40.0, 1e-3)
    best = laws.optimal_log_params(40.0)
    limit = laws.log_loss(best, 40.0 - best) + math.log1p(1e-3)
    for end in (low, high):
        assert laws.log_loss(end, 40.0 - end) == pytest.approx(limit, abs=1e-9)
    assert (low < best).all()
    assert (best < high).all()


def test_draws_stand_for_the_forms_by_weight_and_repeat_exactly() -> None:
    first, second = belief(law(), seed=1), belief(law(), seed=1)
    assert len(first.drawn.alpha) == 400
    assert first.weight.sum() == pytest.approx(1)
    assert (first.drawn.alpha == second.drawn.alpha).all()


def test_a_clean_law_gives_the_true_size_and_adds_up() -> None:
    said = decide.compute_optimal(law(0.0003, "additive"), 1e21, redone=0)
    assert said.status == "supported"
    assert said.params is not None
    assert said.samples is not None
    assert said.loss is not None
    assert said.nearly is not None
    assert said.params.value == pytest.approx(optimum(1e21), rel=0.05)
    assert said.params.value * said.samples.value * 6 == pytest.approx(1e21)
    assert said.nearly[0] < said.params.value < said.nearly[1]
    assert from_json(ComputeOptimal, to_json(said)) == said


def test_three_approaches_agree_on_clean_groups() -> None:
    runs = iso_flops(0.001)
    said = decide.compute_optimal(fit_evidence(runs, draws=0), 1e21, evidence=runs)
    assert [a.approach for a in said.approaches] == ["envelope", "iso-FLOP", "parametric"]
    assert said.verdict == "agree", [a.sentence for a in said.agreements]
    for approach in said.approaches:
        assert approach.params is not None
        assert approach.exponent is not None
        assert approach.params.value == pytest.approx(optimum(1e21), rel=0.15)
        assert approach.exponent.value == pytest.approx(BETA / (ALPHA + BETA), abs=0.03)


def test_disagreement_is_called_so() -> None:
    """Minima that grow as C^0.75, and a law whose exponents are equal, so that its optimum grows as C^0.5."""
    runs = steep()
    said = decide.compute_optimal(fit_evidence(runs, form="tied", draws=0), 1e21, evidence=runs)
    assert said.verdict == "disagree"
    between = said.agreements[2]
    assert (between.a, between.b, between.verdict) == ("iso-FLOP", "parametric", "disagree")
    assert between.ratio is not None
    assert between.ratio.low > 1
    assert "disagree" in between.sentence


def test_without_groups_that_approach_has_no_answer() -> None:
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(np.log([1e7, 2e8]), np.log([1e9, 2e10]), size=(24, 2)))
    runs = evidence(x, additive(x[:, 0], x[:, 1]) + 0.003 * rng.standard_normal(len(x)))
    said = decide.compute_optimal(fit_evidence(runs, draws=0), 1e21)
    groups = said.approaches[1]
    assert groups.params is None
    assert "groups" in groups.reason
    assert any("no answer by" in a.sentence for a in said.agreements)


def test_serving_makes_models_smaller_and_saves_more_the_more_is_served() -> None:
    before = math.inf
    for served in (0.0, 1e10, 1e12, 1e14):
        said = decide.serving_optimal(law(), served, compute=1e20)
        assert said.params is not None
        assert said.trained is not None
        assert said.saved is not None
        assert said.params.value <= said.trained.value * (1 + 1e-6)
        assert said.params.value < before
        assert 0 <= said.saved.value < 1
        before = said.params.value
    assert said.saved.value > 0.05


def test_a_target_below_the_floor_is_not_promised() -> None:
    said = decide.serving_optimal(law(0.0003, "additive"), 1e12, target=1.6)
    assert said.status == "undetermined"
    assert said.params is None
    assert "floor" in said.reason


def test_fewer_parameters_cost_samples_and_some_sizes_cannot() -> None:
    said = decide.equal_loss(law(0.001, "additive"), 1e8, 2e9)
    p, q = A * 1e8**-ALPHA, B * 2e9**-BETA
    assert said.rate is not None
    assert said.more is not None
    assert said.least is not None
    assert said.rate.value == pytest.approx(ALPHA * p / (BETA * q), rel=0.02)
    more = (B / (p + q - A * 0.9e8**-ALPHA)) ** (1 / BETA) / 2e9
    assert said.more.value == pytest.approx(more, rel=0.01)
    assert said.more.low < said.more.value < said.more.high
    assert said.least.value == pytest.approx((A / (p + q)) ** (1 / ALPHA), rel=0.05)
    assert all(n > said.least.value for n, _ in said.places)


def test_ten_times_more_helps_and_less_where_it_is_spent_badly() -> None:
    grown = {g.how: g for g in decide.growth(law())}
    for g in grown.values():
        assert g.verdict == "better"
        assert g.ratio is not None
        n, d = g.at["params"], g.at["samples"]
        truth = float(np.exp(additive(n, d) - additive(1e9, 2e10)))
        assert g.ratio.low <= truth <= g.ratio.high
    best = grown["compute"].ratio
    assert best is not None
    for how in ("params", "samples"):
        other = grown[how].ratio
        assert other is not None
        assert best.value <= other.value * 1.001


def test_no_gain_beyond_the_noise_is_undetermined() -> None:
    loud = replace(law(), scatter=0.5)
    assert {g.verdict for g in decide.growth(loud)} == {"undetermined"}


@pytest.mark.parametrize("status", ["unreliable", "insufficient"])
def test_a_refused_law_decides_nothing(status: str) -> None:
    bad = replace(law(), status=status, reason="because")  # type: ignore[arg-type]
    for said in (
        decide.compute_optimal(bad, 1e21),
        decide.serving_optimal(bad, 1e12, target=2.5),
        decide.equal_loss(bad, 1e8, 2e9),
        *decide.growth(bad),
    ):
        assert said.status == status
        assert "because" in said.reason
        numbers = [v for v in vars(said).values() if hasattr(v, "low")]
        assert not numbers


def test_runs_on_one_path_cannot_say_how_to_split_a_budget() -> None:
    table = np.array([[n, 20 * n] for n in np.geomspace(1e7, 1e9, 12)])
    points = tuple((n, d, float(np.exp(additive(n, d)))) for n, d in table)
    said = decide.compute_optimal(replace(law(), points=points), 1e21)
    assert said.status == "insufficient"
    assert "together" in said.reason


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["noise", "params alone", "samples alone", "exact", "wild"])
def test_whatever_the_runs_no_number_is_nan(kind: str) -> None:
    """As if such laws were supported, which most of these are not."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = np.exp(rng.uniform(np.log([1e6, 1e8]), np.log([1e9, 1e11]), size=(30, 2)))
        log_y = {
            "noise": 0.05 * rng.standard_normal(30),
            "params alone": additive(x[:, 0], 1e30) + 0.01 * rng.standard_normal(30),
            "samples alone": additive(1e30, x[:, 1]) + 0.01 * rng.standard_normal(30),
            "exact": additive(x[:, 0], x[:, 1]),
            "wild": additive(x[:, 0], x[:, 1]) + 0.1 * rng.standard_t(2, size=30),
        }[kind]
        held = replace(fit_evidence(evidence(x, log_y), draws=0), status="supported")
        answers = (
            decide.compute_optimal(held, 1e22),
            decide.serving_optimal(held, 1e12, compute=1e21),
            decide.serving_optimal(held, 1e12, target=2.0),
            decide.equal_loss(held, 1e8, 2e10),
            *decide.growth(held),
        )
        for said in answers:
            for e in (v for v in vars(said).values() if isinstance(v, Estimate)):
                assert e.low <= e.value <= e.high  # which NaN is not
                assert said.status == "undetermined" or math.isfinite(e.value)


def test_nonsense_is_refused() -> None:
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError):
            decide.compute_optimal(law(), wrong)
        with pytest.raises(UsageError):
            decide.serving_optimal(law(), 1e9, target=wrong)
        with pytest.raises(UsageError):
            decide.equal_loss(law(), wrong, 1e9)
        with pytest.raises(UsageError):
            decide.growth(law(), times=wrong)
    with pytest.raises(UsageError):
        decide.serving_optimal(law(), 1e9)


def test_the_published_law_gives_the_published_optimum(shared_data: Path) -> None:
    """Besiroglu et al. 2024 (arXiv:2404.10102): a = 0.512, and about 20 tokens a parameter at Chinchilla's budget."""
    x, log_y = published(shared_data)
    held = fit_evidence(evidence(x, log_y), form="additive", delta=1e-3, draws=0)
    form = known(BOTH)[0]
    natural = np.array([[held.forms[0].parameters[n].value for n in form.names]])
    laws = Shortages.of(form, form.theta(natural))
    log_product = math.log(5.76e23 / 6)
    tokens = math.exp(log_product - 2 * float(laws.optimal_log_params(log_product)[0]))
    assert laws.exponent()[0] == pytest.approx(0.512, abs=0.005)
    assert 15 < tokens < 26
    said = decide.compute_optimal(held, 1e21)
    assert [a.params is None for a in said.approaches] == [False, False, False]
    assert said.verdict != "disagree"


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "compute"), [(0.003, 1e20), (0.003, 1e22), (0.01, 1e20)])
def test_ninety_percent_intervals_of_the_optimum_cover(noise: float, compute: float) -> None:
    held = []
    for seed in range(200):
        said = decide.compute_optimal(fit_evidence(grid(noise, seed), draws=0), compute, redone=0)
        if said.params is not None:
            held.append(said.params.low <= optimum(compute) <= said.params.high)
    assert len(held) > 150
    assert np.mean(held) >= 0.84


@pytest.mark.slow
def test_ninety_percent_intervals_of_trades_and_growth_cover() -> None:
    p, q = A * 1e8**-ALPHA, B * 2e9**-BETA
    more = (B / (p + q - A * 0.9e8**-ALPHA)) ** (1 / BETA) / 2e9
    traded, grown = [], []
    for seed in range(200):
        held = fit_evidence(grid(0.003, seed), draws=0)
        said = decide.equal_loss(held, 1e8, 2e9)
        if said.more is None:
            continue
        traded.append(said.more.low <= more <= said.more.high)
        for g in decide.growth(held):
            assert g.ratio is not None
            there, here = additive(np.array(g.at["params"]), np.array(g.at["samples"])), additive(1e9, 2e10)
            luck = 0.003 * np.random.default_rng(1000 + seed).standard_normal()
            grown.append(g.ratio.low <= float(np.exp(there - here + luck)) <= g.ratio.high)
    assert len(traded) > 150
    assert np.mean(traded) >= 0.84
    assert np.mean(grown) >= 0.84
