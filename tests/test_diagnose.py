"""Each finding appears when its cause is built in, and hardly ever when there is only noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sizewise.diagnose import diagnose
from sizewise.records import Finding, Point, Recipe, Run
from sizewise.store import Store
from tests.builders import labels, publish, sweep

Y = labels(1000)
RECIPE = Recipe(epochs=10)
PLATEAU = {4: [31, 30, 29, 30, 31], 8: [30, 30, 29, 31, 30]}
WELL = {"validation-limited", "saturated"}
"""What a plateau of a thousand examples may be told."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def base(store: Store, wrong: dict[int, list[int]], curves: Sequence[Sequence[Point]] = ()) -> dict[int, list[Run]]:
    return {
        width: [
            publish(store, Y, width=width, seed=s, wrong=w, recipe=RECIPE, curve=curves[s] if curves else ())
            for s, w in enumerate(errors)
        ]
        for width, errors in wrong.items()
    }


def probe(store: Store, width: int, errors: Sequence[int], recipe: Recipe = RECIPE, fraction: float = 1.0) -> list[Run]:
    return [
        publish(store, Y, width=width, seed=s, wrong=w, recipe=recipe, fraction=fraction) for s, w in enumerate(errors)
    ]


def found(store: Store, sizes: dict[int, list[Run]], probes: Sequence[Run]) -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnose(sizes, probes, store)}


SAME = [30, 31, 29]
BETTER = [10, 11, 10]
WORSE = [60, 62, 61]


def test_a_rising_ladder_is_capacity_limited(store: Store) -> None:
    codes = found(
        store, base(store, {4: [60, 61, 62], 8: [30, 31, 30]}), probe(store, 4, SAME, replace(RECIPE, lr=RECIPE.lr / 3))
    )
    assert "capacity-limited" in codes
    assert codes["capacity-limited"].next_step == "add larger sizes: --largest 16"
    assert codes["capacity-limited"].evidence[0].low > 0


def test_a_plateau_is_saturated(store: Store) -> None:
    assert "saturated" in found(store, base(store, PLATEAU), probe(store, 4, SAME, replace(RECIPE, lr=RECIPE.lr / 3)))


def test_a_better_learning_rate_is_bad_tuning(store: Store) -> None:
    codes = found(store, base(store, PLATEAU), probe(store, 4, BETTER, replace(RECIPE, lr=RECIPE.lr * 3)))
    assert "3 times the learning rate gains 1.9" in codes["badly-tuned"].sentence


def test_gain_from_more_epochs_is_under_training(store: Store) -> None:
    codes = found(store, base(store, PLATEAU), probe(store, 4, BETTER, replace(RECIPE, epochs=20)))
    assert "20 instead of 10 epochs gain" in codes["under-trained"].sentence


def test_loss_from_less_data_is_data_limited(store: Store) -> None:
    less = probe(store, 4, WORSE, replace(RECIPE, epochs=20), fraction=0.5)
    codes = found(store, base(store, PLATEAU), less)
    assert "50% of the data for as many steps costs 3.1" in codes["data-limited"].sentence
    assert "under-trained" not in codes


@pytest.mark.parametrize("changed", [{"lr": RECIPE.lr * 3}, {"epochs": 20}])
def test_a_change_that_harms_is_no_finding(store: Store, changed: dict[str, float]) -> None:
    codes = found(store, base(store, PLATEAU), probe(store, 4, WORSE, replace(RECIPE, **changed)))  # type: ignore[arg-type]
    assert codes.keys() <= WELL


def test_less_data_that_does_no_harm_is_no_finding(store: Store) -> None:
    assert found(store, base(store, PLATEAU), probe(store, 4, BETTER, fraction=0.5)).keys() <= WELL


def curve(losses: Sequence[float], falling: bool = True) -> tuple[Point, ...]:
    """Validation losses by epoch, beside a training loss that falls or stays."""
    return tuple(Point(i + 1, i, 1e-3, 1 / (i + 1) if falling else 0.5, v, 0.9, 1.0) for i, v in enumerate(losses))


U_SHAPED = (1.0, 0.5, 0.3, 0.2, 0.2, 0.22, 0.25, 0.28, 0.3, 0.32)


def test_a_rising_validation_loss_is_over_fitting(store: Store) -> None:
    curves = [curve([v + 0.001 * s for v in U_SHAPED]) for s in range(5)]
    codes = found(store, base(store, PLATEAU, curves), probe(store, 4, SAME, replace(RECIPE, lr=RECIPE.lr / 3)))
    assert "over-fitting" in codes
    assert codes["over-fitting"].evidence[0].value == pytest.approx(0.6, rel=0.02)


