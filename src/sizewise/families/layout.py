"""How tensors lie in memory: convolutions and pooling on CPUs are several times faster with the channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizewise.records import Signature

VECTOR = 16
"""Numbers of fp32 in a vector of AVX-512, the longest; AVX2 has half."""

_FORMATS = {"image": torch.channels_last, "volume": torch.channels_last_3d}


def arrange(x: Tensor, signature: Signature) -> Tensor:
    """A batch of samples as it should lie."""
    form = _FORMATS.get(signature.layout)
    return x if form is None else x.contiguous(memory_format=form)


def arrange_module(module: nn.Module, signature: Signature) -> nn.Module:
    """The module with its convolutions laid out as the samples are, in place.

    Tensors of another rank stay as they are; `Module.to` would refuse to lay out a model of volumes that has one.
    """
    form, rank = _FORMATS.get(signature.layout), len(signature.input_shape) + 1
    if form is not None:
        for layer in filter(_overflows, module.modules()):
            layer.register_forward_pre_hook(_channels_first)
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dim() == rank:
                tensor.data = tensor.data.contiguous(memory_format=form)
    return module


def _overflows(layer: nn.Module) -> bool:
    """Whether a convolution, channels last, writes over memory that is not its own: one of a single pixel that leaves
    some out, with fewer input channels than a vector holds, in its gradient. It is a bug of the oneDNN in PyTorch 2.13
    (uxlfoundation/oneDNN#6035). Compiled steps do otherwise, see `engine.rewrite`: a compiler lays out anew."""
    if not isinstance(layer, nn.Conv2d | nn.Conv3d):
        return False
    single, apart = set(layer.kernel_size) == {1}, any(stride > 1 for stride in layer.stride)
    return single and apart and 1 < layer.in_channels // layer.groups < VECTOR


def _channels_first(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous(), *inputs[1:])
