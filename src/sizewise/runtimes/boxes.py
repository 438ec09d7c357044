"""From a detector's grid to boxes, as tensor operations that every runtime has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise.records import Signature
from sizewise.tasks.problems.detection import FAINTEST

MOST = 100
"""Boxes an image, as COCO's evaluation counts them."""

LARGEST_LOG = 8.0
"""Sizes beyond e to this many cells stem from a broken model, and infinite ones would break its users too."""


class Boxes(nn.Module):
    """Grid (n, classes + 4, rows, columns) to boxes (n, most, 6): class from 1, score, left, top, right, bottom.

    A box is where a class is likelier than in the eight cells around it, so that no overlapping boxes have to be
    suppressed afterwards (Zhou et al. 2019, arXiv:1904.07850, section 4). Best first, filled up with 0; edges are in
    pixels, within the image.
    """

    limits: Tensor

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.classes = signature.outputs
        self.size = signature.input_shape[1:]
        height, width = self.size
        self.register_buffer("limits", torch.tensor([width, height, width, height], dtype=torch.float32))

    def forward(self, grid: Tensor) -> Tensor:
        rows, columns = grid.shape[2], grid.shape[3]
        heat, cells = grid[:, : self.classes].sigmoid(), rows * columns
        score, index = (heat * (heat >= _highest_around(heat))).flatten(1).topk(min(MOST, self.classes * cells), dim=1)
        kind, cell = index // cells, index % cells
        values = grid[:, self.classes :].flatten(2).transpose(1, 2)
        found = values.gather(1, cell.unsqueeze(2).expand(-1, -1, 4))
        stride = self.size[0] / rows, self.size[1] / columns
        centre_x, centre_y = (cell % columns + found[..., 0]) * stride[1], (cell // columns + found[..., 1]) * stride[0]
        half = found[..., 2:].clamp(max=LARGEST_LOG).exp() / 2
        across, down = half[..., 0] * stride[1], half[..., 1] * stride[0]
        edges = torch.stack([centre_x - across, centre_y - down, centre_x + across, centre_y + down], dim=2)
        edges = torch.minimum(edges.clamp(min=0), self.limits)
        boxes = torch.cat([(kind + 1).to(grid.dtype).unsqueeze(2), score.unsqueeze(2), edges], dim=2)
        return boxes * (score >= FAINTEST).to(grid.dtype).unsqueeze(2)


def _highest_around(heat: Tensor) -> Tensor:
    """Maximum over 3×3 cells. Written with slices: quantizers would round a pooling layer's output, and no cell would
    equal its own maximum any more."""
    padded = F.pad(heat, (1, 1, 1, 1))
    across = torch.maximum(torch.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return torch.maximum(torch.maximum(across[:, :, :-2], across[:, :, 1:-1]), across[:, :, 2:])
