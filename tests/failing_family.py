"""A model as a user might break it: width 3 raises while it trains, width 4 takes its process along."""

from __future__ import annotations

import os

from torch import Tensor, nn

from sizewise.records import Signature
from tests import own_family


class Failing(nn.Module):
    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.width, self.inner = width, own_family.build(width, task)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.width == 3:
            raise ValueError("the user's own mistake")
        if self.training and self.width == 4:
            os._exit(9)
        outputs: Tensor = self.inner(x)
        return outputs


def build(width: int, task: Signature) -> nn.Module:
    return Failing(width, task)
