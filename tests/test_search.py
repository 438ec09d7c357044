"""The best way to run a model is named where it is shown, and two that are the same are not told apart."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sizewise import runtimes, scenarios
from sizewise import search as searching
from sizewise.cli import main
from sizewise.errors import MissingExtraError, SizewiseError, UsageError
from sizewise.measure import inputs
from sizewise.records import Search
from sizewise.runtimes.footprint import footprint
from sizewise.runtimes.timing import Timer
from sizewise.search import Blocks, best, search
from sizewise.store import read_json
from tests.builders import Models

BLOCKS = 8


def noisy(rng: np.random.Generator, **medians: float) -> Blocks:
    """Settings of one thread at batch 1, whose blocks scatter by 2 %, and by 10 % all together."""
    shared = rng.normal(0, 0.1, BLOCKS)
    return {(name, 1, 1): median * np.exp(shared + rng.normal(0, 0.02, BLOCKS)) for name, median in medians.items()}


def test_two_that_are_the_same_are_told_apart_in_no_more_than_a_twentieth_of_the_cases() -> None:
    rng = np.random.default_rng(0)
    apart = sum(len(best(noisy(rng, a=1.0, b=1.0))[1]) < 2 for _ in range(400))
    assert apart <= 400 * 0.05 + 3 * (400 * 0.05 * 0.95) ** 0.5


def test_ten_that_are_the_same_are_not_told_apart_more_often() -> None:
    rng = np.random.default_rng(1)
    apart = sum(len(best(noisy(rng, **dict.fromkeys("abcdefghij", 1.0)))[1]) < 10 for _ in range(200))
    assert apart <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_a_tenth_is_seen_through_noise_that_both_share() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        winner, equal = best(noisy(rng, slow=1.1, fast=1.0))
        assert winner[0] == "fast"
        assert len(equal) == 1


def test_of_equals_the_one_with_fewest_threads_wins() -> None:
    rng = np.random.default_rng(3)
    blocks = {(name, threads, 1): rng.normal(1, 0.02, BLOCKS) for name, threads in (("a", 4), ("b", 1), ("c", 2))}
    winner, equal = best(blocks)
    assert len(equal) == 3
    assert winner == ("b", 1, 1)


def test_a_setting_alone_is_the_best() -> None:
    assert best({("only", 2, 8): np.ones(3)}) == (("only", 2, 8), (("only", 2, 8),))


@pytest.fixture(scope="module")
def samples(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "samples.npy"
    np.save(path, inputs(models.task.validation, 64, models.task.signature))
    return path


def test_two_copies_of_a_model_cannot_be_told_apart(models: Models, samples: Path, tmp_path: Path) -> None:
    """Real files, real processes, in turns: of four comparisons with the best at most one may miss."""
    folder = models.folder(models.candidates[1])
    copies = [Path(shutil.copytree(folder, tmp_path / name)) for name in ("one", "two")]
    told = 0
    with Timer(1, samples) as timer:
        for _ in range(2):
            blocks: dict[Path, list[float]] = {copy: [] for copy in copies}
            for block in range(BLOCKS):
                for copy in copies if block % 2 == 0 else copies[::-1]:
                    blocks[copy].append(float(np.median(timer.times(copy, (64,))[64])))
            told += len(best({(str(copy), 1, 64): np.array(found) for copy, found in blocks.items()})[1]) == 1
    assert told <= 1


def test_a_timer_says_which_folder_does_not_run(samples: Path, tmp_path: Path) -> None:
    with Timer(1, samples) as timer, pytest.raises(SizewiseError, match=f"{tmp_path} does not run with 1 threads"):
        timer.times(tmp_path, (1,))


def test_a_cold_start_is_no_shorter_than_pythons_own(models: Models) -> None:
    found = footprint(models.folder(models.candidates[1]), threads=1, batch=1)
    assert 20 < found.cold_start_ms < 120_000
    assert found.peak_memory_bytes > 20_000_000


@pytest.fixture(scope="module")
def searched(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Search:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "BLOCKS", 4)
        patch.setattr(searching, "PROCESSES", 2)
        study = replace(models.study, compress=replace(models.study.compress, max_drop=0.5))
        return search(
            study,
            models.runs[0],
            models.task,
            models.store,
            names=("onnxruntime", "openvino"),
            threads=(1,),
            batches=(32,),
        )


def test_a_search_runs_every_runtime_precision_and_batch(searched: Search) -> None:
    assert not searched.left_out
    expected = {
        (name, precision, 1, batch)
        for name in ("torch", "onnxruntime", "openvino")
        for precision in runtimes.RUNTIMES[name].precisions
        if precision != "fp16"  # which is a way to store what is computed in fp32
        for batch in (1, 32)
    }
    assert {(p.runtime, p.precision, p.threads, p.batch) for p in searched.points} == expected


def test_a_search_names_a_winner_for_each_goal(searched: Search) -> None:
    winners = {winner.goal: winner for winner in searched.winners}
    assert winners.keys() == {"latency", "throughput", "memory", "cold start"}
    assert {winners[goal].point.batch for goal in ("latency", "memory", "cold start")} == {1}
    fastest = max(searched.points, key=lambda point: point.throughput.value)
    assert fastest.batch == 32  # a call costs more than a tiny model; whether that is shown is the machine's to say
    assert winners["throughput"].gain.low > 1
    for p in searched.points:
        assert p.latency_ms.low <= p.latency_ms.value <= p.latency_ms.high
        assert (p.peak_memory_bytes is not None) == (p.cold_start_ms is not None) == (p.batch == 1)
    assert winners["memory"].point.runtime != "torch"


def test_what_may_lose_too_much_cannot_win(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of nothing at all is never shown to be kept by 360 examples."""
    study = replace(models.study, compress=replace(models.study.compress, max_drop=1e-9))
    kept, left_out = searching._within_drop(models.candidates[:5], study, models.task, models.store)
    assert [c.precision for c in kept] == ["fp32"] * 3
    assert len(left_out) == 2
    assert all("it is not shown to lose at most 1e-09 of validation accuracy" in text for text in left_out)


