"""What limits runs is found where it was put, and not where it was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sizewise import laws
from sizewise.errors import UsageError
from sizewise.records import Finding, Law
from tests.test_laws import ONE, SIZES, TWO, chinchilla, design, drawn, evidence

Array = NDArray[np.float64]
RISING = {"double-descent", "divergence"}


def fitted(e: laws.Evidence) -> Law:
    return laws.fit_evidence(e, draws=0)


def codes(found: tuple[Finding, ...]) -> set[str]:
    return {finding.code for finding in found}


def grid(additive: tuple[float, float], seed: int = 0, noise: float = 0.01) -> laws.Evidence:
    """Loss on a grid of sizes and data, where A·N^-0.35 and B·D^-0.35 have these values at the largest run."""
    x = design(TWO)
    n, d = (x / x.max(axis=0)).T
    y = 1.5 + additive[0] * n**-0.35 + additive[1] * d**-0.35
    return evidence(TWO, x, y * np.exp(noise * np.random.default_rng(seed).normal(size=len(y))))


@pytest.mark.parametrize(
    ("parts", "code"), [((0.5, 0.1), "capacity-limited"), ((0.1, 0.5), "data-limited"), ((0.3, 0.3), None)]
)
def test_the_scarcer_one_limits(parts: tuple[float, float], code: str | None) -> None:
    e = grid(parts)
    found = laws.limits(fitted(e), e)
    of_params, of_samples, difference = next(f for f in found if len(f.evidence) == 3).evidence
    assert of_params.low <= parts[0] / sum(parts) <= of_params.high
    assert of_samples.low <= parts[1] / sum(parts) <= of_samples.high
    assert code is None or code in codes(found)
    assert (difference.low <= 0 <= difference.high) == ("not-enough-evidence" in codes(found))


def test_the_answer_depends_on_the_run() -> None:
    e = grid((0.3, 0.3))
    law = fitted(e)
    assert "capacity-limited" in codes(laws.limits(law, e, at={"params": 1e7, "samples": 3e10}))
    assert "data-limited" in codes(laws.limits(law, e, at={"params": 1e9, "samples": 3e8}))
    with pytest.raises(UsageError):
        laws.limits(law, e, at={"params": 1e7})


def test_a_law_that_says_nothing_of_the_trade_names_no_culprit() -> None:
    e = drawn((ONE, "power+floor"), 0.02, 0)
    assert laws.limits(fitted(e), e) == ()
    few = e.take(np.arange(3))
    assert laws.limits(fitted(few), few) == ()
    none = e.take(np.arange(0))
    assert laws.limits(fitted(few), none) == ()


@pytest.mark.parametrize("repeats", [1, 5])
@pytest.mark.parametrize("slope", [0.0, 0.05, 0.4])
def test_noise_is_no_rise(repeats: int, slope: float) -> None:
    """Flat curves are the hardest; one variable, with repeats and without."""
    x = np.repeat(np.geomspace(1e4, 1e7, 12), repeats)[:, None]
    law, alarms = fitted(drawn((ONE, "power+floor"), 0.02, 0)), 0
    for seed in range(200):
        y = 3 * x[:, 0] ** -slope * np.exp(0.03 * np.random.default_rng(seed).normal(size=len(x)))
        alarms += bool(codes(laws.limits(law, evidence(ONE, x, y))) & RISING)
    assert alarms <= 10


def test_noise_on_a_grid_is_no_rise() -> None:
    law, alarms = fitted(grid((0.3, 0.3))), 0
    for seed in range(100):
        alarms += bool(codes(laws.limits(law, grid((0.02, 0.02), seed, 0.03))) & RISING)
    assert alarms <= 5


@pytest.mark.parametrize("seed", range(5))
def test_double_descent_is_found_and_its_rows_are_named(seed: int) -> None:
    x = design(ONE)
    log_n = np.log(x[:, 0])
    log_y = np.log(0.3) - 0.1 * (log_n - log_n[0]) + 0.5 * np.exp(-(((log_n - np.log(43_000)) / 1.2) ** 2))
    e = evidence(ONE, x, np.exp(log_y + 0.03 * np.random.default_rng(seed).normal(size=len(x))))
    found = laws.limits(fitted(e), e)
    assert found[0].code == "double-descent"
    assert "rows 16, 17, 18, 19, 20" in found[0].sentence
    assert 1 < found[0].evidence[0].low < found[0].evidence[0].value


@pytest.mark.parametrize("seed", range(5))
def test_divergence_is_found(seed: int) -> None:
    e = drawn((ONE, "power+floor"), 0.03, seed)
    e = evidence(ONE, e.x, np.where(e.x[:, 0] > SIZES[-3], 2 * e.y, e.y))
    found = laws.limits(fitted(e), e)
    assert found[0].code == "divergence"


def test_divergence_on_a_grid_of_single_runs_is_found() -> None:
    e = grid((0.3, 0.3))
    y = np.where(e.x[:, 0] > 5e8, 1.3 * e.y, e.y)
    found = laws.limits(fitted(e), evidence(TWO, e.x, y))
    assert found[0].code == "divergence"
    assert "repeat it" in found[0].next_step


def test_one_bad_seed_is_an_outlier_and_no_rise() -> None:
    e = drawn((ONE, "power+floor"), 0.02, 1)
    e.y[17] *= 3
    found = laws.limits(fitted(e), e)
    assert codes(found) == {"outliers"}
    assert "18" in found[0].sentence


def test_real_runs(shared_data: Path) -> None:
    e = chinchilla(shared_data)
    found = laws.limits(fitted(e), e)
    assert not codes(found) & RISING
