"""A search for a recipe: what it may try, what it stops, what it costs, and what its gain is worth elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sizewise import config, families, tune
from sizewise.cli import main
from sizewise.config import Study, Sweep
from sizewise.errors import MissingExtraError
from sizewise.loop import Data, unused
from sizewise.proposals import opened
from sizewise.records import Proposal, Recipe, Run, Trial, TunedRecipe, from_json
from sizewise.store import Store
from sizewise.tune.search import FRACTION, rungs
from sizewise.tune.space import Space, at_an_end
from tests.builders import toy_task
from tests.builders import train as train_here
from tests.test_loop import tagged

TASK = toy_task(240, noise=1.2)
OWN = Recipe(optimizer="adam", lr=2e-4, batch_size=32, epochs=9)
STUDY = config.resolve(Study("toy", family="cnn", recipe=OWN, sweep=Sweep(seeds=3, widths=(2, 4, 8))), TASK)


class Trainer:
    """Trains trials in this process and keeps which it was asked for."""

    def __init__(self, root: Path, fail: Callable[[Trial], bool] = lambda trial: False) -> None:
        self.root, self.fail, self.asked = root, fail, list[Trial]()

    def __call__(self, trials: Sequence[Trial]) -> list[Run]:
        self.asked += trials
        store = Store(self.root)
        return [store.find_run(t) or train_here(t, TASK, self.root) for t in trials if not self.fail(t)]


def searched(
    root: Path, trainer: Trainer, trials: int, first: Sequence[Proposal] = (), *, how: tune.How = "whole runs"
) -> tune.Searched:
    return tune.search(STUDY, TASK, 4, Store(root), trainer, trials=trials, at_once=2, first=first, how=how)


SPACE = Space.of(STUDY, TASK.signature, 4)


def test_proposals_lie_around_the_studys_own_recipe(tmp_path: Path) -> None:
    with opened(tmp_path / "journal", "made", ("loss",), needed_for="a test") as asked:
        made = [SPACE.propose(asked.ask()).recipe for _ in range(60)]
    assert {"adam", "adamw", "schedule-free", "prodigy"} == {one.optimizer for one in made}
    for one in made:
        low, high = (0.316, 3.163) if one.optimizer == "prodigy" else (2e-5, 2e-3)
        assert low <= one.lr <= high
        assert one.batch_size in (16, 32, 64)
        assert one.epochs == OWN.epochs
        assert one.weight_decay == 0 or 1e-6 < one.weight_decay <= 0.1


def test_a_recipe_is_proposed_again_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path / "first", "made", ("loss",), needed_for="a test") as asked:
        known = [SPACE.propose(asked.ask()).recipe for _ in range(20)]
    with opened(tmp_path / "second", "made", ("loss",), needed_for="a test") as asked:
        for recipe in known:
            values = SPACE.values_of(recipe)
            assert values is not None
            asked.suggest(values)
        for recipe in known:
            again = SPACE.propose(asked.ask()).recipe
            assert replace(again, lr=0.0, weight_decay=0.0) == replace(recipe, lr=0.0, weight_decay=0.0)
            assert (again.lr, again.weight_decay) == pytest.approx((recipe.lr, recipe.weight_decay))


def test_a_recipe_that_lies_outside_is_suggested_at_the_end_of_the_range() -> None:
    far = SPACE.values_of(replace(OWN, lr=1.0, weight_decay=3.0, batch_size=1024))
    assert far is not None
    assert (far["rate"], far["weight decay"], far["batch doublings"]) == (10.0, 0.1, 1)


def test_what_cannot_be_proposed_is_not_suggested() -> None:
    assert SPACE.values_of(replace(OWN, optimizer="muon")) is None
    assert SPACE.values_of(replace(OWN, schedule="wsd")) is None


def test_a_rate_at_an_end_of_what_is_tried_is_known() -> None:
    assert at_an_end(OWN, OWN) is None
    assert at_an_end(OWN, replace(OWN, lr=9.9 * OWN.lr)) == "largest"
    assert at_an_end(OWN, replace(OWN, lr=0.1 * OWN.lr)) == "smallest"
    assert at_an_end(OWN, replace(OWN, lr=0.11 * OWN.lr)) is None
    assert at_an_end(OWN, replace(OWN, optimizer="prodigy", lr=3.162)) is None
    assert at_an_end(replace(OWN, optimizer="prodigy", lr=1.0), replace(OWN, lr=10 * Recipe().lr)) == "largest"


def test_depth_and_dropout_are_varied_where_there_are_any(tmp_path: Path) -> None:
    task, own = tagged(), Recipe(lr=0.01, batch_size=16, epochs=3)
    study = config.resolve(Study("tags", family="lstm", recipe=own, sweep=Sweep(seeds=3, widths=(4, 8))), task)
    around = Space.of(study, task.signature, 8)
    assert list(around.shapes) == ["lstm", "lstm:1", "lstm:4"]
    assert around.shapes["lstm:4"] < around.shapes["lstm"] == 8 < around.shapes["lstm:1"]
    with opened(tmp_path / "journal", "made", ("loss",), needed_for="a test") as asked:
        asked.suggest(around.values_of(own) or {})
        first, *others = [around.propose(asked.ask()) for _ in range(30)]
    assert (first.family, first.recipe.dropout) == ("lstm", None)
    assert {one.family for one in others} == {"lstm", "lstm:1", "lstm:4"}
    assert [values["shape"] for values in around.first([Proposal(own, "lstm:4"), Proposal(own, "cnn")])][:3] == [
        "lstm",
        "lstm:4",
        "lstm",
    ]
    shares = [one.recipe.dropout for one in others if one.recipe.dropout is not None]
    assert 0 <= min(shares) < 0.1 < 0.4 < max(shares) <= 0.5
    kept = Space.of(study, task.signature, 8, shaped=False)
    assert kept.shapes == {"lstm": 8}
    assert SPACE.shapes == {"cnn": 4}
    assert not SPACE.drops


def test_another_depth_is_verified_at_as_many_parameters(tmp_path: Path) -> None:
    task, asked = tagged(), list[Trial]()
    study = config.resolve(Study("tags", family="lstm", recipe=Recipe(epochs=1), sweep=Sweep(widths=(4, 8))), task)

    def trainer(trials: Sequence[Trial]) -> list[Run]:
        asked.extend(trials)
        return [train_here(one, task, tmp_path) for one in trials]

    found = tune.verify(study, task, Store(tmp_path), Proposal(study.recipe, "lstm:1"), (8,), trainer).found
    own = families.load("lstm", task.signature).params(8)
    assert {one.family for one in asked} == {"lstm", "lstm:1"}
    assert found[0].width == 8
    assert found[0].params != own
    assert abs(found[0].params / own - 1) < 0.15


def test_rungs_are_whole_runs_of_a_ninth_a_third_and_all_epochs() -> None:
    assert rungs(27) == [3, 9, 27]
    assert rungs(4) == [1, 4]
    assert rungs(1) == [1]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, tune.Searched]:
    root = tmp_path_factory.mktemp("tune")
    trainer = Trainer(root)
    good = replace(OWN, lr=2e-3)
    return root, trainer, searched(root, trainer, 14, [Proposal(good, "cnn")], how="halving")


def test_a_search_stops_the_worse_early_and_counts_what_they_cost(done: tuple[Path, Trainer, tune.Searched]) -> None:
    root, trainer, found = done
    assert found.tried == 14
    assert 0 < found.stopped < 14
    assert set(found.early) < set(found.runs)
    assert {trial.key for trial in trainer.asked} == set(found.runs)
    full = [trial for trial in trainer.asked if trial.recipe.epochs == OWN.epochs]
    assert 1 <= len({trial.key for trial in full}) < 14
    best = min((Store(root).run(trial.key) for trial in full), key=lambda run: run.validation.loss)
    assert found.leaders[0].recipe.batch_size == best.trial.recipe.batch_size
    assert found.leaders[0].recipe.optimizer == best.trial.recipe.optimizer


def test_the_studys_own_recipe_and_the_suggested_one_are_tried_first(done: tuple[Path, Trainer, tune.Searched]) -> None:
    first, second = done[1].asked[:2]
    assert (first.recipe.optimizer, second.recipe.optimizer) == ("adam", "adam")
    assert second.recipe.lr == pytest.approx(10 * first.recipe.lr)


def test_no_run_of_a_search_sees_the_samples_that_verify_it(done: tuple[Path, Trainer, tune.Searched]) -> None:
    assert {(trial.fraction, trial.seed) for trial in done[1].asked} == {(FRACTION, 0)}
    learned = Data.of(TASK).subset(FRACTION)
    rest = unused(TASK, FRACTION)
    assert len(learned.x) + len(rest) == len(TASK.train)
    seen = {row.tobytes() for row in np.asarray(learned.x)}
    assert not seen & {row.tobytes() for row in TASK.preprocessor(rest.x)}


def test_a_search_goes_on_where_it_stopped(done: tuple[Path, Trainer, tune.Searched]) -> None:
    root, _, found = done
    again = Trainer(root)
    assert searched(root, again, 14, how="halving") == found
    assert not again.asked
    more = searched(root, again, 16, how="halving")
    assert more.tried == 16
    assert set(found.runs) < set(more.runs)


def test_what_was_learned_around_one_recipe_is_not_said_of_another(tmp_path: Path) -> None:
    trainer, other = Trainer(tmp_path), replace(STUDY, recipe=replace(OWN, lr=2e-3))
    searched(tmp_path, trainer, 2)
    assert len(trainer.asked) == 2
    found = tune.search(other, TASK, 4, Store(tmp_path), trainer, trials=2)
    assert found.tried == 2
    assert len(trainer.asked) == 4
    assert trainer.asked[2].recipe.lr == pytest.approx(10 * trainer.asked[0].recipe.lr)
    assert searched(tmp_path, trainer, 2).tried == 2
    assert len(trainer.asked) == 4


SLOW, FAST = (Proposal(replace(OWN, lr=rate), "cnn") for rate in (2e-5, 2e-3))


def test_leaders_are_ordered_by_seeds_that_had_no_part_in_finding_them(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    confirmed = tune.confirm(STUDY, TASK, 4, (SLOW, FAST), trainer)
    assert confirmed.leaders == (FAST, SLOW)
    of_others = range(6)  # the first is the search's, five are the verification's
    assert not {trial.seed for trial in trainer.asked} & set(of_others)
    assert {trial.fraction for trial in trainer.asked} == {FRACTION}
    assert confirmed.seconds == pytest.approx(sum(Store(tmp_path).run(trial.key).seconds for trial in trainer.asked))


def test_a_leader_that_fails_with_one_of_them_comes_last(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, fail=lambda trial: trial.seed == 7 and trial.recipe.lr > OWN.lr)
    assert tune.confirm(STUDY, TASK, 4, (FAST, SLOW), trainer).leaders == (SLOW, FAST)


def test_of_one_leader_nothing_more_is_trained(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    assert tune.confirm(STUDY, TASK, 4, (FAST,), trainer) == ((FAST,), 0.0)
    assert not trainer.asked


def test_whole_runs_teach_what_to_try_next(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    found = searched(tmp_path, trainer, 12, [Proposal(replace(OWN, weight_decay=1e-3), "cnn")])
    first = [trial.recipe for trial in trainer.asked[:4]]
    assert [one.optimizer for one in first] == ["adam", "adam", "prodigy", "adam"]
    assert [one.weight_decay for one in first] == pytest.approx([0, 1e-3, 0, 0])
    assert first[3].lr == pytest.approx(3 * first[0].lr)
    assert (found.tried, found.stopped, found.early) == (12, 0, ())
    assert {trial.recipe.epochs for trial in trainer.asked} == {OWN.epochs}
    losses = [Store(tmp_path).run(key).validation.loss for key in found.runs]
    assert np.median(losses[6:]) < np.median(losses[:6])
    again = Trainer(tmp_path)
    assert searched(tmp_path, again, 12) == found
    assert not again.asked


def test_halving_and_training_time_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "digits"
    assert main(["tune", "digits", "--objectives", "loss,time", "--halving", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "halving" in said
    assert "hint:" in said
    assert not out.exists()


def test_the_studys_own_recipe_is_always_a_proposal() -> None:
    for own in (replace(OWN, schedule="wsd", weight_decay=0.3), replace(OWN, optimizer="prodigy", lr=1.0)):
        assert Space.of(replace(STUDY, recipe=own), TASK.signature, 4).values_of(own) is not None


def test_short_training_is_an_objective_too(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)

    def look(trials: int) -> tune.Searched:
        return tune.search(STUDY, TASK, 4, Store(tmp_path), trainer, trials=trials, at_once=2, how="loss and time")

    found = look(12)
    losses, seconds = zip(*((loss, took) for _, loss, took in found.frontier), strict=True)
    assert list(seconds) == sorted(seconds)
    assert list(losses) == sorted(losses, reverse=True)
    assert losses[-1] == min(Store(tmp_path).run(key).validation.loss for key in found.runs)
    assert (found.tried, found.stopped) == (12, 0)
    assert trainer.asked[0].recipe.epochs == OWN.epochs
    assert len({trial.recipe.epochs for trial in trainer.asked}) > 3
    runs = [Store(tmp_path).run(key) for key in found.runs]
    for loss, took in zip(losses, seconds, strict=True):
        assert not any(run.validation.loss < loss and run.seconds < took for run in runs)
    assert not searched(tmp_path, trainer, 1).frontier
    assert look(12) == found


class Killed(BaseException):
    """What ends a process in the middle of a search."""


def test_what_was_under_way_when_a_search_was_killed_is_tried_again(tmp_path: Path) -> None:
    def die(trial: Trial) -> bool:
        raise Killed

    with pytest.raises(Killed):
        searched(tmp_path, Trainer(tmp_path, die), 4)
    trainer = Trainer(tmp_path)
    assert searched(tmp_path, trainer, 4).tried == 4
    assert trainer.asked[0].recipe.optimizer == OWN.optimizer


def test_a_recipe_that_fails_is_told_and_left(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, lambda trial: trial.recipe.optimizer in ("prodigy", "schedule-free"))
    found = searched(tmp_path, trainer, 10)
    assert found.tried == 10
    assert found.failed == ("it failed",)
    assert found.leaders[0].recipe.optimizer in ("adam", "adamw")


def test_a_better_recipe_is_verified_on_other_seeds_and_samples(done: tuple[Path, Trainer, tune.Searched]) -> None:
    root, _, _ = done
    trainer = Trainer(root)
    found = tune.verify(STUDY, TASK, Store(root), Proposal(replace(OWN, lr=2e-3), "cnn"), (4, 8), trainer).found
    assert [one.width for one in found] == [4, 8]
    assert {(trial.fraction, trial.seed) for trial in trainer.asked} == {(FRACTION, seed) for seed in range(1, 6)}
    for one in found:
        assert one.verdict == "better"
        assert one.fresh.difference.n == 5
        assert one.samples == len(unused(TASK, FRACTION))
        gain = one.validation.difference.value - one.fresh.difference.value
        assert one.optimism.value == pytest.approx(gain)
        assert one.optimism.low <= gain <= one.optimism.high


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match="optuna"):
        searched(tmp_path, Trainer(tmp_path), 1)


@pytest.mark.slow
def test_the_command_says_what_was_found_and_how_to_train_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--lr",
        "0.0002",
        "--epochs",
        "6",
        "--widths",
        "2,4,8",
        "--workers",
        "2",
        "--out",
        str(tmp_path / "digits"),
    ]
    command = ["tune", "digits", "--trials", "6", *flags]
    assert main(command) in (0, 3)
    said = capsys.readouterr().out
    assert "6 recipes tried at width 4" in said
    assert "best of the 3 lowest validation losses, over 2 other seeds:" in said
    assert "samples that neither saw" in said
    assert "a gap of" in said
    assert main([*command, "--json"]) in (0, 3)
    found = from_json(TunedRecipe, json.loads(capsys.readouterr().out))
    assert ("that is tried: a better one may lie beyond" in said) == bool(at_an_end(found.own, found.recipe))
    assert (found.stopped, found.early_seconds) == (0, 0.0)
    assert [one.width for one in found.verified] == [4, 8]
    assert found.leaders[0] == Proposal(found.recipe, found.family)
    if found.recipe != found.own:
        assert f"sizewise run digits {tune.flags(found)}" in said


@pytest.mark.slow
def test_the_command_prints_a_frontier_of_loss_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--objectives", "loss,time", "--epochs", "4", "--widths", "2,4,8", "--out", str(tmp_path / "digits")]
    assert main(["tune", "digits", "--trials", "5", *flags]) in (0, 3)
    said = capsys.readouterr().out
    assert "5 recipes tried at width 4" in said
    assert "lowest validation loss for its training time" in said
