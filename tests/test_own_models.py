"""A model that a user brings: found where they are, refused before hours of training, skipped where it cannot go."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sizewise import compress, tasks
from sizewise.config import Study, resolve
from sizewise.errors import UsageError
from sizewise.loop import Data, Start, train_one
from sizewise.plan import plan
from sizewise.records import Recipe, Trial
from sizewise.store import Store

SCRIPT = Path(sys.executable).parent / "sizewise"


def study(family: str) -> Study:
    return Study("digits", family=f"tests.own_models:{family}", recipe=Recipe(epochs=1, batch_size=64))


def test_the_console_script_finds_a_module_in_the_folder_it_is_called_in(tmp_path: Path) -> None:
    shutil.copyfile(Path(__file__).parent / "own_family.py", tmp_path / "brought.py")
    command = [str(SCRIPT), "plan", "digits", "--family", "brought:build", "--widths", "2,4,8,16", "--seeds", "2"]
    command += ["--no-probes", "--workers", "1", "--out", str(tmp_path / "study")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_wrong_output_shape_is_refused_by_plan() -> None:
    task = tasks.load("digits")
    with pytest.raises(UsageError, match=r"with \(2, 11\), and classification needs one tensor of 2 × 10") as error:
        plan(resolve(study("too_many_answers"), task), task)
    assert "task.outputs" in error.value.hint


def test_a_module_that_does_not_take_the_samples_is_refused_by_plan() -> None:
    task = tasks.load("digits")
    with pytest.raises(UsageError, match=r"cannot take samples of shape \(2, 1, 8, 8\): .*shapes cannot be mult"):
        plan(resolve(Study("digits", family="tests.test_own_models:flat", recipe=study("").recipe), task), task)


def flat(width: int, task: object) -> object:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(63, width), nn.Linear(width, 10))


def test_a_family_that_cannot_be_imported_is_refused() -> None:
    task = tasks.load("digits")
    for name in ("tests.no_such_module:build", "tests.own_models:no_such_function"):
        with pytest.raises(UsageError, match="cannot be imported"):
            plan(resolve(Study("digits", family=name), task), task)


def test_a_model_that_cannot_be_exported_is_a_skipped_candidate(tmp_path: Path) -> None:
    task, store = tasks.load("digits"), Store(tmp_path)
    resolved = resolve(study("branching"), task)
    trial = Trial(task.name, task.fingerprint, resolved.family, 4, 0.1, resolved.recipe, 0)
    run = train_one(trial, Data.of(task), store, Start())
    candidates, skipped = compress.build(resolved, [run], task, store)
    assert [candidate.runtime for candidate in candidates] == ["torch"]
    assert len(skipped) == 4
    assert all(line.startswith("width4-trained-") and ": " in line for line in skipped)
