"""How fast a ladder of sizes is trained: ours beside what users have today, on the same data, in one run.

    python benchmarks/train.py mnist               the MNIST CNN at eight sizes, against all peers
    python benchmarks/train.py mnist --quick       a tenth of the images, two epochs: minutes on two cores
    python benchmarks/train.py lstm                the LSTM on Shakespeare's lines, against plain PyTorch
    python benchmarks/train.py transformer         the small Transformer on the same
    python benchmarks/train.py mnist --growth      ours alone: ten times the trials, their time and memory

All train the same widths on the same tensors with Adam at one rate. A peer is run as its users do, one model after the
other with all cores, and trains one seed of each size, whose time stands for that of every seed. Ours trains all seeds,
from the start of its processes to the last written run; looking for the fastest way and compiling are part of its time.
Floating-point operations are those of the products in forward and backward pass, counted by PyTorch; the peak is that
of a product of two 2,048 × 2,048 matrices on all cores.

The peers are in `train_peers.py`; plain PyTorch, with a DataLoader and layers as they come, is in here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from environments import environment
from torch.utils.data import DataLoader, TensorDataset
from train_peers import PEERS, REQUIREMENTS

from sizewise import families, tasks
from sizewise.families.count import training_flops
from sizewise.loop import Data
from sizewise.loop import environment as machine
from sizewise.loop.evaluate import validate
from sizewise.records import Reading, Recipe, Trial
from sizewise.store import Store
from sizewise.tasks import Task
from sizewise.train import Source, train

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data"
LANGUAGE = Reading(vocabulary=512, steps=128)


@dataclass(frozen=True)
class Ladder:
    """What is trained. `smallest` and `largest` are parameters of the ends."""

    name: str
    family: str
    data: str
    reading: Reading
    smallest: int
    largest: int
    sizes: int
    batch: int
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One trainer at one size."""

    trainer: str
    width: int
    params: int
    seconds_per_epoch: float
    share_of_peak: float
    score: float
    tier: str = ""


LADDERS = {
    "mnist": Ladder("mnist", "cnn", "mnist", Reading(), 2_000, 5_000_000, 8, 32, ("plain", *PEERS)),
    "lstm": Ladder("language", "lstm", "tinyshakespeare/input.txt", LANGUAGE, 20_000, 400_000, 3, 16, ("plain",)),
    "transformer": Ladder(
        "language", "transformer", "tinyshakespeare/input.txt", LANGUAGE, 20_000, 900_000, 3, 16, ("plain",)
    ),
}


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark: a ladder, its data, and how much of it."""

    ladder: Ladder
    place: Path
    task: Task
    data: Data
    fraction: float
    epochs: int
    seeds: int

    @property
    def recipe(self) -> Recipe:
        return Recipe(lr=1e-3, batch_size=self.ladder.batch, epochs=self.epochs, schedule="constant")

    @property
    def widths(self) -> tuple[int, ...]:
        family = families.load(self.ladder.family, self.task.signature)
        return family.ladder(self.ladder.smallest, self.ladder.largest, self.ladder.sizes)

    def flops(self, width: int) -> float:
        """Of an epoch."""
        module = families.load(self.ladder.family, self.task.signature).build(width)
        return float(training_flops(module, self.task.signature)) * len(self.data.x)

    def params(self, width: int) -> int:
        return families.load(self.ladder.family, self.task.signature).params(width)


def ours(bench: Bench, seeds: int, workers: int) -> tuple[list[tuple[int, float, float, str]], float]:
    """(width, seconds of an epoch, score, tier) of every size, and the seconds of the whole sweep."""
    task = bench.task
    trials = [
        Trial(task.name, task.fingerprint, bench.ladder.family, width, bench.fraction, bench.recipe, seed)
        for width in bench.widths
        for seed in range(seeds)
    ]
    source = Source(bench.ladder.name, str(bench.place), bench.ladder.reading, "", task.fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing that was compiled before may help
        began = time.perf_counter()
        runs = train(trials, source, Store(Path(folder)), workers=workers, cost=lambda trial: float(trial.width))
        seconds = time.perf_counter() - began
    rows = []
    for width in bench.widths:
        group = [run for run in runs if run.trial.width == width]
        epoch = median(run.seconds / len(run.curve) for run in group)
        rows.append((width, epoch, mean(run.validation.score for run in group), group[0].engine.tier))
    return rows, seconds


def plain(bench: Bench, width: int) -> tuple[float, float]:
    """Seconds and score of one model trained by the loop of PyTorch's tutorials."""
    data, problem = bench.data, bench.task.problem
    module = families.load(bench.ladder.family, bench.task.signature).build(width, seed=0)
    optimizer = torch.optim.Adam(module.parameters(), lr=bench.recipe.lr)
    loader = DataLoader(TensorDataset(data.x, data.y), bench.ladder.batch, shuffle=True)
    began, score = time.perf_counter(), float("nan")
    for _ in range(bench.epochs):
        module.train()
        for x, y in loader:
            optimizer.zero_grad()
            sums, counts = problem.losses(module(x), y, bench.recipe)
            (sums.sum() / counts.sum()).backward()
            optimizer.step()
        _, score = validate(module, bench.recipe, data)
    return time.perf_counter() - began, score


