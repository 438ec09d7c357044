"""Parts that families share: how samples enter, and how answers leave."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sizewise.padding import mask
from sizewise.records import Signature

SURELY_NOT = -30.0
"""Logit of what cannot be, where infinity would make gradients that are no numbers."""

PACE = 4
"""Frames of a series to transcribe that enter as one step: at 10 ms a frame, 40 ms."""

SEQUENCE_PROBLEMS = ("classification", "regression", "tagging", "language modelling", "transcription")
"""What a model of sequences without a second sequence can do."""


def readable(task: Signature) -> bool:
    """Whether a model of sequences can do this task; the next of a series of numbers has no class."""
    words = task.vocabulary or task.problem != "language modelling"
    return task.layout in ("tokens", "series") and task.problem in SEQUENCE_PROBLEMS and bool(words)


class Entry(nn.Module):
    """Tokens (batch, steps) or numbers (batch, steps, channels) to vectors (batch, steps, width).

    Token vectors start from a normal distribution of standard deviation 0.02 (Radford et al. 2019), numbers enter
    through a linear layer. Frames to transcribe are far more than the labels that are said in them: a convolution makes
    one vector of every `PACE` of them, (batch, steps / 4 rounded up, width), as at the entry of most recognisers (Sak
    et al. 2015, arXiv:1507.06947; Gulati et al. 2020, arXiv:2005.08100).
    """

    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.layer: nn.Module
        self.slowed = _slowed(task)
        if self.slowed:
            self.layer = nn.Conv1d(task.channels, width, 2 * PACE - 1, stride=PACE, padding=PACE - 1)
        elif task.vocabulary:
            self.layer = nn.Embedding(task.vocabulary, width)
            nn.init.normal_(self.layer.weight, std=0.02)
        else:
            self.layer = nn.Linear(task.channels, width)

    def forward(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.layer(x.transpose(1, 2)).transpose(1, 2) if self.slowed else self.layer(x)
        return vectors


class Exit(nn.Module):
    """Vectors (batch, steps, width) to the answers of a problem: one vector a sample, or one a step.

    Args:
        tied: token vectors that are also the output layer (Press & Wolf 2017, arXiv:1608.05859).
    """

    def __init__(self, width: int, task: Signature, tied: nn.Parameter | None = None) -> None:
        super().__init__()
        self.task = task
        self.head = nn.Linear(width, task.outputs, bias=tied is None)
        if tied is not None:
            self.head.weight = tied

    def forward(self, hidden_BTW: Tensor, there_BT: Tensor) -> Tensor:
        if self.task.problem in ("classification", "regression"):
            answers: Tensor = self.head(mean(hidden_BTW, there_BT))
            return answers
        answers = self.head(hidden_BTW)
        return surely_blank(answers, there_BT) if self.task.problem == "transcription" else answers


def _slowed(task: Signature) -> bool:
    """Whether samples enter at a slower pace than they come."""
    return task.problem == "transcription" and task.layout == "series"


def present(x: Tensor, task: Signature) -> Tensor:
    """Where there is a step, as booleans (batch, steps)."""
    if task.dynamic:
        return mask(x)
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


def entered(x: Tensor, task: Signature) -> Tensor:
    """Where there is a step behind `Entry`, as booleans (batch, its steps)."""
    there = present(x, task)
    return there[:, ::PACE] if _slowed(task) else there


def mean(hidden_BTW: Tensor, there_BT: Tensor) -> Tensor:
    """Mean over the steps that there are, shape (batch, width); 0 where there is none."""
    weight = there_BT.unsqueeze(2).to(hidden_BTW.dtype)
    return (hidden_BTW * weight).sum(1) / weight.sum(1).clamp(min=1)


def surely_blank(logits_BTC: Tensor, there_BT: Tensor) -> Tensor:
    """Logits with class 0 as good as certain at the steps that there are not."""
    blank = torch.full_like(logits_BTC[:1, :1], SURELY_NOT)
    blank[..., 0] = -SURELY_NOT
    return torch.where(there_BT.unsqueeze(2), logits_BTC, blank)


def sines(steps: int, width: int) -> Tensor:
    """Positions (steps, width) as sines and cosines of geometric periods (Vaswani et al. 2017, arXiv:1706.03762,
    section 3.5)."""
    half = (width + 1) // 2
    periods = torch.exp(torch.arange(half) * (-math.log(10_000.0) / max(half - 1, 1)))
    angles = torch.arange(steps)[:, None] * periods[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
