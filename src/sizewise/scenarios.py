"""Models under the loads of MLPerf Inference: one request after the other, several at once, all at once, at random."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from sizewise import stats
from sizewise.errors import UsageError
from sizewise.measure import inputs
from sizewise.records import Estimate, Scenario, ScenarioName
from sizewise.runtimes.loadgen import Load, found
from sizewise.tasks import Task

RUNS, SECONDS = 3, 2.0
"""Runs of each model and scenario, all of them in turn, and how long each one is."""

SAMPLES = 256
"""Different validation samples that requests are made of."""

STEPS = 6
"""Rates that are tried to find the highest one that holds a bound."""

_RESULTS: dict[ScenarioName, tuple[str, float, str]] = {
    "single-stream": ("result_90.00_percentile_latency_ns", 1e-6, "ms, 90th percentile"),
    "multi-stream": ("result_99.00_percentile_per_query_latency_ns", 1e-6, "ms, 99th percentile of 8 samples"),
    "offline": ("result_samples_per_second", 1.0, "samples/s"),
}
"""What the generator calls a scenario's result, its factor and unit."""

_KEPT = "result_99.00_percentile_latency_ns"


def run(
    folders: Mapping[str, Path],
    task: Task,
    threads: int,
    kinds: Sequence[str],
    *,
    bound_ms: float,
    on_done: Callable[[float], None] = lambda share: None,
) -> tuple[Scenario, ...]:
    """Put models under loads.

    Args:
        folders: of the models, by name.
        bound_ms: latency that 99 % of a server's requests must keep.

    Raises:
        UsageError: a scenario is unknown.
        MissingExtraError: the load generator is not installed.
    """
    known: tuple[ScenarioName, ...] = get_args(ScenarioName)
    for kind in kinds:
        if kind not in known:
            raise UsageError(f"no scenario is called {kind!r}", hint=f"known: {', '.join(known)}")
    with tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch) / "samples.npy"
        np.save(samples, inputs(task.validation, min(SAMPLES, len(task.validation)), task.signature))
        loads = [
            (name, Load(str(folder), str(samples), kind, threads, SECONDS, 1.0, bound_ms))
            for kind in known
            if kind in kinds
            for name, folder in folders.items()
        ]
        return _all(loads, on_done)


def _all(loads: Sequence[tuple[str, Load]], on_done: Callable[[float], None]) -> tuple[Scenario, ...]:
    """Runs of one load alternate with those of the others; a server's rates are sought one model after the other."""
    plain = [(name, _expected(load)) for name, load in loads if load.kind != "server"]
    servers = [(name, load) for name, load in loads if load.kind == "server"]
    results: dict[tuple[str, Load], list[float]] = {key: [] for key in plain}
    for number in range(RUNS):
        for name, load in plain:
            key, factor, _ = _RESULTS[load.kind]
            results[name, load].append(factor * found(load)[key])
        on_done((number + 1) / (RUNS + len(servers)))
    done = [_scenario(name, load, stats.mean(np.array(runs), unit="runs")) for (name, load), runs in results.items()]
    for number, (name, load) in enumerate(servers):
        done.append(_scenario(name, load, _highest_rate(load)))
        on_done((RUNS + number + 1) / (RUNS + len(servers)))
    return tuple(done)


def _expected(load: Load) -> Load:
    """The generator makes as many offline requests as it expects to be answered in time: a few tell, then more."""
    if load.kind != "offline":
        return load
    for seconds in (0.1, SECONDS / 4):
        quick = found(replace(load, seconds=seconds))
        load = replace(load, rate=quick["result_samples_per_second"])
    return load


def _highest_rate(load: Load) -> Estimate:
    """Requests a second at which 99 % of them keep the bound, by bisection of the rate, in logarithms."""
    offline = _expected(replace(load, kind="offline")).rate
    low, high = 0.0, offline  # faster than all at once it cannot be
    for _ in range(STEPS):
        rate = (low * high) ** 0.5 if low else high / 4
        if all(_holds(replace(load, rate=rate)) for _ in range(RUNS)):
            low = rate
        else:
            high = rate
    method = f"bracket by bisection, {RUNS} runs a rate"
    return Estimate(low, low, high, stats.LEVEL, method, RUNS)


def _holds(load: Load) -> bool:
    return found(load)[_KEPT] <= 1e6 * load.bound_ms


def _scenario(name: str, load: Load, value: Estimate) -> Scenario:
    served = load.kind == "server"
    unit = f"requests/s, 99% within {load.bound_ms:g} ms" if served else _RESULTS[load.kind][2]
    return Scenario(name, load.kind, load.threads, value, unit, load.bound_ms if served else None, load.seconds)
