"""A sweep that is spent batch by batch: what it asks, when it ends, and that its claims are as true as a grid's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from sizewise import adaptive
from sizewise.adaptive import next_step
from sizewise.choose import choose
from sizewise.records import Budget, Choice, Run, from_json
from sizewise.store import Store
from tests.builders import labels, sweep

Y = labels(1000)
MARGIN = 0.005
MOST = 10

Sizes = Mapping[int, Sequence[Run]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def made(store: Store, mean: Mapping[int, int], noise: float, seeds: int = MOST) -> dict[int, list[Run]]:
    """A whole grid: errors of each width's seeds around its mean."""
    rng = np.random.default_rng(0)
    return sweep(
        store, Y, {w: [max(0, round(m + noise * rng.normal())) for _ in range(seeds)] for w, m in mean.items()}
    )


def first(sizes: Sizes, seeds: int) -> dict[int, list[Run]]:
    return {width: list(runs[:seeds]) for width, runs in sizes.items()}


def spend(grid: Sizes, store: Store, most: int = MOST, margin: float = MARGIN) -> dict[int, list[Run]]:
    """What an adaptive study would have trained of a grid."""
    had = first(grid, 3)
    for _ in range(most * len(grid)):
        step = next_step(had, store, most=most, margin=margin)
        if not step.widths:
            return had
        assert any(len(had[width]) < step.seeds <= most for width in step.widths), "a step that trains nothing"
        had |= {width: list(grid[width][: max(step.seeds, len(had[width]))]) for width in step.widths}
    raise AssertionError("it did not end")


def test_a_clear_plateau_is_decided_with_few_seeds_and_as_by_the_grid(store: Store) -> None:
    grid = made(store, {2: 90, 4: 42, 8: 20, 16: 20, 32: 20}, noise=1.0)
    had = spend(grid, store)
    chosen = choose(had, store, margin=MARGIN, looks=MOST)
    assert (chosen.width, chosen.status) == (8, "supported")
    assert chosen.width == choose(grid, store, margin=MARGIN).width
    assert sum(map(len, had.values())) < 0.6 * sum(map(len, grid.values()))
    assert len(had[2]) == len(had[4]) == 3


def test_the_first_question_is_about_the_two_largest(store: Store) -> None:
    step = next_step(first(made(store, {4: 42, 8: 21, 16: 20}, noise=2.0), 3), store, most=MOST, margin=MARGIN)
    assert step.widths == (8, 16)
    assert 4 <= step.seeds <= MOST
    assert step.why == "whether width 8 is within the margin of width 16 is open after 3 seeds"


def test_a_clear_no_ends_it_at_once(store: Store) -> None:
    step = next_step(first(made(store, {4: 42, 8: 120, 16: 20}, noise=1.0), 3), store, most=MOST, margin=MARGIN)
    assert step.widths == ()
    assert step.why == "width 8 is shown to be worse than width 16, and nothing smaller can be chosen"


def test_what_seeds_can_hardly_settle_is_left_open(store: Store) -> None:
    """Width 8 scatters by five times the margin: ten seeds would not do, and seven show that."""
    grid = sweep(store, Y, {8: [22, 60, 5, 40, 3, 50, 10, 33, 1, 44], 16: [20] * MOST})
    had = spend(grid, store)
    assert {width: len(runs) for width, runs in had.items()} == {8: 7, 16: 7}
    assert "hardly be shown" in next_step(had, store, most=MOST, margin=MARGIN).why
    assert choose(had, store, margin=MARGIN, looks=MOST).status == "undetermined"


def test_all_seeds_are_the_end_whatever_is_open(store: Store) -> None:
    grid = made(store, {8: 23, 16: 20}, noise=4.0)
    assert next_step(grid, store, most=MOST, margin=MARGIN).widths == ()


def test_sizes_that_the_budget_excludes_are_asked_nothing(store: Store) -> None:
    sizes = first(made(store, {4: 21, 8: 21, 16: 20}, noise=2.0), 3)
    assert next_step(sizes, store, most=MOST, margin=MARGIN, budget=Budget(max_params=900)).widths == (4, 8)


def test_costly_sizes_are_asked_for_more_seeds_at_once_where_a_batch_costs_more(store: Store) -> None:
    sizes = first(made(store, {8: 21, 16: 20}, noise=0.6), 3)
    cheap, dear = (next_step(sizes, store, most=MOST, margin=MARGIN, overhead=x).seeds for x in (0.0, 1000.0))
    assert dear > cheap


def test_what_was_left_out_is_said_with_the_reason(store: Store) -> None:
    had = spend(made(store, {2: 90, 4: 42, 8: 20, 16: 20, 32: 20}, noise=1.0), store)
    spent = adaptive.spending(had, MOST, next_step(had, store, most=MOST, margin=MARGIN))
    said = list(adaptive.reasons(spent))
    assert said[0].startswith(f"trained adaptively: {sum(map(len, had.values()))} of the grid's 50 runs")
    assert said[1].startswith("left out: 7 seeds of widths 2 and 4")
    assert "since width 4 is shown to be worse than width" in said[1]


@pytest.mark.slow
def test_a_size_exactly_at_the_margin_is_rarely_accepted(store: Store) -> None:
    """Width 4 has just the margin more errors than width 8: to accept it is wrong, in at most 2.5 % of studies."""
    rng, pool = np.random.default_rng(1), 120
    errors = np.rint(60 + 3.0 * rng.normal(size=pool)).astype(int)
    grid = sweep(store, Y, {4: [*map(int, rng.permutation(errors) + 5)], 8: [*map(int, rng.permutation(errors))]})
    wrong = 0
    for _ in range(300):
        drawn = sorted(rng.choice(pool, MOST, replace=False), key=lambda _: rng.random())
        had = spend_in_order(grid, drawn, store)
        wrong += choose(had, store, margin=MARGIN, looks=MOST).width == 4
    assert wrong / 300 <= 0.025 + 3 * (0.025 * 0.975 / 300) ** 0.5


def spend_in_order(grid: Sizes, seeds: Sequence[int], store: Store) -> dict[int, list[Run]]:
    return spend({width: [runs[seed] for seed in seeds] for width, runs in grid.items()}, store)


SWEEP = ["train", "digits", "--widths", "2,4,8,12", "--seeds", "8", "--epochs", "8", "--no-probes", "--adaptive"]


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sizewise.cli", *SWEEP, "--workers", "2", "--out", str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def sizewise(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sizewise.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_adaptive_study_resumes_after_a_kill_and_says_what_it_left_out(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    process = start(out)
    while len(list(out.glob("trials/*/run.json"))) < 5 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/run.json")}
    assert before
    process = start(out)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    assert "at most: after 3 seeds of every size" in messages
    after = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/run.json")}
    assert before.items() <= after.items()
    assert len(after) < 4 * 8
    said = sizewise("choose", str(out))
    assert f"trained adaptively: {len(after)} of the grid's 32 runs" in said.stdout
    chosen = from_json(Choice, json.loads(sizewise("choose", str(out), "--json").stdout))
    assert chosen.spent is not None
    assert sum(chosen.spent.seeds.values()) == len(after)
    assert chosen.spent.seconds < chosen.spent.grid_seconds
    assert all("repeated" in c.difference.method and c.difference.level == 0.95 for c in chosen.comparisons)
    page = out / "report.html"
    assert sizewise("report", str(out)).returncode == 0
    assert "Trained adaptively:" in page.read_text()
