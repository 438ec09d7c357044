"""Trials as tasks of a Ray cluster, which finds them a node, and says what became of it.

A trial asks for one core, and for the memory that it is known to need. When its node is lost, it goes on elsewhere from
its last checkpoint, as often as need be; when its process alone dies, that is the trial's own doing, until it has been
tried `ATTEMPTS` times.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from sizewise.errors import SizewiseError, extra
from sizewise.records import Failure, Trial
from sizewise.train.processes import MEMORY
from sizewise.train.worker import Event, Executor, Work, do

with extra("ray", needed_for="training on a Ray cluster"):
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
    from ray.util.queue import Queue

PROCESS_BYTES = 600 << 20
"""Memory of a worker before its first step: Python, PyTorch and a small task's data."""

ON_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
"""Where words of progress are collected: the one node that a cluster cannot lose."""


def executor(address: str, memory: Callable[[Trial], int]) -> Executor:
    """Trains on a cluster.

    Args:
        address: "ray" is the cluster that this machine belongs to, or that `RAY_ADDRESS` names; else what `ray.init`
            takes, such as `ray://host:10001`.
        memory: bytes of a training step; 0 where it is not known.

    Raises:
        SizewiseError: no cluster answers there.
    """
    if not ray.is_initialized():
        try:
            ray.init("auto" if address == "ray" else address, logging_level="warning")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise SizewiseError(
                f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}",
                hint="start one with `ray start --head`, or give its address: --on ray://HOST:10001",
            ) from error
    return partial(run, memory=memory)


def run(
    trials: Sequence[Trial],
    work: Work,
    *,
    workers: int,
    on_event: Callable[[Event], None],
    on_done: Callable[[Trial, Failure | None], None],
    memory: Callable[[Trial], int] = lambda trial: 0,
) -> list[Trial]:
    """An `Executor`. A process that dies takes no other trial along."""
    events = Queue(actor_options=ON_HEAD)
    listener = threading.Thread(target=_listen, args=(events, on_event), daemon=True)
    listener.start()
    waiting, died = deque(trials), []
    running: dict[Any, Trial] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (workers or _room()):
                trial = waiting.popleft()
                running[_task(memory(trial)).remote(work, trial, events)] = trial
            (first,), _ = ray.wait(list(running))
            trial = running.pop(first)
            try:
                failure = ray.get(first)
            except NodeDiedError:
                print("warning: a node was lost; its trial goes on elsewhere", file=sys.stderr)
                waiting.appendleft(trial)
            except (WorkerCrashedError, OutOfMemoryError):
                died.append(trial)
            else:
                on_done(trial, failure)
        events.put(None)
        listener.join(timeout=5)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise SizewiseError(
            f"the Ray cluster failed: {str(error).splitlines()[0]}",
            hint="when it is up again, the same command goes on where it stopped",
        ) from error
    finally:
        with suppress(RayError):  # of a cluster that is gone
            for reference in running:
                ray.cancel(reference, force=True)
            events.shutdown(force=True)
    return died


def _room() -> int:
    """Trials that are sent at a time: those that have a core, and as many that wait for one."""
    return max(1, 2 * int(ray.cluster_resources().get("CPU", 0)))


def _task(memory: int) -> Any:
    """What a worker does, and what it asks for. Ray gives a task of one core one thread."""
    most = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return ray.remote(_do).options(
        num_cpus=1,
        memory=min(PROCESS_BYTES + memory, most),  # where no node has enough, the trial is tried on the largest
        max_retries=0,
        runtime_env={"env_vars": {"GLIBC_TUNABLES": MEMORY}},
    )


def _do(work: Work, trial: Trial, events: Queue) -> Failure | None:
    return do(work, trial, events.put)


def _listen(events: Queue, on_event: Callable[[Event], None]) -> None:
    try:
        while (event := events.get()) is not None:
            on_event(event)
    except RayError:  # the queue is gone with its cluster, which the sweep sees too
        return
