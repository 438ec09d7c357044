"""Objects in images. Outputs are a grid of centres and sizes, see `families.detector`; answers are boxes.

The loss is that of "Objects as Points" (Zhou et al. 2019, arXiv:1904.07850); the metrics are those of COCO, by its own
code (Lin et al. 2014, arXiv:1405.0312).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.records import Metric, Recipe
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.problem import Array, Judged, Problem

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from sizewise.tasks.task import Split

HALF, RANGE = "mAP@.5", "mAP@[.5:.95]"

SPREAD = 0.1
"""Standard deviation of a centre's blob, as a share of the object's side (Liu et al. 2019, arXiv:1909.00700)."""

NARROWEST = 0.35
"""The smallest such deviation, in cells."""

AT_ONCE = 32
"""Images whose objects are drawn together, to bound the memory of one grid for each of them."""

GROUPS = 40
"""Of images, left out one at a time to see what each contributes to a mean average precision."""

SURE = 0.3
"""Score of the boxes by which two models are compared."""

NEAR = 0.3
"""Cells with at least this much of an object's blob learn its place and size too, not its centre alone."""

FAINTEST = 0.01
"""Boxes with a lower score are not given as an answer, see `runtimes.boxes`."""

ZOOM, SHIFT, CONTRAST, LIGHT = 0.25, 0.15, 0.2, 0.2
"""Largest changes of an augmented image: log of its scale; shift in half sides; contrast, and light in standard
deviations of its channels."""

VISIBLE = 0.3
"""Share of an object that must be left in an augmented image for it to be told."""


