"""Does halving the widths of the small MNIST CNN halve its parameters and raise its validation accuracy?

The claim is well known: go from 32 filters and 128 hidden units to 16 and 64, and the model "with half the parameters"
validates better. This counts the parameters, trains both over several seeds exactly as the claim describes (Adam at
0.001, cross-entropy, batch 32, 10 epochs, 10 % validation) and compares them by seed.

    python examples/halving_claim.py --data DIR                  as claimed: 54,000 images, 10 epochs
    python examples/halving_claim.py --data DIR --images 2000    the same with less data, in two minutes
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sizewise import Recipe, Study, compare, words
from sizewise.config import Sweep
from sizewise.console import progress
from sizewise.records import Comparison

TRAINING_IMAGES = 54_000
CLAIM = Recipe(optimizer="adam", lr=1e-3, batch_size=32, epochs=10, schedule="constant")


def verdict(c: Comparison) -> str:
    """What is true of the claim."""
    if c.verdict == "b is better":
        return "The smaller model validates better: the claim about accuracy holds here."
    if c.verdict == "a is better":
        return "The smaller model validates worse: the claim about accuracy is false here."
    return "Undetermined: these seeds do not show a difference either way."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with the MNIST files; they are downloaded when it is not given")
    parser.add_argument("--images", type=int, default=TRAINING_IMAGES, help="training images (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=CLAIM.epochs, help="epochs (default: %(default)s)")
    parser.add_argument("--out", default="runs/halving-claim", help="where the runs are kept (default: %(default)s)")
    options = parser.parse_args()
    study = Study(task="mnist", data=options.data, recipe=CLAIM, sweep=Sweep(seeds=options.seeds))
    shared = f"fraction={options.images / TRAINING_IMAGES:.6f},epochs={options.epochs}"
    with progress() as listener:
        listener.stage(f"train 2 × {options.seeds} models on {options.images:,} images")
        c = compare(study, f"width=32,{shared}", f"width=16,{shared}", Path(options.out), listener)
    cut = 1 - c.b_params / c.a_params
    d, gap = c.difference, words.difference(c.difference, c.metric)
    print(f"parameters: {c.a_params:,} → {c.b_params:,}, a cut of {100 * cut:.0f} %, not of 50 %")
    print(f"validation accuracy: {c.a_mean:.2%} → {c.b_mean:.2%} (means of {d.n} seeds, {options.images:,} images)")
    print(f"larger minus smaller: {gap} ({d.level:.0%} interval, {d.n} paired seeds, p = {c.p_value:.2g})")
    print(f"  for unseen examples too: {words.difference(c.population, c.metric)}")
    print(verdict(c))


if __name__ == "__main__":
    main()
