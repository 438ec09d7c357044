"""One model trained by several workers together, under torchrun or Ray Train: the first leads, the others follow.

The first worker runs a study as any process does; what it would train it trains with all of them. So the folder, its
records and its lock are those of one process, and nothing but training knows that there are several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch.distributed as dist

from sizewise.errors import SizewiseError
from sizewise.records import Cluster, Failure, Trial
from sizewise.store import Store
from sizewise.train import Event, Executor, Source, Training
from sizewise.train.worker import failure, load

if TYPE_CHECKING:
    from sizewise.loop import Data
    from sizewise.train.worker import Prepare, Work

T = TypeVar("T")

ANY = Cluster()

PATIENCE = timedelta(hours=12)
"""For how long a worker waits for the others: as long as the first may take between two runs. One that dies is noticed
at once, by the connections that it closes."""


@dataclass(frozen=True)
class Order:
    """What the first worker asks all to train; fields are those of `train.Training`."""

    trial: Trial
    source: Source
    root: Path
    prepare: Prepare
    cluster: Cluster


class WorkerError(SizewiseError):
    """A worker failed while all were at work; the others are ended by whoever started them."""


@contextmanager
def joined() -> Iterator[int]:
    """The group of workers that the environment names, on CPUs by gloo; the rank of this one in it.

    When the first worker leaves, the others end what they wait for.
    """
    ours = not dist.is_initialized()  # Ray has begun it already
    if ours:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield dist.get_rank()
    except WorkerError:
        raise
    except BaseException:
        _dismiss()
        raise
    else:
        _dismiss()
    finally:
        if ours:
            dist.destroy_process_group()


def _dismiss() -> None:
    """Tell those who wait for an order that there will be none."""
    if dist.get_rank() == 0:
        _tell(None)


def workers() -> int:
    """Workers that train together; 1 where nobody began a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def executor(cluster: Cluster = ANY) -> Executor:
    """Has every trial trained by all workers, one trial after the other; for the first of them.

    A trial that fails stops the sweep: what is finished is kept, and the others go on from their checkpoints.

    Args:
        cluster: the memory of a worker, and how its models are to be shared out.
    """
    return partial(_together, cluster=cluster)


def _together(
    trials: Sequence[Trial],
    work: Work,
    *,
    workers: int,
    on_event: Callable[[Event], None],
    on_done: Callable[[Trial, Failure | None], None],
    cluster: Cluster,
) -> list[Trial]:
    """An `Executor`."""
    assert isinstance(work, Training), "what is shared out is training"
    for trial in trials:
        order = Order(trial, work.source, work.store.root, work.prepare, cluster)
        _tell(order)
        _obey(order, on_event)
        on_event(Event(trial.key, 1.0))
        on_done(trial, None)
    return []


def follow() -> None:
    """Train what the first worker trains, until it leaves; for all others."""
    while (order := _tell(None)) is not None:
        try:
            _obey(order, lambda event: None)
        except WorkerError:
            raise
        except SizewiseError:
            continue  # that of the first worker, which tells it


def _tell(order: Order | None) -> Order | None:
    """What the first worker says, on all of them."""
    said = [order]
    dist.broadcast_object_list(said)
    return said[0]


def _obey(order: Order, on_event: Callable[[Event], None]) -> None:
    from sizewise.loop import Group, chosen, train_one

    trial, store, cluster = order.trial, Store(order.root), order.cluster
    with _at_work(trial, store):
        data = _data(order.source)
    asked = cluster.strategy or None
    how = _agreed(lambda: chosen(trial, data, workers(), device_bytes=cluster.device_bytes, asked=asked))
    with _at_work(trial, store):
        group, start = Group(dist.get_rank(), how), order.prepare(trial, store, data)
        train_one(trial, data, store, start, lambda share: on_event(Event(trial.key, share)), group=group)


@contextmanager
def _at_work(trial: Trial, store: Store) -> Iterator[None]:
    """What fails here fails on this worker, wherever the others are."""
    try:
        yield
    except Exception as error:  # of a model or data that the user brought, or because another worker is gone
        if dist.get_rank() == 0:
            store.save_failure(failure(trial, error))
        raise WorkerError(
            f"width {trial.width}, seed {trial.seed}: worker {dist.get_rank()} of {workers()} failed: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            hint="the same command goes on from the last checkpoint, with as many workers as you like",
        ) from error


@lru_cache(maxsize=1)
def _data(source: Source) -> Data:
    return load(source)


def _agreed(decide: Callable[[], T]) -> T:
    """What the first worker decides, or the error that it meets, on all of them."""
    said: list[T | SizewiseError | None] = [None]
    if dist.get_rank() == 0:
        try:
            said = [decide()]
        except SizewiseError as error:
            said = [error]
    dist.broadcast_object_list(said)
    if isinstance(said[0], SizewiseError):
        raise said[0]
    return said[0]  # type: ignore[return-value]


__all__ = ["WorkerError", "executor", "follow", "joined", "workers"]
