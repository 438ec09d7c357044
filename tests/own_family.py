"""Models that a user might bring: a plain multilayer perceptron, and one that no trace can hold."""

from __future__ import annotations

import random
from math import prod

from torch import Tensor, nn

from sizewise.records import Signature


def build(width: int, task: Signature) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(prod(task.input_shape), width), nn.ReLU(), nn.Linear(width, task.outputs)
    )


class Tossing(nn.Module):
    """A linear model that decides in Python, by chance, how far it goes."""

    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.flatten, self.hidden = nn.Flatten(), nn.Linear(prod(task.input_shape), width)
        self.head = nn.Linear(width, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(self.flatten(x)))
        return logits * (2.0 if random.random() < 0.5 else 1.0)


def tossing(width: int, task: Signature) -> nn.Module:
    """A family that no trace can hold."""
    return Tossing(width, task)
