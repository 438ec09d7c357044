"""How much a model forgets while it is trained (Srivastava et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from sizewise.errors import UsageError


def dropout_layers(module: nn.Module) -> Iterator[_DropoutNd]:
    """Layers that leave out values while a model is trained."""
    return (layer for layer in module.modules() if isinstance(layer, _DropoutNd))


def set_dropout(module: nn.Module, share: float | None) -> None:
    """Let every layer of dropout leave out this share of its values, in place; None leaves a module as it was built.

    Raises:
        UsageError: it has no such layer.
    """
    if share is None:
        return
    layers = list(dropout_layers(module))
    if not layers:
        raise UsageError(
            f"recipe.dropout is {share:g}, and a {type(module).__name__} has no layer of dropout",
            hint="leave dropout out, or take a family that has any: lstm, gru, transformer, vit",
        )
    for layer in layers:
        layer.p = share
