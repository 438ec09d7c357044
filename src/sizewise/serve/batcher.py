"""Requests that wait for one model, answered together: dynamic batching with bounded waiting.

A model that is idle answers at once. While it answers, requests gather, and the next call takes all of them that fit:
the busier the server, the larger its batches, and nobody waits for company that may not come (Crankshaw et al. 2017,
arXiv:1612.03079, section 4.3, set the size of a batch by a latency objective; here `Limits` bounds it).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.serve.refusals import Busy, Overdue

AT_ONCE_SECONDS = 0.0005
"""A call that takes no longer, going by the last one, is made where the requests arrive: a thread would take as long to
begin. Longer ones would hold up other requests, so a thread makes them."""

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Limits:
    """What one model may be asked for at a time.

    Attributes:
        batch: most samples in one call. 1 turns batching off. A request that has more is answered in parts of so many.
        delay_ms: how long a request may wait for others when the model is idle.
        queue: most requests that wait; the next one is refused.
        timeout_seconds: longest wait for an answer.
    """

    batch: int = 64
    delay_ms: float = 0.0
    queue: int = 256
    timeout_seconds: float = 30.0


@dataclass(frozen=True)
class Timing:
    """Where the time of a request went, in seconds."""

    queue: float
    inference: float


@dataclass(eq=False)
class _Job:
    samples: NDArray[Any]
    kind: object
    answer: asyncio.Future[tuple[Outputs, Timing]]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """The queue before one model. It belongs to the event loop that calls it.

    Args:
        run: samples to outputs, each with a row a sample; called by one thread at a time.
        kind: what samples must have in common to be run together; None is run alone and whole.
        observe: told of every call how many samples it had and what seconds it took.
    """

    def __init__(
        self,
        run: Callable[[NDArray[Any]], Outputs],
        kind: Callable[[NDArray[Any]], object | None],
        limits: Limits,
        observe: Callable[[int, float], None] = lambda samples, seconds: None,
    ) -> None:
        self._run, self._kind, self._limits, self._observe = run, kind, limits, observe
        self._waiting: deque[_Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "inference")
        self._seconds, self._seconds_a_sample = 0.0, float("inf")

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    async def __call__(self, samples: NDArray[Any]) -> tuple[Outputs, Timing]:
        """The outputs for these samples.

        Raises:
            Busy: as many requests wait as may.
            Overdue: there was no answer in time.
        """
        if len(self._waiting) >= self._limits.queue:
            raise Busy(f"{len(self._waiting)} requests wait for the model, and no more may", self._retry_seconds())
        job = _Job(samples, self._kind(samples), asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._more.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        timer = asyncio.get_running_loop().call_later(self._limits.timeout_seconds, self._give_up, job)
        try:
            return await job.answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Wait until all who wait are answered, then let the thread go."""
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        """Answer until nobody waits."""
        while self._waiting:
            await self._gather()
            if batch := self._next():
                await self._answer(batch)

    async def _gather(self) -> None:
        """Give others the time to come that the oldest request may wait."""
        while (left := self._waiting[0].since + self._limits.delay_ms / 1000 - time.perf_counter()) > 0:
            if sum(len(job.samples) for job in self._waiting) >= self._limits.batch:
                return
            self._more.clear()
            try:
                async with asyncio.timeout(left):
                    await self._more.wait()
            except TimeoutError:
                return

    def _next(self) -> list[_Job]:
        """The oldest request, and those behind it that can be run with it; nobody waits for an overdue one."""
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        batch: list[_Job] = []
        rest: deque[_Job] = deque()
        samples = 0
        while self._waiting and samples < self._limits.batch:
            job = self._waiting.popleft()
            if job.answer.done():
                continue
            if not batch or (
                job.kind is not None and job.kind == batch[0].kind and samples + len(job.samples) <= self._limits.batch
            ):
                batch.append(job)
                samples += len(job.samples)
            else:
                rest.append(job)
        self._waiting.extendleft(reversed(rest))
        return batch

    async def _answer(self, batch: list[_Job]) -> None:
        began = time.perf_counter()
        try:
            if self._seconds_a_sample * sum(len(job.samples) for job in batch) < AT_ONCE_SECONDS:
                outputs, took = self._timed(batch)
            else:
                outputs, took = await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, batch)
        except Exception as error:  # one request must not take the others' server down; each is told
            _tell(batch, error)
            return
        samples = sum(len(job.samples) for job in batch)
        self._seconds, self._seconds_a_sample = took, took / samples
        self._observe(samples, took)
        for job, part in zip(batch, outputs, strict=True):
            if not job.answer.done():
                job.answer.set_result((part, Timing(began - job.since, took)))

    def _timed(self, batch: list[_Job]) -> tuple[list[Outputs], float]:
        """Each request's outputs, and the seconds of the call: without those that the event loop had no time for it,
        or a busy one would take a fast model for a slow one, and be busier."""
        began = time.perf_counter()
        return self._call(batch), time.perf_counter() - began

    def _call(self, batch: list[_Job]) -> list[Outputs]:
        """Each request's outputs, of one call or, where a request is larger than a batch, of several."""
        samples = batch[0].samples if len(batch) == 1 else _together([job.samples for job in batch])
        most = self._limits.batch if batch[0].kind is not None else len(samples)
        parts = [self._run(samples[start : start + most]) for start in range(0, len(samples), most)]
        joined = {
            name: np.concatenate([part[name] for part in parts]) if len(parts) > 1 else parts[0][name]
            for name in parts[0]
        }
        ends = np.cumsum([len(job.samples) for job in batch])
        return [
            {name: values[end - len(job.samples) : end] for name, values in joined.items()}
            for job, end in zip(batch, ends, strict=True)
        ]

    def _give_up(self, job: _Job) -> None:
        if not job.answer.done():
            job.answer.set_exception(Overdue(f"no answer within {self._limits.timeout_seconds:g} s"))

    def _retry_seconds(self) -> int:
        """When half of those who wait now will have been answered, going by the last call."""
        calls = len(self._waiting) / max(self._limits.batch, 1) / 2
        return max(1, math.ceil(calls * self._seconds))


def _together(samples: list[NDArray[Any]]) -> NDArray[Any]:
    """One array of all; shorter texts and series are filled up with zeros, which is what padding looks like."""
    longest = max(x.shape[1] for x in samples)
    if all(x.shape[1] == longest for x in samples):
        return np.concatenate(samples)
    out = np.zeros((sum(map(len, samples)), longest, *samples[0].shape[2:]), samples[0].dtype)
    start = 0
    for x in samples:
        out[start : start + len(x), : x.shape[1]] = x
        start += len(x)
    return out


def _tell(batch: list[_Job], error: Exception) -> None:
    for job in batch:
        if not job.answer.done():
            job.answer.set_exception(error)
