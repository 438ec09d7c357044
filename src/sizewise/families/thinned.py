"""Any module in sizes: thinner variants of the one that it is, cut through its dependency graph before training.

One dial: at width w of 32, each group of coupled channels keeps w/32 of them, at least one; 32 is the module itself, at
which a recipe's learning rate is stated. Parameters fall with the square of the width: 4 has about 2 % of them.

What can be cut is found by trial: a group (Torch-Pruning's; Fang et al. 2023, arXiv:2301.12900) loses one channel, or
one of each attention head or convolution group, and stays whole if the module no longer answers in its old shape. So
residual streams, groups and heads are respected whatever their code looks like, and what is left can be built.

Before training no channel is better than another, so the first of each group stay. Their weights are the module's own
first draws, multiplied by √(inputs of the layer before / after) in linear, convolutional and recurrent layers, which
keeps the variance of what they compute (He et al. 2015, arXiv:1502.01852): every size starts as the module's own scheme
would start it. Biases, norms and embeddings stay as they were drawn.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from sizewise.errors import UsageError
from sizewise.families.family import Builder, imported
from sizewise.families.graph import (
    RECURRENT,
    SCALED,
    above,
    answer,
    channels_of,
    dependencies,
    out,
    remember,
    roots,
)
from sizewise.families.weights import tie, ties
from sizewise.records import Signature

WHOLE = 32
"""The width that is the module itself."""

DIVISIONS = 8
"""Ways to divide a group's channels, into heads for example, that are tried at most."""


@dataclass(frozen=True)
class Cut:
    """One group of coupled channels that can be made smaller.

    Attributes:
        root: name of a layer that they come out of.
        parts: equal parts, such as heads, that each lose as many.
        counters: (module, attribute) that count channels or heads in the module's own code, and must follow.
    """

    root: str
    parts: int
    counters: tuple[tuple[str, str], ...] = ()


def builder(target: str) -> Builder:
    """A family of thinner variants of one module.

    Args:
        target: `package.module:object`: a function of the task or of nothing that makes the module, or the module
            itself, which is then drawn anew, layer by layer, by its `reset_parameters`.
    """

    def build(width: int, task: Signature) -> nn.Module:
        if not 1 <= width <= WHOLE:
            raise UsageError(
                f"thin:{target} has no width {width}", hint=f"widths go from 1 to {WHOLE}, which is the whole module"
            )
        if torch.get_default_device().type == "meta":
            return copy.deepcopy(_counted(target, width, task))
        return _thinned(target, width, task)

    return build


