"""The bag of words: the mean of a text's token vectors, and one linear layer.

It knows which tokens a text has and not their order: fastText without its pairs of words (Joulin et al. 2017,
arXiv:1607.01759), which want more texts than small studies have. Nearly all parameters are token vectors, so their
width is the dial. In training each token is left out with probability `DROPOUT` (word dropout, Iyyer et al. 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.families.parts import Entry, Exit, present
from sizewise.records import Signature

DROPOUT = 0.5


class Bag(nn.Module):
    """Maps texts (batch, steps) to logits (batch, outputs)."""

    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.task = task
        self.entry, self.exit = Entry(width, task), Exit(width, task)

    def forward(self, x_BT: Tensor) -> Tensor:
        there = present(x_BT, self.task)
        if self.training:
            there = there & (torch.rand(there.shape, device=there.device) >= DROPOUT)
        logits: Tensor = self.exit(self.entry(x_BT), there)
        return logits


def build(width: int, task: Signature) -> nn.Module:
    """The bag of words with vectors of `width` numbers.

    Raises:
        UsageError: it is not texts that are classified or measured.
    """
    if task.layout != "tokens" or task.problem not in ("classification", "regression"):
        raise refuse("bag", task, "classification or regression of texts")
    return Bag(width, task)