def peer(
    name: str, bench: Bench, arguments: Sequence[str], folder: Path
) -> tuple[list[tuple[int, float, float]], float]:
    """(width, seconds of an epoch, score) of every size, and the seconds of start, import and one seed of each."""
    if name == "plain":
        command = [sys.executable, str(HERE / "train.py"), *arguments, "--plain"]
    else:
        spec = {"peer": name, "arrays": str(folder / "arrays.npz"), "widths": bench.widths, "epochs": bench.epochs}
        (folder / "spec.json").write_text(json.dumps(spec | {"batch": bench.ladder.batch, "lr": bench.recipe.lr}))
        command = [str(environment(name, REQUIREMENTS[name])), str(HERE / "train_peers.py"), str(folder / "spec.json")]
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    if name == "plain":
        clean["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr.strip()[-800:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [(r["width"], r["seconds"] / bench.epochs, r["score"]) for r in rows], time.perf_counter() - began


def peak() -> float:
    """Floating-point operations a second of a large product on all cores."""
    torch.set_num_threads(os.cpu_count() or 1)
    a, b, best = torch.randn(2048, 2048), torch.randn(2048, 2048), float("inf")
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return float(2 * 2048**3 / best)


def compare(bench: Bench, arguments: Sequence[str], peers: Sequence[str]) -> dict[str, object]:
    """Every trainer at every size, and models an hour."""
    cores, fastest, rows = os.cpu_count() or 1, peak(), []
    models = len(bench.widths) * bench.seeds
    found, seconds = ours(bench, bench.seeds, cores)
    at_once = min(cores, models)  # each process has a core, so that an epoch's share of the peak is a core's
    for width, epoch, score, tier in found:
        share = bench.flops(width) / epoch / (fastest / cores)
        rows.append(Row("sizewise", width, bench.params(width), epoch / at_once, share, score, tier))
    rates = {"sizewise": 3600 * models / seconds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = ("x", "y", "x_validation", "y_validation")
        np.savez(folder / "arrays.npz", **{key: np.ascontiguousarray(getattr(bench.data, key).numpy()) for key in kept})
        for one in peers:
            print(f"{one} ...", file=sys.stderr)
            answers, whole = peer(one, bench, arguments, folder)
            busy = sum(epoch for _, epoch, _ in answers) * bench.epochs
            rates[one] = 3600 * models / (whole - busy + bench.seeds * busy)
            rows += [
                Row(one, width, bench.params(width), epoch, bench.flops(width) / epoch / fastest, score)
                for width, epoch, score in answers
            ]
    return {
        "machine": machine() | {"cores": str(cores), "peak_gflops": f"{fastest / 1e9:.0f}"},
        "samples": len(bench.data.x),
        "epochs": bench.epochs,
        "seeds": bench.seeds,
        "models_per_hour": rates,
        "rows": [asdict(row) for row in rows],
    }


def growth(bench: Bench) -> dict[str, float]:
    """Seconds and memory of ten times the trials, beside those of one time."""
    answer: dict[str, float] = {}
    for seeds in (1, 10):
        _, answer[f"seconds_{seeds}"] = ours(bench, seeds, 1)
        answer[f"peak_mb_{seeds}"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    answer["times_the_seconds"] = answer["seconds_10"] / answer["seconds_1"]
    return answer


def table(result: dict[str, object]) -> str:
    """In Markdown: seconds of an epoch, share of the peak and score, a line a size; models an hour."""
    rows = [Row(**row) for row in result["rows"]]  # type: ignore[attr-defined]
    trainers = list(dict.fromkeys(row.trainer for row in rows))
    lines = ["| params | " + " | ".join(trainers) + " | tier |", "|---|" + "---|" * (len(trainers) + 1)]
    for width in dict.fromkeys(row.width for row in rows):
        group = {row.trainer: row for row in rows if row.width == width}
        cells = [
            f"{r.seconds_per_epoch:.2f} s, {100 * r.share_of_peak:.1f} %, {r.score:.4f}" if (r := group.get(t)) else "–"
            for t in trainers
        ]
        ours_at = group["sizewise"]
        lines.append(f"| {ours_at.params:,} | " + " | ".join(cells) + f" | {ours_at.tier} |")
    rates: dict[str, float] = result["models_per_hour"]  # type: ignore[assignment]
    lines.append("| models an hour | " + " | ".join(f"{rates[t]:,.0f}" for t in trainers) + " | |")
    return "\n".join(lines)


def made(options: argparse.Namespace) -> Bench:
    ladder = LADDERS[options.ladder]
    place = options.data / ladder.data
    task = tasks.load(ladder.name, place, ladder.reading)
    fraction, epochs, seeds = (0.1, 2, 6) if options.quick else (options.fraction, options.epochs, options.seeds)
    return Bench(ladder, place, task, Data.of(task).subset(fraction), fraction, epochs, seeds)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", choices=LADDERS)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with mnist/ and tinyshakespeare/")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, two epochs, six seeds")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peers", help="these only, by comma; none is the empty text")
    parser.add_argument("--growth", action="store_true", help="ours alone: ten times the trials")
    parser.add_argument("--json", action="store_true", help="everything, as JSON on standard output")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    bench = made(options)
    if options.plain:
        for width in bench.widths:
            seconds, score = plain(bench, width)
            print(json.dumps({"width": width, "seconds": seconds, "score": score}), flush=True)
        return 0
    if options.growth:
        print(json.dumps(growth(bench), indent=1))
        return 0
    peers = bench.ladder.peers if options.peers is None else [p for p in options.peers.split(",") if p]
    result = compare(bench, arguments, peers)
    print(json.dumps(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