@pytest.mark.parametrize("kind", ["single-stream", "multi-stream", "offline"])
def test_the_load_generator_drives_a_model(models: Models, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlperf_loadgen")
    monkeypatch.setattr(scenarios, "RUNS", 2)
    monkeypatch.setattr(scenarios, "SECONDS", 0.3)
    folders = {"onnx": models.folder(models.candidates[1])}
    (found,) = scenarios.run(folders, models.task, 1, [kind], bound_ms=10)
    assert found.candidate == "onnx"
    assert found.value.n == 2
    if kind == "offline":
        assert found.value.value > 1000  # of digits a second, by a model of 5,000 parameters
    else:
        assert 0.001 < found.value.value < 1000


def test_a_server_holds_a_bound_at_some_rate_and_not_at_any(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlperf_loadgen")
    monkeypatch.setattr(scenarios, "RUNS", 1)
    monkeypatch.setattr(scenarios, "STEPS", 3)
    monkeypatch.setattr(scenarios, "SECONDS", 0.3)
    folders = {"onnx": models.folder(models.candidates[1])}
    (easy,) = scenarios.run(folders, models.task, 1, ["server"], bound_ms=1000)
    (impossible,) = scenarios.run(folders, models.task, 1, ["server"], bound_ms=0.001)
    assert easy.value.low > 10
    assert impossible.value.low == 0
    assert impossible.value.high < easy.value.high


def test_an_unknown_scenario_is_answered_with_the_known_ones(models: Models) -> None:
    with pytest.raises(UsageError, match="no scenario is called 'rush'") as error:
        scenarios.run({}, models.task, 1, ["rush"], bound_ms=10)
    assert "single-stream, multi-stream, offline, server" in error.value.hint


def test_without_the_load_generator_the_pip_line_is_said(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MissingExtraError, match="mlperf_loadgen") as error:
        scenarios.run({"onnx": models.folder(models.candidates[1])}, models.task, 1, ["single-stream"], bound_ms=10)
    assert error.value.hint == "pip install 'sizewise[loadgen]'"


@pytest.mark.slow
def test_the_command_line_searches_a_study(small_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["measure", str(small_study), "--search", "--runtimes", "onnxruntime", "--threads", "1", "--json"]
    assert main([*arguments, "--batches", "1,16"]) in (0, 3)
    said = json.loads(capsys.readouterr().out)
    assert {winner["goal"] for winner in said["search"]["winners"]} == {"latency", "throughput", "memory", "cold start"}
    assert len(read_json(small_study / "search.json", Search).points) == len(said["search"]["points"])
    assert main(["measure", str(small_study), "--search", "--runtimes", "abacus"]) == 2
    assert "known: torch, onnxruntime, openvino, aotinductor, executorch" in capsys.readouterr().err
