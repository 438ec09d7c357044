"""One model trained by several workers together, under torchrun or Ray Train: the first leads, the others follow.

The first worker runs a study as any process does; what it would train it trains with all of them. So the folder, its
records and its lock are those of one process, and nothing but training knows that there are several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch.distributed as dist

from sizewise import train as sweep
from sizewise.errors import SizewiseError
from sizewise.records import Cluster, Run, Trial
from sizewise.store import Store
from sizewise.train import Event, Source, untaught

if TYPE_CHECKING:
    from sizewise.loop import Data
    from sizewise.train import Prepare

T = TypeVar("T")

ANY = Cluster()

PATIENCE = timedelta(hours=12)
"""For how long a worker waits for the others: as long as the first may take between two runs. One that dies is noticed
at once, by the connections that it closes."""


@dataclass(frozen=True)
class Order:
    """What the first worker asks all to train; fields are those of `train`."""

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


def train(
    trials: Iterable[Trial],
    source: Source,
    store: Store,
    *,
    prepare: Prepare = untaught,
    cluster: Cluster = ANY,
    on_event: Callable[[Event], None] = lambda event: None,
) -> tuple[Run, ...]:
    """Train every trial that the store does not hold yet, one after the other, each on all workers; for the first.

    Args:
        cluster: the memory of a worker, and how its models are to be shared out.

    Raises:
        SizewiseError: a trial failed; what is finished is kept, and the others go on from their checkpoints.
    """

    def wave(missing: list[Trial]) -> None:
        for trial in missing:
            order = Order(trial, source, store.root, prepare, cluster)
            _tell(order)
            _obey(order, on_event)

    return sweep.train(trials, source, store, workers=1, prepare=prepare, on_event=on_event, by=wave)


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
            store.save_failure(sweep.failure(trial, error))
        raise WorkerError(
            f"width {trial.width}, seed {trial.seed}: worker {dist.get_rank()} of {workers()} failed: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            hint="the same command goes on from the last checkpoint, with as many workers as you like",
        ) from error


@lru_cache(maxsize=1)
def _data(source: Source) -> Data:
    return sweep.load(source)


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


__all__ = ["WorkerError", "follow", "joined", "train", "workers"]
