"""A model that a user might bring: a plain multilayer perceptron."""

from __future__ import annotations

from math import prod

from torch import nn

from sizewise.records import Signature


def build(width: int, task: Signature) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(prod(task.input_shape), width), nn.ReLU(), nn.Linear(width, task.outputs)
    )
