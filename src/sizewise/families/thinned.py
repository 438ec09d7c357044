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
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sizewise.errors import UsageError
from sizewise.families.count import example
from sizewise.families.family import Builder, imported
from sizewise.records import Signature

WHOLE = 32
"""The width that is the module itself."""

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
SCALED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, *RECURRENT)
"""Layers whose weights sum over inputs."""

ROOTS = (*SCALED, nn.Embedding)
"""Layers that channels come out of."""

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
    tied = _tied(module)
    module.to("meta")
    _tie(module, tied)
    return module


def _thinned(target: str, width: int, task: Signature) -> nn.Module:
    module = _whole(target, task)
    if width == WHOLE:
        return module
    cuts = _survey(target, task)
    before, tied = {name: p.shape for name, p in module.named_parameters()}, _tied(module)
    training = {name: m.training for name, m in module.named_modules()}
    with _graph(module, task) as graph:
        for found in cuts:
            _cut(module, graph, found, width)
    _tie(module, tied)
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
        wanted = _answer(module, task)
        with _graph(module, task) as graph:
            found = tuple(_tried(module, graph, root, task, wanted) for root in _roots(module, graph))
    cuts = tuple(cut for cut in found if cut is not None)
    if not cuts:
        raise UsageError(
            f"thin:{target} has no channels that can be cut: its dependency graph leads to no smaller module",
            hint="write a function build(width, task) instead",
        )
    return cuts


def _answer(module: nn.Module, task: Signature) -> torch.Size | None:
    """Shape of the module's answer, None where it has none.

    By PyTorch's plain kernels, which check their sizes; fused ones (for attention where gradients are off, and oneDNN's
    for recurrent layers) divide by some that a half-cut module has at 0, which ends the process.
    """
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # about graphics cards, when oneDNN is switched off and on
            with torch.backends.mkldnn.flags(enabled=False):
                answer = module(*example(task, 2))
    except Exception:  # whatever a half-cut module of a user does
        return None
    return answer.shape if isinstance(answer, Tensor) else None


def _roots(module: nn.Module, graph: Any) -> list[str]:
    """One layer for each group of coupled channels: the one with the fewest, as others may hold several such groups."""
    names, found = {layer: name for name, layer in module.named_modules()}, []
    for group in graph.get_all_groups(root_module_types=ROOTS):
        out = [dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)]
        layers = [layer for layer in out if isinstance(layer, ROOTS)]
        found.append(names[min(layers, key=lambda layer: _channels(graph, layer))])
    return found


def _tried(module: nn.Module, graph: Any, root: str, task: Signature, wanted: torch.Size | None) -> Cut | None:
    """The first way to cut a group after which the module still answers in its old shape; it stays cut that way."""
    layer = module.get_submodule(root)
    for found in _ways(module, graph, layer, root):
        part = _channels(graph, layer) // found.parts
        # The thinnest first, and taken back: the graph's indices may hold for one channel and not for more.
        if all(_holds(module, graph, found, gone, task, wanted, keep=gone == 1) for gone in (part - 1, 1)):
            return found
    return None


def _holds(
    module: nn.Module, graph: Any, found: Cut, gone: int, task: Signature, wanted: torch.Size | None, *, keep: bool
) -> bool:
    """Whether the module still answers in its old shape after a cut, which stays if it is to be kept and holds."""
    undo, holds = _remember(module, graph), False
    try:
        _remove(module, graph, found, gone)
        holds = wanted is not None and _answer(module, task) == wanted
    except Exception:  # the graph does not hold, in one of many ways: this is not how to cut it
        holds = False
    if not (holds and keep):
        undo()
    return holds


def _ways(module: nn.Module, graph: Any, layer: nn.Module, root: str) -> Iterator[Cut]:
    """Channel by channel, then so many in each of several parts; then the same with the module's own counts adapted."""
    channels = _channels(graph, layer)
    members = [dep.target.module for dep, _ in graph.get_pruning_group(layer, _out(graph, layer), [0])]
    names = {m: name for name, m in module.named_modules()}
    owners = sorted({up for m in members if m in names for up in _above(names[m])} - {names.get(m) for m in members})
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


def _above(name: str) -> set[str]:
    """A module and the two around it."""
    parts = name.split(".")
    return {".".join(parts[: max(len(parts) - i, 0)]) for i in range(3)}


