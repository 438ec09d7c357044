"""What sending trials to others costs, whether a sweep survives what happens to machines, and how true a simulation is.

    python benchmarks/scale.py overhead                 200 trials of one second on two cores, by each executor
    python benchmarks/scale.py faults                   a sweep on a Ray cluster of three nodes, with 20 random faults
    python benchmarks/scale.py faults --share           the same, its nodes seeing no folder but a bucket (moto's)
    python benchmarks/scale.py cut [--share]            one trial, whose node is cut off and joined again
    python benchmarks/scale.py model [--quick]          simulated steps of training beside measured ones
    python benchmarks/scale.py                          overhead, then model

The trials of `overhead` sleep, so what is measured is the executor: starting processes, sending, telling, ending. Of
the others `scale_faults.py` and `scale_model.py` speak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scale_faults import cut, drive, faults, made
from scale_nodes import cluster

from sizewise.records import Trial
from sizewise.train import processes
from sizewise.train.worker import Executor


@dataclass(frozen=True)
class Sleep:
    """Work that takes its time and nothing else."""

    seconds: float

    def __call__(self, trial: Trial, tell: Callable[[float], None]) -> None:
        time.sleep(self.seconds)


def overhead(count: int, seconds: float, cores: int) -> dict[str, Any]:
    """Seconds that each executor takes, those before the first trial ended, and how many times the ideal that is. The
    cluster is there already, and is connected to within its time."""
    from sizewise.train import on_ray

    ideal = count * seconds / cores
    local = timed(lambda: processes.run, count, seconds, cores)
    with cluster(0, head_cores=cores) as nodes:
        ray = timed(lambda: on_ray.executor(nodes.address, lambda trial: 0), count, seconds, 0)
    return {
        name: {"seconds": took[-1], "times_the_ideal": took[-1] / ideal, "first_after": took[0]}
        for name, took in (("local", local), ("ray", ray))
    }


def timed(executor: Callable[[], Executor], count: int, seconds: float, workers: int) -> list[float]:
    """When trials were answered for, in seconds from before anything was started."""
    trials = made(count)
    done: dict[Trial, float] = {}
    began = time.perf_counter()
    left = executor()(
        trials,
        Sleep(seconds),
        workers=workers,
        on_event=lambda event: None,
        on_done=lambda trial, failure: done.update({trial: time.perf_counter() - began}),
    )
    assert not left
    assert set(done) == set(trials)
    return [*done.values(), time.perf_counter() - began]


def model(quick: bool) -> int:
    """Simulated steps beside measured ones, on two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [str(Path(__file__).with_name("scale_model.py")), *(["--quick"] if quick else [])]
    return subprocess.run(command, check=False).returncode


DEFAULTS = {"overhead": (200, 0), "faults": (48, 12), "cut": (1, 60), "drive": (1, 1)}
"""Trials, and epochs of each."""

WRONG = ("lost", "other_results", "published_again", "begun_after_publishing")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("overhead", "faults", "cut", "model", "drive"))
    parser.add_argument("--trials", type=int, help="default: 200 of overhead, 48 of faults")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a trial of overhead sleeps")
    parser.add_argument("--cores", type=int, default=2, help="of overhead")
    parser.add_argument("--epochs", type=int, help="of a trial; default: 12 of faults, 60 of cut")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--share", action="store_true", help="nodes that see no common folder, but a bucket")
    parser.add_argument("--quick", action="store_true", help="few repeats of model")
    for name in ("--root", "--on", "--share-url"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.what == "model":
        return model(options.quick)
    trials, epochs = DEFAULTS[options.what or "overhead"]
    options.trials, options.epochs = options.trials or trials, options.epochs or epochs
    if options.what == "drive":
        drive(Path(options.root), options.on, options.share_url, options.trials, options.epochs)
        return 0
    if options.what in ("faults", "cut"):
        answer = (faults if options.what == "faults" else cut)(options)
    else:
        answer = overhead(options.trials, options.seconds, options.cores)
    print(json.dumps(answer, indent=1), flush=True)
    failed = any(answer.get(name) for name in WRONG)
    return int(failed) if options.what else model(options.quick)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
