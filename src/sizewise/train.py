"""Runs trials in parallel worker processes, each on one thread, the longest first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue as QueueType
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.errors import DataError, MissingExtraError, SizewiseError
from sizewise.recipe import trunk_of
from sizewise.records import Failure, Reading, Run, Trial
from sizewise.store import Store
from sizewise.tracking import label, write_curves

if TYPE_CHECKING:
    from sizewise.loop import Data, Start

    Prepare = Callable[[Trial, Store, Data], Start]

ATTEMPTS = 3
"""Times a trial is tried when its worker process dies, for want of memory for example; the last time alone."""

MEMORY = ":".join(
    f"glibc.malloc.{name}" for name in ("hugetlb=1", f"mmap_threshold={1 << 30}", f"trim_threshold={1 << 32}")
)
"""How workers hold memory: what a step gives back the next one takes again, in large pages. A model of 5 million
parameters has up to 3,000 page faults a step otherwise, and its steps take a tenth longer."""

TRACE = 4000
"""Characters that are kept of a traceback."""


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


def untaught(trial: Trial, store: Store, data: Data) -> Start:
    """The weights that the trial itself names, or random ones, and no teacher."""
    from sizewise import starts
    from sizewise.loop import Start

    return Start(weights=starts.initial(trial, store, data.task.signature))


def train(
    trials: Iterable[Trial],
    source: Source,
    store: Store,
    *,
    workers: int,
    cost: Callable[[Trial], float] = lambda trial: 1.0,
    prepare: Prepare = untaught,
    on_event: Callable[[Event], None] = lambda event: None,
    by: Callable[[list[Trial]], None] | None = None,
) -> tuple[Run, ...]:
    """Train every trial that the store does not hold yet.

    Args:
        workers: processes at most.
        cost: predicted seconds of a trial; the longest start first, so that no worker is left with one at the end.
        prepare: what a trial starts from; a module-level function, since it is called in the workers.
        on_event: called in this process whenever a trial makes progress.
        by: trains trials that do not wait for each other; None is worker processes of this machine, one a trial.

    Returns:
        the runs, in the order of the trials. A trial that failed has none: the store knows why, and it is tried again
        when it is asked for again.

    Raises:
        SizewiseError: the data or the folder stopped the sweep, or every trial failed; finished trials are kept.
    """
    ordered = tuple(dict.fromkeys(trials))
    missing = [trial for trial in ordered if store.find_run(trial) is None]
    missing.sort(key=cost, reverse=True)
    trained = {trial.key for trial in missing}
    for trial in ordered:
        if trial.key not in trained:
            on_event(Event(trial.key, 1.0))
    for trial in missing:
        store.clear_failure(trial)
    pool = partial(_pool, source=source, store=store, prepare=prepare, on_event=on_event)
    for wave in _waves(missing):
        by(wave) if by else _attempt(wave, pool, workers, store)
    runs = tuple(run for trial in ordered if (run := store.find_run(trial)) is not None)
    _tell(ordered, runs, trained, store)
    _track(runs, trained, store)
    return runs


def _waves(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Runs of one trunk one after the other, the shortest first, so that longer ones go on from what shorter ones left;
    all others at once. Each wave keeps the order of the trials."""
    place = dict.fromkeys((trial.key for trial in trials), 0)
    seen: Counter[str] = Counter()
    for trial in sorted(trials, key=lambda trial: trial.recipe.epochs):
        if trunk := trunk_of(trial):
            place[trial.key] = seen[trunk]
            seen[trunk] += 1
    count = max(place.values(), default=-1) + 1
    return [[trial for trial in trials if place[trial.key] == number] for number in range(count)]


def _attempt(missing: list[Trial], pool: Callable[..., list[Trial]], workers: int, store: Store) -> None:
    """Train trials, again where a worker process died with them."""
    for attempt in range(1, ATTEMPTS):
        missing = pool(missing, workers=max(1, min(workers, len(missing))))
        if not missing:
            return
        print(f"warning: a worker process died; {len(missing)} trials start again (attempt {attempt})", file=sys.stderr)
    _one_by_one(missing, pool, workers, store)


