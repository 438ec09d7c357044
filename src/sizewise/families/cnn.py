"""The reference CNN: 3×3 convolution, 2×2 max-pool, one hidden dense layer, all in step with the width.

At width 32 on 28×28×1 with 10 classes it is the small MNIST CNN of the textbooks: Conv 32, dense 128, dense 10 and
693,962 parameters; at width 16 it has 173,930.
"""

from __future__ import annotations

from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.records import Signature

HIDDEN_PER_CHANNEL = 4
"""Hidden units for each channel: 128 for 32, as in the reference."""


class Cnn(nn.Module):
    """Maps images (batch, channels, height, width) to logits (batch, outputs)."""

    def __init__(self, width: int, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        pooled = ((height - 2) // 2) * ((breadth - 2) // 2)
        self.convolution = nn.Conv2d(channels, width, kernel_size=3)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.ReLU()
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(width * pooled, HIDDEN_PER_CHANNEL * width)
        self.head = nn.Linear(HIDDEN_PER_CHANNEL * width, outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # ReLU commutes with max, so it goes after the pool: the same numbers from a quarter of the bytes.
        pooled = self.activation(self.pool(self.convolution(x_BCHW)))
        logits: Tensor = self.head(self.activation(self.hidden(self.flatten(pooled))))
        return logits


def build(width: int, task: Signature) -> nn.Module:
    """The reference CNN with `width` channels and 4·`width` hidden units.

    Weights and biases start uniform within ±1/√(inputs), as PyTorch's layers do by themselves (LeCun et al. 1998).

    Raises:
        UsageError: the images are smaller than 4×4, or it is not images that are classified or measured.
    """
    if task.layout != "image" or min(task.input_shape[1:]) < 4 or task.problem not in ("classification", "regression"):
        raise refuse("cnn", task, "classification or regression of images of at least 4×4")
    return Cnn(width, task.input_shape, task.outputs)
