"""Residual CNN for images (He et al. 2016, arXiv:1512.03385), one dial: `width` channels, doubled at every stage.

The image's shorter side decides the rest, so that both networks of that paper come out, with one block a stage, or as
many as a study asks for (`resnet:2`). The
stem is a 3×3 convolution; from 64 pixels it halves the image, from 128 a max-pool halves it once more. Each further
stage halves it again, as long as 7 pixels are left: an image of 28 or 32 has three stages, one of 224 four, ending at
7×7 to 8×8. At width 16 on 32×32×3 it has the layers of MLPerf Tiny's ResNet-8 (Banbury et al. 2021, arXiv:2106.07597).

Convolutions start from Kaiming's normal scheme (He et al. 2015, arXiv:1502.01852), and the last normalisation of each
branch from 0, so that every block begins as its shortcut (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.records import Signature

HALVED_BY_STEM, HALVED_TWICE = 64, 128
"""Shorter sides from which the stem halves the image once, and twice."""

LAST_SIDE = 7
"""The shorter side is halved as long as this many pixels are left."""

MOST_STAGES = 4


def stages(side: int) -> int:
    """Stages of the network for images whose shorter side has `side` pixels, 1 to 4."""
    left, count = side // ((side >= HALVED_BY_STEM) + 1) // ((side >= HALVED_TWICE) + 1), 1
    while left >= 2 * LAST_SIDE and count < MOST_STAGES:
        left, count = left // 2, count + 1
    return count


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, *, scale: float = 1.0) -> nn.Sequential:
    """A convolution and its batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167), which starts at `scale`."""
    layer, norm = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(layer, norm)


class Block(nn.Module):
    """Two 3×3 convolutions, added to their input; where the shape changes, to a 1×1 convolution of it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = convolution(inputs, outputs, stride=stride), convolution(outputs, outputs, scale=0.0)
        self.shortcut = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1, stride)
        self.activation = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        branch = self.second(self.activation(self.first(x_BCHW)))
        y_BCHW: Tensor = self.activation(branch + self.shortcut(x_BCHW))
        return y_BCHW


class ResNet(nn.Module):
    """Maps images (batch, channels, height, width) to answers (batch, outputs)."""

    def __init__(self, width: int, input_shape: tuple[int, ...], outputs: int, blocks: int) -> None:
        super().__init__()
        channels, *sides = input_shape
        side = min(sides)
        stem = [*convolution(channels, width, stride=2 if side >= HALVED_BY_STEM else 1), nn.ReLU()]
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(2)] if side >= HALVED_TWICE else []))
        widths = [width, *(width * 2**stage for stage in range(stages(side)) for _ in range(blocks))]
        self.blocks = nn.Sequential(*(Block(a, b, stride=1 if a == b else 2) for a, b in pairwise(widths)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        answers: Tensor = self.head(self.pool(self.blocks(self.stem(x_BCHW))).flatten(1))
        return answers


def build(width: int, task: Signature, blocks: int = 1) -> nn.Module:
    """The residual CNN whose first stage has `width` channels, with so many `blocks` a stage.

    Raises:
        UsageError: the images are smaller than 4×4, or it is not images that are classified or measured.
    """
    if task.layout != "image" or min(task.input_shape[1:]) < 4 or task.problem not in ("classification", "regression"):
        raise refuse("resnet", task, "classification or regression of images of at least 4×4")
    return ResNet(width, task.input_shape, task.outputs, blocks)
