"""Each candidate for real: its score, its speed in alternation with its parent, its size and its memory.

This is the only stage that reads the test split, and it decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import runtimes, stats
from sizewise.records import Candidate, Estimate, Measurement, Metric, Scores, Signature, Target
from sizewise.runtimes.footprint import footprint
from sizewise.runtimes.timing import timed
from sizewise.store import Store
from sizewise.tasks import Split, Task
from sizewise.tasks.problems import Judged
from sizewise.tasks.problems.problem import prepared

BLOCKS = 10
"""Times that a candidate and its parent are loaded afresh and timed side by side. Where a session's memory happens to
lie shifts its speed by a percent or two for as long as it lives, which no number of calls to it would show."""

ROUNDS = 4
"""Turns that each of the two takes in a block."""

CALLS, BATCHES = 20, 3
"""Calls timed in a turn: single requests, and batches of `THROUGHPUT_BATCH`."""

WARM_UP = 10
THROUGHPUT_BATCH = 64

BLOCK_SECONDS, PASS_SECONDS = 1.0, 8.0
"""Of models that are slow, such as translators, fewer calls are timed: no turn begins when a block has taken this long,
and no more blocks than `FEWEST_BLOCKS` are made when one pass over all candidates has."""

FEWEST_BLOCKS = 5


@dataclass
class Timings:
    """Seconds of the calls to one session in one block."""

    single: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)


Clock = list[tuple[Timings, Timings]]
"""A candidate's timings and its parent's beside it, block by block."""


def measure(
    candidates: Sequence[Candidate],
    parent: Candidate,
    task: Task,
    store: Store,
    target: Target,
    on_done: Callable[[float], None] = lambda share: None,
    blocks: int = BLOCKS,
) -> tuple[Measurement, ...]:
    """Measure candidates on one target.

    Args:
        parent: the candidate that the others are compared with; it is one of them.
        on_done: called with the share of the work that is done.
        blocks: in which each is timed; fewer where a pass over all takes long.

    Returns:
        one measurement for each candidate, in order, with the frontier marked.
    """
    folders = {c.name: store / "candidates" / c.name for c in candidates}
    validation, test = {}, {}
    for name, folder in folders.items():
        session = runtimes.load(folder, threads=target.threads)
        validation[name], test[name] = (task.problem.answers(session, split) for split in (task.validation, task.test))
    judged = {
        name: [
            task.problem.judge(validation[name], task.validation),
            task.problem.judge(test[name], task.test),
        ]
        for name in folders
    }
    timed_part = lambda share: on_done(0.7 * share)  # noqa: E731
    clocks = _time_all(folders, folders[parent.name], task.validation, task.signature, target, timed_part, blocks)
    with ThreadPoolExecutor(2) as pool:
        fresh = pool.map(lambda f: footprint(f, threads=target.threads, batch=target.batch), folders.values())
        memory = {name: found.peak_memory_bytes for name, found in zip(folders, fresh, strict=True)}
    on_done(1.0)
    measured = []
    for c in candidates:
        size = sum(file.stat().st_size for file in runtimes.files(folders[c.name]))
        score = _score(judged[c.name], judged[parent.name], task.metric)
        agreement = float(task.problem.same(test[c.name], test[parent.name]).mean())
        measured.append(_record(c, target, clocks[c.name], score, agreement, size, memory[c.name]))
    return mark_frontier(measured)


def mark_frontier(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Flag those that no other one equals or beats in validation score, latency and size while beating it in one."""
    table = np.array(
        [[-m.test.metric.gain(m.validation_score.value, 0), m.latency_p50_ms.value, m.size_bytes] for m in measurements]
    )
    marked = []
    for row, m in zip(table, measurements, strict=True):
        dominated = ((table <= row).all(axis=1) & (table < row).any(axis=1)).any()
        marked.append(replace(m, frontier=not dominated))
    return tuple(marked)


