"""A step's loss and gradients, traced into one straight line of tensor operations."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from sizewise.engine import rewrite as rewriting
from sizewise.engine.errors import UnavailableError, explained

Loss = Callable[..., Tensor]
"""`loss(module, *batch)`: the mean loss of a batch, a scalar."""

Line = Callable[..., Sequence[Tensor]]
"""`line(*weights, *others, *batch)`: the loss, and the gradient of every weight."""


@dataclass(frozen=True)
class Gradients:
    """Computes the loss of a batch and puts its gradients where an optimizer looks for them.

    Attributes:
        line: what is computed. Gradients lie in memory as their weights do, as fused optimizers want it.
        names: of the weights that are trained.
        weights, others: the weights; buffers, which a step may change, and weights that are not trained.
        samples: of the batches that it computes.
        graph: the line as a graph, which compilers read.
    """

    line: Line
    names: tuple[str, ...]
    weights: tuple[nn.Parameter, ...]
    others: tuple[Tensor, ...]
    samples: int
    graph: GraphModule

    @classmethod
    def of(cls, module: nn.Module, graph: GraphModule, samples: int) -> Gradients:
        """Those of a module, by a graph that was traced from it or from one of its shapes."""
        names = _trained(module)
        weights = tuple(module.get_parameter(name) for name in names)
        return cls(graph.forward, names, weights, tuple(_others(module).values()), samples, graph)

    def to(self, module: nn.Module) -> Gradients:
        """The same for another module of the same shapes."""
        return replace(Gradients.of(module, self.graph, self.samples), line=self.line)

    def without_weights(self) -> Gradients:
        """What can be kept for the next module when this one is gone."""
        return replace(self, weights=(), others=())

    @property
    def movable(self) -> bool:
        """Whether the line has nothing of its module but weights and buffers."""
        return not self.graph.graph.find_nodes(op="get_attr")

    def fits(self, samples: int) -> bool:
        """Whether a batch of so many samples can be computed."""
        return self.samples == samples

    def __call__(self, *batch: Tensor) -> Tensor:
        """The loss of a batch; every weight's `grad` is that of this batch alone."""
        with torch.no_grad():
            loss, *gradients = self.line(*self.weights, *self.others, *batch)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        return loss


def traced(module: nn.Module, loss: Loss, batch: Sequence[Tensor], *, rewrite: bool = False) -> Gradients:
    """The gradients of `loss` at `module`, for batches shaped like `batch`, as operations one after the other.

    Each is the operation that automatic differentiation would have run, so that the numbers are the same to the bit;
    rewritten, what is slow becomes what a compiler makes fast, and numbers are the same up to rounding.

    Raises:
        UnavailableError: what the module computes depends on its values, or on more than its weights and the batch.
    """
    names, others = _trained(module), _others(module)
    line = _Line(module, loss, names, tuple(others))
    tensors = (*(module.get_parameter(name) for name in names), *others.values(), *batch)
    with explained(), _unchanged(module):
        whole = _recorded(line.gradients_of(_rewritten(line, tensors) if rewrite else line.forward), tensors)
    return Gradients.of(module, whole, len(batch[0]))


def _rewritten(line: _Line, tensors: Sequence[Tensor]) -> Callable[..., Tensor]:
    """The forward pass without what is slow; as it stands where there is nothing to rewrite, since some layers compute
    less when they are recorded with no gradient in sight."""
    forward = _recorded(line.forward, tensors)
    return forward if rewriting.rewrite(forward) else line.forward


def _trained(module: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, weight in module.named_parameters() if weight.requires_grad)


def _others(module: nn.Module) -> dict[str, Tensor]:
    """Buffers, and weights that are not trained."""
    fixed = {name: weight for name, weight in module.named_parameters() if not weight.requires_grad}
    return dict(module.named_buffers()) | fixed


@dataclass(frozen=True)
class _Line:
    """A module's loss as a function of tensors alone: weights, others and batch, in this order."""

    module: nn.Module
    loss: Loss
    weights: tuple[str, ...]
    others: tuple[str, ...]

    def forward(self, *tensors: Tensor) -> Tensor:
        """The loss."""
        held = (*self.weights, *self.others)
        state = {f"module.{name}": tensor for name, tensor in zip(held, tensors[: len(held)], strict=True)}
        loss: Tensor = functional_call(_Losing(self.module, self.loss), state, tensors[len(held) :])
        return loss

    def gradients_of(self, forward: Callable[..., Tensor]) -> Line:
        """The loss and its gradients, each laid out as its weight."""

        def line(*tensors: Tensor) -> tuple[Tensor, ...]:
            count = len(self.weights)
            with torch.enable_grad():
                leaves = [tensor.detach().requires_grad_() for tensor in tensors[:count]]
                loss = forward(*leaves, *tensors[count:])
                gradients = torch.autograd.grad(loss, leaves)
            return loss.detach(), *(_laid_out(g, leaf) for g, leaf in zip(gradients, leaves, strict=True))

        return line


class _Losing(nn.Module):
    """A module whose output is its loss."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self.loss(self.module, *batch)


def _laid_out(gradient: Tensor, weight: Tensor) -> Tensor:
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight.detach()).copy_(gradient)


def _recorded(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    """The operations of a function, recorded on tensors that have shapes and no values."""
    inputs = [tensor.detach() for tensor in inputs]
    module: GraphModule = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    if module.graph.find_nodes(op="call_function", target=torch.ops.aten.mkldnn_rnn_layer.default):
        raise UnavailableError("the LSTM is one operation already, and tells a trace too little to be differentiated")
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.detach.default:  # says nothing where nothing is differentiated
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """What a module decides in Python, by chance or by counting, is decided once while tracing: such are refused."""
    before = _beside_tensors(module)
    yield
    if _beside_tensors(module) != before:
        raise UnavailableError("the module draws or counts in Python")


def _beside_tensors(module: nn.Module) -> tuple[object, ...]:
    plain = [
        (name, key, value)
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, bool | int | float | str)
    ]
    drawn = np.random.get_state(legacy=False)["state"]
    return plain, random.getstate(), drawn["key"].tobytes(), drawn["pos"]
