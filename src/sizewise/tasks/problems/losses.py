"""Losses between numbers: outputs and targets of one shape (n, numbers), one loss a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over the numbers of a sample."""
    return ((outputs - targets) ** 2).mean(dim=1)


def half_sse(outputs: Tensor, targets: Tensor) -> Tensor:
    """½Σ(output - target)², whose gradient is output - target, as textbooks derive back-propagation (Bishop 2006,
    equation 5.11)."""
    return 0.5 * ((outputs - targets) ** 2).sum(dim=1)


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error over the numbers of a sample."""
    return (outputs - targets).abs().mean(dim=1)


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the square within 1 and the distance less ½ beyond, mean over numbers (Huber 1964, section 1)."""
    import torch.nn.functional as F

    return F.huber_loss(outputs, targets, reduction="none").mean(dim=1)


def binary(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each output's own yes or no, mean over outputs; targets lie in [0, 1]."""
    import torch.nn.functional as F

    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1)


NUMERIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse, "half_sse": half_sse, "mae": mae, "huber": huber}
ELEMENTWISE = NUMERIC | {"binary": binary}

__all__ = ["ELEMENTWISE", "NUMERIC", "binary", "half_sse", "huber", "mae", "mse"]