# -- Cutting ----------------------------------------------------------------------------------------------------------


def _cut(module: nn.Module, graph: Any, found: Cut, width: int) -> None:
    part = _channels(graph, module.get_submodule(found.root)) // found.parts
    gone = part - max(1, round(part * width / WHOLE))
    if gone:
        _remove(module, graph, found, gone)


def _remove(module: nn.Module, graph: Any, found: Cut, gone: int) -> None:
    """Take the last `gone` channels from each part of a group."""
    layer = module.get_submodule(found.root)
    channels = _channels(graph, layer)
    part = channels // found.parts
    lost = [p * part + i for p in range(found.parts) for i in range(part - gone, part)]
    group = graph.get_pruning_group(layer, _out(graph, layer), lost)
    assert graph.check_pruning_group(group), "a layer would be left without channels"
    group.prune(record_history=False)
    for owner, name in found.counters:
        holder = module.get_submodule(owner)
        count = getattr(holder, name)
        setattr(holder, name, count - (len(lost) if count == channels else gone))


def _channels(graph: Any, layer: nn.Module) -> int:
    return int(graph.get_pruner_of_module(layer).get_out_channels(layer))


def _out(graph: Any, layer: nn.Module) -> Callable[..., Any]:
    function: Callable[..., Any] = graph.get_pruner_of_module(layer).prune_out_channels
    return function


@contextmanager
def _graph(module: nn.Module, task: Signature) -> Iterator[Any]:
    """The dependency graph of a module, in evaluation mode; constant buffers such as positions take part in it."""
    module.eval()
    recurrent = Recurrent()
    buffers = _buffers_as_parameters(module)
    with _opaque(module):
        graph = tp.DependencyGraph().build_dependency(
            module,
            example(task, 2),
            customized_pruners=dict.fromkeys(RECURRENT, recurrent),
            verbose=False,
        )
    try:
        yield graph
    finally:
        for holder, name, persistent in buffers:
            values = holder._parameters.pop(name)
            assert values is not None
            holder.register_buffer(name, values.detach(), persistent=persistent)


def _buffers_as_parameters(module: nn.Module) -> list[tuple[nn.Module, str, bool]]:
    """Positions and the like are added to channels that are cut, so the graph must see them."""
    moved = []
    for holder in module.modules():
        if isinstance(holder, nn.modules.batchnorm._NormBase):
            continue
        for name, values in list(holder._buffers.items()):
            if values is not None and values.is_floating_point() and values.dim() > 1:
                del holder._buffers[name]
                holder._parameters[name] = nn.Parameter(values)
                moved.append((holder, name, name not in holder._non_persistent_buffers_set))
    return moved


@contextmanager
def _opaque(module: nn.Module) -> Iterator[None]:
    """Recurrent and attention layers as one operation each: what happens inside them is not for the graph to see."""
    layers = [m for m in module.modules() if isinstance(m, (*RECURRENT, nn.MultiheadAttention))]
    for layer in layers:
        layer.forward = _recurrent(layer) if isinstance(layer, RECURRENT) else _attention  # type: ignore[method-assign]
    try:
        with _LastFirst():
            yield
    finally:
        for layer in layers:
            del layer.forward


class _LastFirst(TorchFunctionMode):
    """Joins and splits along the last dimension, where sequences have their channels, done along the second one, which
    is the only one where Torch-Pruning 1.6 follows them."""

    JOINS = (torch.cat, torch.concat)
    SPLITS = (torch.chunk, torch.split, Tensor.chunk, Tensor.split)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.JOINS or func in self.SPLITS:
            place = 1 if func in self.JOINS else 2
            dim = kwargs.get("dim", args[place] if len(args) > place else 0)
            first = args[0][0] if func in self.JOINS else args[0]
            if first.dim() > 2 and dim in (-1, first.dim() - 1):
                return self._turned(func, args, kwargs, place)
        return func(*args, **kwargs)

    def _turned(self, func: Any, args: Any, kwargs: dict[str, Any], place: int) -> Any:
        rest, kwargs = args[1:place], kwargs | {"dim": 1}
        if func in self.JOINS:
            return func([x.transpose(1, -1) for x in args[0]], *rest, **kwargs).transpose(1, -1)
        return tuple(x.transpose(1, -1) for x in func(args[0].transpose(1, -1), *rest, **kwargs))


