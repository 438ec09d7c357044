"""Killed at any instant, a sweep goes on where it stopped and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sizewise import tasks
from sizewise.cli import main
from sizewise.loop import Data, Start, train_one
from sizewise.methods import Distil
from sizewise.recipe import OPTIMIZERS
from sizewise.records import Origin, Recipe, Run, Trial
from sizewise.store import Store

SWEEP = ["train", "digits", "--widths", "2,4,8,12", "--seeds", "3", "--epochs", "15", "--no-probes", "--workers", "2"]
KILLS = 8


def start(out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sizewise.cli", *SWEEP, "--out", str(out), *flags]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(out: Path) -> str:
    """Run the command to its end; what it said."""
    process = start(out)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    return messages


def finished(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Identity and content of every run.json: a trial that is trained twice gets a new file."""
    return {
        path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in out.glob("trials/*/run.json")
    }


def results(out: Path) -> dict[str, Any]:
    """What the sweep found, without the seconds it took."""
    found = {}
    for path in out.glob("trials/*/run.json"):
        record = json.loads(path.read_text())
        curve = [json.loads(line) for line in (path.parent / "curves.jsonl").read_text().splitlines()]
        for point in curve:
            point.pop("seconds")
        files = {name: digest for name, digest in record["files"].items() if name != "curves.jsonl"}
        found[path.parent.name] = (record["validation"], record["train_loss"], files, curve)
    return found


def children(parent: int) -> list[int]:
    """Processes that `parent` started, alive."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue
    return found


def copies(command: int) -> dict[int, list[int]]:
    """The workers of a command, by the process that they are copies of."""
    return {child: workers for child in children(command) if (workers := children(child))}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_one_that_never_was(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish(undisturbed)
    rng = random.Random(0)
    before: dict[str, tuple[int, int, bytes]] = {}
    for number in range(KILLS):
        process = start(killed)
        time.sleep(rng.uniform(1.5, 6.0))
        workers = [pid for child in children(process.pid) for pid in (child, *children(child))]
        if number % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # the workers have to notice by themselves
        process.communicate()
        deadline = time.monotonic() + 10
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(alive, workers)), "a worker outlived the process that started it"
        now = finished(killed)
        assert {key: now[key] for key in before} == before, "a finished trial was trained again"
        before = now
    finish(killed)
    now = finished(killed)
    assert {key: now[key] for key in before} == before
    assert results(killed) == results(undisturbed)
    assert not list(killed.rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a worker", "what workers are copies of"])
def test_a_worker_that_dies_costs_its_trial_a_new_start_and_nothing_else(tmp_path: Path, victim: str) -> None:
    process = start(tmp_path / "study")
    deadline = time.monotonic() + 60
    while not finished(tmp_path / "study") and time.monotonic() < deadline:
        time.sleep(0.1)
    [(original, workers)] = copies(process.pid).items()
    os.kill(workers[-1] if victim == "a worker" else original, signal.SIGKILL)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    assert "a worker process died" in messages
    assert len(finished(tmp_path / "study")) == 12


def test_an_interrupt_ends_quietly_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path / "study", "--epochs", "100")  # so long that it cannot end before it is interrupted
    deadline = time.monotonic() + 60
    while not list((tmp_path / "study").glob("trials/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in messages
    assert "Traceback" not in messages


@pytest.fixture(scope="module")
def data() -> Data:
    return Data.of(tasks.load("digits"))


class StoppedError(Exception):
    """Stands for whatever ends a process in the middle of a run."""


def make_trial(data: Data, recipe: Recipe, origin: Origin | None = None) -> Trial:
    return Trial(data.task.name, data.task.fingerprint, "cnn", 3, 0.5, recipe, 1, origin)


def interrupted(trial: Trial, data: Data, store: Store, begin: Start) -> Run:
    """Stop a run after its fourth epoch and start it again."""

    def stop(share: float) -> None:
        if share >= 4 / trial.recipe.epochs:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_one(trial, data, store, begin, stop)
    assert (store.trial_folder(trial.key) / "checkpoint.safetensors").exists()
    return train_one(trial, data, store, begin)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("patience", "average"), [(0, "none"), (2, "ema"), (0, "swa")])
def test_a_resumed_run_is_bitwise_the_one_that_was_never_stopped(
    optimizer: Any, patience: int, average: Any, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise.loop.run.CHECKPOINT_SECONDS", 0.0)
    rate = 1.0 if OPTIMIZERS[optimizer].factor else 0.02
    recipe = Recipe(optimizer=optimizer, lr=rate, epochs=6, batch_size=64, patience=patience, average=average)
    trial = make_trial(data, recipe)
    whole = train_one(trial, data, Store(tmp_path / "whole"), Start())
    resumed = interrupted(trial, data, Store(tmp_path / "resumed"), Start())
    assert resumed.files["model.safetensors"] == whole.files["model.safetensors"]
    assert resumed.validation == whole.validation
    assert [p.train_loss for p in resumed.curve] == [p.train_loss for p in whole.curve]


def test_a_resumed_distillation_is_bitwise_the_whole_one(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise.loop.run.CHECKPOINT_SECONDS", 0.0)
    trial = make_trial(data, Recipe(epochs=6, batch_size=64), Origin(Distil(), "0" * 16))
    teacher = Start(teacher=torch.randn(len(data.x), 10, generator=torch.Generator().manual_seed(0)))
    whole = train_one(trial, data, Store(tmp_path / "whole"), teacher)
    resumed = interrupted(trial, data, Store(tmp_path / "resumed"), teacher)
    assert resumed.files["model.safetensors"] == whole.files["model.safetensors"]


def test_a_damaged_checkpoint_is_named_and_the_trial_starts_again(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, store = make_trial(data, Recipe(epochs=2, batch_size=64)), Store(tmp_path)
    store.trial_folder(trial.key).mkdir(parents=True)
    (store.trial_folder(trial.key) / "checkpoint.safetensors").write_bytes(b"half a checkpoint")
    run = train_one(trial, data, store, Start())
    assert len(run.curve) == 2
    assert "checkpoint.safetensors is damaged" in capsys.readouterr().err


def test_data_that_changed_under_a_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, path, out = np.random.default_rng(0), tmp_path / "bands.npz", str(tmp_path / "study")
    x, y = rng.normal(size=(120, 8, 8)).astype(np.float32), np.arange(120) % 3
    np.savez(path, x=x, y=y)
    flags = ["--widths", "2,4", "--seeds", "1", "--epochs", "1", "--no-probes", "--workers", "1"]
    assert main(["train", str(path), "--out", out, *flags]) == 0
    np.savez(path, x=x, y=y[::-1])
    assert main(["fit", out]) == 1
    said = capsys.readouterr().err
    assert f"the data of {out} changed since it was planned" in said
    assert "hint: bring the data back as it was" in said
    np.savez(path, x=x, y=y)
    assert main(["fit", out]) in (0, 3)
