"""Workers on this machine: where they come from, and what they see."""

from __future__ import annotations

import os
import sys

import pytest

from sizewise.records import Failure, Recipe, Trial
from sizewise.train import processes
from sizewise.train.worker import Tell
from tests.builders import toy_task, trial

TOLD = "SIZEWISE_TOLD"
TRIALS = [trial(toy_task(), width, recipe=Recipe()) for width in (2, 3, 4)]


def look(trial: Trial, tell: Tell) -> Failure:
    """What a worker sees, instead of training."""
    imported = {"torch", "sizewise.study", "sklearn.model_selection"} <= sys.modules.keys()
    return Failure(trial, "error", f"{os.environ.get(TOLD)} {os.getcwd()}", f"{os.getppid()} {imported}")


def seen() -> list[Failure]:
    found: list[Failure | None] = []
    left = processes.run(
        TRIALS, look, workers=2, on_event=lambda event: None, on_done=lambda trial, failure: found.append(failure)
    )
    assert not left
    return [failure for failure in found if failure]


def test_workers_see_the_environment_and_the_folder_of_their_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for told in ("first", "second"):
        folder = tmp_path_factory.mktemp(told)
        monkeypatch.setenv(TOLD, told)
        monkeypatch.chdir(folder)
        assert {failure.reason for failure in seen()} == {f"{told} {folder}"}
    monkeypatch.delenv(TOLD)
    assert {failure.reason for failure in seen()} == {f"None {folder}"}
    assert "GLIBC_TUNABLES" not in os.environ


def test_stages_share_what_was_imported_once_where_workers_are_copies() -> None:
    first, second = seen(), seen()
    origins = {failure.trace.split()[0] for failure in (*first, *second)}
    imported = {failure.trace.split()[1] for failure in (*first, *second)}
    if processes.COPIED:
        assert (len(origins), imported) == (1, {"True"})
        assert str(os.getpid()) not in origins
    else:
        assert origins == {str(os.getpid())}
