"""An image and its boxes as an annotation gives them, and the book of what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sizewise.records import Exclusion

NAMED = 10


@dataclass(frozen=True)
class Annotated:
    """One image.

    Attributes:
        file: its name in the data.
        number: its place among all images, from 1.
        boxes: (boxes, 5): class from 1, left, top, right, bottom in pixels of the file.
    """

    file: str
    number: int
    boxes: NDArray[np.float64]


@dataclass
class Skipped:
    """What is left out or changed, by reason: the numbers of the images, and the first one's name."""

    found: dict[str, list[Annotated]] = field(default_factory=dict)

    def note(self, reason: str, image: Annotated, count: int = 1) -> None:
        """Count something of an image, `count` times."""
        self.found.setdefault(reason, []).extend([image] * count)

    def note_empty(self, images: Sequence[Annotated]) -> None:
        """Count images without boxes, which are kept."""
        for image in images:
            self.note("images without boxes: kept, to learn what is none", image)

    def exclusions(self) -> tuple[Exclusion, ...]:
        """The record of it all."""
        return tuple(
            Exclusion(f"{reason} (first: {images[0].file})", len(images), _first([i.number for i in images]))
            for reason, images in self.found.items()
        )


def _first(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(numbers))[:NAMED]
