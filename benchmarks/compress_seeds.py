"""What chains of compression lose and save, over the seeds of their parent: each seed's model beside its own parent.

    python benchmarks/compress_seeds.py                          the reference MNIST CNN, three chains
    python benchmarks/compress_seeds.py lstm prune=0.5+int8      another parent of compress.py, chains of one's own

Parents are the largest width of the sweeps of `compress.py`. Every model is measured on ONNX Runtime in alternation
with its parent in PyTorch. Intervals are Student's over the seeds; that of the throughput is of its logarithm.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from compress import PARENTS, prepared

from sizewise import measure, stats
from sizewise.compress import build, chains
from sizewise.methods import parse
from sizewise.records import Estimate, Measurement, Run
from sizewise.store import Store
from sizewise.study import Workspace

CHAINS = ("prune=0.18:taylor+int8", "prune=0.18:taylor+distil+int8", "prune=0.1:taylor+distil+int8")


@dataclass(frozen=True)
class Pair:
    """One seed's compressed model and its parent."""

    made: Measurement
    parent: Measurement


def pairs(space: Workspace, text: str) -> list[Pair]:
    """A chain done to every seed of the largest width."""
    parents = space.sizes()[max(space.sizes())]
    teachers, found = [run.trial.key for run in parents], []
    for parent in parents:
        run = parent
        for method in chains.steps(parse(text)):
            (run,) = space.run_trials([chains.step(space.study, run, method, teachers)], lambda trial: 1.0)
        found.append(measured(space, text, parent, run))
    return found


def measured(space: Workspace, text: str, parent: Run, run: Run) -> Pair:
    """Both, measured side by side, in a folder of the seed: names of candidates say nothing of seeds."""
    store = Store(space.store.root / "seeds" / str(parent.trial.seed))
    store.root.mkdir(parents=True, exist_ok=True)
    if not (store / "trials").exists():
        (store / "trials").symlink_to(space.store.root.absolute() / "trials")
    last = chains.quantization(parse(text))
    options = replace(space.study.compress, methods=(), chains=(text,), runtimes=("onnxruntime",), time_seconds=0.0)
    candidates, _ = build(replace(space.study, compress=options), (parent, run), space.task, store)
    wanted = "int8" if last is not None else "fp32"
    (mine,) = (c for c in candidates if (c.run, c.runtime, c.precision) == (run.trial.key, "onnxruntime", wanted))
    found = measure.measure((candidates[0], mine), candidates[0], space.task, store, space.study.target)
    return Pair(found[1], found[0])


def row(text: str, found: Sequence[Pair]) -> str:
    """One line of the table."""
    lost = [stats.mean(100 * np.array([getattr(p.made, f"{s}_drop").value for p in found])) for s in SPLITS]
    ratio = stats.mean(np.log([p.made.throughput_ratio.value for p in found]))
    bytes_less = np.mean([p.parent.size_bytes / p.made.size_bytes for p in found])
    cells = (
        text,
        f"{len(found)}",
        *map(said, lost),
        f"{bytes_less:.1f}",
        f"{math.exp(ratio.value):.1f} [{math.exp(ratio.low):.1f}, {math.exp(ratio.high):.1f}]",
    )
    return f"| {' | '.join(cells)} |"


SPLITS = ("validation", "test")


def said(e: Estimate) -> str:
    """Points with their interval."""
    return f"{e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="mnist_cnn", choices=PARENTS)
    parser.add_argument("chains", nargs="*", default=CHAINS)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/compress"))
    options = parser.parse_args()
    space = prepared(options.model, options.out, options.workers)
    print("| chain | seeds | points lost, validation | points lost, test | times fewer bytes | times the throughput |")
    print("|---|---|---|---|---|---|")
    with space.store.lock():
        for text in options.chains:
            print(row(text, pairs(space, text)), flush=True)


if __name__ == "__main__":
    main()
