"""A learning rate that is wrong at some size is caught by short runs, and mended; a good one is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sizewise import plan
from sizewise.config import Study, Sweep
from sizewise.records import Recipe, Run, Trial
from sizewise.store import Store
from sizewise.tune import rates
from tests.builders import toy_task
from tests.builders import train as train_here

TASK = toy_task(96)
WIDTHS = (2, 4, 8)
GOOD = Recipe(lr=0.02, batch_size=16, epochs=8)


def study(recipe: Recipe, **sweep: object) -> Study:
    return Study("toy", family="cnn", recipe=recipe, sweep=Sweep(seeds=3, tune=True, **sweep))  # type: ignore[arg-type]


def trainer(root: Path) -> rates.Train:
    def train(trials: Sequence[Trial]) -> list[Run]:
        store = Store(root)
        return [store.find_run(trial) or train_here(trial, TASK, root) for trial in trials]

    return train


def test_a_mistuned_recipe_is_caught_and_every_width_gets_its_rate(tmp_path: Path) -> None:
    """A hundredth of a good rate: more is surely better, and the scan goes back most of the way."""
    found = rates.check(study(replace(GOOD, lr=GOOD.lr / 100)), TASK, WIDTHS, trainer(tmp_path))
    assert found.verdict == "scanned"
    assert len(found.rates) == len(WIDTHS)
    assert min(found.rates) >= 9
    assert any(check.ratio.high < 0.95 for check in found.checks if check.factor > 1)
    said = rates.finding(found)
    assert "does not hold" in said.sentence
    assert said.evidence == tuple(check.ratio for check in found.checks)


def test_a_recipe_that_is_right_keeps_the_rule(tmp_path: Path) -> None:
    """The rate that the scan of the mistuned one found, stated at the reference width."""
    first = rates.check(study(replace(GOOD, lr=GOOD.lr / 100)), TASK, (4, 8), trainer(tmp_path))
    good = replace(GOOD, lr=GOOD.lr / 100 * max(first.rates))
    found = rates.check(study(good), TASK, (4, 8), trainer(tmp_path))
    assert found.verdict == "rule"
    assert found.rates == ()
    assert "neither a third" in rates.finding(found).sentence


def test_the_checks_are_short_runs_at_the_ends_and_the_middle() -> None:
    found = rates.scans(study(GOOD), TASK, (2, 3, 4, 6, 8))
    assert {trial.width for trial in found} == {2, 4, 8}
    assert {trial.recipe.epochs for trial in found} == {4}
    lrs = sorted({trial.recipe.lr for trial in found if trial.width == 8})
    assert lrs == pytest.approx([0.04 / 3, 0.04, 0.12])
    assert len(found) == 3 * 3 * 3


def test_nothing_is_checked_where_nothing_was_asked_or_rates_are_given() -> None:
    asked = study(GOOD)
    assert rates.scans(replace(asked, sweep=replace(asked.sweep, tune=False)), TASK, WIDTHS) == ()
    assert rates.scans(study(GOOD, widths=WIDTHS, rates=(1.0, 3.0, 9.0)), TASK, WIDTHS) == ()
    assert rates.scans(replace(asked, sweep=replace(asked.sweep, seeds=2)), TASK, WIDTHS) == ()


def test_the_sweep_is_trained_at_the_rates_of_its_widths() -> None:
    plain, tuned = study(GOOD), study(GOOD, widths=WIDTHS, rates=(1.0, 3.0, 9.0))
    for width, factor in zip(WIDTHS, (1.0, 3.0, 9.0), strict=True):
        a, b = (plan.trial_at(s, TASK, width, 0, s.recipe).recipe.lr for s in (plain, tuned))
        assert b == pytest.approx(factor * a)
