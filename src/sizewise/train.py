"""Runs trials in parallel worker processes, each on one thread, the longest first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import Queue as QueueType
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.errors import DataError, MissingExtraError, SizewiseError
from sizewise.records import Reading, Run, Trial
from sizewise.store import Store
from sizewise.tracking import label, write_curves

if TYPE_CHECKING:
    from sizewise.loop import Data, Start

    Prepare = Callable[[Trial, Store, Data], Start]

ATTEMPTS = 3
"""Times a trial is tried when its worker process dies, for want of memory for example."""


@dataclass(frozen=True)
class Source:
    """Where a worker finds the task again: the arguments of `tasks.load`, its metric, and what they must lead to."""

    name: str
    data: str | None
    reading: Reading
    metric: str
    fingerprint: str


@dataclass(frozen=True)
class Event:
    """Progress of a sweep: `share` of the trial `key` is done; 1 means that it is finished."""

    key: str
    share: float


def from_scratch(trial: Trial, store: Store, data: Data) -> Start:
    """Random weights and no teacher."""
    from sizewise.loop import Start

    return Start()


def train(
    trials: Iterable[Trial],
    source: Source,
    store: Store,
    *,
    workers: int,
    cost: Callable[[Trial], float] = lambda trial: 1.0,
    prepare: Prepare = from_scratch,
    on_event: Callable[[Event], None] = lambda event: None,
) -> tuple[Run, ...]:
    """Train every trial that the store does not hold yet.

    Args:
        workers: processes at most.
        cost: predicted seconds of a trial; the longest start first, so that no worker is left with one at the end.
        prepare: what a trial starts from; a module-level function, since it is called in the workers.
        on_event: called in this process whenever a trial makes progress.

    Returns:
        the runs, in the order of the trials.

    Raises:
        SizewiseError: whatever stopped a trial; finished trials are kept.
    """
    ordered = tuple(dict.fromkeys(trials))
    missing = [trial for trial in ordered if store.find_run(trial) is None]
    missing.sort(key=cost, reverse=True)
    trained = {trial.key for trial in missing}
    for trial in ordered:
        if trial.key not in trained:
            on_event(Event(trial.key, 1.0))
    for attempt in range(ATTEMPTS):
        missing = _pool(missing, source, store, max(1, min(workers, len(missing))), prepare, on_event)
        if not missing:
            break
        print(
            f"warning: a worker process died; {len(missing)} trials start again (attempt {attempt + 1})",
            file=sys.stderr,
        )
    else:
        raise SizewiseError(
            f"worker processes died {ATTEMPTS} times; {len(missing)} trials are not trained",
            hint="most often memory ran out: give fewer --workers; the same command resumes",
        )
    runs = tuple(store.run(trial.key) for trial in ordered)
    _track(runs, trained, store)
    return runs


def _pool(
    missing: list[Trial],
    source: Source,
    store: Store,
    workers: int,
    prepare: Prepare,
    on_event: Callable[[Event], None],
) -> list[Trial]:
    """Run trials in a pool; those left over when a worker dies are returned."""
    if not missing:
        return []
    context = multiprocessing.get_context("spawn")
    events: QueueType[Event | None] = context.Queue()
    listener = threading.Thread(target=_listen, args=(events, on_event), daemon=True)
    listener.start()
    executor = ProcessPoolExecutor(workers, context, _start_worker, (source, store.root, prepare, events))
    left = dict.fromkeys(missing)
    try:
        pending: set[Future[str]] = {executor.submit(_work, trial) for trial in missing}
        by_key = {trial.key: trial for trial in missing}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                left.pop(by_key[future.result()])
    except BrokenProcessPool:
        return [trial for trial in left if store.find_run(trial) is None]
    except BaseException:  # an interrupt, or a trial's own error: what is under way resumes from its checkpoint
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        events.put(None)
        listener.join(timeout=5)
    return []


def _listen(events: QueueType[Event | None], on_event: Callable[[Event], None]) -> None:
    while (event := events.get()) is not None:
        on_event(event)


class _Worker:
    """What a worker process keeps. The data is loaded by the first trial, so that an error reaches the sweep."""

    source: Source
    store: Store
    prepare: Prepare
    events: QueueType[Event | None]
    data: Data | None = None


def _start_worker(source: Source, root: Path, prepare: Prepare, events: QueueType[Event | None]) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches every process of a terminal; the parent answers it
    _Worker.source, _Worker.store, _Worker.prepare, _Worker.events = source, Store(root), prepare, events


def _data() -> Data:
    if _Worker.data is None:
        import torch

        from sizewise import tasks
        from sizewise.loop import Data

        torch.set_num_threads(1)
        source = _Worker.source
        place = Path(source.data) if source.data else None
        task = tasks.load(source.name, place, source.reading).scored_by(source.metric)
        if task.fingerprint != source.fingerprint:
            raise DataError(f"the data of {source.name!r} changed while it was used", hint="start the command again")
        _Worker.data = Data.of(task)
    return _Worker.data


def _die_with_parent() -> None:
    """A worker whose parent was killed must not go on writing to a folder that the next command will hold."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(trial: Trial) -> str:
    from sizewise.loop import train_one

    events, last = _Worker.events, time.perf_counter()

    def progress(share: float) -> None:
        nonlocal last
        if share < 1 and time.perf_counter() - last > 0.2:  # a small model has an epoch every few milliseconds
            last = time.perf_counter()
            events.put(Event(trial.key, share))

    data = _data()
    train_one(trial, data, _Worker.store, _Worker.prepare(trial, _Worker.store, data), progress)
    events.put(Event(trial.key, 1.0))
    return trial.key


def _track(runs: tuple[Run, ...], trained: set[str], store: Store) -> None:
    """TensorBoard curves of the runs that have none yet; a missing TensorBoard is said, and does not stop a sweep."""
    try:
        for run in runs:
            if run.trial.key in trained or not (store.tensorboard / label(run)).exists():
                write_curves(store.tensorboard, run)
    except MissingExtraError as error:
        print(f"note: {error.message}; {error.hint}", file=sys.stderr)
