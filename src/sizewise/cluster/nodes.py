"""Declared machines, and trials packed onto them."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sizewise.errors import UsageError
from sizewise.records import NodeLoad, Packing

_WRITTEN = re.compile(
    r"(?P<count>[1-9][0-9]*)x(?P<workers>[1-9][0-9]*)(?::(?P<speed>[0-9.]+))?(?:@(?P<price>[0-9.]+))?"
)


@dataclass(frozen=True)
class Nodes:
    """Machines of one kind.

    Attributes:
        count: machines.
        workers: trials that one trains at a time.
        speed: of a worker, as a multiple of the worker that a plan's seconds are those of.
        price: of a machine's hour.
    """

    count: int
    workers: int
    speed: float = 1.0
    price: float = 0.0


def parse(text: str) -> Nodes:
    """Machines as they are declared: `4x8` are four of eight workers, `2x16:1.5@4` two of sixteen, each worker half as
    fast again as here, at 4 an hour.

    Raises:
        UsageError: it says something else.
    """
    match = _WRITTEN.fullmatch(text.replace(" ", ""))
    try:
        found = match and Nodes(
            int(match["count"]), int(match["workers"]), float(match["speed"] or 1), float(match["price"] or 0)
        )
    except ValueError:
        found = None
    if not found or found.speed <= 0:
        raise UsageError(
            f"{text!r} declares no nodes", hint="write COUNTxWORKERS:SPEED@PRICE, such as 4x8 or 2x16:1.5@4.0"
        )
    return found


def pack(seconds: Mapping[str, float], kinds: Sequence[Nodes], *, start: float = 0.0, currency: str = "USD") -> Packing:
    """Trials on machines, the longest first, each where it ends soonest.

    On equal workers the last ends after at most 4/3 - 1/(3m) times the shortest wall time that there is for m workers
    (Graham 1969, "Bounds on multiprocessing timing anomalies", theorem 2); on workers of different speeds after at most
    twice it (Gonzalez, Ibarra & Sahni 1977, "Bounds for LPT schedules on uniform processors"). `least` bounds that
    shortest time from below: no schedule shares the work out better than evenly, nor ends before its longest trial.

    Args:
        seconds: of each trial on a worker of speed 1, by key.
        kinds: at least one.
        start: seconds that a worker needs before its first trial.
        currency: of the machines' prices.
    """
    machines = [kind for kind in kinds for _ in range(kind.count)]
    homes = [number for number, machine in enumerate(machines) for _ in range(machine.workers)]
    speeds = [machines[home].speed for home in homes]
    ends, places, waiting = [0.0] * len(speeds), {}, _by_speed(speeds)
    for key in sorted(seconds, key=lambda key: -seconds[key]):
        worker = _soonest(waiting, seconds[key])
        ends[worker] = (ends[worker] or start) + seconds[key] / speeds[worker]
        heapq.heapreplace(waiting[speeds[worker]], (ends[worker], worker))
        places[key] = homes[worker]
    work, longest = sum(seconds.values()), max(seconds.values(), default=0.0)
    least = max(work / sum(speeds), longest / max(speeds)) + (start if seconds else 0.0)
    bound = 4 / 3 - 1 / (3 * len(speeds)) if len(set(speeds)) == 1 else 2.0
    loads = _loads(machines, ends, Counter(places.values()))
    cost, hour = sum(load.cost for load in loads), sum(machine.price for machine in machines) / sum(speeds)
    return Packing(max(ends), least, bound, cost, currency, hour, len(speeds), loads, places)


def _by_speed(speeds: Sequence[float]) -> dict[float, list[tuple[float, int]]]:
    """For each speed the workers that have it, as a heap of when they are free."""
    waiting: dict[float, list[tuple[float, int]]] = {}
    for worker, speed in enumerate(speeds):
        waiting.setdefault(speed, []).append((0.0, worker))
    return waiting


def _soonest(waiting: Mapping[float, list[tuple[float, int]]], seconds: float) -> int:
    """The worker on which a trial ends soonest; of each speed it is the one that is free first."""
    speed = min(waiting, key=lambda speed: waiting[speed][0][0] + seconds / speed)
    return waiting[speed][0][1]


def _loads(machines: Sequence[Nodes], ends: Sequence[float], trials: Mapping[int, int]) -> tuple[NodeLoad, ...]:
    """Machines with what they have to do; each is paid for until its last trial ends."""
    loads, first = [], 0
    for number, machine in enumerate(machines):
        busy = ends[first : first + machine.workers]
        first, wall = first + machine.workers, max(busy)
        idle = 1 - sum(busy) / (wall * len(busy)) if wall else 1.0
        loads.append(NodeLoad(trials.get(number, 0), wall, idle, wall / 3600 * machine.price))
    return tuple(loads)


__all__ = ["Nodes", "pack", "parse"]
