"""What a worker does with a trial, whoever sent it: a pool of processes, or a cluster."""

from __future__ import annotations

import platform
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sizewise.errors import DataError, SizewiseError, StoreError
from sizewise.records import Failure, Reading, Trial
from sizewise.store import Store

if TYPE_CHECKING:
    from sizewise.loop import Data, Start

    Prepare = Callable[[Trial, Store, Data], Start]

TRACE = 4000
"""Characters that are kept of a traceback."""

OFTEN = 0.2
"""Seconds between two words of progress: a small model has an epoch every few milliseconds."""


@dataclass(frozen=True)
class Source:
    """Where a worker finds the task again: the arguments of `tasks.load`, its metric, and what they must lead to."""

    name: str
    data: str | None
    reading: Reading
    metric: str
    fingerprint: str

    @property
    def path(self) -> Path | None:
        """The user's data; None where the task brings its own."""
        from sizewise import tasks

        if self.data is None and self.name in tasks.NAMES:
            return None
        return Path(self.data or self.name)

    def at(self, path: Path) -> Source:
        """The same data in another place."""
        return replace(self, data=str(path)) if self.data is not None else replace(self, name=str(path))


@dataclass(frozen=True)
class Event:
    """Progress of a sweep: `share` of the trial `key` is done; 1 means that it is finished."""

    key: str
    share: float


Tell = Callable[[float], None]
"""Called with the share of a trial that is done."""

Work = Callable[[Trial, Tell], Failure | None]
"""What is done with one trial, wherever; why it has no run, if that is its own fault. It travels to the workers."""


class Executor(Protocol):
    """Has the work done for every trial, somewhere, the first ones first."""

    def __call__(
        self,
        trials: Sequence[Trial],
        work: Work,
        *,
        workers: int,
        on_event: Callable[[Event], None],
        on_done: Callable[[Trial, Failure | None], None],
    ) -> list[Trial]:
        """Returns when all is done that can be.

        Args:
            workers: trials at a time; 0 is as many as there is room for.
            on_event: called when a trial makes progress.
            on_done: called with each trial and what the work returned.

        Returns:
            the trials whose process died. Whether they are tried again is not decided here.

        Raises:
            SizewiseError: raised by the work, or nothing can be done; the other trials under way are stopped.
        """
        ...


@dataclass(frozen=True)
class Training:
    """The work of a sweep: train a trial and publish its run.

    Attributes:
        runs: trials of each size that are to be trained.
    """

    source: Source
    store: Store
    prepare: Prepare
    runs: Counter[str]

    def __call__(self, trial: Trial, tell: Tell) -> Failure | None:
        """Train a trial from where it was left, unless it is finished."""
        if not self.store.root.is_dir():
            raise StoreError(
                f"{platform.node()}, which is to train, sees no folder {self.store.root}",
                hint="put the study where all nodes see it (--out), or give a URL that they reach: --share s3://...",
            )
        with self.store.reserved(trial.key):
            self.store.bring(trial)
            return None if self.store.find_run(trial) else self._train(trial, tell)

    def _train(self, trial: Trial, tell: Tell) -> Failure | None:
        from sizewise.loop import train_one

        data = _data(self._source())
        try:
            start = self.prepare(trial, self.store, data)
            train_one(trial, data, self.store, start, tell, self.runs[trial.size])
        except SizewiseError:
            raise
        except Exception as error:  # of a model, a loss or data that the user brought
            return failure(trial, error)
        return None

    def _source(self) -> Source:
        """The data as this machine sees it: where it was named, or where the study keeps it for workers."""
        named = self.source.path
        if named is None or named.exists():
            return self.source
        brought = self.store.bring_data(self.source.fingerprint)
        return self.source.at(brought) if brought else self.source


def do(work: Work, trial: Trial, put: Callable[[Event], None]) -> Failure | None:
    """Do the work for one trial, in a worker, and tell of it now and then."""
    last = time.perf_counter()

    def tell(share: float) -> None:
        nonlocal last
        if share < 1 and time.perf_counter() - last > OFTEN:
            last = time.perf_counter()
            put(Event(trial.key, share))

    failure = work(trial, tell)
    put(Event(trial.key, 1.0))
    return failure


@lru_cache(maxsize=1)
def _data(source: Source) -> Data:
    """Loaded by the first trial of a process, so that an error reaches the sweep."""
    import torch

    torch.set_num_threads(1)
    return load(source)


def load(source: Source) -> Data:
    """The task of a source, ready to be trained on.

    Raises:
        DataError: it is not the data that the source speaks of.
    """
    from sizewise import tasks
    from sizewise.loop import Data

    place = Path(source.data) if source.data else None
    task = tasks.load(source.name, place, source.reading).scored_by(source.metric)
    if task.fingerprint != source.fingerprint:
        raise DataError(f"the data of {source.name!r} changed while it was used", hint="start the command again")
    return Data.of(task)


def failure(trial: Trial, error: Exception) -> Failure:
    """The record of an error that ended a trial."""
    from sizewise.loop import out_of_memory

    trace = "".join(traceback.format_exception(error))[-TRACE:]
    if out_of_memory(error):
        return Failure(trial, "memory", f"memory ran out, even in the smallest parts of a batch: {error}", trace)
    return Failure(trial, "error", f"{type(error).__name__}: {error}", trace)
