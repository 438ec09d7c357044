"""What a detector sees: test images with its boxes and the true ones, as SVG with the pixels inside."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.tasks import Task
from sizewise.tasks.problems import Session
from sizewise.tasks.problems.problem import prepared

COUNT = 3
"""Images shown, spread over the test split."""

SURE = 0.3
"""Score from which a box is drawn."""

COLOURS = ("#4da3ff", "#ffb000", "#35d07f", "#ff5fa2", "#b48cff", "#ff7a45", "#2ad4d4", "#d7d7d7")
"""Of the classes, in turn; bright ones, since they lie on photographs."""


def boxed(task: Task, session: Session) -> list[str]:
    """A few test images as one `<svg>` each: boxes of the model in full lines, the true ones dashed."""
    chosen = np.linspace(0, len(task.test) - 1, min(COUNT, len(task.test)), dtype=int)
    split = task.test.take(chosen)
    answers = session(prepared(split.x, task.signature))
    return [
        _drawn(pixels, rows[rows[:, 1] >= SURE], truth[truth[:, 0] > 0], task.classes)
        for pixels, rows, truth in zip(split.x, answers, split.y, strict=True)
    ]


def _drawn(pixels: NDArray[Any], found: NDArray[Any], truth: NDArray[Any], classes: Sequence[str]) -> str:
    _, height, width = pixels.shape
    marks = [_box(row[0], row[1:], "2 1.5", f"truth: {classes[int(row[0]) - 1]}") for row in truth]
    marks += [_box(row[0], row[2:], "", f"{classes[int(row[0]) - 1]}, score {row[1]:.2f}") for row in found]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="A test image with {len(found)} boxes found and '
        f'{len(truth)} true ones"><image href="data:image/png;base64,{_png(pixels)}" width="{width}" '
        f'height="{height}"/>{"".join(marks)}</svg>'
    )


def _box(kind: float, edges: NDArray[Any], dashes: str, tip: str) -> str:
    left, top, right, bottom = map(float, edges)
    colour = COLOURS[(int(kind) - 1) % len(COLOURS)]
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="{0.6 if dashes else 1.1}" stroke-dasharray="{dashes or "none"}">'
        f"<title>{escape(tip)}</title></rect>"
    )


def _png(pixels: NDArray[Any]) -> str:
    from PIL import Image

    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0).astype(np.uint8))).save(out, "PNG", optimize=True)
    return b64encode(out.getvalue()).decode()
