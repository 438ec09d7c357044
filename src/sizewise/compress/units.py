"""What can leave a model as a whole: channels, hidden units and attention heads, with all that is coupled to them.

Which sizes of unit hold is found by trial on a copy: a group that loses its first unit, and one that loses all but its
last, must leave a model that answers in its old shape. So residual streams, heads and a module's own arithmetic are
respected whatever its code looks like.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sizewise.families.graph import above, answer, channels_of, dependencies, out, remember, roots
from sizewise.records import Signature


@dataclass(frozen=True)
class Units:
    """The units of one group of coupled channels.

    Attributes:
        root: name of the layer that they come out of.
        count: how many there are.
        size: neighbouring channels that are one unit: the dimensions of a head, or 1.
        counters: (module, attribute, how many less for each unit) of numbers in the module's own code that must follow.
    """

    root: str
    count: int
    size: int
    counters: tuple[tuple[str, str, int], ...] = ()

    def channels(self, unit: int) -> list[int]:
        """The channels of a unit, by its place among those that are still there."""
        return list(range(unit * self.size, (unit + 1) * self.size))


def survey(module: nn.Module, task: Signature) -> tuple[Units, ...]:
    """Every group that can lose units, the module left as it is.

    Groups that constants such as positions are added to stay whole: they are no part of the weights.
    """
    module = copy.deepcopy(module).eval()
    with torch.random.fork_rng(devices=[]):
        wanted = answer(module, task)
        with dependencies(module, task) as graph:
            found = (_tried(module, graph, root, task, wanted) for root in roots(module, graph))
            return tuple(units for units in found if units is not None)


def remove(module: nn.Module, graph: Any, units: Units, gone: list[int]) -> None:
    """Take units out of the graph's module, by their places among those that are still there."""
    layer = module.get_submodule(units.root)
    lost = [channel for unit in gone for channel in units.channels(unit)]
    group = graph.get_pruning_group(layer, out(graph, layer), lost)
    if not graph.check_pruning_group(group):
        raise ValueError(f"{units.root} would be left without channels")
    group.prune(record_history=False)
    for owner, name, each in units.counters:
        holder = module.get_submodule(owner)
        setattr(holder, name, getattr(holder, name) - each * len(gone))


def _tried(module: nn.Module, graph: Any, root: str, task: Signature, wanted: torch.Size | None) -> Units | None:
    layer = module.get_submodule(root)
    group = graph.get_pruning_group(layer, out(graph, layer), [0])
    if any(isinstance(dep.target.module, nn.Parameter) for dep, _ in group):
        return None
    for units in _ways(module, layer, root, channels_of(graph, layer)):
        if all(_holds(module, graph, units, gone, task, wanted) for gone in ([0], list(range(units.count - 1)))):
            return units
    return None


def _ways(module: nn.Module, layer: nn.Module, root: str, channels: int) -> Iterator[Units]:
    """Channel by channel, then head by head, both also with the numbers of the module's own code adapted."""
    integers = [
        (owner, key, value)
        for owner in sorted(above(root) - {root})
        for key, value in vars(module.get_submodule(owner)).items()
        if type(value) is int
    ]
    wide = tuple((owner, key, 1) for owner, key, value in integers if value == channels)
    if channels > 1 and not (isinstance(layer, nn.RNNBase) and layer.bidirectional):
        yield Units(root, channels, 1)
        if wide:
            yield Units(root, channels, 1, wide)
    for heads in sorted({value for _, key, value in integers if "head" in key and value > 1 and channels % value == 0}):
        size = channels // heads
        counters = tuple((owner, key, 1) for owner, key, value in integers if "head" in key and value == heads)
        yield Units(root, heads, size, counters)
        yield Units(root, heads, size, counters + tuple((owner, key, size) for owner, key, _ in wide))


def _holds(
    module: nn.Module, graph: Any, units: Units, gone: list[int], task: Signature, wanted: torch.Size | None
) -> bool:
    """Whether the module still answers in its old shape without some units; they are put back."""
    if not gone:
        return True
    undo = remember(module, graph)
    try:
        remove(module, graph, units, gone)
        return wanted is not None and answer(module, task) == wanted
    except Exception:  # the graph does not hold, in one of many ways: this is not how to cut it
        return False
    finally:
        undo()