@cache
def _counted(target: str, width: int, task: Signature) -> nn.Module:
    """The model without storage. Graphs need real tensors, so one is made, once."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        module = _thinned(target, width, task)
    tied = ties(module)
    module.to("meta")
    tie(module, tied)
    return module


def _thinned(target: str, width: int, task: Signature) -> nn.Module:
    module = _whole(target, task)
    if width == WHOLE:
        return module
    cuts = _survey(target, task)
    before, tied = {name: p.shape for name, p in module.named_parameters()}, ties(module)
    training = {name: m.training for name, m in module.named_modules()}
    with dependencies(module, task) as graph:
        for found in cuts:
            _cut(module, graph, found, width)
    tie(module, tied)
    for name, m in module.named_modules():
        m.training = training[name]
    _rescale(module, before, {name for names in tied for name in names})
    return module


def _whole(target: str, task: Signature) -> nn.Module:
    made = imported(target)
    if isinstance(made, nn.Module):
        made = copy.deepcopy(made)
        for layer in made.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
    elif callable(made):
        made = made(task) if takes_one(made) else made()
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"thin:{target} is a {type(made).__name__}", hint="name a torch.nn.Module, or a function that makes one"
        )
    return made


def takes_one(function: Callable[..., Any]) -> bool:
    """Whether a function must be given an argument."""
    import inspect

    return any(
        p.default is p.empty for p in inspect.signature(function).parameters.values() if p.kind < p.VAR_POSITIONAL
    )


# -- What can be cut --------------------------------------------------------------------------------------------------


@cache
def _survey(target: str, task: Signature) -> tuple[Cut, ...]:
    """The groups that can lose channels one by one, and in how many equal parts.

    Raises:
        UsageError: there is none, or the module does not take the task's samples.
    """
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        module = _whole(target, task).eval()
        wanted = answer(module, task)
        with dependencies(module, task) as graph:
            found = tuple(_tried(module, graph, root, task, wanted) for root in roots(module, graph))
    cuts = tuple(cut for cut in found if cut is not None)
    if not cuts:
        raise UsageError(
            f"thin:{target} has no channels that can be cut: its dependency graph leads to no smaller module",
            hint="write a function build(width, task) instead",
        )
    return cuts


def _tried(module: nn.Module, graph: Any, root: str, task: Signature, wanted: torch.Size | None) -> Cut | None:
    """The first way to cut a group after which the module still answers in its old shape; it stays cut that way."""
    layer = module.get_submodule(root)
    for found in _ways(module, graph, layer, root):
        part = channels_of(graph, layer) // found.parts
        # The thinnest first, and taken back: the graph's indices may hold for one channel and not for more.
        if all(_holds(module, graph, found, gone, task, wanted, keep=gone == 1) for gone in (part - 1, 1)):
            return found
    return None


def _holds(
    module: nn.Module, graph: Any, found: Cut, gone: int, task: Signature, wanted: torch.Size | None, *, keep: bool
) -> bool:
    """Whether the module still answers in its old shape after a cut, which stays if it is to be kept and holds."""
    undo, holds = remember(module, graph), False
    try:
        _remove(module, graph, found, gone)
        holds = wanted is not None and answer(module, task) == wanted
    except Exception:  # the graph does not hold, in one of many ways: this is not how to cut it
        holds = False
    if not (holds and keep):
        undo()
    return holds


def _ways(module: nn.Module, graph: Any, layer: nn.Module, root: str) -> Iterator[Cut]:
    """Channel by channel, then so many in each of several parts; then the same with the module's own counts adapted."""
    channels = channels_of(graph, layer)
    members = [dep.target.module for dep, _ in graph.get_pruning_group(layer, out(graph, layer), [0])]
    names = {m: name for name, m in module.named_modules()}
    owners = sorted({up for m in members if m in names for up in above(names[m])} - {names.get(m) for m in members})
    integers = [(o, k, v) for o in owners for k, v in vars(module.get_submodule(o)).items() if type(v) is int]
    own = {
        v for m in members if isinstance(m, nn.Module) for k, v in vars(m).items() if k in _DIVIDING and type(v) is int
    }
    own |= {2 for m in members if isinstance(m, RECURRENT) and m.bidirectional}
    heads = {v for _, k, v in integers if "head" in k}
    options = own | heads | {channels // v for v in heads if v} | {math.lcm(*own, 1)}
    parts = [1, *sorted(p for p in options if 1 < p < channels and channels % p == 0)][:DIVISIONS]
    for n in parts:
        yield Cut(root, n)
    for n in parts:
        counters = tuple((o, k) for o, k, v in integers if v == channels or ("head" in k and v == channels // n))
        if counters:
            yield Cut(root, n, counters)


_DIVIDING = ("groups", "num_groups", "num_heads")


# -- Cutting ----------------------------------------------------------------------------------------------------------


def _cut(module: nn.Module, graph: Any, found: Cut, width: int) -> None:
    part = channels_of(graph, module.get_submodule(found.root)) // found.parts
    gone = part - max(1, round(part * width / WHOLE))
    if gone:
        _remove(module, graph, found, gone)


def _remove(module: nn.Module, graph: Any, found: Cut, gone: int) -> None:
    """Take the last `gone` channels from each part of a group."""
    layer = module.get_submodule(found.root)
    channels = channels_of(graph, layer)
    part = channels // found.parts
    lost = [p * part + i for p in range(found.parts) for i in range(part - gone, part)]
    group = graph.get_pruning_group(layer, out(graph, layer), lost)
    assert graph.check_pruning_group(group), "a layer would be left without channels"
    group.prune(record_history=False)
    for owner, name in found.counters:
        holder = module.get_submodule(owner)
        count = getattr(holder, name)
        setattr(holder, name, count - (len(lost) if count == channels else gone))


@torch.no_grad()
def _rescale(module: nn.Module, before: dict[str, torch.Size], tied: set[str]) -> None:
    """Give the weights that have fewer inputs the variance that their scheme would give them."""
    for name, layer in module.named_modules():
        for own, p in layer.named_parameters(recurse=False):
            full = f"{name}.{own}".lstrip(".")
            if isinstance(layer, SCALED) and p.dim() > 1 and full not in tied and full in before:
                inputs, fewer = math.prod(before[full][1:]), math.prod(p.shape[1:])
                p.mul_(math.sqrt(inputs / fewer))
