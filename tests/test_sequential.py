"""Intervals that are looked at again and again hold together; plain ones do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from sizewise import sequential, stats

STUDIES = 20_000


def exceeded(most: int, edges: dict[int, float], *, sides: int, seed: int = 1) -> float:
    """Share of made studies in which some look's t statistic exceeds its edge; the true difference is none."""
    drawn = 3.0 * np.random.default_rng(seed).standard_normal((STUDIES, most))
    found = np.zeros(STUDIES, dtype=bool)
    for n, edge in edges.items():
        so_far = drawn[:, :n]
        t = so_far.mean(axis=1) / (so_far.std(axis=1, ddof=1) / math.sqrt(n))
        found |= (np.abs(t) if sides == 2 else t) > edge
    return float(found.mean())


def edges(most: int) -> dict[int, float]:
    return {n: sequential.critical(n, most, stats.LEVEL) for n in range(min(sequential.FIRST, most), most + 1)}


@pytest.mark.parametrize("most", [2, 3, 5, 10, 20])
def test_all_looks_together_err_as_often_as_one_interval_may(most: int) -> None:
    """Each side in 2.5 % of studies: with 20,000 studies, three standard deviations are 0.33 points."""
    assert exceeded(most, edges(most), sides=1) == pytest.approx(0.025, abs=0.0035)
    assert exceeded(most, edges(most), sides=2) == pytest.approx(0.05, abs=0.0047)


def test_plain_intervals_at_every_look_err_far_more_often() -> None:
    plain = {n: float(student.ppf(0.975, n - 1)) for n in range(3, 11)}
    assert exceeded(10, plain, sides=1) > 2 * 0.025


def test_a_single_look_is_the_plain_interval() -> None:
    assert sequential.critical(3, 3, 0.95) == pytest.approx(student.ppf(0.975, 2), rel=0.02)
    assert sequential.nominal(3, 3, 0.95) == pytest.approx(0.95, abs=0.001)


def test_early_looks_ask_for_more_and_the_last_for_little_more_than_one_look_would() -> None:
    levels = [sequential.nominal(n, 10, 0.95) for n in range(3, 11)]
    assert min(levels[:4]) > 0.99
    assert levels[-1] == min(levels)
    assert 0.95 < levels[-1] < 0.98


def test_before_the_first_look_there_is_no_interval_and_after_the_last_it_stays() -> None:
    assert math.isnan(sequential.critical(2, 10, 0.95))
    assert sequential.critical(12, 10, 0.95) == sequential.critical(10, 10, 0.95)