def _one_by_one(missing: list[Trial], pool: Callable[..., list[Trial]], workers: int, store: Store) -> None:
    """The last attempt, each trial in a process of its own, so that one that kills it takes no other along."""

    def alone(trial: Trial) -> None:
        if pool([trial], workers=1):
            reason = "its process died each time: it ran out of memory, or crashed in compiled code"
            store.save_failure(Failure(trial, "died", reason))

    with ThreadPoolExecutor(max(1, workers)) as threads:
        list(threads.map(alone, missing))


def _tell(trials: Sequence[Trial], runs: Sequence[Run], trained: set[str], store: Store) -> None:
    """Say which trials failed and which runs diverged.

    Raises:
        SizewiseError: all of them failed.
    """
    failures = [failure for trial in trials if (failure := store.find_failure(trial)) is not None]
    if failures and not runs:
        raise SizewiseError(
            f"all {len(failures)} trials failed; width {failures[0].trial.width}: {failures[0].reason}",
            hint=f"{store.trial_folder(failures[0].trial.key) / 'failure.json'} has the traceback",
        )
    for failure in failures:
        print(f"warning: width {failure.trial.width}, seed {failure.trial.seed}: {failure.reason}", file=sys.stderr)
    for run in runs:
        if run.diverged and run.trial.key in trained:
            print(
                f"warning: width {run.trial.width}, seed {run.trial.seed}: the loss diverged in epoch {run.diverged}",
                file=sys.stderr,
            )


def _pool(
    missing: list[Trial],
    *,
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
    runs = Counter(trial.size for trial in missing)
    executor = ProcessPoolExecutor(workers, context, _start_worker, (source, store.root, prepare, events, runs))
    left = dict.fromkeys(missing)
    try:
        with _tunables():
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


@contextmanager
def _tunables() -> Iterator[None]:
    """Processes that start meanwhile hold memory as `MEMORY` says, unless the user said how."""
    if "GLIBC_TUNABLES" in os.environ:
        yield
        return
    os.environ["GLIBC_TUNABLES"] = MEMORY
    try:
        yield
    finally:
        os.environ.pop("GLIBC_TUNABLES", None)  # another thread may have done so


def _listen(events: QueueType[Event | None], on_event: Callable[[Event], None]) -> None:
    while (event := events.get()) is not None:
        on_event(event)


class _Worker:
    """What a worker process keeps. The data is loaded by the first trial, so that an error reaches the sweep."""

    source: Source
    store: Store
    prepare: Prepare
    events: QueueType[Event | None]
    runs: Counter[str]
    data: Data | None = None


def _start_worker(
    source: Source, root: Path, prepare: Prepare, events: QueueType[Event | None], runs: Counter[str]
) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches every process of a terminal; the parent answers it
    _Worker.source, _Worker.store, _Worker.prepare, _Worker.events = source, Store(root), prepare, events
    _Worker.runs = runs


def _data() -> Data:
    if _Worker.data is None:
        import torch

        torch.set_num_threads(1)
        _Worker.data = load(_Worker.source)
    return _Worker.data


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
    try:
        start = _Worker.prepare(trial, _Worker.store, data)
        train_one(trial, data, _Worker.store, start, progress, _Worker.runs[trial.size])
    except SizewiseError:
        raise
    except Exception as error:  # of a model, a loss or data that the user brought
        _Worker.store.save_failure(failure(trial, error))
    events.put(Event(trial.key, 1.0))
    return trial.key


def failure(trial: Trial, error: Exception) -> Failure:
    """The record of an error that ended a trial."""
    from sizewise.loop import out_of_memory

    trace = "".join(traceback.format_exception(error))[-TRACE:]
    if out_of_memory(error):
        return Failure(trial, "memory", f"memory ran out, even in the smallest parts of a batch: {error}", trace)
    return Failure(trial, "error", f"{type(error).__name__}: {error}", trace)


def _track(runs: tuple[Run, ...], trained: set[str], store: Store) -> None:
    """TensorBoard curves of the runs that have none yet; a missing TensorBoard is said, and does not stop a sweep."""
    try:
        for run in runs:
            if run.trial.key in trained or not (store.tensorboard / label(run)).exists():
                write_curves(store.tensorboard, run)
    except MissingExtraError as error:
        print(f"note: {error.message}; {error.hint}", file=sys.stderr)
