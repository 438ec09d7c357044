"""Made images with boxes, as files and as tasks, for the tests of detection."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sizewise.records import Signature
from sizewise.tasks import Split, Task
from sizewise.tasks.task import make_task

Boxes = list[tuple[str, float, float, float, float]]


def jpeg(width: int = 64, height: int = 48) -> bytes:
    """An image of one colour."""
    out = BytesIO()
    Image.new("RGB", (width, height), (200, 90, 40)).save(out, "JPEG")
    return out.getvalue()


def xml(boxes: Boxes, file: str = "") -> str:
    """An annotation of Pascal VOC."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for name, a, b, c, d in boxes
    )
    return f"<annotation><filename>{file}</filename>{objects}</annotation>"


def voc(folder: Path, images: dict[str, Boxes], splits: dict[str, list[str]] | None = None) -> Path:
    """A folder of Pascal VOC's form."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for stem, boxes in images.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(xml(boxes, f"{stem}.jpg"))
        (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(jpeg())
    for split, stems in (splits or {}).items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return folder


def coco(images: dict[str, Boxes], categories: dict[int, str]) -> str:
    """A file of COCO's form."""
    numbers = {name: key for key, name in categories.items()}
    annotations = [
        {"image_id": i, "category_id": numbers[name], "bbox": [a, b, c - a, d - b], "iscrowd": 0}
        for i, boxes in enumerate(images.values())
        for name, a, b, c, d in boxes
    ]
    listed = [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(images)]
    kinds = [{"id": key, "name": name} for key, name in categories.items()]
    return json.dumps({"images": listed, "annotations": annotations, "categories": kinds})


def squares(samples: int = 24, seed: int = 0) -> Task:
    """Dark images of 32×48 pixels with one to three bright rectangles: tall ones are class 1, flat ones class 2."""
    rng = np.random.default_rng(seed)
    return make_task(
        "squares", "", ("tall", "flat"), *(_squares(rng, n) for n in (samples, samples // 2, samples // 2)),
        signature=Signature("detection", (3, 32, 48), 2),
    )  # fmt: skip


def _squares(rng: np.random.Generator, samples: int) -> Split:
    x = rng.integers(0, 40, (samples, 3, 32, 48)).astype(np.uint8)
    y: NDArray[np.float32] = np.zeros((samples, 3, 5), np.float32)
    for image, boxes in zip(x, y, strict=True):
        for place in range(rng.integers(1, 4)):
            kind = int(rng.integers(1, 3))
            width, height = (8, 14) if kind == 1 else (14, 8)
            left, top = 16 * place + int(rng.integers(0, 16 - width + 1)), int(rng.integers(0, 32 - height))
            boxes[place] = kind, left, top, left + width, top + height
            image[:, top : top + height, left : left + width] = 220
    return Split(x, y)
