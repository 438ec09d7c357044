"""What a model costs, counted on the model itself and never taken from a formula."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sizewise.records import Signature


def example(signature: Signature, batch: int) -> tuple[Tensor, ...]:
    """Samples of the longest length, as a model takes them in training: zeros, or steps that are no padding."""
    if signature.layout == "tokens":
        x = torch.ones(batch, *signature.input_shape, dtype=torch.long)
    else:
        x = (torch.ones if signature.layout == "series" else torch.zeros)(batch, *signature.input_shape)
    if not signature.autoregressive:
        return (x,)
    return x, torch.ones(batch, signature.target_steps - 1, dtype=torch.long)


def parameters(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def non_embedding(module: nn.Module) -> int:
    """Trainable parameters without those of embedding tables, as laws of language models count them (Kaplan et al.
    2020, arXiv:2001.08361). A table that is also the output layer counts, since it is multiplied there."""
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    multiplied = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear)}
    left_out = tables - multiplied
    return sum(p.numel() for p in module.parameters() if p.requires_grad and id(p) not in left_out)


def flops(module: nn.Module, signature: Signature) -> int:
    """Floating-point operations of one forward pass of one sample (a multiply-add is two), by PyTorch's own counter.

    A sequence has its longest length, and a translator sees source and target once.
    """
    with _counting() as counter, torch.no_grad():
        module(*example(signature, 1))
    return int(counter.get_total_flops())


def training_flops(module: nn.Module, signature: Signature) -> int:
    """Floating-point operations of the forward and the backward pass of one sample, counted in the same way."""
    with _counting() as counter:
        module(*example(signature, 1)).sum().backward()
    module.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Fused kernels for recurrent layers and attention hide their multiplications from the counter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about graphics cards, when oneDNN is switched off and on
        with (
            FlopCounterMode(display=False) as counter,
            torch.backends.mkldnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield counter


def activation_bytes(module: nn.Module, signature: Signature, batch: int) -> int:
    """Bytes that autograd keeps for the backward pass of one batch, each storage once, parameters not counted."""
    own = {t.untyped_storage().data_ptr() for t in chain(module.parameters(), module.buffers())}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that were kept with its own history would keep itself, for ever

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = module(*example(signature, batch))
        # Held until here: a freed storage's address may be used again, and would then be counted once for two.
        del output
    return sum(saved.values())


def training_bytes(module: nn.Module, signature: Signature, batch: int, optimizer_slots: int) -> int:
    """Bytes of one training step: weights, gradients, activations and `optimizer_slots` values a weight."""
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    return weights * (2 + optimizer_slots) + activation_bytes(module, signature, batch)
