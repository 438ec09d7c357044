"""The search keeps what nothing equals, goes on where it stopped, and trains no chain twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend

from sizewise import cli
from sizewise.compress import chains, search
from sizewise.compress.search import Found, Searched
from sizewise.compress.start import prepare
from sizewise.errors import MissingExtraError
from sizewise.loop import Data
from sizewise.methods import Prune
from sizewise.records import Run, Trial
from tests.builders import Models, train

SECONDS = 6.0


class Trainer:
    """Trains for real, and counts what it was asked for and what it had to train."""

    def __init__(self, models: Models) -> None:
        self.models, self.asked, self.trained, self.data = models, 0, 0, Data.of(models.task)

    def __call__(self, trials: Sequence[Trial]) -> list[Run]:
        return [self._one(trial) for trial in trials]

    def _one(self, trial: Trial) -> Run:
        self.asked += 1
        known = self.models.store.find_run(trial)
        if known is not None:
            return known
        self.trained += 1
        start = prepare(trial, self.models.store, self.data)
        train(trial, self.models.task, self.models.store.root, start)
        return self.models.store.run(trial.key)


@pytest.fixture(scope="module")
def copy(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Models:
    root = tmp_path_factory.mktemp("search") / "study"
    shutil.copytree(models.store.root, root)
    recipe = replace(models.study.recipe, epochs=3)
    return replace(models, study=replace(models.study, recipe=recipe), store=type(models.store)(root))


def look(models: Models, trainer: Trainer, seconds: float = SECONDS) -> Searched:
    parent, end = models.runs[0], time.monotonic() + seconds
    return search.search(
        models.study,
        parent,
        [parent.trial.key],
        models.task,
        models.store,
        trainer,
        until=lambda found: end,
        at_once=2,
    )


@pytest.fixture(scope="module")
def first(copy: Models) -> Searched:
    return look(copy, Trainer(copy))


def logged(models: Models) -> list[optuna.trial.FrozenTrial]:
    """What Optuna itself reads from the study's folder."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(models.store / search.JOURNAL)))
    return optuna.load_study(study_name=None, storage=storage).get_trials()  # the only one


def test_survivors_are_smaller_models_that_were_trained(copy: Models, first: Searched) -> None:
    assert first.tried >= 1
    assert 1 <= len(first.survivors) <= first.tried
    for chain, run, _ in first.survivors:
        assert run.params < copy.runs[0].params
        assert [m.kind for m in chains.of(run, copy.store)] == [m.kind for m in chain]
        assert copy.store.run(run.trial.key) == run


def test_the_search_goes_on_where_it_stopped(copy: Models, first: Searched) -> None:
    before = len(logged(copy))
    assert before >= first.tried
    again = look(copy, Trainer(copy), seconds=0.5)
    after = logged(copy)
    assert len(after) > before
    assert again.tried >= 0
    assert {trial.state.name for trial in after} <= {"COMPLETE", "FAIL"}
    assert all("chain" in trial.user_attrs for trial in after)


def test_a_chain_that_is_known_is_not_trained_again(copy: Models, first: Searched) -> None:
    trainer, parent = Trainer(copy), copy.runs[0]
    proposed = [each.chain for each in first.survivors]
    found = search._runs(copy.study, proposed, parent, [parent.trial.key], copy.task, copy.store, trainer)
    assert found == [each.run for each in first.survivors]
    assert trainer.asked >= len(proposed)
    assert trainer.trained == 0


def test_what_cannot_be_done_is_told_with_its_reason(copy: Models) -> None:
    (found,) = search._runs(copy.study, [(Prune(0.001),)], copy.runs[0], [], copy.task, copy.store, Trainer(copy))
    assert isinstance(found, str)
    assert "stay whatever goes" in found


def test_without_the_extra_the_pip_line_is_told(copy: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError) as caught:
        look(copy, Trainer(copy))
    assert "pip install 'sizewise[search]'" in str(caught.value)


def made(run: Run, loss: float, params: int, flops: int) -> Found:
    return Found((), replace(run, params=params, flops=flops), loss)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=12, unique=True)
)
def test_survivors_are_those_that_nothing_beats(models: Models, values: list[tuple[int, int, int]]) -> None:
    kept = search.survivors([made(models.runs[0], *value) for value in values])
    found = {(each.loss, each.run.params, each.run.flops) for each in kept}
    for value in values:
        beaten = any(other != value and all(a <= b for a, b in zip(other, value, strict=True)) for other in values)
        assert (value in found) != beaten
    assert [each.run.params for each in kept] == sorted(each.run.params for each in kept)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 25))
def test_a_spread_holds_both_ends(models: Models, many: int, few: int) -> None:
    found = [made(models.runs[0], 1.0, number, 1) for number in range(many)]
    kept = [each.run.params for each in search.spread(found, few)]
    assert len(kept) == len(set(kept)) <= few
    assert kept[0] == 0
    if few > 1:
        assert kept[-1] == many - 1


@pytest.mark.parametrize(
    ("verb", "flag"), [("run", "--search-time"), ("plan", "--search-time"), ("compress", "--time")]
)
def test_time_for_a_search_is_given_on_the_command_line(verb: str, flag: str) -> None:
    options = vars(cli.parser().parse_args([verb, "digits", flag, "10m"]))
    assert options["set:compress.time_seconds"] == 600


def test_to_measure_a_search_is_one_for_runtimes() -> None:
    assert cli.parser().parse_args(["measure", "digits", "--search"]).search is True


@pytest.mark.slow
def test_the_command_returns_a_measured_frontier_that_is_exported(small_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(small_study, folder)
    found = json.loads(sizewise("compress", folder, "--time", "20s", "--chains", "prune=0.5:taylor+int4", "--json"))
    assert (folder / search.JOURNAL).is_file()
    names = {c["name"] for c in found["compression"]["candidates"]}
    measured = {m["candidate"]["name"]: m for m in found["measurements"]}
    assert names == set(measured)
    assert any(m["frontier"] for m in measured.values())
    chained = [name for name in names if "prune0.5-taylor-openvino-int4" in name]
    assert len(chained) == 1
    assert any("pruned to 50 % of the parameters by Taylor" in c["a"] for c in found["compression"]["comparisons"])
    sizewise("export", folder, chained[0])
    assert (folder / "models" / chained[0] / "manifest.json").is_file()
    sizewise("report", folder)
    assert chained[0] in (folder / "report.html").read_text()


def sizewise(*arguments: object) -> str:
    command = [sys.executable, "-m", "sizewise.cli", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stderr
    return result.stdout
