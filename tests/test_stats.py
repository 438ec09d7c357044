"""Intervals hold the truth as often as they say, and exact cases come out exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sizewise import stats
from sizewise.records import Metric

REPEATS = 1500


def coverage(hits: int) -> bool:
    """Whether a nominal 95 % interval that held `hits` of REPEATS times is honest: at least 93 %."""
    return hits / REPEATS >= 0.93


def test_paired_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=7), rng.normal(size=7)
    estimate, p = stats.paired(a, b)
    expected = scipy_stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert p == pytest.approx(expected.pvalue)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert estimate.n == 7


def test_identical_pairs_are_certainly_equal() -> None:
    estimate, p = stats.paired(np.full(5, 0.9), np.full(5, 0.9))
    assert (estimate.value, estimate.low, estimate.high, p) == (0, 0, 0, 1)


def test_constant_difference_is_certain() -> None:
    _, p = stats.paired(np.full(5, 0.75), np.full(5, 0.5))
    assert p == 0


def test_single_repeat_has_no_interval() -> None:
    assert math.isnan(stats.mean(np.array([0.5])).low)


def test_an_interval_ends_where_the_quantity_does() -> None:
    errors = np.array([0.0, 0.004, 0.001])
    free, cut = stats.mean(errors), stats.mean(errors, within=(0.0, math.inf))
    assert free.low < 0 == cut.low
    assert (cut.value, cut.high, cut.n) == (free.value, free.high, 3)
    assert math.isnan(stats.mean(np.array([0.5]), within=(0.0, 1.0)).low)
    assert stats.mean(np.array([0.99, 1.0]), within=Metric("accuracy").range).high == 1.0
    assert Metric("word error rate", higher=False).range == (0.0, math.inf)


def test_seed_interval_covers() -> None:
    rng = np.random.default_rng(1)
    hits = sum(e.low <= 0.3 <= e.high for e in (stats.mean(rng.normal(0.3, 1, 5)) for _ in range(REPEATS)))
    assert coverage(hits)


def test_population_interval_covers_where_the_seed_interval_does_not() -> None:
    """Scores with seed, example and residual effects: only the crossed interval speaks for unseen examples."""
    rng = np.random.default_rng(2)
    crossed = seeds_only = 0
    for _ in range(REPEATS):
        difference = (
            0.1 + 0.05 * rng.normal(size=(5, 1)) + 1.0 * rng.normal(size=(1, 60)) + 0.5 * rng.normal(size=(5, 60))
        )
        e = stats.paired_population(difference, np.zeros_like(difference))
        crossed += e.low <= 0.1 <= e.high
        s, _ = stats.paired(difference.mean(axis=1), np.zeros(5))
        seeds_only += s.low <= 0.1 <= s.high
    assert coverage(crossed)
    assert seeds_only < 0.8 * REPEATS


@pytest.mark.parametrize(("rate_a", "rate_b"), [(0.95, 0.94), (0.5, 0.5), (0.99, 0.99)])
def test_paired_proportions_cover(rate_a: float, rate_b: float) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(REPEATS):
        shared = rng.random(300)
        a, b = shared < rate_a, np.where(rng.random(300) < 0.9, shared, rng.random(300)) < rate_b
        e = stats.paired_proportions(a, b)
        hits += e.low <= rate_a - rate_b <= e.high
    assert coverage(hits)


def test_equal_answers_leave_a_doubt_that_shrinks_with_examples() -> None:
    few = stats.paired_proportions(np.ones(300, bool), np.ones(300, bool))
    many = stats.paired_proportions(np.ones(6000, bool), np.ones(6000, bool))
    assert few.value == many.value == 0
    assert 0 < many.high < few.high < 0.01


@given(n=st.integers(1, 500), data=st.data())
def test_proportion_stays_inside_its_interval_and_the_unit_range(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    e = stats.proportion(k, n)
    assert 0 <= e.low <= e.value + 1e-12
    assert e.value - 1e-12 <= e.high <= 1


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_quantile_is_inside_its_interval(values: list[float], q: float) -> None:
    e = stats.quantile(np.array(values), q)
    assert e.low <= e.value <= e.high


def test_quantile_interval_covers() -> None:
    rng = np.random.default_rng(4)
    truth = scipy_stats.expon.ppf(0.9)
    estimates = (stats.quantile(rng.exponential(size=200), 0.9) for _ in range(REPEATS))
    assert coverage(sum(e.low <= truth <= e.high for e in estimates))


def test_log_ratio_is_exact_for_a_constant_ratio() -> None:
    b = np.array([1.0, 2.0, 3.0])
    e = stats.log_ratio(2.5 * b, b)
    assert (e.value, e.low, e.high) == pytest.approx((2.5, 2.5, 2.5))
