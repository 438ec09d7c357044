"""What is planned is what the configuration asks for, costs what it says, and gives up what it says."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise import config, loop, plan, tasks
from sizewise.config import Study, Sweep
from sizewise.errors import BudgetError, UsageError
from sizewise.methods import Distil, Factorize, Narrow, Prune
from sizewise.plan import FEWEST_SEEDS, FEWEST_SIZES, PROBE_SEEDS
from sizewise.records import Budget, Origin, Plan, Recipe, Trial, Weights, from_json, to_json
from sizewise.store import Store
from sizewise.study import Listener, Workspace
from sizewise.tasks import Task
from tests.builders import toy_task

TOY = toy_task()
SMALL = Sweep(widths=(2, 3, 4, 6, 8, 12, 16), seeds=5, workers=2)


def planned(study: Study, task: Task = TOY, store: Store | None = None) -> tuple[Study, Plan]:
    return plan.plan(config.resolve(study, task), task, store)


def toy_study(**sweep: Any) -> Study:
    return Study("toy", sweep=replace(SMALL, **sweep), recipe=Recipe(epochs=8, batch_size=32))


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_a_ladder_spans_two_decades_in_equal_steps(effort: str) -> None:
    study = Study("toy", sweep=Sweep(effort=effort))  # type: ignore[arg-type]
    _, made = planned(study)
    params = [cost.params for cost in made.costs]
    assert params[-1] / params[0] >= 100
    assert len(params) == config.PRESETS[effort].sizes
    steps = [math.log(b / a) for a, b in pairwise(params)]
    assert max(steps) < 2 * min(steps)  # widths are whole numbers, so small rungs cannot be exact


def test_every_size_has_every_seed_once() -> None:
    _, made = planned(toy_study())
    assert Counter(t.width for t in made.trials) == dict.fromkeys(SMALL.widths, 5)
    assert {t.seed for t in made.trials} == set(range(5))
    assert len({t.key for t in (*made.trials, *made.probes)}) == len(made.trials) + len(made.probes)
    assert all(t.fraction == 1 and t.origin is None for t in made.trials)


def test_probes_change_one_thing_at_both_ends_of_the_ladder() -> None:
    _, made = planned(toy_study(fractions=(0.25, 0.5)))
    assert {t.width for t in made.probes} == {2, 12}
    assert len(made.probes) == 2 * 5 * PROBE_SEEDS
    bases = {(t.width, t.seed): t for t in made.trials}
    changes: Counter[str] = Counter()
    for probe in made.probes:
        base = bases[probe.width, probe.seed]
        (change,) = differences(base, probe)
        changes[change] += 1
    assert changes == {"lr": 4 * PROBE_SEEDS, "steps": 2 * PROBE_SEEDS, "fraction": 4 * PROBE_SEEDS}


def differences(base: Trial, probe: Trial) -> set[str]:
    """What differs, with the epochs seen as the optimizer steps that they are."""

    def seen(trial: Trial) -> dict[str, Any]:
        samples = round(trial.fraction * len(TOY.train.y))
        steps = trial.recipe.epochs * math.ceil(samples / trial.recipe.batch_size)
        return asdict(trial) | asdict(trial.recipe) | {"steps": steps, "epochs": 0, "recipe": None}

    a, b = seen(base), seen(probe)
    return {name for name in a if a[name] != b[name]}


def test_gradient_descent_on_less_data_keeps_its_epochs() -> None:
    """One step an epoch, however little data there is."""
    study = replace(toy_study(), recipe=Recipe("gd", epochs=8))
    _, made = planned(study)
    assert {t.recipe.epochs for t in made.probes if t.fraction < 1} == {8}


def test_no_probes_on_request() -> None:
    assert planned(toy_study(probes=False))[1].probes == ()


def test_the_same_study_gives_the_same_trials() -> None:
    a, b = planned(toy_study())[1], planned(toy_study())[1]
    assert [t.key for t in (*a.trials, *a.probes)] == [t.key for t in (*b.trials, *b.probes)]


def test_more_seeds_keep_the_trials_there_are() -> None:
    few, many = planned(toy_study(seeds=3))[1], planned(toy_study(seeds=6))[1]
    assert {t.key for t in few.trials} < {t.key for t in many.trials}


METHODS = st.sampled_from([Narrow(), Prune(0.5), Factorize(0.9), Distil()])

RECIPES = st.builds(
    Recipe,
    optimizer=st.sampled_from(["gd", "sgd", "momentum", "adam", "adamw"]),
    lr=st.floats(1e-6, 10) | st.integers(1, 10),
    momentum=st.floats(0, 0.99),
    weight_decay=st.floats(0, 1) | st.just(0),
    batch_size=st.integers(1, 4096),
    epochs=st.integers(1, 1000),
    schedule=st.sampled_from(["constant", "cosine"]),
    warmup=st.floats(0, 0.99) | st.just(0),
    loss=st.sampled_from(["cross_entropy", "mse"]),
    patience=st.integers(0, 100),
)
TRIALS = st.builds(
    Trial,
    task=st.just("toy"),
    fingerprint=st.text("0123456789abcdef", min_size=16, max_size=16),
    family=st.sampled_from(["cnn", "tests.own_family:build"]),
    width=st.integers(1, 1000),
    fraction=st.floats(0.01, 1) | st.just(1),
    recipe=RECIPES,
    seed=st.integers(0, 1000),
    origin=st.none() | st.builds(Origin, METHODS, st.text("0123456789abcdef")),
    start=st.none() | st.builds(Weights, st.text("0123456789abcdef"), st.booleans(), st.booleans()),
)


@given(TRIALS)
def test_equal_trials_have_equal_keys(trial: Trial) -> None:
    """However their numbers are written: a rate of 1 is a rate of 1.0, and comes back from JSON as that."""
    again = from_json(Trial, to_json(trial))
    assert again == trial
    assert again.key == trial.key
    assert len(trial.key) == 16


@given(TRIALS, TRIALS)
def test_any_changed_field_changes_the_key(a: Trial, b: Trial) -> None:
    assert (a.key == b.key) == (a == b)
    for field in fields(Trial):
        mixed = replace(a, **{field.name: getattr(b, field.name)})
        assert (mixed.key == a.key) == (mixed == a)
    for field in fields(Recipe):
        mixed = replace(a, recipe=replace(a.recipe, **{field.name: getattr(b.recipe, field.name)}))
        assert (mixed.key == a.key) == (mixed == a)


def test_a_plan_with_everything_done_takes_no_time(tmp_path: Path) -> None:
    study = toy_study(widths=(2, 3), seeds=1, probes=False)
    space = Workspace(config.resolve(study, TOY), TOY, Store(tmp_path), "request", Listener())
    made = space.plan()
    for trial in made.trials:
        loop.train_one(trial, loop.Data.of(TOY), space.store, loop.Start())
    done = plan.priced(space.study, made, space.store)
    assert (done.finished, done.seconds) == (2, 0.0)


def test_where_a_sweep_is_trained_is_no_part_of_its_plan(tmp_path: Path) -> None:
    """What was begun here goes on on a cluster, by the plan that it has; costs that were timed anew would differ."""
    asked = Study("digits", sweep=Sweep(widths=(2, 3), seeds=1, probes=False), recipe=Recipe(epochs=1))
    here = Workspace.create(asked, tmp_path)
    made = here.plan()
    config.write(here.study, tmp_path / "study.toml")
    here.store.save("plan.json", made)
    there = Workspace.create(replace(asked, sweep=replace(asked.sweep, on="ray", share="s3://bucket/study")), tmp_path)
    assert there.plan() == made
    assert (there.study.sweep.on, there.study.sweep.share) == ("ray", "s3://bucket/study")


@pytest.mark.slow
def test_the_predicted_time_is_about_right(tmp_path: Path) -> None:
    """A small sweep of the real digits, in real worker processes. Seconds for milliseconds would be seen; how near the
    prediction comes is for a quiet machine to say."""
    requested = Study(
        "digits", sweep=Sweep(widths=(4, 16, 32), seeds=3, probes=False, workers=2), recipe=Recipe(epochs=8)
    )
    space = Workspace.create(requested, tmp_path)
    made = space.plan()
    runs = space.train(made)
    trained = sum(run.seconds for run in runs)
    predicted = sum(plan.seconds_of(t, {c.width: c for c in made.costs}, 8) for t in made.trials)
    assert predicted / 20 < trained < predicted * 20
    for run in runs:
        (cost,) = [c for c in made.costs if c.width == run.trial.width]
        assert (cost.params, cost.flops, cost.memory_bytes) == (run.params, run.flops, run.memory_bytes)


def limited(share: float, **sweep: Any) -> tuple[Study, Plan]:
    """The plan under a limit of `share` of what the whole would take, with costs that do not depend on the clock."""
    whole = config.resolve(toy_study(**sweep), TOY)
    costs = tuple(replace(cost, seconds=cost.width * 2.0) for cost in planned(toy_study(**sweep))[1].costs)

    def build(study: Study, costs: Any, notes: Any) -> Plan:
        return plan._assemble(study, TOY, costs, None, notes)

    limit = share * build(whole, costs, ()).seconds
    return plan._fit_time(replace(whole, sweep=replace(whole.sweep, time_seconds=limit)), costs, build)


def test_without_a_limit_nothing_is_given_up() -> None:
    study, made = planned(toy_study())
    assert made.notes == ()
    assert study.recipe.epochs == 8


@pytest.mark.parametrize(
    ("share", "given_up"),
    [
        (1.01, []),
        (0.7, ["epochs"]),
        (0.4, ["epochs", "seeds"]),
        (0.17, ["epochs", "seeds", "probes"]),
        (0.085, ["epochs", "seeds", "probes", "sizes"]),
    ],
)
def test_a_time_limit_takes_epochs_then_seeds_then_probes_then_sizes(share: float, given_up: list[str]) -> None:
    study, made = limited(share)
    words = {
        "epochs": "epochs cut from",
        "seeds": "seeds cut from",
        "probes": "probes left out",
        "sizes": "smallest sizes",
    }
    assert [next(k for k, v in words.items() if v in note) for note in made.notes] == given_up
    assert study.sweep.time_seconds is not None
    assert made.seconds <= study.sweep.time_seconds


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.085])
def test_a_plan_is_the_one_of_the_study_that_is_returned(share: float) -> None:
    """The study is written beside it, and must lead to the same trials when it is run again without the limit."""
    study, made = limited(share)
    assert study.recipe.epochs >= 2
    assert study.sweep.seeds >= FEWEST_SEEDS
    assert len(made.costs) >= FEWEST_SIZES
    unlimited = replace(study, sweep=replace(study.sweep, time_seconds=None))
    assert planned(unlimited)[1].trials == made.trials
    assert planned(unlimited)[1].probes == made.probes


def test_a_looser_limit_never_gives_up_more() -> None:
    lengths = [limited(share)[1] for share in (0.085, 0.1, 0.2, 0.4, 0.6, 0.8, 1.01)]
    assert all(len(a.trials) <= len(b.trials) and len(a.notes) >= len(b.notes) for a, b in pairwise(lengths))


def test_too_short_a_limit_is_refused_with_the_one_that_would_do() -> None:
    with pytest.raises(BudgetError, match="smallest honest plan takes about") as error:
        limited(0.01)
    assert "--time" in error.value.hint


def test_a_budget_of_parameters_keeps_larger_sizes_to_compare_with() -> None:
    _, made = planned(replace(toy_study(), budget=Budget(max_params=500)))
    assert max(cost.params for cost in made.costs) > 500


def test_a_budget_below_the_smallest_size_names_it() -> None:
    with pytest.raises(BudgetError, match="smallest size has 199 parameters"):
        planned(replace(toy_study(), budget=Budget(max_params=100)))


def test_a_single_width_is_no_sweep() -> None:
    with pytest.raises(UsageError, match="single width 8"):
        planned(toy_study(widths=(8,)))


def test_the_reference_case_has_the_parameters_of_the_textbooks(shared_data: Path) -> None:
    task = tasks.load("mnist", shared_data / "mnist")
    study = Study("mnist", sweep=Sweep(widths=(16, 32), probes=False), recipe=Recipe(epochs=1))
    assert [cost.params for cost in planned(study, task)[1].costs] == [173_930, 693_962]
