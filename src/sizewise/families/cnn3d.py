"""Small 3-D CNN for volumes: 3×3×3 convolutions, each with twice the channels and half the sides of the one before.

One dial: the first convolution has `width` channels. Every further one halves the sides that still have 8 voxels, up to
four times, and doubles the channels; a scan of few thick slices keeps them while its height and width shrink. From 48
voxels on the longest side, the first one halves it too. Convolutions start from Kaiming's normal scheme (He et al.
2015, arXiv:1502.01852) and are normalised by batch (Ioffe & Szegedy 2015, arXiv:1502.03167).
"""

from __future__ import annotations

from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.records import Signature

HALVED = 8
"""Voxels from which a side is halved."""

HALVED_AT_ONCE = 48
"""Voxels of the longest side from which the first convolution halves already."""

MOST_HALVINGS = 4


def strides(depth: int, height: int, width: int) -> list[tuple[int, int, int]]:
    """Stride of each convolution along the three sides of a volume, given in voxels."""
    found = [(1, 1, 1)] if max(depth, height, width) < HALVED_AT_ONCE else []
    while max(depth, height, width) >= HALVED and len(found) <= MOST_HALVINGS:
        found.append((_stride(depth), _stride(height), _stride(width)))
        depth, height, width = (-(-a // b) for a, b in zip((depth, height, width), found[-1], strict=True))
    return found


def _stride(side: int) -> int:
    return 2 if side >= HALVED else 1


class Cnn3d(nn.Module):
    """Maps volumes (batch, channels, depth, height, width) to answers (batch, outputs)."""

    def __init__(self, width: int, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, *sides = input_shape
        layers: list[nn.Module] = []
        for number, stride in enumerate(strides(*sides)):
            inputs, channels = channels, width * 2**number
            convolution = nn.Conv3d(inputs, channels, 3, stride, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm3d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.head = nn.Linear(channels, outputs)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        answers: Tensor = self.head(self.pool(self.layers(x_BCDHW)).flatten(1))
        return answers


def build(width: int, task: Signature) -> nn.Module:
    """The 3-D CNN whose first convolution has `width` channels.

    Raises:
        UsageError: a volume is a single voxel, or it is not volumes that are classified or measured.
    """
    if task.layout != "volume" or max(task.input_shape[1:]) < 2 or task.problem not in ("classification", "regression"):
        raise refuse("cnn3d", task, "classification or regression of volumes (channels, depth, height, width)")
    return Cnn3d(width, task.input_shape, task.outputs)
