"""How a model is best run: every runtime, precision, number of threads and batch in turns, and a winner for each goal.

Two ways are told apart only by what they took block by block, side by side. What no other is shown to beat may win; of
several the simplest does. As any two could have been compared, each comparison is made at a level that lets all of them
hold together (Bonferroni).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sizewise import compress, runtimes, stats
from sizewise.config import Study
from sizewise.measure import inputs, score_and_drop
from sizewise.records import Candidate, Estimate, OperatingPoint, Run, RuntimeName, Search, Winner
from sizewise.runtimes.footprint import Footprint, footprint
from sizewise.runtimes.timing import Timer
from sizewise.store import Store
from sizewise.tasks import Task

Goal = Literal["latency", "throughput", "memory", "cold start"]

BLOCKS = 8
"""Times that each model is loaded afresh and timed, all of them in turn."""

PROCESSES = 3
"""Fresh processes whose memory and cold start are measured, for each number of threads."""

BATCHES = (1, 8, 64)

UNITS: dict[Goal, str] = {"latency": "ms", "throughput": "samples/s", "memory": "MB", "cold start": "ms"}

Setting = tuple[str, int, int]
"""Name of a candidate, threads, batch."""

Blocks = Mapping[Setting, NDArray[np.float64]]
"""What a setting took in each block or process, the less the better, shape (blocks,)."""


def search(
    study: Study,
    run: Run,
    task: Task,
    store: Store,
    *,
    names: Sequence[RuntimeName] = (),
    threads: Sequence[int] = (),
    batches: Sequence[int] = BATCHES,
    on_done: Callable[[float], None] = lambda share: None,
) -> Search:
    """Run one trained model in every way there is here.

    Args:
        names: runtimes to try, beside PyTorch; empty is all of them.
        threads: numbers of threads to try; empty is powers of two up to the processor's cores.
        batches: samples a call; the target's batch is always among them.
        on_done: called with the share of the timing that is done.
    """
    everything = replace(
        study.compress,
        runtimes=tuple(names or runtimes.RUNTIMES),
        methods=(*study.compress.methods, "bf16", "int8"),
        chains=(*study.compress.chains, "int4"),
    )
    candidates, skipped = compress.build(replace(study, compress=everything), (run,), task, store)
    kept, lossy = _within_drop(candidates, study, task, store)
    tried, sizes = tuple(threads) or _powers(os.cpu_count() or 1), tuple(sorted({study.target.batch, *batches}))
    folders = {c.name: store / "candidates" / c.name for c in kept}
    times = _time(folders, task, tried, sizes, lambda share: on_done(0.8 * share))
    fresh = _start(folders, tried, study.target.batch, lambda share: on_done(0.8 + 0.2 * share))
    points = {key: _point(key, kept, times, fresh) for key in times}
    base = (kept[0].name, min(tried), study.target.batch)
    winners = tuple(_winner(goal, found, points, base) for goal, found in _goals(times, fresh, base).items())
    return Search(run.trial.key, tuple(points.values()), winners, lossy + skipped, runtimes.missing())


def _within_drop(
    candidates: Sequence[Candidate], study: Study, task: Task, store: Store
) -> tuple[list[Candidate], tuple[str, ...]]:
    """Those that are the trained function in full precision, or shown to lose no more than a study allows."""
    parent, kept, left_out = candidates[0], [], []
    loss = {c.name: task.problem.judge(_answers(c, task, store), task.validation) for c in _reduced(candidates, parent)}
    for c in candidates:
        drop = score_and_drop(loss[c.name], loss[parent.name], task.metric)[1] if c.precision != "fp32" else None
        if drop is None or drop.high <= study.compress.max_drop:
            kept.append(c)
        else:
            left_out.append(
                f"{c.name}: it is not shown to lose at most {study.compress.max_drop:g} of validation "
                f"{task.metric.name}: {drop.value:.4g} [{drop.low:.4g}, {drop.high:.4g}]"
            )
    return kept, tuple(left_out)


def _reduced(candidates: Sequence[Candidate], parent: Candidate) -> list[Candidate]:
    return [parent, *(c for c in candidates if c.precision != "fp32")]


def _answers(candidate: Candidate, task: Task, store: Store) -> NDArray[np.float64]:
    return task.problem.answers(runtimes.load(store / "candidates" / candidate.name), task.validation)


def _powers(most: int) -> tuple[int, ...]:
    return tuple(2**n for n in range(most.bit_length()))


def _time(
    folders: Mapping[str, Path],
    task: Task,
    threads: Sequence[int],
    batches: tuple[int, ...],
    on_done: Callable[[float], None],
) -> dict[Setting, NDArray[np.float64]]:
    """Seconds a sample, by block; each block begins with another model."""
    taken: dict[Setting, list[float]] = {(name, t, b): [] for name in folders for t in threads for b in batches}
    turns = [(name, t) for name in folders for t in threads]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        samples = Path(scratch) / "samples.npy"
        np.save(samples, inputs(task.validation, max(batches), task.signature))
        timers = {t: stack.enter_context(Timer(t, samples)) for t in threads}
        for block in range(BLOCKS):
            first = block * len(turns) // BLOCKS
            for name, t in turns[first:] + turns[:first]:
                for batch, seconds in timers[t].times(folders[name], batches).items():
                    taken[name, t, batch].append(float(np.median(seconds)) / batch)
            on_done((block + 1) / BLOCKS)
    return {key: np.array(seconds) for key, seconds in taken.items()}


def _start(
    folders: Mapping[str, Path], threads: Sequence[int], batch: int, on_done: Callable[[float], None]
) -> dict[Setting, list[Footprint]]:
    found: dict[Setting, list[Footprint]] = {(name, t, batch): [] for name in folders for t in threads}
    for number in range(PROCESSES):
        for name, t, _ in found:
            found[name, t, batch].append(footprint(folders[name], threads=t, batch=batch))
        on_done((number + 1) / PROCESSES)
    return found


def _goals(times: Blocks, fresh: Mapping[Setting, list[Footprint]], base: Setting) -> dict[Goal, Blocks]:
    """What each goal is decided by: requests of the target's batch, all batches, or fresh processes."""
    return {
        "latency": {key: seconds for key, seconds in times.items() if key[2] == base[2]},
        "throughput": times,
        "memory": {key: np.array([f.peak_memory_bytes for f in found], float) for key, found in fresh.items()},
        "cold start": {key: np.array([f.cold_start_ms for f in found]) for key, found in fresh.items()},
    }