class Detection(Problem):
    """Grids (n, classes + 4, rows, columns) against boxes (n, most, 5), see `tasks.detection`.

    Answers are boxes (n, most, 6), see `runtimes.boxes`.
    """

    quick = False

    def metrics(self) -> tuple[Metric, ...]:
        return Metric(HALF, margin=0.01), Metric(RANGE, margin=0.01)

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Focal loss of the centres, and L1 of their places (in cells) and log sizes; per object.

        An image without objects counts as one object.
        """
        classes = self.signature.outputs
        heat, weight, goal = self._targets(outputs, y)
        logits, values = outputs[:, :classes], outputs[:, classes:]
        centres = _focal(logits, heat).flatten(1).sum(1)
        places = ((values - goal).abs() * weight).flatten(1).sum(1)
        return centres + places, (y[..., 0] > 0).sum(1).clamp(min=1).to(outputs.dtype)

    def _targets(self, grid: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a grid should say of boxes y (n, most, 5).

        Returns:
            heat (n, classes, rows, columns), 1 where a centre is and less around it; how much each cell counts for the
            places (n, 1, rows, columns), in all 1 an object; and the places (n, 4, rows, columns) themselves.
        """
        import torch

        size = (grid.shape[2], grid.shape[3])
        drawn = [self._drawn(size, part) for part in torch.split(y, AT_ONCE)]
        heat, weight, goal = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return heat, weight, goal

    def _drawn(self, size: tuple[int, int], y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for a grid of this many rows and columns, all images at once."""
        import torch

        (height, width), (rows, columns) = self.signature.input_shape[1:], size
        kind, (left, top, right, bottom) = y[..., 0], y[..., 1:].unbind(2)
        across, x, blob_x = _along((left, right), width, columns)
        down, y_, blob_y = _along((top, bottom), height, rows)
        blobs = blob_y.unsqueeze(3) * blob_x.unsqueeze(2) * (kind > 0)[..., None, None]
        blobs = blobs.flatten(2)
        heat = blobs.new_zeros(len(y), 1 + self.signature.outputs, rows * columns)
        heat.scatter_reduce_(1, kind.long().unsqueeze(2).expand_as(blobs), blobs, "amax")
        nearest, whose = blobs.max(dim=1)
        share = nearest * (nearest > NEAR)
        total = torch.zeros_like(kind).scatter_add_(1, whose, share)
        weight = share / total.gather(1, whose).clamp(min=1e-6)
        column, row = torch.arange(columns).repeat(rows), torch.arange(rows).repeat_interleave(columns)
        goal = [x.gather(1, whose) - column, y_.gather(1, whose) - row]
        goal += [side.clamp(min=1e-3).log().gather(1, whose) for side in (across, down)]
        shape = (len(y), -1, rows, columns)
        return heat[:, 1:].reshape(shape), weight.reshape(shape), torch.stack(goal, dim=1).reshape(shape)

    def augment(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images and boxes mirrored, shifted and scaled a little, in other light."""
        import torch
        import torch.nn.functional as F

        n = len(x)

        def between(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(n, *shape, generator=generator)

        mirror = 1 - 2 * torch.randint(0, 2, (n, 2), generator=generator).to(x.dtype)
        scale = torch.exp(between(-ZOOM, ZOOM, 1)) * mirror
        shift = between(-SHIFT, SHIFT, 2)
        # In coordinates from -1 to 1, a point p of the result shows the point scale·p + shift of the image.
        matrix = torch.cat([torch.diag_embed(scale), shift.unsqueeze(2)], dim=2)
        moved = F.grid_sample(x, F.affine_grid(matrix, list(x.shape), align_corners=False), align_corners=False)
        lit = moved * between(1 - CONTRAST, 1 + CONTRAST, 1, 1, 1) + between(-LIGHT, LIGHT, x.shape[1], 1, 1)
        return lit.contiguous(memory_format=torch.channels_last), _moved(y, scale, shift, x.shape[2:])

    def distance(self, a: NDArray[Any], b: NDArray[Any]) -> float:
        """Largest difference between boxes that belong together, in pixels: equal scores may change places.

        Scores count in shares of the image's longer side. A box that only one of them has counts by how far its score
        is above what is left out.
        """
        unit = np.ones(6)
        unit[1] = max(self.signature.input_shape[1:])
        return max((_distance(*pair, unit) for pair in zip(a, b, strict=True)), default=0.0)

    def same(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether the boxes that both are sure of can be paired: of one class, and overlapping by half."""
        return np.array([_paired(*(r[r[:, 1] >= SURE] for r in pair)) for pair in zip(a, b, strict=True)], bool)

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        table = _Table(answers, split.y, len(self.classes))
        precisions = table.precisions(np.arange(len(split)))
        values = {HALF: _mean(precisions[0]), RANGE: _mean(precisions)}
        values |= {f"AP@.5 {name}": _mean(row) for name, row in zip(self.classes, precisions[0], strict=True)}
        examples = {
            name: influence.jackknife(table.mean_of(part), len(split), groups=GROUPS)
            for name, part in ((HALF, slice(0, 1)), (RANGE, slice(None)))
        }
        return Judged(values, examples)

    def score(self, answers: NDArray[Any], split: Split) -> float:
        precisions = _Table(answers, split.y, len(self.classes)).precisions(np.arange(len(split)))
        return _mean(precisions[0] if self.metric.name == HALF else precisions)


class _Table:
    """COCO's evaluation of every image, from which the average precision over any of them is read."""

    def __init__(self, answers: NDArray[Any], y: NDArray[Any], classes: int) -> None:
        with extra("detection", needed_for="the mean average precision of boxes"):
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval

        with redirect_stdout(StringIO()):  # it speaks of its progress where our data goes
            truth, found = COCO(), COCO()
            for home, rows in ((truth, _listed(y)), (found, _listed(np.delete(answers, 1, axis=2), answers[..., 1]))):
                home.dataset = _dataset(rows, len(y), classes)
                home.createIndex()
            self.evaluation = COCOeval(truth, found, "bbox")
            self.evaluation.params.areaRng, self.evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            self.evaluation.params.maxDets = [answers.shape[1]]
            self.evaluation.evaluate()
        self.images = np.array(self.evaluation.evalImgs, dtype=object).reshape(classes, len(y))
        self._seen: dict[bytes, NDArray[np.float64]] = {}

    def mean_of(self, thresholds: slice) -> Callable[[NDArray[np.intp]], float]:
        """The mean average precision at some thresholds, as a function of the images."""
        return lambda kept: _mean(self.precisions(kept)[thresholds])

    def precisions(self, kept: NDArray[np.intp]) -> NDArray[np.float64]:
        """Average precision (thresholds of overlap, classes) over the images `kept`; NaN of classes without boxes."""
        if (key := kept.tobytes()) not in self._seen:  # both metrics leave out the same images
            self._seen[key] = self._accumulated(kept)
        return self._seen[key]

    def _accumulated(self, kept: NDArray[np.intp]) -> NDArray[np.float64]:
        e = self.evaluation
        e.evalImgs = self.images[:, kept].ravel().tolist()
        e.params.imgIds = e._paramsEval.imgIds = (kept + 1).tolist()
        with redirect_stdout(StringIO()):
            e.accumulate()
        curves = e.eval["precision"][:, :, :, 0, 0]
        return np.where(curves[:, 0] >= 0, curves.mean(axis=1), np.nan)


def _dataset(rows: list[dict[str, Any]], images: int, classes: int) -> dict[str, Any]:
    return {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": c + 1} for c in range(classes)],
        "annotations": rows,
    }


def _listed(boxes: NDArray[Any], scores: NDArray[Any] | None = None) -> list[dict[str, Any]]:
    """COCO's rows of boxes (n, most, 5), numbered from 1: its code takes number 0 for none."""
    rows: list[dict[str, Any]] = []
    for image, place in np.argwhere(boxes[..., 0] > 0):
        kind, left, top, right, bottom = map(float, boxes[image, place])
        box = [left, top, right - left, bottom - top]
        row = {"id": len(rows) + 1, "image_id": int(image) + 1, "category_id": int(kind), "bbox": box}
        row |= {"area": box[2] * box[3], "iscrowd": 0}
        rows.append(row if scores is None else row | {"score": float(scores[image, place])})
    return rows


def _mean(precisions: NDArray[np.float64]) -> float:
    there = precisions[np.isfinite(precisions)]
    return float(there.mean()) if len(there) else float("nan")


def _along(edges: tuple[Tensor, Tensor], pixels: int, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Along one side: length and centre of boxes (n, most) in cells, and their blobs (n, most, cells)."""
    import torch

    low, high = (edge * (cells / pixels) for edge in edges)
    length, centre = high - low, (low + high) / 2
    cell = centre.floor().clamp(0, cells - 1)
    away = torch.arange(cells) - cell.unsqueeze(2)
    deviation = (SPREAD * length).clamp(min=NARROWEST).unsqueeze(2)
    return length, centre, torch.exp(-0.5 * (away / deviation) ** 2)


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Penalty-reduced focal loss of each cell (Zhou et al. 2019, equation 1, with α = 2 and β = 4)."""
    import torch
    import torch.nn.functional as F

    probability, there, absent = logits.sigmoid(), F.logsigmoid(logits), F.logsigmoid(-logits)
    centre = -((1 - probability) ** 2) * there
    around = -((1 - heat) ** 4) * probability**2 * absent
    return torch.where(heat == 1, centre, around)


def _moved(y: Tensor, scale: Tensor, shift: Tensor, size: tuple[int, ...]) -> Tensor:
    """Boxes of images of which a point p of the result shows the point scale·p + shift, cut to them.

    Those of which less than `VISIBLE` is left are no longer told.
    """
    import torch

    pixels = torch.tensor([size[1], size[0]], dtype=y.dtype)
    corners = y[..., 1:].reshape(*y.shape[:2], 2, 2) / pixels * 2 - 1
    corners = (corners - shift[:, None, None]) / scale[:, None, None]
    corners = (corners.sort(dim=2).values + 1) / 2 * pixels
    cut = torch.minimum(corners.clamp(min=0), pixels)
    areas = [(c[:, :, 1] - c[:, :, 0]).prod(dim=2) for c in (corners, cut)]
    kept = (y[..., 0] > 0) & (areas[1] > VISIBLE * areas[0])
    return torch.cat([y[..., :1], cut.flatten(2)], dim=2) * kept.unsqueeze(2)


def _distance(a: NDArray[Any], b: NDArray[Any], unit: Array) -> float:
    """Of the boxes (most, 6) of one image, whose columns count in multiples of `unit`."""
    from scipy.optimize import linear_sum_assignment

    a, b = (np.asarray(rows, float) * unit for rows in (a, b))
    apart = np.abs(a[:, None] - b[None]).max(axis=2)
    # A box may also stand against none, or against the last one where the other list is full.
    cost = np.minimum(apart, np.minimum(_alone(a, b, unit[1]), _alone(b, a, unit[1]).T))
    pairs = linear_sum_assignment(np.nan_to_num(cost, nan=1e9, posinf=1e9))
    return float(cost[pairs].max(initial=0.0))


def _alone(boxes: Array, others: Array, unit: float) -> Array:
    """What it costs (boxes, others) to let a box stand for the absence of one, infinity where the other is there."""
    least = others[:, 1].min()
    absent = others[:, 1] == least
    excess = np.abs(boxes[:, 1] - max(least, FAINTEST * unit))
    return np.where(absent[None] & (boxes[:, :1] > 0), excess[:, None], np.inf)


def _paired(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if len(a) != len(b):
        return False
    from scipy.optimize import linear_sum_assignment

    overlap = _overlaps(a, b) if len(a) else np.zeros((0, 0))
    alike = (a[:, None, 0] == b[None, :, 0]) & (overlap >= 0.5)
    return bool(alike[linear_sum_assignment(alike, maximize=True)].all())


def _overlaps(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union (a, b) of boxes (n, 6)."""
    with extra("detection", needed_for="the overlap of boxes"):
        from pycocotools import mask

    sides = [np.concatenate([r[:, 2:4], r[:, 4:6] - r[:, 2:4]], axis=1).astype(np.float64) for r in (a, b)]
    found: NDArray[np.float64] = mask.iou(*sides, [0] * len(b))
    return found
