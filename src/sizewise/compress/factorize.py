"""Low-rank factorization: a layer as a product of two thinner ones, by its singular values.

A dense layer (out × in) becomes in → rank → out; a convolution becomes the same convolution with `rank` channels and a
1×1 convolution behind it (Denton et al. 2014, arXiv:1404.0736; Zhang et al. 2016, arXiv:1505.06798). Each layer has the
smallest rank that keeps the energy asked for, and is left alone where the product would not be smaller.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizewise.errors import SizewiseError
from sizewise.families.form import Layer, Product, factor, largest_rank
from sizewise.families.graph import answer
from sizewise.families.weights import ties
from sizewise.methods import Factorize
from sizewise.records import Signature


def factorize(module: nn.Module, method: Factorize, task: Signature) -> nn.Module:
    """The module with products in place of layers, in place.

    Raises:
        SizewiseError: no layer becomes smaller, or the module reads its layers' weights itself.
    """
    wanted = answer(module.eval(), task)
    ranks = {name: rank for name, layer in _layers(module).items() if (rank := _rank(layer, method.energy))}
    if not ranks:
        raise SizewiseError(
            f"no layer can be written as a smaller product that keeps {method.energy:.3g} of its energy",
            hint="ask for less energy, or prune instead",
        )
    for name, rank in ranks.items():
        _replace(module, name, rank)
    if answer(module, task) != wanted:
        raise SizewiseError(
            f"{', '.join(ranks)} cannot be factorized: the module reads their weights itself", hint="prune instead"
        )
    return module


def _layers(module: nn.Module) -> dict[str, Layer]:
    """Layers of one group that share no weights with another, those of products left out."""
    shared = {name for names in ties(module) for name in names}
    inside = tuple(f"{name}." for name, layer in module.named_modules() if isinstance(layer, Product))
    return {
        name: layer
        for name, layer in module.named_modules()
        if name
        and isinstance(layer, Layer)
        and getattr(layer, "groups", 1) == 1
        and f"{name}.weight" not in shared
        and not name.startswith(inside)
    }


@torch.no_grad()
def _rank(layer: Layer, energy: float) -> int:
    """The smallest rank that keeps the energy; 0 where the product would not be smaller than the layer."""
    values = torch.linalg.svdvals(layer.weight.flatten(1)).square()
    kept = torch.cumsum(values, 0) / values.sum()
    rank = int((kept < energy).sum()) + 1
    return rank if rank <= largest_rank(layer) else 0


@torch.no_grad()
def _replace(module: nn.Module, name: str, rank: int) -> None:
    """Both factors get the square roots of the singular values, so that neither has much larger weights."""
    layer = module.get_submodule(name)
    assert isinstance(layer, Layer)
    rows, values, columns = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
    root = values[:rank].sqrt()
    first, second = factor(module, name, rank)
    assert isinstance(first, Layer)
    assert isinstance(second, Layer)
    _set(first.weight, columns[:rank] * root[:, None])
    _set(second.weight, rows[:, :rank] * root)
    if layer.bias is not None and second.bias is not None:
        second.bias.copy_(layer.bias)


def _set(weight: Tensor, values: Tensor) -> None:
    weight.copy_(values.reshape(weight.shape))
