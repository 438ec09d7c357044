"""What goes wrong inside a run ends that run, with its reason, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sizewise import console, loop, tasks
from sizewise.diagnose import diagnose
from sizewise.errors import SizewiseError
from sizewise.loop.run import out_of_memory
from sizewise.records import Failure, Reading, Recipe, Trial
from sizewise.store import Store
from sizewise.train import Source, train
from tests.builders import toy_task, trial, weights
from tests.builders import train as train_here

RECIPE = Recipe(lr=0.01, epochs=2, batch_size=32)


def broken(width: int, seed: int = 0) -> Trial:
    task = tasks.load("digits", None)
    return trial(task, width, seed, family="tests.failing_family:build", recipe=RECIPE)


def sweep(trials: list[Trial], root: Path) -> list[int]:
    """Widths of the trials that ended in a run."""
    source = Source("digits", None, Reading(), "accuracy", trials[0].fingerprint)
    return [run.trial.width for run in train(trials, source, Store(root), workers=2)]


@pytest.mark.slow
def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, trials = Store(tmp_path), [broken(width) for width in (2, 3, 4, 5)]
    assert sweep(trials, tmp_path) == [2, 5]
    raised, died = (store.find_failure(t) for t in trials[1:3])
    assert raised is not None
    assert died is not None
    assert raised.kind == "error"
    assert raised.reason == "ValueError: the user's own mistake"
    assert "tests/failing_family.py" in raised.trace
    assert died.kind == "died"
    said = capsys.readouterr().err
    assert "warning: width 3, seed 0: ValueError: the user's own mistake" in said
    assert "warning: width 4, seed 0: its process died each time" in said


def test_a_sweep_of_failures_only_is_an_error_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(SizewiseError, match=r"all 1 trials failed; width 3: ValueError: the user's own mistake"):
        sweep([broken(3)], tmp_path)


def test_a_failure_is_a_finding(tmp_path: Path) -> None:
    failure = Failure(trial(toy_task(), 3, recipe=RECIPE), "error", "ValueError: no")
    (found, *_) = diagnose({}, (), Store(tmp_path), failures=[failure])
    assert found.code == "failed-runs"
    assert found.sentence == "A trial of width 3 failed, and sizes are compared without: ValueError: no"
    assert "failed-runs" in console.findings([found])


def test_a_run_that_diverges_says_when(tmp_path: Path) -> None:
    task = toy_task()
    run = train_here(trial(task, 8, recipe=replace(RECIPE, optimizer="sgd", lr=1e6, epochs=50)), task, tmp_path)
    assert run.diverged == len(run.curve) < 50
    codes = [finding.code for finding in diagnose({8: [run]}, (), Store(tmp_path))]
    assert codes[0] == "failed-runs"


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from sizewise.loop import Data
from sizewise.records import Recipe
from tests.builders import toy_task, train, trial
torch.set_num_threads(1)
task = toy_task(2048, 32)
train(trial(task, 2, recipe=Recipe(lr=0.01, batch_size=8, epochs=1)), toy_task(16, 32), Path(sys.argv[1]) / "warm")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), used + (400 << 20)))
run = train(trial(task, 32, recipe=Recipe(lr=0.01, batch_size=2048, epochs=1)), task, Path(sys.argv[1]) / "small")
print(run.parts)
"""


def test_memory_that_runs_out_is_made_to_do_with_smaller_parts(tmp_path: Path) -> None:
    """A process that may not have the 2,048 samples' activations at once: its run is that of one that may."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 1
    task = toy_task(2048, 32)
    made = trial(task, 32, recipe=Recipe(lr=0.01, batch_size=2048, epochs=1))
    run = train_here(made, task, tmp_path / "large")
    kept = Store(tmp_path / "small").find_run(made)
    assert kept is not None
    assert kept.parts > run.parts == 1
    assert kept.train_loss == pytest.approx(run.train_loss, rel=1e-3)
    assert weights(kept, tmp_path / "small").keys() == weights(run, tmp_path / "large").keys()


def test_only_want_of_memory_is_taken_for_it() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert loop.out_of_memory is out_of_memory
