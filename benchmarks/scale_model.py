"""Simulated steps against measured ones, on two processes of this machine.

    python benchmarks/scale.py model [--quick]

What the simulation is told: what the links do, timed on all-reduces alone, and how fast one process computes half of a
batch, timed for each model while the other process does the same and nothing is sent. What it says: a step of both
together, of whole models (DDP) and of sharded ones (FSDP2), and what each process holds. Both are then measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor

from sizewise import families, tasks
from sizewise import recipe as recipes
from sizewise.cluster.links import Link
from sizewise.cluster.memory import STAGES
from sizewise.cluster.simulate import Hardware, Layout, Step, footprint, simulate
from sizewise.cluster.work import Work
from sizewise.console import table
from sizewise.distributed import follow, joined
from sizewise.loop import Data, Group, Start
from sizewise.loop.group import blocks
from sizewise.loop.state import State, begin
from sizewise.loop.step import step
from sizewise.records import Parallelism, Recipe, Strategy, Trial

MODELS = (("cnn", 32), ("cnn", 128), ("cnn", 512), ("vit", 64), ("vit", 128))
BATCH = 64
SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 24)
"""Bytes of the all-reduces that the links are timed by."""


@dataclass(frozen=True)
class Measured:
    """Median seconds of a step, and bytes of weights, gradients and optimizer states on a process."""

    seconds: float
    held: int


def timed(work: Callable[[int], object], repeats: int) -> float:
    """Median seconds, of the slower process, after a warm-up."""
    taken = []
    for number in range(repeats + 3):
        dist.barrier()
        began = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - began)
    slowest = torch.tensor(median(taken[3:]), dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return float(slowest)


def links(repeats: int) -> Link:
    """Latency and bandwidth by least squares: of two processes an all-reduce takes 2·latency + size/bandwidth."""
    seconds = []
    for size in SIZES:
        data = torch.zeros(size // 4)
        seconds.append(timed(lambda _, data=data: dist.all_reduce(data), repeats))
    known = torch.tensor([[2.0, float(size)] for size in SIZES], dtype=torch.float64)
    times = torch.tensor(seconds, dtype=torch.float64)
    weight = 1 / times  # relative errors count, so that small messages do, too
    latency, per_byte = torch.linalg.lstsq(known * weight[:, None], (times * weight)[:, None]).solution[:, 0].tolist()
    return Link(bandwidth=1 / per_byte, latency=max(latency, 0.0))


def trained(trial: Trial, data: Data, group: Group, share: int, repeats: int) -> Measured:
    """Time steps of a run on a share of each batch."""
    state, order = begin(trial, data.task, Start(), group), torch.arange(len(data.x))

    def one(number: int) -> Tensor:
        first = number * BATCH % (len(order) - BATCH)
        return step(state, trial, data, None, order[first : first + BATCH // share])

    return Measured(timed(one, repeats), held(state))


def held(state: State) -> int:
    """Bytes of weights, gradients and what the optimizer keeps, on this process."""
    weights = list(state.module.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    slots = [v for kept in state.optimizer.state.values() for v in kept.values() if isinstance(v, Tensor) and v.dim()]
    return sum(local(t).numel() * t.element_size() for t in (*weights, *gradients, *slots))


def local(tensor: Tensor) -> Tensor:
    """This process's part."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def work_of(trial: Trial, data: Data) -> Work:
    """What the simulation is told of a model."""
    signature = data.task.signature
    module = families.load(trial.family, signature).build(trial.width, seed=0)
    kept = families.activation_bytes(module, signature, 1)
    parts = max(1, len(blocks(module, signature)))
    return Work(families.parameters(module), parts, families.flops(module, signature), 4, 4, 8, kept)


def simulated(work: Work, compute: float, link: Link, strategy: Strategy) -> Step:
    """A step, where one process computes its half of a batch in so many seconds."""
    speed = 3 * work.forward_flop * BATCH / 2 / compute
    machine = Hardware(1, 2, speed, 1.0, 1e12, link, link)
    return simulate(work, machine, Layout(stage=STAGES[strategy], samples=BATCH // 2))


def main() -> None:
    """Print one line a model and strategy."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few repeats")
    repeats = 12 if options.parse_args().quick else 60
    with joined() as rank:
        data, rows = Data.of(tasks.load("digits")), []
        link = links(repeats)
        for family, width in MODELS:
            recipe = recipes.at_width(Recipe(batch_size=BATCH), width)
            trial = Trial("digits", data.task.fingerprint, family, width, 1.0, recipe, 0)
            work = work_of(trial, data)
            alone = trained(trial, data, Group(), 2, repeats)
            for strategy in ("ddp", "fsdp2"):
                group = Group(rank, Parallelism(strategy, 2))
                found, said = trained(trial, data, group, 1, repeats), simulated(work, alone.seconds, link, strategy)
                at_rest = replace(footprint(work, said.layout), block=0)  # between steps no block is whole
                bytes_said = sum(at_rest.parts(said.layout.stage, 2)[:3])
                rows.append(
                    (
                        f"{family} {width}",
                        f"{work.params:,}",
                        strategy,
                        f"{1e3 * alone.seconds:.2f}",
                        f"{1e3 * said.seconds:.2f}",
                        f"{1e3 * found.seconds:.2f}",
                        f"{said.seconds / found.seconds:.2f}",
                        f"{bytes_said / 1e6:.2f}",
                        f"{found.held / 1e6:.2f}",
                    )
                )
        if rank:
            follow()
        else:
            print(f"links: {1e6 * link.latency:.0f} µs a message, {link.bandwidth / 1e9:.2f} GB/s")
            header = ("model", "parameters", "strategy", "alone, ms", "simulated", "measured", "ratio", "MB", "MB held")
            print(table(header, rows))


if __name__ == "__main__":
    main()