def _time_all(
    folders: Mapping[str, Path],
    parent: Path,
    split: Split,
    signature: Signature,
    target: Target,
    on_block: Callable[[float], None],
    blocks: int,
) -> dict[str, Clock]:
    """Each block goes over all candidates, so that slow drifts of the machine touch every one alike."""
    one, many = inputs(split, target.batch, signature), inputs(split, THROUGHPUT_BATCH, signature)
    clocks: dict[str, Clock] = {name: [] for name in folders}
    number, began = 0, time.perf_counter()
    while number < blocks:
        for name, folder in folders.items():
            clocks[name].append(_block(folder, parent, one, many, target.threads, first=number % 2 == 0))
        number += 1
        if time.perf_counter() - began > number * PASS_SECONDS:
            blocks = min(blocks, FEWEST_BLOCKS)
        on_block(min(1.0, number / blocks))
    return clocks


def _block(
    folder: Path, parent: Path, one: NDArray[Any], many: NDArray[Any], threads: int, *, first: bool
) -> tuple[Timings, Timings]:
    """Load both sides, the candidate `first` or second, and time them in turns; who begins alternates."""
    sides = [(path, Timings()) for path in (folder, parent)]
    loaded = [(runtimes.load(path, threads=threads), timings) for path, timings in (sides if first else sides[::-1])]
    for session, _ in loaded:
        timed(session, one, WARM_UP)
        timed(session, many, 1)
    end = time.perf_counter() + BLOCK_SECONDS
    for number in range(ROUNDS):
        for session, timings in loaded if number % 2 == 0 else loaded[::-1]:
            timings.single += timed(session, one, CALLS)
            timings.batch += timed(session, many, BATCHES)
        if time.perf_counter() > end:
            break
    return sides[0][1], sides[1][1]


def inputs(split: Split, batch: int, signature: Signature) -> NDArray[Any]:
    """A batch of real samples, repeated when the split has too few, as a session takes them."""
    return prepared(np.resize(split.x, (batch, *split.x.shape[1:])), signature)


@dataclass(frozen=True)
class Score:
    """Score and drop against the parent on the validation and the test split."""

    validation: Estimate
    validation_drop: Estimate
    test: Estimate
    test_drop: Estimate
    test_scores: Scores


def _score(ours: Sequence[Judged], parents: Sequence[Judged], metric: Metric) -> Score:
    """Of a candidate and its parent, each judged on validation and test."""
    validation, test = (score_and_drop(mine, other, metric) for mine, other in zip(ours, parents, strict=True))
    return Score(*validation, *test, ours[1].scores(metric))


def score_and_drop(mine: Judged, other: Judged, metric: Metric) -> tuple[Estimate, Estimate]:
    """A model's score on a split, and how much worse that is than another's, paired by example."""
    a, b = mine.examples[metric.name], other.examples[metric.name]
    if np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all():
        return stats.proportion(int(a.sum()), len(a)), stats.paired_proportions(b == 1, a == 1)
    better, worse = (b, a) if metric.higher else (a, b)
    return stats.mean(a, unit="examples", within=metric.range), stats.paired(better, worse, unit="examples")[0]


def _record(
    candidate: Candidate,
    target: Target,
    clock: Clock,
    score: Score,
    agreement: float,
    size_bytes: int,
    memory: int,
) -> Measurement:
    single, parent_single = (np.array([np.median(pair[side].single) for pair in clock]) for side in (0, 1))
    batch, parent_batch = (np.array([np.median(pair[side].batch) for pair in clock]) for side in (0, 1))
    calls = np.concatenate([ours.single for ours, _ in clock])
    return Measurement(
        candidate=candidate,
        target=target,
        validation_score=score.validation,
        validation_drop=score.validation_drop,
        test_score=score.test,
        test_drop=score.test_drop,
        test=score.test_scores,
        latency_p50_ms=stats.quantile(1e3 * single, 0.5),
        latency_p99_ms=stats.quantile(1e3 * calls, 0.99),
        speedup=stats.log_ratio(parent_single, single),
        throughput=stats.quantile(THROUGHPUT_BATCH / batch, 0.5),
        throughput_ratio=stats.log_ratio(parent_batch, batch),
        throughput_batch=THROUGHPUT_BATCH,
        size_bytes=size_bytes,
        peak_memory_bytes=memory,
        agreement=agreement,
    )