def test_a_loss_that_rises_in_training_too_is_not_over_fitting(store: Store) -> None:
    curves = [curve([v + 0.001 * s for v in U_SHAPED], falling=False) for s in range(5)]
    assert "over-fitting" not in found(store, base(store, PLATEAU, curves), ())


def test_noisy_curves_are_rarely_over_fitting(store: Store) -> None:
    """Each one ends far above its own lowest point, by luck alone."""
    rng, runs = np.random.default_rng(0), base(store, {4: PLATEAU[4]})[4]
    false = 0
    for _ in range(100):
        noisy = [replace(run, curve=curve((0.2 * np.exp(0.15 * rng.normal(size=30))).tolist())) for run in runs]
        false += "over-fitting" in found(store, {4: noisy}, ())
    assert false <= 6


def test_a_diverged_seed_does_not_hide_over_fitting(store: Store) -> None:
    lost = (*curve(U_SHAPED[:3]), Point(4, 3, 1e-3, float("nan"), float("nan"), 0.1, 1.0))
    curves = [*(curve([v + 0.001 * s for v in U_SHAPED]) for s in range(4)), lost]
    assert "over-fitting" in found(store, base(store, PLATEAU, curves), ())


def test_two_seeds_are_not_enough_evidence(store: Store) -> None:
    codes = found(
        store, base(store, {4: [60, 61], 8: [30, 31]}), probe(store, 4, BETTER[:2], replace(RECIPE, lr=RECIPE.lr / 3))
    )
    assert codes.keys() == {"not-enough-evidence"}
    assert "2 seeds" in codes["not-enough-evidence"].sentence


def test_missing_probes_are_said(store: Store) -> None:
    assert "were not varied" in found(store, base(store, PLATEAU), ())["not-enough-evidence"].sentence


def test_probes_without_their_base_are_left_out(store: Store) -> None:
    """A sweep that was interrupted: the probed width, or the seeds of its probes, may not be trained yet."""
    sizes = base(store, PLATEAU)
    changed = replace(RECIPE, lr=RECIPE.lr * 3)
    other = [publish(store, Y, width=4, seed=s, wrong=10, recipe=changed) for s in (7, 8, 9)]
    assert found(store, sizes, probe(store, 2, BETTER, changed)).keys() <= WELL
    assert found(store, sizes, other).keys() <= WELL


def test_few_examples_are_validation_limited(store: Store) -> None:
    few = labels(60)
    sizes = sweep(store, few, {4: [6, 4, 5], 8: [4, 5, 4]})
    codes = {finding.code: finding for finding in diagnose(sizes, (), store)}
    assert "60 validation examples" in codes["validation-limited"].sentence


def test_the_most_pressing_comes_first(store: Store) -> None:
    probes = probe(store, 4, BETTER, replace(RECIPE, lr=RECIPE.lr * 3))
    first, *rest = diagnose(base(store, PLATEAU), probes, store)
    assert first.code == "badly-tuned"
    assert rest[-1].code == "saturated"


CHANGES = (
    (RECIPE, 1.0),
    (replace(RECIPE, lr=RECIPE.lr / 3), 1.0),
    (replace(RECIPE, lr=RECIPE.lr * 3), 1.0),
    (replace(RECIPE, epochs=20), 1.0),
    (RECIPE, 0.5),
)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [3.0, 10.0])
def test_pure_noise_rarely_leads_to_a_finding(store: Store, noise: float) -> None:
    """Sweeps in which nothing makes a difference, with eight variations to go wrong on."""
    rng, pool = np.random.default_rng(1), 40
    errors = np.rint(60 + noise * rng.normal(size=pool)).astype(int)
    made = {
        (width, change): [
            publish(store, Y, width=width, seed=s, wrong=int(w), recipe=change[0], fraction=change[1])
            for s, w in enumerate(rng.permutation(errors))
        ]
        for width in (2, 4, 8)
        for change in (CHANGES if width < 8 else CHANGES[:1])
    }
    false = 0
    for _ in range(200):
        seeds = rng.choice(pool, 5, replace=False)
        sizes = {width: [made[width, CHANGES[0]][s] for s in seeds] for width in (2, 4, 8)}
        probes = [made[width, change][s] for width in (2, 4) for change in CHANGES[1:] for s in seeds[:3]]
        false += not found(store, sizes, probes).keys() <= {*WELL, "not-enough-evidence"}
    assert false <= 10  # of 200
