"""The camera example: what is missed, what is picked, and the whole of it on a real study."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise import stats
from sizewise.records import Candidate, Estimate, Measurement, Metric, Scores, Target

EXAMPLE = Path(__file__).parents[1] / "examples" / "realtime_detection"


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("realtime", EXAMPLE / "realtime.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["realtime"] = module
    spec.loader.exec_module(module)
    return module


realtime = _module()


def measured(name: str, score: float, *, frontier: bool = True) -> Measurement:
    """A candidate with a score; the rest does not matter here."""
    e = Estimate(1.0, 1.0, 1.0, 0.95, "made", 1)
    metric = Metric("mAP@.5")
    return Measurement(
        candidate=Candidate(name, "run", (), 2, 10, "torch", "fp32", 1.0),
        target=Target(),
        validation_score=Estimate(score, score, score, 0.95, "made", 1),
        validation_drop=e,
        test_score=e,
        test_drop=e,
        test=Scores(metric, 0.0, score, {metric.name: score}),
        latency_p50_ms=e,
        latency_p99_ms=e,
        speedup=e,
        throughput=e,
        throughput_ratio=e,
        throughput_batch=64,
        size_bytes=1,
        peak_memory_bytes=1,
        agreement=1.0,
        frontier=frontier,
    )


def played(name: str, score: float, late: int, frames: int = 600) -> object:
    return realtime.Played(measured(name, score), np.full(frames, 0.01), stats.proportion(late, frames))


def test_frames_are_late_when_their_turn_or_their_answer_is() -> None:
    fast, slow = np.full(6, 0.5), np.array([0.5, 2.6, 0.5, 0.5, 0.5, 0.5])
    assert not realtime.too_late(fast, 1.0, 1.0).any()
    # Frame 1 ends at 3.6: it is late, 2 is dropped, and 3 starts late and ends at 4.1, after its deadline at 4.
    assert realtime.too_late(slow, 1.0, 1.0).tolist() == [False, True, True, True, False, False]
    assert realtime.too_late(slow, 1.0, 2.0).tolist() == [False, True, True, False, False, False]


@given(st.lists(st.floats(0.001, 0.1), min_size=1, max_size=40), st.floats(0.005, 0.2), st.floats(0.5, 3))
def test_a_longer_deadline_or_a_hopeless_one(times: list[float], interval: float, deadline: float) -> None:
    service = np.array(times)
    late = realtime.too_late(service, interval, deadline * interval)
    assert late[service > deadline * interval].all()
    if service.max() <= min(interval, deadline * interval) * 0.999:
        assert not late.any()


def test_live_frames_wait_for_the_clock() -> None:
    frames = [np.zeros(1)] * 5
    began = time.perf_counter()
    late = realtime.live(lambda x: x, frames, 0.02, 10.0)
    assert time.perf_counter() - began >= 0.08
    assert not late.any()
    assert realtime.live(lambda x: time.sleep(0.02) or x, frames, 0.001, 0.001).all()


def test_the_curve_rises_with_the_rate_and_its_intervals_hold_it() -> None:
    rng = np.random.default_rng(0)
    service = rng.uniform(0.008, 0.012, 400)
    estimates = realtime.curve(service, np.array([20.0, 90.0, 400.0]), 1.0, rng)
    assert estimates[0].value == 0
    assert estimates[0].value < estimates[1].value < estimates[2].value
    assert all(e.low <= e.value <= e.high for e in estimates)


def test_the_best_of_those_that_are_never_late_is_picked() -> None:
    candidates = [played("large", 0.9, 1), played("middle", 0.8, 0), played("small", 0.7, 0)]
    assert realtime.pick(candidates).name == "middle"
    assert realtime.pick([played("large", 0.9, 1)]) is None
    assert realtime.pick([played("hardly tried", 0.9, 0, frames=50)]) is None


def test_only_the_frontier_is_tried() -> None:
    found = realtime.shortlist([measured("a", 0.1), measured("b", 0.9, frontier=False), measured("c", 0.5)], 2)
    assert [m.candidate.name for m in found] == ["c", "a"]


@pytest.mark.slow
def test_the_camera_on_a_real_study(shared_data: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    text = (EXAMPLE / "study.toml").read_text()
    assert "../shared/data/bccd" in text
    study.write_text(text.replace("../shared/data/bccd", str(shared_data / "bccd")).replace("[96, 128]", "[48, 64]"))
    out = tmp_path / "camera"
    command = [sys.executable, "-m", "sizewise.cli", "run", str(study), "--widths", "1,2,3,4", "--epochs", "4"]
    result = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stdout + result.stderr
    command = [sys.executable, str(EXAMPLE / "realtime.py"), str(out), "--frames", "400", "--most", "2"]
    result = subprocess.run([*command, "--fps", "25"], capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stderr
    assert "at 25 frames a second, each due within 40.0 ms" in result.stdout
    assert "<svg" in (out / "realtime.html").read_text()