def best(taken: Blocks) -> tuple[Setting, tuple[Setting, ...]]:
    """The simplest of those that no other is shown to beat, and all of those.

    Args:
        taken: at least one setting; of all of them as many blocks, two at least, side by side.
    """
    leader = min(taken, key=lambda key: float(np.log(taken[key]).mean()))
    pairs = max(1, len(taken) * (len(taken) - 1) // 2)
    level = 1 - (1 - stats.LEVEL) / pairs
    equal = [key for key in taken if stats.log_ratio(taken[key], taken[leader], level=level).low <= 1]
    simplest = min(equal, key=lambda key: (key[1], key[2], float(np.log(taken[key]).mean())))
    return simplest, tuple(equal)


def _winner(goal: Goal, taken: Blocks, points: Mapping[Setting, OperatingPoint], base: Setting) -> Winner:
    key, equal = best(taken)
    gain, point = stats.log_ratio(taken[base], taken[key]), points[key]
    label, threads = runtimes.RUNTIMES[point.runtime].label, _counted(point.threads, "thread")
    how = f"{label} {point.precision}, {threads}, batch {point.batch}"
    others = f"; {_counted(len(equal) - 1, 'other')} cannot be told from the best" if len(equal) > 1 else ""
    value = _VALUES[goal](point)
    assert value is not None
    sentence = (
        f"{goal}: {how}: {value.value:,.4g} [{value.low:,.4g}, {value.high:,.4g}] {UNITS[goal]}, {gain.value:.2f} "
        f"[{gain.low:.2f}, {gain.high:.2f}] times better than PyTorch fp32 on {_counted(base[1], 'thread')} at batch "
        f"{base[2]}{others}"
    )
    return Winner(goal, point, len(equal) - 1, gain, sentence)


_VALUES: dict[Goal, Callable[[OperatingPoint], Estimate | None]] = {
    "latency": lambda point: point.latency_ms,
    "throughput": lambda point: point.throughput,
    "memory": lambda point: _scaled(point.peak_memory_bytes, 1e-6) if point.peak_memory_bytes else None,
    "cold start": lambda point: point.cold_start_ms,
}
"""What a goal's sentence says of a point, in the unit of `UNITS`."""


def _point(
    key: Setting, candidates: Sequence[Candidate], times: Blocks, fresh: Mapping[Setting, list[Footprint]]
) -> OperatingPoint:
    name, threads, batch = key
    candidate, started = next(c for c in candidates if c.name == name), fresh.get(key, ())
    memory, cold = [float(f.peak_memory_bytes) for f in started], [f.cold_start_ms for f in started]
    return OperatingPoint(
        candidate=name,
        runtime=candidate.runtime,
        precision=candidate.precision,
        threads=threads,
        batch=batch,
        latency_ms=stats.quantile(1e3 * batch * times[key], 0.5),
        throughput=stats.quantile(1 / times[key], 0.5),
        peak_memory_bytes=stats.quantile(np.array(memory), 0.5) if memory else None,
        cold_start_ms=stats.quantile(np.array(cold), 0.5) if cold else None,
    )


def _scaled(estimate: Estimate, by: float) -> Estimate:
    return replace(estimate, value=by * estimate.value, low=by * estimate.low, high=by * estimate.high)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
