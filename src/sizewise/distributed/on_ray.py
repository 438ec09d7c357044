"""The same workers under Ray Train: it starts them on the nodes of a cluster, and again when one of them dies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sizewise import distributed
from sizewise.errors import SizewiseError, extra
from sizewise.records import Cluster, Run, Trial
from sizewise.store import Store
from sizewise.train import Source
from sizewise.train import train as sweep

with extra("ray", needed_for="training one model on a Ray cluster"):
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

ATTEMPTS = 3
"""Times that workers are started again after one died; what they train goes on from its last checkpoint."""


def train(
    trials: Iterable[Trial],
    source: Source,
    root: Path,
    *,
    workers: int,
    cpus: int = 1,
    cluster: Cluster = distributed.ANY,
) -> tuple[Run, ...]:
    """Train every trial that a study's folder does not hold yet, one after the other, each on all workers.

    Args:
        source: where each worker finds the data on its node.
        root: the folder, which all nodes see.
        cpus: threads of each worker.
        cluster: the memory of a worker, and how its models are to be shared out.

    Raises:
        SizewiseError: the workers died too often, or a trial failed; what is finished is kept.
    """
    trials = tuple(trials)
    order = {"trials": trials, "source": source, "root": root, "cluster": cluster}
    trainer = TorchTrainer(
        _work,
        train_loop_config=order,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": cpus}),
        run_config=RunConfig(
            name="ray-train", storage_path=str(root), failure_config=FailureConfig(max_failures=ATTEMPTS)
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps what a worker raises in errors of its own
        raise SizewiseError(
            f"training on Ray failed: {str(error).splitlines()[0]}",
            hint=f"{root / 'ray-train'} has what the workers said; the same call goes on from the last checkpoint",
        ) from error
    store = Store(root)
    return tuple(run for trial in trials if (run := store.find_run(trial)) is not None)


def _work(order: dict[str, Any]) -> None:
    """What each worker does; Ray has begun their group."""
    with distributed.joined() as rank:
        if rank:
            distributed.follow()
            return
        store = Store(order["root"])
        with store.lock():
            sweep(order["trials"], order["source"], store, workers=1, by=distributed.executor(order["cluster"]))


__all__ = ["train"]
