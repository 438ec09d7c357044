"""Averages of a run's weights, by PyTorch's own."""

from __future__ import annotations

import math

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from sizewise.records import Recipe

SWA_START = 0.75
"""Share of the epochs after which those of "swa" are averaged, as in the paper's experiments on images."""


def average(recipe: Recipe, module: nn.Module) -> AveragedModel | None:
    """The average of a recipe, of nothing yet; None if there is none.

    "ema" is an exponential moving average over steps (Polyak & Juditsky 1992; Tarvainen & Valpola 2017,
    arXiv:1703.01780, equation 1), "swa" the mean over the ends of the last epochs (Izmailov et al. 2018,
    arXiv:1803.05407, algorithm 1). Buffers, such as the statistics of batch norms, are averaged with the weights.
    """
    if recipe.average == "none":
        return None
    ema = recipe.average == "ema"
    means = get_ema_multi_avg_fn(recipe.average_decay) if ema else get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
    return AveragedModel(module, multi_avg_fn=means, use_buffers=True)


def average_epoch(recipe: Recipe, epoch: int) -> bool:
    """Whether the weights after `epoch` (from 1) enter the mean of "swa"."""
    return recipe.average == "swa" and epoch > min(math.floor(SWA_START * recipe.epochs), recipe.epochs - 1)
