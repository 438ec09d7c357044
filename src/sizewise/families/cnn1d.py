"""A convolutional network over time, for series: recognisers of words and sounds, and measurements over time.

Convolutions of five steps, the first two of which take every second step (so that a step of the answers is 40 ms of
speech at 10 ms a frame), then residual ones (He et al. 2016, arXiv:1603.05027) at twice the width, as in recognisers
made of convolutions alone (Collobert et al. 2016, arXiv:1609.03193). Every step is normalised over its own channels (Ba
et al. 2016, arXiv:1607.06450) and not over the batch or time, whose padding would count. Weights start from Kaiming's
normal scheme (He et al. 2015, arXiv:1502.01852).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.families.parts import Exit, present
from sizewise.records import Signature

KERNEL = 5
BLOCKS = 3
DROPOUT = 0.1
PROBLEMS = ("classification", "regression", "tagging", "transcription")


class Convolution(nn.Module):
    """Steps (batch, steps, in) to (batch, steps / stride rounded up, out), 0 where there is no step."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.layer = nn.Conv1d(inputs, outputs, KERNEL, stride, padding=KERNEL // 2)
        nn.init.kaiming_normal_(self.layer.weight, nonlinearity="relu")
        assert self.layer.bias is not None
        nn.init.zeros_(self.layer.bias)

    def forward(self, x_BTC: Tensor, there_BT: Tensor) -> tuple[Tensor, Tensor]:
        there_BT = there_BT[:, :: self.stride]
        out: Tensor = self.layer(x_BTC.transpose(1, 2)).transpose(1, 2) * there_BT.unsqueeze(2)
        return out, there_BT


class Block(nn.Module):
    """Adds to its input, which it normalises first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.convolution = nn.LayerNorm(width), Convolution(width, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x_BTC: Tensor, there_BT: Tensor) -> Tensor:
        hidden = F.relu(self.norm(x_BTC)) * there_BT.unsqueeze(2)
        out: Tensor = x_BTC + self.dropout(self.convolution(hidden, there_BT)[0])
        return out


class Cnn1d(nn.Module):
    """Series (batch, steps, channels) to the answers of a problem."""

    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.task = task
        stride = 1 if task.problem == "tagging" else 2
        self.first, self.norm = Convolution(task.channels, width, stride), nn.LayerNorm(width)
        self.second = Convolution(width, 2 * width, stride)
        self.blocks = nn.ModuleList(Block(2 * width) for _ in range(BLOCKS))
        self.last = nn.LayerNorm(2 * width)
        self.dropout = nn.Dropout(DROPOUT)
        self.exit = Exit(2 * width, task)

    def forward(self, x_BTC: Tensor) -> Tensor:
        hidden, there = self.first(x_BTC, present(x_BTC, self.task))
        hidden, there = self.second(F.relu(self.norm(hidden)) * there.unsqueeze(2), there)
        for block in self.blocks:
            hidden = block(hidden, there)
        answers: Tensor = self.exit(self.dropout(F.relu(self.last(hidden))), there)
        return answers


def build(width: int, task: Signature) -> nn.Module:
    """Convolutions of `width` channels, and of 2·`width` from the second on.

    Answers at each step are one for each step of the input in tagging, and one for every fourth in transcription.

    Raises:
        UsageError: samples are no series to classify, measure, tag or transcribe.
    """
    if task.layout != "series" or task.problem not in PROBLEMS:
        raise refuse("cnn1d", task, "series to classify, measure, tag or transcribe")
    return Cnn1d(width, task)
