"""What a student learns from its teachers: their answers, or their features, which are what their last layer reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise.errors import SizewiseError
from sizewise.loop.data import Samples, trimmed
from sizewise.loop.evaluate import EVALUATION_BATCH
from sizewise.records import Signature


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher || student) at temperature T (Hinton et al. 2015, arXiv:1503.02531, section 2)."""
    student = F.log_softmax(logits / temperature, dim=1)
    target = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)


@contextmanager
def read(module: nn.Module, *, wanted: bool = True) -> Iterator[list[Tensor]]:
    """What the last dense layer reads in each call meanwhile, shape (samples, features); nothing if it is not wanted.

    Raises:
        SizewiseError: there is no such layer.
    """
    found: list[Tensor] = []
    if not wanted:
        yield found
        return
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise SizewiseError("the model has no dense layer whose inputs are features", hint="distil from answers")
    hook = layers[-1].register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()


@torch.no_grad()
def features(module: nn.Module, x: Samples, signature: Signature) -> Tensor:
    """Features (n, features) in evaluation mode.

    Raises:
        SizewiseError: the last dense layer does not read one vector a sample.
    """
    if signature.autoregressive:
        raise SizewiseError("what answers token by token has no features of a sample", hint="leave distil:features out")
    module.eval()
    with read(module) as found:
        for chunk in torch.split(torch.arange(len(x)), EVALUATION_BATCH):
            module(trimmed(x[chunk], signature))
            if len(found[-1]) != len(chunk) or found[-1].dim() != 2:
                raise SizewiseError(
                    f"the last dense layer reads {tuple(found[-1].shape)}, and not one vector for each of "
                    f"{len(chunk)} samples",
                    hint="distil from answers, if the problem has them",
                )
    return torch.cat(found)


def alignment_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - CKA of two sets of features of the same samples, in [0, 1] (Kornblith et al. 2019, arXiv:1905.00414,
    equation 4, with a linear kernel).

    Args:
        student, teacher: shapes (samples, features); the numbers of features may differ.
    """
    mine, theirs = (_gram(features.float()) for features in (student, teacher))
    alike: Tensor = (mine * theirs).sum() / (mine.norm() * theirs.norm()).clamp(min=1e-12)
    return 1 - alike


def _gram(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred @ centred.T
