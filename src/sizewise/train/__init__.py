"""Trains what a study has not trained yet, the longest first: on the cores of this machine, or on a Ray cluster.

Plan, order, failures and new attempts are the same for both, which are two executors of one work:

    worker.py       what is done with one trial, wherever, and what an executor is
    processes.py    trials in processes of this machine
    on_ray.py       trials as tasks of a cluster
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from sizewise.errors import MissingExtraError, SizewiseError, StoreError
from sizewise.recipe import trunk_of
from sizewise.records import Failure, Run, Trial
from sizewise.store import Store
from sizewise.tracking import label, write_curves
from sizewise.train import processes
from sizewise.train.worker import Event, Executor, Source, Training

if TYPE_CHECKING:
    from sizewise.loop import Data, Start
    from sizewise.train.worker import Prepare

__all__ = ["Event", "Executor", "Source", "Training", "train", "untaught"]

ATTEMPTS = 3
"""Times a trial is tried when its worker process dies, for want of memory for example; the last time alone."""


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
    on: str = "local",
    by: Executor | None = None,
    cost: Callable[[Trial], float] = lambda trial: 1.0,
    memory: Callable[[Trial], int] = lambda trial: 0,
    prepare: Prepare = untaught,
    on_event: Callable[[Event], None] = lambda event: None,
) -> tuple[Run, ...]:
    """Train every trial that the store does not hold yet.

    Args:
        workers: trials at a time; 0 is one a core.
        on: "local" is this machine, "ray" the Ray cluster that it belongs to; else the address of one.
        by: an executor of the caller's own, in place of what `on` says.
        cost: predicted seconds of a trial; the longest start first, so that no worker is left with one at the end.
        memory: bytes of a training step, as far as known: a cluster finds a node that has them.
        prepare: what a trial starts from; a module-level function, since it is called in the workers.
        on_event: called in this process whenever a trial makes progress.

    Returns:
        the runs, in the order of the trials. A trial that failed has none: the store knows why, and it is tried again
        when it is asked for again.

    Raises:
        SizewiseError: the data or the folder stopped the sweep, or every trial failed; finished trials are kept.
    """
    ordered = tuple(dict.fromkeys(trials))
    store.root.mkdir(parents=True, exist_ok=True)
    store.collect(*(trial.key for trial in ordered))
    missing = [trial for trial in ordered if store.find_run(trial) is None]
    missing.sort(key=cost, reverse=True)
    trained = {trial.key for trial in missing}
    for trial in ordered:
        if trial.key not in trained:
            on_event(Event(trial.key, 1.0))
    for trial in missing:
        store.clear_failure(trial)
    executor = by or (_executor(on, memory) if missing else processes.run)
    _offer(missing, source, store)
    for wave in _waves(missing):
        work = Training(source, store, prepare, Counter(trial.size for trial in wave))
        pool = partial(executor, work=work, on_event=on_event, on_done=partial(_keep, store))
        _attempt(wave, pool, workers, store)
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


def _executor(on: str, memory: Callable[[Trial], int]) -> Executor:
    if on == "local":
        return processes.run
    from sizewise.train import on_ray

    return on_ray.executor(on, memory)


def _offer(missing: Sequence[Trial], source: Source, store: Store) -> None:
    """Give workers that see no common folder what they start from."""
    store.offer(missing)
    if missing and source.path is not None:
        store.offer_data(source.fingerprint, source.path)


def _keep(store: Store, trial: Trial, failure: Failure | None) -> None:
    """What came of a trial, in the study's folder."""
    if failure is None:
        store.collect(trial.key)
    else:
        store.save_failure(failure)


def _attempt(missing: list[Trial], pool: Callable[..., list[Trial]], workers: int, store: Store) -> None:
    """Train trials, again where a process died with them."""
    for attempt in range(1, ATTEMPTS):
        missing = pool(missing, workers=workers)
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

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as threads:
        list(threads.map(alone, missing))


def _tell(trials: Sequence[Trial], runs: Sequence[Run], trained: set[str], store: Store) -> None:
    """Say which trials failed and which runs diverged.

    Raises:
        StoreError: workers finished trials that are not here.
        SizewiseError: all of them failed.
    """
    failures = [failure for trial in trials if (failure := store.find_failure(trial)) is not None]
    if lost := len(trials) - len(runs) - len(failures):
        raise StoreError(
            f"{lost} trials were finished, and {store.root} does not have them",
            hint="every node must see that very folder, or else a URL: --share s3://...; the same command looks again",
        )
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


def _track(runs: tuple[Run, ...], trained: set[str], store: Store) -> None:
    """TensorBoard curves of the runs that have none yet; a missing TensorBoard is said, and does not stop a sweep."""
    try:
        for run in runs:
            if run.trial.key in trained or not (store.tensorboard / label(run)).exists():
                write_curves(store.tensorboard, run)
    except MissingExtraError as error:
        print(f"note: {error.message}; {error.hint}", file=sys.stderr)
