"""Samples changed at random in ways that do not matter."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sizewise.errors import extra

if TYPE_CHECKING:
    from torch import Generator, Tensor

DEGREES, SHIFT, SCALE, SHEAR = 10.0, 0.1, (0.9, 1.1), 5.0
"""Largest turn, shift in shares of a side, change of size, and shear in degrees."""


def moved(x: Tensor, generator: Generator) -> Tensor:
    """Images (n, channels, height, width) or volumes (n, channels, depth, height, width), each turned, shifted and
    scaled a little, images also sheared, by kornia (Riba et al. 2020, arXiv:1910.02190).

    Nothing is mirrored and no light is changed: a mirrored 2 is no digit, and a heart on the right is another finding.
    """
    import torch

    flat = x.dim() == 4
    with extra("augment", needed_for="augmentation"):
        change = _flat() if flat else _solid()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        changed: Tensor = change(x)
    return changed.contiguous(memory_format=torch.channels_last if flat else torch.channels_last_3d)


@cache
def _flat() -> Any:
    """What lies outside an image is its edge: zero would be its mean colour."""
    from kornia.augmentation import RandomAffine

    return RandomAffine(DEGREES, (SHIFT, SHIFT), SCALE, SHEAR, padding_mode="border", p=1.0)


@cache
def _solid() -> Any:
    from kornia.augmentation import RandomAffine3D

    return RandomAffine3D((DEGREES,) * 3, (SHIFT,) * 3, SCALE, p=1.0)
