"""Structured pruning along the family's dial, through Torch-Pruning's dependency graph.

A model of width w is cut to the exact shape of the family's model of a smaller width, so that the pruned model is a
member of the family: it is rebuilt, counted, exported and compared with the model trained at that size like any other.
Channels go by the norm of their weights, whole coupled groups at once (Li et al. 2017, arXiv:1608.08710; Fang et al.
2023, arXiv:2301.12900).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizewise.errors import SizewiseError
from sizewise.families import Family, example
from sizewise.families.graph import quiet


def narrow(module: nn.Module, family: Family, width: int) -> dict[str, Tensor]:
    """The weights that are left when `module` is cut to `width`, as a state dict of `family.build(width)`.

    Args:
        module: a larger model of the same family; changed in place.

    Raises:
        SizewiseError: the cut model does not have the family's shapes, as when layers do not shrink with the width.
    """
    import torch_pruning as tp

    with torch.device("meta"):
        goal = family.build(width).state_dict()
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }
    if module.state_dict().keys() != goal.keys():
        raise SizewiseError(
            f"width {width} has other layers than the model to prune, not the same ones smaller",
            hint=_WITHOUT,
        )
    ratios = {layer: _ratio(layer.weight, goal[f"{name}.weight"]) for name, layer in layers.items()}
    fixed = [layer for layer, ratio in ratios.items() if ratio <= 0]
    try:
        with quiet():
            pruner = tp.pruner.BasePruner(
                module,
                example(family.signature, 2),
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=0.0,
                pruning_ratio_dict={layer: ratio for layer, ratio in ratios.items() if ratio > 0},
                ignored_layers=fixed,
            )
            pruner.step()
    except Exception as error:  # a graph that cannot be traced fails wherever the tracer happens to be
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SizewiseError(f"the dependency graph of {family.name} cannot be cut: {reason}", hint=_WITHOUT) from error
    state = module.state_dict()
    wrong = [name for name, tensor in goal.items() if state[name].shape != tensor.shape]
    if wrong:
        got, wanted = tuple(state[wrong[0]].shape), tuple(goal[wrong[0]].shape)
        raise SizewiseError(
            f"pruning to width {width} left {wrong[0]} with shape {got}, the family has {wanted}",
            hint=_WITHOUT,
        )
    return state


_WITHOUT = "leave pruning out: --methods distil,int8"


def _ratio(weight: Tensor, goal: Tensor) -> float:
    """Share of output channels to cut; half a channel less, so that rounding down lands on the goal."""
    have, want = weight.shape[0], goal.shape[0]
    return 0.0 if have == want else 1 - (want + 0.5) / have
