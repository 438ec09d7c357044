"""The way from loss to accuracy: found where it is known, honest where it is not seen, refused where there is none."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import laws
from sizewise.errors import UsageError
from sizewise.records import Link, from_json, to_json
from sizewise.store import Store
from tests.test_laws import ONE, drawn, truth

Array = NDArray[np.float64]
CASE = (ONE, "power+floor")


def score(loss: Array) -> Array:
    return 0.25 + 0.7 / (1 + np.exp(10 * (loss - 0.15)))


def pairs(seed: int, loss: Array, noise: float = 0.01) -> tuple[Array, Array]:
    return loss, np.clip(score(loss) + noise * np.random.default_rng(seed).normal(size=len(loss)), 0, 1)


LOSSES = np.linspace(0.06, 0.4, 20)


def test_a_known_link_is_found() -> None:
    link = laws.fit_link(*pairs(0, LOSSES), chance=0.25)
    assert (link.status, link.kind) == ("supported", "accuracy")
    for name, value in {"midpoint": 0.15, "slope": 10.0, "low": 0.25, "high": 0.95}.items():
        assert link.parameters[name].value == pytest.approx(value, rel=0.15), name
        assert link.parameters[name].low <= link.parameters[name].value <= link.parameters[name].high
    assert from_json(Link, to_json(link)) == link
    assert laws.fit_link(*pairs(0, LOSSES), chance=0.25) == link


def test_outliers_have_bounded_pull() -> None:
    loss, seen = pairs(0, LOSSES)
    seen[12] = 0.9
    found = laws.fit_link(loss, seen, chance=0.25).parameters["midpoint"]
    assert abs(found.value - 0.15) < 0.02


def test_an_error_is_one_minus_an_accuracy() -> None:
    loss, seen = pairs(0, LOSSES)
    law = laws.fit_evidence(drawn(CASE, 0.02, 0), draws=0)
    at = [{"params": 3e5}]
    link = laws.fit_link(loss, 1 - seen, chance=0.75)
    assert link.kind == "error"
    error, accuracy = laws.through(law, link, at)[0], laws.through(law, laws.fit_link(loss, seen, chance=0.25), at)[0]
    assert error.value == pytest.approx(1 - accuracy.value)
    assert (error.low, error.high) == pytest.approx((1 - accuracy.high, 1 - accuracy.low))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.001, 0.05), st.booleans())
def test_predictions_are_bounded_ordered_and_monotone(seed: int, noise: float, known: bool) -> None:
    law = laws.fit_evidence(drawn(CASE, 0.02, 0), draws=0)
    link = laws.fit_link(*pairs(seed, LOSSES, noise), chance=0.25 if known else None)
    said = laws.through(law, link, [{"params": n} for n in np.geomspace(1e3, 1e8, 12)])
    if link.status != "supported":
        assert all(math.isnan(e.value) and link.reason in e.method for e in said)
        return
    assert all(0 <= e.low <= e.value <= e.high <= 1 for e in said)
    assert all(a.value <= b.value + 1e-9 for a, b in pairwise(said))


def test_scores_of_few_examples_are_less_certain() -> None:
    law = laws.fit_evidence(drawn(CASE, 0.02, 0), draws=0)
    widths = []
    for examples in (50, 10_000):
        rng = np.random.default_rng(3)
        link = laws.fit_link(LOSSES, rng.binomial(examples, score(LOSSES)) / examples, chance=0.25, examples=examples)
        e = laws.through(law, link, [{"params": 1e5}])[0]
        widths.append(e.high - e.low)
    assert widths[0] > 2 * widths[1]


def test_what_is_no_link_is_refused() -> None:
    few = laws.fit_link(LOSSES[:4], score(LOSSES[:4]))
    assert few.status == "insufficient"
    assert laws.fit_link(np.repeat(LOSSES[:3], 5), np.repeat(score(LOSSES[:3]), 5)).status == "insufficient"
    assert laws.fit_link(LOSSES, np.full(20, 0.25)).status == "unreliable"
    rng = np.random.default_rng(0)
    flat = [laws.fit_link(LOSSES, 0.25 + 0.02 * rng.normal(size=20)).status for _ in range(200)]
    assert flat.count("supported") <= 2
    law = laws.fit_evidence(drawn(CASE, 0.02, 0), draws=0)
    assert math.isnan(laws.through(law, few, [{"params": 1e5}])[0].value)


@pytest.mark.parametrize(
    ("loss", "seen", "more"),
    [
        ([1.0, 2.0], [0.5], {}),
        ([1.0, math.nan], [0.5, 0.5], {}),
        ([1.0, 2.0], [50, 60], {}),
        ([1.0], [0.5], {"chance": 2}),
    ],
)
def test_impossible_numbers_are_told(loss: list[float], seen: list[float], more: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        laws.fit_link(loss, seen, **more)  # type: ignore[arg-type]


def test_a_real_study(small_study: Path) -> None:
    runs = Store(small_study).runs()
    link = laws.fit_link([r.validation.loss for r in runs], [r.validation.score for r in runs], chance=0.1)
    assert link.status in ("supported", "unreliable")
    assert math.isfinite(link.error)
    assert link.error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("largest", "target"), [(694_000, 3e5), (694_000, 7e6), (110_000, 1e6)])
def test_intervals_hold_nine_in_ten_new_scores(largest: int, target: float) -> None:
    inside, count = 0, 0
    for seed in range(120):
        e = drawn(CASE, 0.03, seed)
        e = e.take(e.x[:, 0] <= largest)
        rng = np.random.default_rng(10_000 + seed)
        link = laws.fit_link(e.y, rng.binomial(1000, score(e.y)) / 1000, chance=0.25, examples=1000, seed=seed)
        law = laws.fit_evidence(e, draws=0)
        if link.status != "supported" or law.status != "supported":
            continue
        said = laws.through(law, link, [{"params": target}])[0]
        new = truth(CASE, np.array([[target]])) * np.exp(0.03 * rng.normal())
        inside += said.low <= rng.binomial(1000, score(new)[0]) / 1000 <= said.high
        count += 1
    print(f"{inside}/{count} inside")
    assert count >= 60
    assert inside / count >= 0.85
