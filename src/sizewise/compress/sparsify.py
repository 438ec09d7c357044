"""Zeros among single weights: magnitude pruning while a model trains.

Whatever runs a model here computes a zero like any other number, so zeros alone make nothing faster or smaller; what
measures the result says so. Graphics cards that skip two of four neighbouring inputs, and packers, gain by them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizewise.errors import SizewiseError
from sizewise.methods import Sparsify

EVERY = 16
"""Steps between two looks at which weights are the smallest."""

SETTLED = 0.75
"""Share of the training after which no more weights are set to zero."""

NEIGHBOURS, STAYING = 4, 2
"""Of so many neighbouring inputs so many weights stay in the pattern of graphics cards."""


class Zeros:
    """A constraint of the loop: the smallest weights of each layer are zero, as many as the schedule says by then."""

    def __init__(self, method: Sparsify) -> None:
        self.method = method
        self._masks: dict[str, Tensor] = {}

    def begin(self, module: nn.Module) -> None:
        """Nothing has to be prepared.

        Raises:
            SizewiseError: no layer can have the pattern.
        """
        if not self._layers(module):
            raise SizewiseError(
                f"no layer reads a multiple of {NEIGHBOURS} inputs", hint="ask for zeros in no pattern: sparsify=0.5"
            )

    def follow(self, module: nn.Module, share: float, number: int) -> None:
        """Zeros again; which ones is looked at in every epoch's first step, so that a resumed run looks when the run
        did that was never stopped."""
        if number % EVERY == 0:
            self._masks = self._looked(module, share)
        with torch.no_grad():
            for name, mask in self._masks.items():
                module.get_parameter(name).mul_(mask)

    def end(self, module: nn.Module) -> None:
        """The zeros of a finished run, in an average of weights too."""
        with torch.no_grad():
            for name, mask in self._looked(module, 1.0).items():
                module.get_parameter(name).mul_(mask)

    def _looked(self, module: nn.Module, share: float) -> dict[str, Tensor]:
        left = kept(self.method.keep, share)
        of = two_of_four if self.method.pattern == "2:4" else lambda weight: largest(weight, left)
        return {name: of(weight.detach()) for name, weight in self._layers(module).items()}

    def _layers(self, module: nn.Module) -> dict[str, Tensor]:
        """Weights of layers that sum over inputs; vectors of tokens, norms and biases stay whole."""
        vectors = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
        matrices: dict[str, Tensor] = {
            n: p for n, p in module.named_parameters() if p.dim() > 1 and id(p) not in vectors
        }
        if self.method.pattern == "2:4":
            matrices = {name: weight for name, weight in matrices.items() if weight.shape[1] % NEIGHBOURS == 0}
        return matrices


def kept(keep: float, share: float) -> float:
    """The share of weights that stays when so much of the training is done: a cubic curve from 1 to `keep` (Zhu & Gupta
    2017, arXiv:1710.01878, equation 1), that is there at `SETTLED`."""
    return keep + (1 - keep) * (1 - min(1.0, share / SETTLED)) ** 3


def largest(weight: Tensor, share: float) -> Tensor:
    """1 where a weight is among the largest `share`, else 0; at least one stays."""
    count = max(1, round(share * weight.numel()))
    flat = weight.abs().flatten()
    mask = torch.zeros_like(flat)
    mask[flat.topk(count, sorted=False).indices] = 1
    return mask.view_as(weight)


def two_of_four(weight: Tensor) -> Tensor:
    """1 at the two largest of every four neighbouring inputs of each output, else 0, shape (outputs, inputs, ...)."""
    by_input = weight.abs().movedim(1, -1).contiguous()
    groups = by_input.view(-1, NEIGHBOURS)
    mask = torch.zeros_like(groups).scatter_(1, groups.topk(STAYING, dim=1).indices, 1)
    return mask.view_as(by_input).movedim(-1, 1)
