"""Fits find known laws, predictions hold what was hidden, and thin evidence is refused."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import laws
from sizewise.errors import UsageError
from sizewise.laws import Evidence, solve
from sizewise.laws.compete import sandwich
from sizewise.laws.forms import Form, candidates, known, named
from sizewise.laws.intake.evidence import sample
from sizewise.records import Law, Metric, Point, Recipe, Run, Scores, Trial, from_json, to_json

Array = NDArray[np.float64]
ONE, TWO, THREE = ("params",), ("params", "samples"), ("params", "samples", "unique")
SIZES = (2_800, 6_900, 17_000, 43_000, 110_000, 275_000, 694_000)

TRUTHS: dict[tuple[tuple[str, ...], str], list[float]] = {
    (ONE, "power"): [8.0, 0.3],
    (ONE, "power+floor"): [0.03, 50.0, 0.7],
    (ONE, "shifted"): [0.05, 40.0, 0.0, 0.6, 2e4, 1.0],
    (ONE, "bounded"): [0.05, 0.9, 500.0, 0.6, 1.3],
    (ONE, "broken-1"): [0.02, 5.0, 0.15, 0.4, 5e4, 0.4],
    (ONE, "broken-2"): [0.02, 5.0, 0.15, 0.3, 2e4, 0.4, 0.2, 2e5, 0.4],
    (ONE, "broken-3"): [0.02, 5.0, 0.15, 0.3, 1e4, 0.4, 0.2, 7e4, 0.4, -0.2, 4e5, 0.4],
    (TWO, "additive"): [1.8, 480.0, 2100.0, 0.35, 0.37],
    (TWO, "tied"): [1.8, 480.0, 1500.0, 0.35],
    (TWO, "coupled"): [1.8, 480.0, 2100.0, 0.35, 0.37, 0.6],
    (TWO, "kaplan"): [1.5 * 1e8**0.1, 1.5 * 3e9**0.12, 0.1, 0.12],
    (TWO, "powers"): [48.0, 210.0, 0.2, 0.25],
    (THREE, "repeated"): [1.8, 480.0, 2100.0, 0.35, 0.37, 15.0],
}


def form_of(case: tuple[tuple[str, ...], str]) -> Form:
    return named(case[1], case[0])


def design(variables: tuple[str, ...]) -> Array:
    if variables == ONE:
        return np.repeat(np.array(SIZES, dtype=float), 5)[:, None]
    sizes, data = np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(3e8, 3e10, 6))
    x = np.column_stack([sizes.ravel(), data.ravel()])
    if variables == TWO:
        return x
    return np.concatenate([np.column_stack([x, x[:, 1] / repeats]) for repeats in (1.0, 4.0, 30.0)])


def evidence(variables: tuple[str, ...], x: Array, y: Array, weight: Array | None = None) -> Evidence:
    rows = np.arange(len(y))
    _, setting = np.unique(x, axis=0, return_inverse=True)
    weight = np.ones(len(y)) if weight is None else weight
    return Evidence("loss", variables, x, y, weight, rows, setting.reshape(-1), rows + 1)


def drawn(case: tuple[tuple[str, ...], str], noise: float, seed: int, x: Array | None = None) -> Evidence:
    form, x = form_of(case), design(case[0]) if x is None else x
    rng = np.random.default_rng(seed)
    log_y = form.value(form.theta(np.array([TRUTHS[case]])), np.log(x))[0]
    return evidence(case[0], x, np.exp(log_y + noise * rng.normal(size=len(x))))


def truth(case: tuple[tuple[str, ...], str], x: Array) -> Array:
    form = form_of(case)
    return np.exp(form.value(form.theta(np.array([TRUTHS[case]])), np.log(x))[0])


def points(variables: tuple[str, ...], x: Array) -> list[dict[str, float]]:
    return [dict(zip(variables, map(float, row), strict=True)) for row in x]


def table(path: Path) -> tuple[Array, Array]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return (
        np.array([[float(r["params"]), float(r["tokens"])] for r in rows]),
        np.array([float(r["loss"]) for r in rows]),
    )


def chinchilla(data: Path) -> Evidence:
    with (data / "scaling" / "chinchilla_fig4.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda r: float(r["loss"]))[:-5]
    n, c = (np.array([float(r[name]) for r in rows]) for name in ("Model Size", "Training FLOP"))
    return evidence(TWO, np.column_stack([n, c / (6 * n)]), np.array([float(r["loss"]) for r in rows]))


def make_run(params: int, seed: int, loss: float) -> Run:
    """A run with a given validation loss, and with an error of the same value over 10,000 examples."""
    wrong = round(loss * 10_000) if loss < 1 else 0
    scores = Scores(Metric("accuracy"), loss, 1 - wrong / 10_000, {}, ((10_000 - wrong, wrong),))
    trial = Trial("made", "", "cnn", params, 1.0, Recipe(), seed)
    point = Point(1, 1, 1e-3, loss, loss, 0.5, 1.0)
    return Run(trial, params, 0, 0, loss, scores, (point,), 1.0, {}, {})


def sweep(noise: float, seed: int, sizes: tuple[int, ...] = SIZES) -> list[Run]:
    found = drawn((ONE, "power+floor"), noise, seed, np.repeat(np.array(sizes, dtype=float), 5)[:, None])
    return [make_run(int(n), i % 5, float(y)) for i, (n, y) in enumerate(zip(found.x[:, 0], found.y, strict=True))]


# Forms


def test_every_form_is_under_test() -> None:
    assert {(form.variables, form.name) for v in (ONE, TWO, THREE) for form in known(v)} == set(TRUTHS)


@pytest.mark.parametrize("case", TRUTHS, ids=lambda c: c[1])
def test_derivatives_are_those_of_the_value(case: tuple[tuple[str, ...], str]) -> None:
    form, rng = form_of(case), np.random.default_rng(0)
    x = np.log(design(case[0])[::5])
    centre = x.mean(axis=0)
    if case[0] == THREE:
        centre[2] = centre[1]
    theta = form.shifted(form.theta(np.array([TRUTHS[case]])), centre)
    x, step = x - centre, 1e-5
    value, jacobian = form.jacobian(theta, x)
    np.testing.assert_allclose(value, form.value(theta, x), rtol=1e-12, atol=1e-12)
    for j in range(len(form.names)):
        if form.bounds(x, value[0]).low[j] == form.bounds(x, value[0]).high[j]:
            continue  # not free
        moved = np.eye(theta.shape[1])[j] * step
        slope = (form.value(theta + moved, x) - form.value(theta - moved, x)) / (2 * step)
        np.testing.assert_allclose(jacobian[:, :, j], slope, rtol=1e-5, atol=1e-7)
    pull = rng.normal(size=(1, len(x)))
    if not form.curved:
        return
    curvature = form.curvature(jacobian, x, pull)
    # What is summed lacks the outer products of the first derivatives; see `Form.curvature` and its use.
    second = curvature[0] - np.einsum("p,pi,pj->ij", pull[0], jacobian[0], jacobian[0])
    for j in range(len(form.names)):
        moved = np.eye(theta.shape[1])[j] * step
        ahead, behind = form.jacobian(theta + moved, x)[1][0], form.jacobian(theta - moved, x)[1][0]
        np.testing.assert_allclose(second[:, j], pull[0] @ (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", TRUTHS, ids=lambda c: c[1])
def test_a_shifted_law_is_the_same_law(case: tuple[tuple[str, ...], str]) -> None:
    form, x = form_of(case), np.log(design(case[0]))
    theta = form.theta(np.array([TRUTHS[case]]))
    by = np.array([2.0, -1.5, -1.5])[: len(case[0])]
    np.testing.assert_allclose(form.value(form.shifted(theta, by), x - by), form.value(theta, x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(form.natural(theta)[0], TRUTHS[case], rtol=1e-9)


@pytest.mark.parametrize("case", [c for c in TRUTHS if c[1] not in ("broken-2", "broken-3")], ids=lambda c: c[1])
def test_a_law_without_noise_is_found_and_predicted(case: tuple[tuple[str, ...], str]) -> None:
    law = laws.fit_evidence(drawn(case, 0.0, 0), form=case[1], draws=0)
    far = design(case[0]).max(axis=0, keepdims=True) * 4
    assert law.forms[0].scatter < 1e-3
    assert laws.predict(law, points(case[0], far))[0].value == pytest.approx(float(truth(case, far)[0]), rel=0.01)


def test_forms_compete_and_the_true_one_leads_where_it_can_be_told() -> None:
    for case in ((ONE, "bounded"), (TWO, "additive"), (TWO, "kaplan")):
        law = laws.fit_evidence(drawn(case, 0.002, 1), draws=0)
        weights = {form.form: form.weight for form in law.forms}
        assert weights[case[1]] >= 0.8 * max(weights.values())
        assert sum(weights.values()) == pytest.approx(1)
        assert set(weights) <= {form.name for form in candidates(case[0])}


# Estimation


def test_published_fit_of_240_language_models(shared_data: Path) -> None:
    """Besiroglu et al. 2024, arXiv:2404.10102: A 482, B 2085, E 1.817, alpha 0.348, beta 0.366, by BFGS from a grid."""
    law = laws.fit_evidence(chinchilla(shared_data), form="additive", delta=1e-3)
    found, errors = law.forms[0].parameters, {"A": 124.5, "B": 1293, "E": 0.026, "alpha": 0.0154, "beta": 0.0206}
    for name, value in {"A": 482, "B": 2085, "E": 1.817, "alpha": 0.348, "beta": 0.366}.items():
        assert abs(found[name].value - value) < 0.1 * errors[name]
        # A 90 % interval is 2 · 1.645 standard errors long where estimates are near normal; B's are skewed.
        assert found[name].high - found[name].low == pytest.approx(3.29 * errors[name], rel=0.25)
    assert law.forms[0].objective <= 0.001018271


def test_the_search_is_never_beaten_by_a_start_at_the_truth() -> None:
    for case in ((ONE, "power+floor"), (ONE, "bounded"), (TWO, "additive"), (TWO, "coupled")):
        form, delta = form_of(case), 0.02
        for seed in range(5):
            found = drawn(case, 0.03, seed)
            centre = found.log_x.mean(axis=0)
            x, weights = found.log_x - centre, np.ones((1, len(found.y)))
            start = form.shifted(form.theta(np.array([TRUTHS[case]])), centre)[0]
            ours = solve.search(form, x, found.log_y, weights, delta).loss[0]
            helped = solve.refit(form, start, x, found.log_y, weights, delta).loss[0]
            assert ours <= helped * (1 + 1e-6)


def test_resamples_reach_the_optimum_that_a_library_reaches(shared_data: Path) -> None:
    from scipy.optimize import minimize

    found, form, delta = chinchilla(shared_data), named("additive", TWO), 1e-3
    centre = found.log_x.mean(axis=0)
    x = found.log_x - centre
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=8).astype(float)
    start = solve.search(form, x, found.log_y, np.ones((1, len(x))), delta).theta[0]
    ours = solve.refit(form, start, x, found.log_y, weights, delta)
    for row, loss in zip(weights, ours.loss, strict=True):

        def cost(theta: Array, row: Array = row) -> float:
            residual = form.value(theta[None], x) - found.log_y
            return float(solve.huber(residual, row[None], np.array([delta]))[0] / row.sum())

        theirs = minimize(cost, start, method="BFGS", options={"gtol": 1e-10}).fun
        assert loss <= theirs * (1 + 1e-6)


def spread_of_fits(case: tuple[tuple[str, ...], str], x: Array, clusters: int, draws: int = 200) -> tuple[Array, Array]:
    """Standard deviation of theta over many draws, and the sandwich's in the mean; rows of a cluster share half of
    their noise."""
    form, cluster = form_of(case), np.arange(len(x)) * clusters // len(x)
    centre = np.log(x).mean(axis=0)
    theta = form.shifted(form.theta(np.array([TRUTHS[case]])), centre)
    exact, thetas, errors = form.value(theta, np.log(x) - centre)[0], [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=clusters)[cluster] * (clusters < len(x))
        log_y = exact + 0.02 * (shared + rng.normal(size=len(x)))
        one = replace(evidence(case[0], x, np.exp(log_y)), cluster=cluster)
        found = solve.refit(form, theta[0], np.log(x) - centre, log_y, one.weight[None], 0.03)
        spread = sandwich(form, found.theta, np.log(x) - centre, one, one.weight[None], found.delta)[0]
        thetas.append(found.theta[0])
        errors.append(np.diag(spread))
    return np.std(thetas, axis=0), np.sqrt(np.mean(errors, axis=0))


@pytest.mark.parametrize("clusters", [24, 8])
def test_standard_errors_are_those_of_repeated_experiments(clusters: int) -> None:
    """24 runs of a power law, alone or as 8 curves of 3 checkpoints: neither too small by leverage nor by clusters."""
    actual, said = spread_of_fits((ONE, "power"), np.geomspace(1e3, 1e6, 24)[:, None], clusters)
    np.testing.assert_allclose(said, actual, rtol=0.25)


def test_many_standard_errors_at_once_are_those_of_each() -> None:
    found, form = drawn((TWO, "additive"), 0.02, 0), named("additive", TWO)
    x = found.log_x - found.log_x.mean(axis=0)
    weights = np.stack([np.ones(len(x)), np.where(found.scale < 20, 1.0, 0.0)])
    fits = solve.search(form, x, found.log_y, weights)
    both = sandwich(form, fits.theta, x, found, weights, fits.delta)
    for i in range(2):
        one = sandwich(form, fits.theta[[i]], x, found, weights[[i]], fits.delta[[i]])
        np.testing.assert_allclose(both[[i]], one, rtol=1e-9)


def test_a_floor_that_is_not_there_is_found_to_be_nothing() -> None:
    found = drawn((ONE, "power"), 0.0, 0)
    fit = laws.fit_evidence(found, form="power+floor", draws=0).forms[0]
    assert fit.parameters["E"].value < 1e-4 * found.y.min()
    assert fit.parameters["alpha"].value == pytest.approx(0.3, rel=1e-3)


def test_both_fits_are_told_apart() -> None:
    """The plain one for the record, and the one that predicts, in which larger runs weigh more."""
    lead = laws.fit_evidence(drawn((TWO, "additive"), 0.02, 0), form="additive", draws=0).forms[0]
    assert lead.predicting.keys() == lead.parameters.keys()
    assert lead.predicting["alpha"] == pytest.approx(0.35, rel=0.25)
    assert lead.predicting["alpha"] != lead.parameters["alpha"].value


def test_a_weight_of_two_is_a_row_twice() -> None:
    found = drawn((TWO, "additive"), 0.01, 3)
    twice = evidence(TWO, np.concatenate([found.x, found.x[:1]]), np.append(found.y, found.y[0]))
    heavy = evidence(TWO, found.x, found.y, np.where(np.arange(len(found.y)) == 0, 2.0, 1.0))
    a, b = (laws.fit_evidence(e, form="additive", delta=0.01, draws=0) for e in (twice, heavy))
    for name, e in a.forms[0].parameters.items():
        assert b.forms[0].parameters[name].value == pytest.approx(e.value, rel=1e-4)


@settings(max_examples=8, deadline=None)
@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-3, 3), st.integers(0, 100))
def test_units_do_not_matter(params: float, samples: float, loss: float, seed: int) -> None:
    """Parameters in millions, samples in batches or losses in bits: the same predictions in those units."""
    found = drawn((TWO, "additive"), 0.01, seed)
    units, unit = 10.0 ** np.array([params, samples]), 10.0**loss
    far = found.x.max(axis=0, keepdims=True) * 3
    plain = laws.predict(laws.fit_evidence(found, draws=0), points(TWO, far))[0]
    scaled = laws.fit_evidence(evidence(TWO, found.x * units, found.y * unit), draws=0)
    other = laws.predict(scaled, points(TWO, far * units))[0]
    assert other.value == pytest.approx(plain.value * unit, rel=2e-3)
    assert math.log(other.high / other.low) == pytest.approx(math.log(plain.high / plain.low), rel=0.05)


def test_a_wild_run_is_named_and_does_not_move_the_law() -> None:
    runs = sweep(0.03, 1)
    wild = [*runs[:-1], make_run(SIZES[-1], 4, 3.0)]
    clean, touched = laws.fit(runs, "loss"), laws.fit(wild, "loss")
    at = [{"params": 50_000.0}]
    assert laws.predict(touched, at)[0].value == pytest.approx(laws.predict(clean, at)[0].value, rel=0.05)
    assert [out.rows for out in touched.outliers] == [(35,)]
    assert len(touched.points) == 35


def test_fit_is_deterministic_and_survives_the_store() -> None:
    law = laws.fit(sweep(0.05, 5), "loss")
    assert to_json(law) == to_json(laws.fit(sweep(0.05, 5), "loss"))
    assert to_json(from_json(Law, to_json(law))) == to_json(law)


def test_many_rows_take_linear_memory_and_time() -> None:
    """100,000 rows: forms compete on a sample, the winner sees all."""
    rng = np.random.default_rng(0)
    x = 10 ** rng.uniform([6, 8], [9, 11], size=(100_000, 2))
    found = drawn((TWO, "additive"), 0.05, 0, x)
    law = laws.fit_evidence(found)
    assert law.runs == 100_000
    assert law.status == "supported"
    assert any("drawn from 100,000" in note for note in law.notes)
    alpha = law.forms[0].parameters["alpha"]
    assert alpha.low < 0.35 < alpha.high
    assert alpha.high - alpha.low < 0.01


def test_a_sample_keeps_the_few_large_runs_and_weighs_as_much_as_all() -> None:
    rng = np.random.default_rng(0)
    scale = np.concatenate([rng.uniform(0, 1, 50_000), [9.0, 9.5, 10.0]])
    rows, times = sample(scale, 2_000)
    assert len(rows) <= 2_000
    assert set(range(50_000, 50_003)) <= set(rows)
    assert times[-3:] == pytest.approx(1)
    assert times.sum() == pytest.approx(len(scale))
    np.testing.assert_array_equal(rows, sample(scale, 2_000)[0])
    rows, times = sample(np.zeros(100), 7)
    assert len(rows) == 7
    assert times == pytest.approx(100 / 7)


def test_a_few_large_runs_among_very_many_small_ones_are_not_lost() -> None:
    rng, case = np.random.default_rng(0), (TWO, "additive")
    small = 10 ** rng.uniform([6, 8], [7, 9], size=(60_000, 2))
    large = np.array([[1e9, 1e11], [5e8, 5e10], [2e8, 2e10]])
    law = laws.fit_evidence(drawn(case, 0.02, 0, np.concatenate([small, large])), draws=0)
    assert law.box["params"][1] == pytest.approx(1e9)
    assert len(law.points) <= 2_000
    said = laws.predict(law, points(TWO, large[:1]))[0]
    assert said.low < truth(case, large[:1])[0] < said.high


# Prediction


def test_hidden_language_models_are_predicted(shared_data: Path) -> None:
    """Public run sets without the runs above a tenth of the largest compute: most hidden ones in their intervals."""
    held, miss = [], []
    for path in sorted((shared_data / "scaling" / "runs").glob("*.csv")):
        x, y = table(path)
        compute = x.prod(axis=1)
        seen = compute <= compute.max() / 10
        if seen.sum() < 8:
            continue
        law = laws.fit_evidence(evidence(TWO, x[seen], y[seen]), draws=0)
        said = laws.predict(law, points(TWO, x[~seen]))
        held.append(np.mean([e.low <= one <= e.high for e, one in zip(said, y[~seen], strict=True)]))
        miss.append(np.median([abs(np.log(e.value / one)) for e, one in zip(said, y[~seen], strict=True)]))
    assert len(held) >= 6
    assert np.mean(held) >= 0.8
    assert np.median(miss) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("case", [(ONE, "power+floor"), (ONE, "bounded"), (TWO, "additive"), (TWO, "coupled")])
def test_ninety_percent_intervals_cover(case: tuple[tuple[str, ...], str]) -> None:
    """Of 100 laws' next runs, ten times larger in compute, within a binomial's reach of 90 %."""
    x = design(case[0])
    far = x.max(axis=0, keepdims=True) * np.sqrt(10)
    held = []
    for seed in range(100):
        law = laws.fit_evidence(drawn(case, 0.02, seed), draws=0)
        new = float(truth(case, far)[0] * np.exp(0.02 * np.random.default_rng(seed + 1000).normal()))
        e = laws.predict(law, points(case[0], far))[0]
        held.append(e.low <= new <= e.high)
    assert np.mean(held) >= 0.8


def test_intervals_widen_with_distance_and_level_and_narrow_with_repeats() -> None:
    law = laws.fit(sweep(0.05, 4), "loss")
    inside, near, far = laws.predict(law, [{"params": n} for n in (5e4, 3e6, 5e7)])
    widths = [math.log(e.high / e.low) for e in (inside, near, far)]
    assert widths == sorted(widths)
    assert inside.method.endswith("within the evidence")
    assert far.method.endswith("beyond the evidence")
    half = laws.predict(law, [{"params": 5e4}], level=0.5)[0]
    many = laws.predict(law, [{"params": 5e4}], runs=20)[0]
    assert inside.low < half.low < half.value < half.high < inside.high
    assert many.high / many.low < inside.high / inside.low


def test_back_tests_hide_the_largest_runs() -> None:
    law = laws.fit(sweep(0.03, 2), "loss")
    assert law.status == "supported"
    assert law.backtests[0].at == {"params": float(SIZES[-1])}
    assert [b.visible + b.hidden for b in law.backtests] == [35] * len(law.backtests)
    assert [b.reach for b in law.backtests] == sorted(b.reach for b in law.backtests)


# Refusal


def test_error_counts_of_zero_are_no_problem() -> None:
    runs = [make_run(n, s, max(0.0, 0.2 - 0.05 * i)) for i, n in enumerate(SIZES) for s in range(5)]
    perfect = [replace(r, validation=replace(r.validation, score=1.0)) for r in runs[-10:]]
    law = laws.fit([*runs[:-10], *perfect], "error")
    assert all(y > 0 for _, y in law.points)


def test_a_run_that_diverged_is_left_out_and_named() -> None:
    runs = sweep(0.03, 3)
    law = laws.fit([*runs, make_run(SIZES[0], 5, math.nan)], "loss")
    assert law.runs == len(runs)
    assert law.excluded[0].rows == (36,)


@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES[:2], SIZES[:4], (100, 120, 150, 180, 200)])
def test_few_sizes_or_decades_are_insufficient(sizes: tuple[int, ...]) -> None:
    law = laws.fit(sweep(0.03, 3, sizes), "loss")
    assert law.status == "insufficient"
    assert law.reason


def test_nothing_at_all_is_insufficient() -> None:
    law = laws.fit([], "loss")
    assert law.status == "insufficient"
    assert math.isnan(laws.predict(law, [{"params": 1e6}])[0].value)


def test_a_loss_that_does_not_fall_is_unreliable() -> None:
    rising = [make_run(n, s, 0.2 + 0.02 * i + 0.001 * s) for i, n in enumerate(SIZES) for s in range(5)]
    assert laws.fit(rising, "loss").status == "unreliable"


def test_noise_is_refused_as_a_law_of_two_variables() -> None:
    x = design(TWO)
    for seed in range(20):
        y = np.exp(0.3 * np.random.default_rng(seed).normal(size=len(x)))
        assert laws.fit_evidence(evidence(TWO, x, y), draws=0).status != "supported"


def test_a_variable_that_never_varies_is_named() -> None:
    found = drawn((TWO, "additive"), 0.01, 0)
    same = evidence(TWO, np.column_stack([found.x[:, 0], np.full(len(found.y), 1e9)]), found.y)
    law = laws.fit_evidence(same, draws=0)
    assert law.status != "supported"
    assert "samples" in law.reason


def test_an_unknown_form_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no form 'cubic'") as caught:
        laws.fit_evidence(drawn((TWO, "additive"), 0.01, 0), form="cubic")
    assert "additive" in (caught.value.hint or "")
