"""A detector without anchors, in the manner of "Objects as Points" (Zhou et al. 2019, arXiv:1904.07850).

A residual network halves the image four times, a light path leads back up to a quarter of its size (feature pyramids:
Lin et al. 2017, arXiv:1612.03144), and there every cell says for each class whether the centre of an object lies in it,
where, and how large the object is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.records import Signature

MIDDLING = 4.0
"""Cells of four pixels that an object is long and high until the model knows better."""

PRIOR = 0.05
"""Probability of a centre that every cell starts from, so that the many empty ones do not drown the few that are not
(Lin et al. 2017, arXiv:1708.02002, section 4.1)."""

SMALLEST, COARSEST = 16, 32
"""Pixels of the shorter side at least, and of the longer one more than: batch normalisation of a single sample needs
two cells at the coarsest level."""

GROWTH = (1, 2, 4, 6)
"""Channels at strides 4, 8, 16 and 32, in widths."""


class _Normed(nn.Sequential):
    """3×3 convolution and batch normalisation."""

    def __init__(self, channels: int, outputs: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """Two convolutions around which the input passes on unchanged (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _Normed(channels, channels), _Normed(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Detector(nn.Module):
    """Maps images (batch, 3, height, width) to a grid (batch, classes + 4, height / 4, width / 4), sides rounded up.

    Channels of the grid are the logits of a centre of each class; the centre's place in its cell, across and down, in
    cells; and the logarithms of the object's width and height in cells.
    """

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        sizes = [factor * width for factor in GROWTH]
        self.stem = nn.Sequential(_Normed(channels, width, stride=2), nn.ReLU())
        inputs = [width, *sizes]
        self.downs = nn.ModuleList(_Normed(a, b, stride=2) for a, b in zip(inputs, sizes, strict=False))
        self.blocks = nn.ModuleList(_Block(size) for size in sizes)
        top = 2 * width
        self.laterals = nn.ModuleList(nn.Conv2d(size, top, 1) for size in sizes)
        self.smooth = nn.Sequential(_Normed(top, top), nn.ReLU(), _Normed(top, top), nn.ReLU())
        self.head = nn.Conv2d(top, classes + 4, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        start = [math.log(PRIOR / (1 - PRIOR))] * classes + [0.5] * 2 + [math.log(MIDDLING)] * 2
        self.head.bias = nn.Parameter(torch.tensor(start))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, levels = self.stem(x_BCHW), []
        for down, block in zip(self.downs, self.blocks, strict=True):
            x = block(F.relu(down(x)))
            levels.append(x)
        merged = self.laterals[-1](levels[-1])
        for lateral, level in zip(reversed(self.laterals[:-1]), reversed(levels[:-1]), strict=True):
            finer = F.interpolate(merged, scale_factor=2.0, mode="nearest")
            merged = lateral(level) + finer[:, :, : level.shape[2], : level.shape[3]]
        grid: Tensor = self.head(self.smooth(merged))
        return grid


def build(width: int, task: Signature) -> nn.Module:
    """A detector of `width` channels at a quarter of the image's size, and up to six times as many where it is coarse.

    Raises:
        UsageError: the images are smaller than 16×33, or it is not objects that are sought.
    """
    if task.problem != "detection" or task.layout != "image" or not _large_enough(task.input_shape[1:]):
        raise refuse("detector", task, f"detection in images of at least {SMALLEST}×{COARSEST + 1}")
    return Detector(width, task.channels, task.outputs)


def _large_enough(size: tuple[int, ...]) -> bool:
    return min(size) >= SMALLEST and max(size) > COARSEST
