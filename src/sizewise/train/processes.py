"""Trials in processes of this machine, a core each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue

from sizewise.records import Failure, Trial
from sizewise.train.worker import Event, Work, do

COPIED = sys.platform == "linux"
"""Whether workers are copies of one process; elsewhere one that has PyTorch in it is not safe to copy."""

IMPORTED = ("sizewise.study", "torch._dynamo", "sklearn.model_selection")
"""What a worker needs, more or less: an optimizer imports PyTorch's compiler, and every split scikit-learn."""

MEMORY = ":".join(
    f"glibc.malloc.{name}" for name in ("hugetlb=1", f"mmap_threshold={1 << 30}", f"trim_threshold={1 << 32}")
)
"""How workers hold memory: what a step gives back the next one takes again, in large pages. A model of 5 million
parameters has up to 3,000 page faults a step otherwise, and its steps take a tenth longer."""

WORKERS = {"GLIBC_TUNABLES": MEMORY, "OPENBLAS_NUM_THREADS": "1"}
"""Environment that workers start in, where the user did not set it."""


def run(
    trials: Sequence[Trial],
    work: Work,
    *,
    workers: int,
    on_event: Callable[[Event], None],
    on_done: Callable[[Trial, Failure | None], None],
) -> list[Trial]:
    """An `Executor`. When one process dies, so do all others, and every trial that is not done is returned."""
    if not trials:
        return []
    context = _context()
    events: Queue[Event | None] = context.Queue()
    listener = threading.Thread(target=_listen, args=(events, on_event), daemon=True)
    listener.start()
    count = min(workers or os.cpu_count() or 1, len(trials))
    pool = ProcessPoolExecutor(count, context, _start_worker, (work, events, dict(os.environ)))
    pending: dict[Future[Failure | None], Trial] = {}
    left = dict.fromkeys(trials)
    try:
        pending |= {pool.submit(_work, trial): trial for trial in trials}
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                failure = future.result()
                left.pop(trial := pending.pop(future))
                on_done(trial, failure)
    except BrokenProcessPool:
        return list(left)
    except BaseException:  # an interrupt, or a trial's own error: what is under way resumes from its checkpoint
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        events.put(None)
        listener.join(timeout=5)
    return []


def _context() -> BaseContext:
    """How workers start.

    A worker of its own making spends 6 seconds of a core on imports before its first step, and a search starts some at
    every stage. Copies of a process that has imported all that cost it once.
    """
    if not COPIED:
        return multiprocessing.get_context("spawn")
    forkserver.set_forkserver_preload(list(IMPORTED))
    resource_tracker.ensure_running()  # it would let interrupts through again
    with _inherited():
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


@contextmanager
def _inherited() -> Iterator[None]:
    """A process that starts meanwhile has the environment of `WORKERS`, unless the user said otherwise, and is deaf to
    Ctrl+C, which reaches every process of a terminal: the parent answers it.
    """
    missing = WORKERS.keys() - os.environ.keys()
    os.environ.update({name: WORKERS[name] for name in missing})
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        for name in missing:
            os.environ.pop(name, None)  # another thread may have done so


def _listen(events: Queue[Event | None], on_event: Callable[[Event], None]) -> None:
    while (event := events.get()) is not None:
        on_event(event)


class _Worker:
    """What a worker process keeps."""

    work: Work
    events: Queue[Event | None]


def _start_worker(work: Work, events: Queue[Event | None], environment: dict[str, str]) -> None:
    os.environ.clear()  # a copy has that of the command's first stage
    os.environ.update(environment)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where workers are no copies
    _Worker.work, _Worker.events = work, events


def _die_with_parent() -> None:
    """A worker whose parent was killed must not go on writing to a folder that the next command will hold."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(trial: Trial) -> Failure | None:
    return do(_Worker.work, trial, _Worker.events.put)
