"""How much a unit matters: one number a weight, summed by Torch-Pruning over everything that leaves with the unit.

All criteria are sums over single weights, so that one sum serves them all: w² for magnitude (Li et al. 2017,
arXiv:1608.08710, with squares as in Fang et al. 2023, arXiv:2301.12900), |w·g| for the change of the loss to the first
order (Molchanov et al. 2019, arXiv:1906.10771), w²·E[g²]/2 to the second (LeCun et al. 1989, with the Fisher
information for the diagonal of the Hessian), and any number for the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from sizewise.compress.units import Units
from sizewise.families.graph import RECURRENT, channels_of, out
from sizewise.loop.data import Data, trimmed
from sizewise.methods import Importance
from sizewise.records import Recipe

SAMPLES = 512
"""Training samples that gradients are taken on, a fixed share of each class or length as the split has them."""

Scores = Mapping[str, Tensor]
"""What each single weight counts, by the name of the parameter and of its shape."""

BATCH = 16
"""Samples of one gradient. E[g²] is taken over the gradients of batches: those of single samples cost more, and their
mean square differs by a factor that is the same for all weights when gradients are noise."""


def weight_scores(module: nn.Module, importance: Importance, data: Data, recipe: Recipe, seed: int) -> Scores:
    """What each single weight counts, by parameter and of its shape.

    Args:
        data: its training split is what gradients are taken on.
        seed: of the baseline's draws.
    """
    weights = {name: p.detach() for name, p in module.named_parameters()}
    if importance == "magnitude":
        return {name: w.square() for name, w in weights.items()}
    if importance == "random":
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(w.shape, generator=generator) for name, w in weights.items()}
    first, second = _gradients(module, data, recipe)
    if importance == "taylor":
        return {name: (w * first[name]).abs() for name, w in weights.items()}
    return {name: w.square() * second[name] / 2 for name, w in weights.items()}


def sampled(data: Data) -> Tensor:
    """The training samples that methods look at, spread over the split."""
    return torch.linspace(0, len(data.x) - 1, min(SAMPLES, len(data.x))).long()


def _gradients(module: nn.Module, data: Data, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean and mean square of the gradients of batches."""
    problem, signature = data.task.problem, data.task.signature
    module.eval()
    parameters = dict(module.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    chosen = sampled(data)
    for batch in torch.split(chosen, BATCH):
        x, y = trimmed(data.x[batch], signature), data.y[batch]
        sums, counts = problem.losses(problem.forward(module, x, y), y, recipe)
        found = torch.autograd.grad(sums.sum() / counts.sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                first[name] += gradient * (len(batch) / len(chosen))
                second[name] += gradient.square() * (len(batch) / len(chosen))
    return first, second


def unit_scores(module: nn.Module, graph: Any, units: Units, scores: Scores) -> Tensor:
    """What each unit counts, shape (units,): the sum over all weights that would leave with it."""
    layer = module.get_submodule(units.root)
    channels = list(range(channels_of(graph, layer)))
    with _in_place_of_weights(module, scores):
        group = graph.get_pruning_group(layer, out(graph, layer), channels)
        summed = tp.importance.GroupMagnitudeImportance(p=1, group_reduction="sum", normalizer=None, bias=True)(group)
        total = torch.zeros(len(channels)) if summed is None else summed.clone()
        for item in group:
            found = _of_others(item.dep.target.module, coming=graph.is_out_channel_pruning_fn(item.dep.handler))
            if found is not None:
                total.index_add_(0, torch.tensor(item.root_idxs), found[item.idxs])
    return total.reshape(units.count, units.size).sum(1)


def _of_others(layer: nn.Module, *, coming: bool) -> Tensor | None:
    """Sums for each channel of the layers that Torch-Pruning 1.6 does not count; `coming` out of the layer, or in."""
    if isinstance(layer, nn.Embedding):
        return layer.weight.detach().sum(0)
    if not isinstance(layer, RECURRENT):
        return None
    return _of_units(layer) if coming else layer.get_parameter("weight_ih_l0").detach().sum(0)


def _of_units(layer: nn.LSTM | nn.GRU | nn.RNN) -> Tensor:
    """The sum over a recurrent unit's own rows, over all gates, and over the columns that read it."""
    units = layer.hidden_size
    total = torch.zeros(units)
    for name, weight in layer.named_parameters(recurse=False):
        total += weight.detach().reshape(-1, units, *weight.shape[1:]).transpose(0, 1).flatten(1).sum(1)
        if "_hh_" in name and weight.dim() == 2:
            total += weight.detach().sum(0)
    return total.repeat(1 + layer.bidirectional)


@contextmanager
def _in_place_of_weights(module: nn.Module, scores: Scores) -> Iterator[None]:
    """Constants that the graph takes for parameters count nothing."""
    held = {name: p.data for name, p in module.named_parameters()}
    for name, p in module.named_parameters():
        p.data = scores[name] if name in scores else torch.zeros_like(p)
    try:
        yield
    finally:
        for name, p in module.named_parameters():
            p.data = held[name]
