"""Quantization-aware training: a model learns to live with 8 bits before it has to (Jacob et al. 2018,
arXiv:1712.05877, section 3).

Weights and the inputs of layers are rounded on their way through the model by PyTorch's own operators, which let
gradients pass as if nothing had happened. The grids are those that quantization afterwards lays: weights symmetric, one
scale for each output channel; inputs with one scale and zero for all. At the end the rounded weights are what is kept,
as ordinary numbers, so that every runtime takes them, and quantization to int8 changes them no more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sizewise.errors import SizewiseError
from sizewise.loop import Data, validation_loss
from sizewise.records import Recipe

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LARGEST = 127
"""Of a weight in 8 bits, with either sign."""

LEVELS = 255
"""Between the smallest and the largest input."""


class Rounded(nn.Module):
    """Weights (outputs, ...) as 8 bits tell them."""

    def forward(self, weight: Tensor) -> Tensor:
        """The nearest of 255 numbers, by output."""
        largest = weight.detach().abs().flatten(1).amax(1)
        scale = (largest / LARGEST).clamp(min=torch.finfo(weight.dtype).tiny)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -LARGEST, LARGEST)


def rounded_loss(module: nn.Module, recipe: Recipe, data: Data) -> float:
    """Mean loss on the validation split of a model, changed in place, that computes with 8-bit weights and inputs: what
    int8 will cost, without a runtime. A model without a layer that is rounded has its own loss."""
    if rounded_layers(module):
        Rounding().begin(module)
    return validation_loss(module, recipe, data)


class Rounding:
    """A constraint of the loop: what a model computes with are 8-bit weights and inputs."""

    def begin(self, module: nn.Module) -> None:
        """See through rounding from here on.

        Raises:
            SizewiseError: the model has no layer that is quantized to 8 bits.
        """
        layers = rounded_layers(module)
        if not layers:
            raise SizewiseError("the model has no dense layer and no convolution", hint="leave qat out")
        for layer in layers:
            parametrize.register_parametrization(layer, "weight", Rounded())
            layer.register_forward_pre_hook(_rounded_input)

    def follow(self, module: nn.Module, share: float, number: int) -> None:
        """Optimizers change the numbers behind the rounded ones."""

    def end(self, module: nn.Module) -> None:
        """Keep the rounded weights."""
        for layer in module.modules():
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
                _unhook(layer)


def rounded_layers(module: nn.Module) -> list[nn.Module]:
    """Layers that compute in 8 bits later; of those that share a weight, none."""
    layers = [layer for layer in module.modules() if type(layer) in LAYERS]
    uses: dict[int, int] = {}
    for holder in module.modules():
        for weight in holder.parameters(recurse=False):
            uses[id(weight)] = uses.get(id(weight), 0) + 1
    return [layer for layer in layers if uses[id(layer.weight)] == 1]


def _unhook(layer: nn.Module) -> None:
    """By the function, since handles know nothing of the copies of a module that averages are."""
    for key in [key for key, hook in layer._forward_pre_hooks.items() if hook is _rounded_input]:
        del layer._forward_pre_hooks[key]


def _rounded_input(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    x, *rest = given
    low, high = (bound.float() for bound in torch.aminmax(x.detach()))
    low, high = low.clamp(max=0), high.clamp(min=0)  # zero is one of the numbers: padding is made of it
    scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round().clamp(0, LEVELS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LEVELS), *rest
