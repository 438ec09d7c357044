"""A table of real runs for `sizewise fit`: the CNN at five sizes, each on seven amounts of MNIST seen once.

    python examples/sizes_and_samples.py --data DIR
    sizewise fit runs.csv --params params --samples samples --loss loss --seed seed

The two lines of interest are the ones that write the table: any trainer can write one like it.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from sizewise import Recipe, tasks
from sizewise.records import Reading, Run, Trial
from sizewise.store import Store
from sizewise.train import Source, train

WIDTHS = (2, 4, 8, 16, 32)
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def sweep(data: Path | None, store: Store, seeds: int, shares: tuple[float, ...], workers: int) -> tuple[Run, ...]:
    """One epoch of every width on every share of the training images."""
    task = tasks.load("mnist", data)
    recipe = Recipe(optimizer="adam", lr=2e-3, batch_size=32, epochs=1, schedule="cosine")
    trials = [
        Trial(task.name, task.fingerprint, "cnn", width, share, recipe, seed)
        for width in WIDTHS
        for share in shares
        for seed in range(seeds)
    ]
    source = Source("mnist", str(data) if data else None, Reading(), task.metric.name, task.fingerprint)
    return train(trials, source, store, workers=workers, cost=lambda trial: trial.width * trial.fraction)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the MNIST files; downloaded when it is not given")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each setting (default: %(default)s)")
    parser.add_argument("--most", type=float, default=1.0, help="largest share of the images (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs.csv"), help="the table (default: %(default)s)")
    options = parser.parse_args()
    shares = tuple(share for share in SHARES if share <= options.most)
    runs = sweep(options.data, Store(options.out.with_suffix("")), options.seeds, shares, options.workers)
    with options.out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("params", "samples", "seed", "loss", "error"))
        for run in runs:
            samples = round(run.trial.fraction * 54_000)
            error = run.validation.error
            table.writerow((run.params, samples, run.trial.seed, f"{run.validation.loss:.5f}", f"{error:.5f}"))
    print(f"{len(runs)} runs: {options.out}")


if __name__ == "__main__":
    main()
