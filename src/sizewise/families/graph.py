"""The dependency graph of a module: which channels can only leave it together (Fang et al. 2023, arXiv:2301.12900).

Torch-Pruning finds the graph. What it does not know is added here: recurrent layers, constants that are added to
channels, joins along the last dimension; and cuts can be tried and taken back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sizewise.families.count import example
from sizewise.records import Signature

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
SCALED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, *RECURRENT)
"""Layers whose weights sum over inputs."""

ROOTS = (*SCALED, nn.Embedding)
"""Layers that channels come out of."""


def answer(module: nn.Module, task: Signature) -> torch.Size | None:
    """Shape of the module's answer, None where it has none.

    By PyTorch's plain kernels, which check their sizes; fused ones (for attention where gradients are off, and oneDNN's
    for recurrent layers) divide by some that a half-cut module has at 0, which ends the process.
    """
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # about graphics cards, when oneDNN is switched off and on
            with torch.backends.mkldnn.flags(enabled=False):
                found = module(*example(task, 2))
    except Exception:  # whatever a half-cut module of a user does
        return None
    return found.shape if isinstance(found, Tensor) else None


def roots(module: nn.Module, graph: Any) -> list[str]:
    """One layer for each group of coupled channels: the one with the fewest, as others may hold several such groups."""
    names, found = {layer: name for name, layer in module.named_modules()}, []
    for group in graph.get_all_groups(root_module_types=ROOTS):
        coming = [dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)]
        layers = [layer for layer in coming if isinstance(layer, ROOTS)]
        found.append(names[min(layers, key=lambda layer: channels_of(graph, layer))])
    return found


def above(name: str) -> set[str]:
    """A module and the two around it."""
    parts = name.split(".")
    return {".".join(parts[: max(len(parts) - i, 0)]) for i in range(3)}


def channels_of(graph: Any, layer: nn.Module) -> int:
    """Channels that come out of a layer."""
    return int(graph.get_pruner_of_module(layer).get_out_channels(layer))


def out(graph: Any, layer: nn.Module) -> Callable[..., Any]:
    """Torch-Pruning's function that takes channels out of a layer."""
    function: Callable[..., Any] = graph.get_pruner_of_module(layer).prune_out_channels
    return function


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Torch-Pruning's advice, written for those who call it, out of the user's terminal: what it does not follow
    is handled here, and whoever cuts a model checks the shapes that are left."""
    with warnings.catch_warnings():
        for said in ("Unwrapped parameters detected", "Maximum recursive depth reached"):
            warnings.filterwarnings("ignore", said, UserWarning)
        yield


@contextmanager
def dependencies(module: nn.Module, task: Signature) -> Iterator[Any]:
    """The dependency graph of a module, in evaluation mode; constant buffers such as positions take part in it."""
    module.eval()
    recurrent = Recurrent()
    buffers = _buffers_as_parameters(module)
    with quiet(), _opaque(module):
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


def remember(module: nn.Module, graph: Any) -> Callable[[], None]:
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
