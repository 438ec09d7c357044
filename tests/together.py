"""Runs that one process and several workers make, and the workers' side of it, under torchrun.

Dropout is left out of the models: what is drawn for a slice of a batch is not what is drawn for the whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sizewise import cli, distributed, tasks
from sizewise.families import rnn, transformer
from sizewise.loop import Data, Group, Start, train_one
from sizewise.loop import run as page
from sizewise.records import Parallelism, Reading, Recipe, Run, Signature, Strategy, Trial
from sizewise.store import Store
from sizewise.tasks import Task
from tests.test_loop import tagged

BOTH: tuple[Strategy, ...] = ("ddp", "fsdp2")


def undrawn(module: nn.Module) -> nn.Module:
    """The same without dropout."""
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return module


def vit(width: int, task: Signature) -> nn.Module:
    return undrawn(transformer.vit(width, task))


def decoder(width: int, task: Signature) -> nn.Module:
    return undrawn(transformer.transformer(width, task))


def lstm(width: int, task: Signature) -> nn.Module:
    return undrawn(rnn.lstm(width, task))


@dataclass(frozen=True)
class Case:
    """A run: data, a family at a width, how it is trained, on which share of the data, and by which strategies."""

    data: str
    family: str
    width: int
    recipe: Recipe
    fraction: float = 0.2
    strategies: tuple[Strategy, ...] = BOTH


ADAM = Recipe(lr=5e-3, batch_size=64, epochs=3)
CASES = {
    "cnn": Case("digits", "cnn", 8, ADAM, fraction=1.0),
    "parts": Case("digits", "cnn", 8, Recipe("momentum", lr=0.05, batch_size=64, epochs=3, accumulate=3, clip=0.5)),
    "bf16": Case("digits", "cnn", 8, Recipe(lr=5e-3, batch_size=64, epochs=2, precision="bf16")),
    "one left over": Case("digits", "cnn", 4, ADAM, fraction=65 / 1077),
    "patience": Case("digits", "cnn", 8, Recipe(lr=0.1, batch_size=64, epochs=8, patience=1)),
    "average": Case("digits", "cnn", 8, Recipe(lr=5e-3, batch_size=64, epochs=3, average="ema"), strategies=("ddp",)),
    "transformer": Case("digits", "tests.together:vit", 32, Recipe("adamw", lr=2e-3, batch_size=32, epochs=2)),
    "tied": Case("text", "tests.together:decoder", 16, Recipe(lr=5e-3, batch_size=32, epochs=2, clip=1.0)),
    "tokens": Case("tagged", "tests.together:lstm", 8, Recipe("sgd", lr=1.0, batch_size=12, epochs=3), fraction=1.0),
}


def data_of(name: str, text: Path) -> Task:
    """The real digits, a real text, or made sentences of different lengths."""
    makers: dict[str, Callable[[], Task]] = {
        "digits": lambda: tasks.load("digits"),
        "text": lambda: tasks.load("language", text, Reading(vocabulary=259, steps=32)),
        "tagged": tagged,
    }
    return makers[name]()


class StoppedError(Exception):
    """Stands for whatever ends all processes at once in the middle of a run."""


def run(case: Case, text: Path, root: Path, group: Group, *, until: float = 2.0) -> Run:
    """Train a case, and stop when the share `until` of it is done."""

    def stop(share: float) -> None:
        if share >= until:
            raise StoppedError

    task = data_of(case.data, text)
    made = Trial(task.name, task.fingerprint, case.family, case.width, case.fraction, case.recipe, 1)
    return train_one(made, Data.of(task), Store(root), Start(), stop, group=group)


def stopped(case: Case, text: Path, root: Path, group: Group) -> None:
    """Train a case until its second epoch is kept."""
    try:
        run(case, text, root, group, until=2.9 / case.recipe.epochs)
    except StoppedError:
        return
    raise AssertionError("it was not stopped")


def train_all(root: Path, text: Path) -> None:
    """Every case by each of its strategies; one that a process began, and one that is stopped."""
    page.CHECKPOINT_SECONDS = 0.0
    with distributed.joined() as rank:
        for name, case in CASES.items():
            for strategy in case.strategies:
                group = Group(rank, Parallelism(strategy, distributed.workers()))
                run(case, text, root / strategy / name, group)
        for strategy in BOTH:
            group = Group(rank, Parallelism(strategy, distributed.workers()))
            run(CASES["cnn"], text, root / strategy / "grown", group)
            stopped(CASES["cnn"], text, root / strategy / "shrunk", group)
        if rank:
            distributed.follow()


def main(arguments: list[str]) -> int:
    """All cases; or the command line, with a checkpoint after every epoch."""
    if arguments[0] == "cases":
        train_all(Path(arguments[1]), Path(arguments[2]))
        return 0
    page.CHECKPOINT_SECONDS = 0.0
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
