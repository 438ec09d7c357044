"""One model on two workers, real processes under torchrun: the numbers of one process, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sizewise import tasks
from sizewise.cli import main
from sizewise.cluster.memory import Footprint, parallelism
from sizewise.errors import BudgetError
from sizewise.loop import ALONE, Data, Start, train_one
from sizewise.loop.checkpoint import latest
from sizewise.records import Plan, Run
from sizewise.store import Store
from tests.test_durability import alive, children
from tests.together import BOTH, CASES, run, stopped

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]

TOLERANCE = {"fp32": 1e-5, "bf16": 1e-3}
"""Largest relative difference of losses: sums in another order, over some hundred steps at most."""


def torchrun(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.Popen(
        [*TORCHRUN, "-m", "tests.together", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """The beginning of a real text."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text((shared_data / "tinyshakespeare" / "input.txt").read_text()[:30_000])
    return path


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """Every case on two workers, by each of its strategies; "grown" was begun by one process."""
    root = tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sizewise.loop.run.CHECKPOINT_SECONDS", 0.0)
        for strategy in BOTH:
            stopped(CASES["cnn"], text, root / strategy / "grown", ALONE)
    process = torchrun("cases", str(root), str(text))
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return root


def close(a: Run, b: Run) -> None:
    """Two runs that differ by rounding."""
    tolerance = TOLERANCE[a.trial.recipe.precision]
    assert len(a.curve) == len(b.curve)
    for mine, other in zip(a.curve, b.curve, strict=True):
        assert mine.train_loss == pytest.approx(other.train_loss, rel=tolerance)
        assert mine.validation_loss == pytest.approx(other.validation_loss, rel=tolerance)
        assert (mine.epoch, mine.step, mine.lr) == (other.epoch, other.step, other.lr)
    assert a.validation.loss == pytest.approx(b.validation.loss, rel=tolerance)
    assert (a.params, a.flops, a.parts) == (b.params, b.flops, b.parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strategy"), [(name, strategy) for name, case in CASES.items() for strategy in case.strategies]
)
def test_two_workers_train_as_one_process_does(
    name: str, strategy: str, together: Path, text: Path, tmp_path: Path
) -> None:
    key = run(CASES[name], text, tmp_path, ALONE).trial.key
    one, two = Store(tmp_path).run(key), Store(together / strategy / name).run(key)
    close(two, one)
    assert two.files.keys() == one.files.keys()
    assert (two.parallelism.strategy, two.parallelism.workers) == (strategy, 2)
    assert two.memory_bytes < one.memory_bytes


@pytest.mark.slow
@pytest.mark.parametrize("strategy", BOTH)
def test_a_run_that_one_process_began_is_ended_by_two(
    strategy: str, together: Path, text: Path, tmp_path: Path
) -> None:
    two = Store(together / strategy / "grown").runs()[0]
    close(two, run(CASES["cnn"], text, tmp_path, ALONE))
    assert two.parallelism.strategy == strategy


@pytest.mark.slow
@pytest.mark.parametrize("strategy", BOTH)
def test_a_run_that_two_began_is_ended_by_one(strategy: str, together: Path, text: Path, tmp_path: Path) -> None:
    root = together / strategy / "shrunk"
    store, key = Store(root), next((root / "trials").glob("*")).name
    kept = latest(store, key)
    assert kept is not None
    assert {path.suffix for path in kept.glob("*")} == {".safetensors", ".json"}
    begun = json.loads((kept / "state.json").read_text())["curve"]
    assert len(begun) == 2
    one = run(CASES["cnn"], text, root, ALONE)
    assert [point.seconds for point in one.curve[:2]] == [point["seconds"] for point in begun]
    close(one, run(CASES["cnn"], text, tmp_path, ALONE))
    assert one.parallelism.strategy == "single"
    assert latest(store, key) is None


TRAIN = ["train", "digits", "--family", "tests.together:vit", "--widths", "8,16", "--seeds", "1", "--epochs", "5"]
TRAIN += ["--no-probes", "--strategy", "fsdp2"]


@pytest.mark.slow
def test_a_worker_is_killed_and_one_process_goes_on(tmp_path: Path) -> None:
    killed, whole = Store(tmp_path / "killed"), Store(tmp_path / "whole")
    process = torchrun(*TRAIN, "--out", str(killed.root))
    deadline = time.monotonic() + 200
    while not list(killed.root.glob("trials/*/checkpoints/[2-4]/state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(process.pid)
    second = next(pid for pid in workers if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(second, signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0, said
    assert not any(map(alive, workers))
    folder = next(path.parent for path in killed.root.glob("trials/*/checkpoints"))
    kept = latest(killed, folder.name)
    assert kept is not None, said
    assert len(list(kept.glob("*.safetensors"))) == 2, "each worker keeps its part"
    begun = json.loads((kept / "state.json").read_text())["curve"]
    trial = next(trial for trial in killed.load("plan.json", Plan).trials if trial.key == folder.name)
    data = Data.of(tasks.load("digits"))
    resumed, undisturbed = (train_one(trial, data, store, Start()) for store in (killed, whole))
    assert [point.seconds for point in resumed.curve[: len(begun)]] == [point["seconds"] for point in begun]
    close(resumed, undisturbed)


def test_only_training_is_for_several_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["plan", "digits"]) == 2
    assert "plan is not for several workers\nhint: train under torchrun" in capsys.readouterr().err


GB = 10**9


@pytest.mark.parametrize(("stage", "expected"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_memory_by_stage_is_that_of_the_paper(stage: int, expected: float) -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, Adam in mixed precision, 64 devices."""
    model = Footprint(weights=15 * GB, gradients=15 * GB, states=90 * GB, activations=0)
    assert model.on_worker(stage, 64) / GB == pytest.approx(expected, abs=0.05)


def test_memory_decides_how_a_model_is_shared_out() -> None:
    model = Footprint(weights=4 * GB, gradients=4 * GB, states=8 * GB, activations=GB, block=GB // 4)
    assert parallelism(model, 1, GB).strategy == "single"
    assert parallelism(model, 4, 19 * GB).strategy == "ddp"
    found = parallelism(model, 4, 18 * GB)
    assert found.strategy == "fsdp2"
    assert "17 GB with the whole model on each of 4 workers, 6 GB with a part of it, 18 GB a device" in found.reason
    with pytest.raises(BudgetError, match=r"a step does not fit: 17 GB .*\nhint: take more workers"):
        parallelism(model, 4, 6 * GB)
    assert parallelism(model, 4, 6 * GB, "fsdp2").reason.startswith("asked for")