def _recurrent(layer: nn.LSTM | nn.GRU | nn.RNN) -> Callable[..., Any]:
    """Outputs and states of the right shapes, of which each depends on all inputs."""
    directions, time = 1 + layer.bidirectional, -2 if layer.batch_first else 0

    def forward(x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        out = x.sum(-1, keepdim=True) * torch.ones(directions * layer.hidden_size)
        last = out.select(time, -1).chunk(directions, -1)
        hidden = torch.stack([half for _ in range(layer.num_layers) for half in last])
        return out, (hidden, hidden) if isinstance(layer, nn.LSTM) else hidden

    return forward


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    if key is query:
        return 2 * query, None
    return query + (key + value).mean(-2, keepdim=True), None


class Recurrent(tp.BasePruningFunc):  # type: ignore[misc]
    """How recurrent layers lose units: every layer and direction of a stack the same ones."""

    def prune_out_channels(self, layer: Any, idxs: list[int]) -> nn.Module:
        units = layer.hidden_size
        kept = sorted(set(range(units)) - {i % units for i in idxs})
        if not kept:  # before PyTorch's kernels divide by it
            raise ValueError("a recurrent layer would be left without units")
        directions = 1 + layer.bidirectional
        read = [d * units + k for d in range(directions) for k in kept]
        for name, weight in list(layer.named_parameters(recurse=False)):
            rows = [g * units + k for g in range(len(weight) // units) for k in kept]
            columns = kept if "_hh_" in name else read if "_ih_" in name and "_l0" not in name else None
            weight = weight.detach()[rows]
            _set(layer, name, weight if columns is None or weight.dim() == 1 else weight[:, columns])
        layer.hidden_size = len(kept)
        return _refreshed(layer)

    def prune_in_channels(self, layer: Any, idxs: list[int]) -> nn.Module:
        kept = sorted(set(range(layer.input_size)) - set(idxs))
        for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
            if hasattr(layer, name):
                _set(layer, name, getattr(layer, name).detach()[:, kept])
        layer.input_size = len(kept)
        return _refreshed(layer)

    def get_out_channels(self, layer: Any) -> int:
        return int(layer.hidden_size * (1 + layer.bidirectional))

    def get_in_channels(self, layer: Any) -> int:
        return int(layer.input_size)


def _set(layer: nn.Module, name: str, values: Tensor) -> None:
    layer._parameters[name] = nn.Parameter(values.clone())


def _refreshed(layer: Any) -> nn.Module:
    layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
    result: nn.Module = layer
    return result


# -- Keeping what must be kept ----------------------------------------------------------------------------------------


def _remember(module: nn.Module, graph: Any) -> Callable[[], None]:
    """A function that takes back all cuts from here on."""
    held = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers)) for m in module.modules()]
    names, nodes = dict(graph._param_to_name), dict(graph.module2node)

    def undo() -> None:
        for m, attributes, parameters, buffers in held:
            m.__dict__.clear()
            m.__dict__.update(attributes)
            m._parameters.clear()
            m._parameters.update(parameters)
            m._buffers.clear()
            m._buffers.update(buffers)
        graph._param_to_name.clear()
        graph._param_to_name.update(names)
        graph.module2node.clear()
        graph.module2node.update(nodes)
        for layer, node in nodes.items():
            node.module = layer

    return undo


def _tied(module: nn.Module) -> list[list[str]]:
    """Names of the parameters that are one."""
    by_id: dict[int, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(p), []).append(name)
    return [names for names in by_id.values() if len(names) > 1]


def _tie(module: nn.Module, tied: list[list[str]]) -> None:
    for first, *others in tied:
        for name in others:
            holder, _, own = name.rpartition(".")
            module.get_submodule(holder)._parameters[own] = module.get_parameter(first)


@torch.no_grad()
def _rescale(module: nn.Module, before: dict[str, torch.Size], tied: set[str]) -> None:
    """Give the weights that have fewer inputs the variance that their scheme would give them."""
    for name, layer in module.named_modules():
        for own, p in layer.named_parameters(recurse=False):
            full = f"{name}.{own}".lstrip(".")
            if isinstance(layer, SCALED) and p.dim() > 1 and full not in tied and full in before:
                inputs, fewer = math.prod(before[full][1:]), math.prod(p.shape[1:])
                p.mul_(math.sqrt(inputs / fewer))
