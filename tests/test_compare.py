"""Two configurations are compared seed by seed and example by example."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sizewise import arms
from sizewise.config import Study
from sizewise.errors import UsageError
from sizewise.families.weights import read_weights, save_weights
from sizewise.paired import compare_runs, median_run
from sizewise.records import Comparison, Metric, Run
from sizewise.store import Store
from tests.builders import labels, publish

Y = labels(1000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def group(store: Store, width: int, errors: dict[int, int]) -> list[Run]:
    """Runs of one width; `errors` holds the number of wrong examples by seed."""
    return [publish(store, Y, width=width, seed=seed, wrong=wrong) for seed, wrong in errors.items()]


def compare(store: Store, a: list[Run], b: list[Run]) -> Comparison:
    return compare_runs(store, ("a", a), ("b", b))


def test_a_difference_is_the_mean_over_paired_seeds(store: Store) -> None:
    a, b = group(store, 4, {0: 50, 1: 70, 2: 90}), group(store, 8, {0: 30, 1: 50, 2: 68})
    found = compare(store, a, b)
    assert found.difference.value == pytest.approx(-0.062 / 3)
    assert found.difference.n == 3
    assert found.verdict == "b is better"
    assert found.a_mean == pytest.approx(0.93)
    assert found.b_mean == pytest.approx(1 - 0.148 / 3)


def test_seeds_that_scatter_alike_cancel(store: Store) -> None:
    """Three hard and easy seeds differ by many points, but b is always better by two."""
    a, b = group(store, 4, {0: 50, 1: 170, 2: 290}), group(store, 8, {0: 30, 1: 150, 2: 271})
    assert compare(store, a, b).verdict == "b is better"


def test_the_order_of_runs_changes_nothing(store: Store) -> None:
    a, b = group(store, 4, {0: 50, 1: 70, 2: 90, 3: 20}), group(store, 8, {0: 30, 1: 50, 2: 71, 3: 10})
    shuffled = [random.Random(0).sample(runs, len(runs)) for runs in (a, b)]
    assert compare(store, *shuffled) == compare(store, a, b)


def test_swapping_the_sides_mirrors_the_result(store: Store) -> None:
    a, b = group(store, 4, {0: 50, 1: 70, 2: 90}), group(store, 8, {0: 30, 1: 52, 2: 68})
    forth, back = compare(store, a, b), compare(store, b, a)
    assert back.difference.low == pytest.approx(-forth.difference.high)
    assert back.population.low == pytest.approx(-forth.population.high)
    assert (forth.verdict, back.verdict) == ("b is better", "a is better")


def test_unpaired_seeds_are_dropped(store: Store) -> None:
    a, b = group(store, 4, {0: 50, 1: 60, 2: 70, 7: 999}), group(store, 8, {0: 40, 1: 50, 2: 61, 9: 0})
    assert compare(store, a, b) == compare(store, a[:3], b[:3])


def test_no_shared_seed_is_an_error_that_names_them(store: Store) -> None:
    with pytest.raises(UsageError, match=r"\[0, 1\] and \[2\]"):
        compare(store, group(store, 4, {0: 1, 1: 2}), group(store, 8, {2: 3}))


def test_a_single_seed_settles_nothing(store: Store) -> None:
    found = compare(store, group(store, 4, {0: 500}), group(store, 8, {0: 1}))
    assert found.verdict == "undetermined"
    assert np.isnan(found.difference.low)


def test_differences_that_coincide_are_not_certain(store: Store) -> None:
    """Accuracies move in steps of one example, so two seeds often differ by the same. That proves little."""
    found = compare(store, group(store, 4, {0: 22, 1: 22}), group(store, 8, {0: 20, 1: 20}))
    assert found.difference.low < -0.004 < found.difference.high
    assert found.p_value > 0.01


def test_identical_runs_do_not_differ(store: Store) -> None:
    runs = group(store, 4, {0: 50, 1: 60, 2: 70})
    found = compare(store, runs, runs)
    assert found.difference.value == 0
    assert found.p_value == 1
    assert found.verdict == "undetermined"


def test_unseen_examples_are_less_certain_than_this_split(store: Store) -> None:
    a, b = group(store, 4, {s: 60 + s for s in range(5)}), group(store, 8, {s: 40 + s for s in range(5)})
    found = compare(store, a, b)
    assert found.population.value == pytest.approx(found.difference.value)
    assert found.population.high - found.population.low > found.difference.high - found.difference.low


def test_an_error_is_better_when_lower(store: Store) -> None:
    """The difference says how much better a is than b, whatever the metric's direction."""
    metric = Metric("error rate", higher=False)
    a, b = group(store, 4, {0: 50, 1: 70, 2: 90}), group(store, 8, {0: 30, 1: 50, 2: 71})
    as_accuracy = compare(store, a, b)
    as_error = compare(store, *([scored_by(store, run, metric) for run in runs] for runs in (a, b)))
    assert as_error.verdict == as_accuracy.verdict == "b is better"
    assert as_error.difference.low == pytest.approx(as_accuracy.difference.low)
    assert as_error.population.high == pytest.approx(as_accuracy.population.high)
    assert (as_error.a_mean, as_error.b_mean) == pytest.approx((1 - as_accuracy.a_mean, 1 - as_accuracy.b_mean))
    assert as_error.metric == metric


def scored_by(store: Store, run: Run, metric: Metric) -> Run:
    """The same run, scored by the share of examples that are wrong."""
    path = store.trial_folder(run.trial.key) / "validation.safetensors"
    save_weights({metric.name: 1 - read_weights(path)["accuracy"]}, path)
    return replace(run, validation=replace(run.validation, metric=metric, score=1 - run.validation.score))


def test_the_median_run_is_the_middle_one(store: Store) -> None:
    runs = group(store, 4, {0: 90, 1: 10, 2: 50})
    assert median_run(runs).trial.seed == 2
    assert median_run(runs[:2]).trial.seed == 1  # of two, the better


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("width=2,optimizer=magic", "recipe.optimizer is 'magic'"),
        ("width=2,epochs=many", "epochs is 'many'"),
        ("width=2,augment=no", "augment is 'no'"),
        ("width=2,colour=red", "cannot read the setting 'colour=red'"),
        ("width=2,lr=-1", "recipe.lr is -1"),
        ("width=2,fraction=2", "fraction is 2"),
        ("lr=0.1", "has no width"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, settings: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        arms.compare(Study("digits"), settings, "width=2", tmp_path)
