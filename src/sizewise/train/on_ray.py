"""Trials as tasks of a Ray cluster, which finds them a node, and says what became of it.

A trial asks for one core, and for the memory that it is known to need. When its node is lost, it goes on elsewhere from
its last checkpoint, as often as need be; when its process alone dies, that is the trial's own doing, until it has been
tried `ATTEMPTS` times.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from sizewise.errors import SizewiseError, extra
from sizewise.records import Failure, Trial
from sizewise.train.processes import MEMORY
from sizewise.train.worker import Event, Executor, Work, do

with extra("ray", needed_for="training on a Ray cluster"):
    import ray
    from ray.exceptions import (
        GetTimeoutError,
        NodeDiedError,
        OutOfMemoryError,
        RayError,
        RayTaskError,
        WorkerCrashedError,
    )
    from ray.util.queue import Queue

PROCESS_BYTES = 600 << 20
"""Memory of a worker before its first step: Python, PyTorch and a small task's data."""

WATCH = 10.0
"""Seconds without an answer after which it is looked whether the nodes are alive."""

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
    nodes: dict[str, str] = {}
    with _explained(), _listening(on_event, nodes) as events:

        def send(trial: Trial) -> Any:
            return _TASK.options(memory=_granted(memory(trial))).remote(work, trial, events)

        return _until_done(trials, send, nodes, workers, on_done)


def _until_done(
    trials: Sequence[Trial],
    send: Callable[[Trial], Any],
    nodes: dict[str, str],
    workers: int,
    on_done: Callable[[Trial, Failure | None], None],
) -> list[Trial]:
    """Keep the cluster supplied; those whose process died are returned.

    Args:
        nodes: where trials are, by their keys, as far as is known.
    """
    waiting, died = deque(trials), []
    running: dict[Any, Trial] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (workers or _room()):
                trial = waiting.popleft()
                running[send(trial)] = trial
            done, _ = ray.wait(list(running), timeout=WATCH)
            for reference in done or _cut_off(running, nodes):
                trial = running.pop(reference)
                nodes.pop(trial.key, None)
                try:
                    on_done(trial, ray.get(reference, timeout=None if done else 0))
                except (NodeDiedError, GetTimeoutError):
                    print("warning: a node was lost; its trial goes on elsewhere", file=sys.stderr)
                    waiting.appendleft(trial)
                except (WorkerCrashedError, OutOfMemoryError):
                    died.append(trial)
    finally:
        with suppress(RayError):  # of a cluster that is gone
            for reference in running:
                ray.cancel(reference, force=True)
    return died


def _cut_off(running: Mapping[Any, Trial], nodes: Mapping[str, str]) -> list[Any]:
    """What was sent to nodes that the cluster knows to be lost. One that was cut off cannot say so, and Ray waits for
    its answer until the connection is given up, minutes later."""
    lost = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
    return [reference for reference, trial in running.items() if nodes.get(trial.key) in lost]


def _room() -> int:
    """Trials that are sent at a time: those that have a core, and as many that wait for one."""
    return max(1, 2 * int(ray.cluster_resources().get("CPU", 0)))


def _granted(step: int) -> int:
    """Bytes to ask for, given those of a training step: no more than the largest node has, where it will be tried."""
    most = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return min(PROCESS_BYTES + step, most)


def _do(work: Work, trial: Trial, events: Queue) -> Failure | None:
    """What a node does, after it said that it does. A task of one core has one thread there."""
    events.put((trial.key, ray.get_runtime_context().get_node_id()))
    return do(work, trial, events.put)


_TASK = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": {"GLIBC_TUNABLES": MEMORY}})(_do)


@contextmanager
def _listening(on_event: Callable[[Event], None], nodes: dict[str, str]) -> Iterator[Queue]:
    """Where workers tell of progress, and on which node they are."""
    events = Queue(actor_options=ON_HEAD)
    listener = threading.Thread(target=_listen, args=(events, on_event, nodes), daemon=True)
    listener.start()
    try:
        yield events
        events.put(None)
        listener.join(timeout=5)
    finally:
        with suppress(RayError):
            events.shutdown(force=True)


def _listen(events: Queue, on_event: Callable[[Event], None], nodes: dict[str, str]) -> None:
    try:
        while (event := events.get()) is not None:
            if isinstance(event, Event):
                on_event(event)
            else:
                nodes.update([event])
    except RayError:  # the queue is gone with its cluster, which the sweep sees too
        return


@contextmanager
def _explained() -> Iterator[None]:
    """What the work raised on a node, as it was raised there; else what is wrong with the cluster."""
    try:
        yield
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise SizewiseError(
            f"the Ray cluster failed: {str(error).splitlines()[0]}",
            hint="when it is up again, the same command goes on where it stopped",
        ) from error
