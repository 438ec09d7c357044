"""The machines that a study may use."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Machines, for plans, and how one model is shared out over workers.

    Attributes:
        nodes: machines by kind, such as "4x8@2.5": four of eight workers each at 2.5 an hour; see `cluster.nodes`.
        currency: of prices, for what is printed.
        strategy: "ddp" has the whole model on every worker, "fsdp2" a part of it; "" is what its memory allows.
        device_bytes: memory of one worker; 0 is the machine's free memory over its workers.
    """

    nodes: tuple[str, ...] = ()
    currency: str = "USD"
    strategy: Literal["", "ddp", "fsdp2"] = ""
    device_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class NodeLoad:
    """One machine of a packing.

    Attributes:
        trials: how many it trains.
        seconds: until its last one ends, for which it is paid.
        idle: share of its workers' time until then in which they have nothing to do.
        cost: in the cluster's currency.
    """

    trials: int
    seconds: float
    idle: float
    cost: float


@dataclasses.dataclass(frozen=True)
class Packing:
    """Trials packed onto declared machines.

    Attributes:
        seconds: wall time until the last trial ends.
        least: wall time below which no schedule comes.
        bound: times the shortest possible wall time that this way of packing takes at most.
        cost: of all machines, in `currency`.
        worker_hour: what an hour of one worker as fast as this machine's costs, all machines being paid for and busy.
        workers: of all machines.
        nodes: the machines, in the order in which they were declared.
        places: the machine of each trial, by the trial's key.
    """

    seconds: float
    least: float
    bound: float
    cost: float
    currency: str
    worker_hour: float
    workers: int
    nodes: tuple[NodeLoad, ...]
    places: dict[str, int]
