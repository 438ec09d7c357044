"""Writes runs/data/solids: made volumes of 16×16×16 voxels, a sphere or a cube in noise, as compressed NIfTI files.

    python examples/volumes/make.py

Nothing here is a scan of a patient. Place and size are drawn at random, the two solids have the same mean volume and
brightness, and there is noise, so that a model has to see the shape.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

FOLDER = Path("runs/data/solids")
SIDE, COUNT, NOISE = 16, 500, 0.6
CUBE_OVER_SPHERE = (np.pi / 6) ** (1 / 3)
"""Half the side of a cube over the radius of the sphere of its volume."""


def solid(kind: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """One volume (depth, height, width)."""
    radius = rng.uniform(3.5, 5.5)
    centre = rng.uniform(radius, SIDE - 1 - radius, size=3)
    away = np.abs(np.indices((SIDE,) * 3) - centre[:, None, None, None])
    if kind == "sphere":
        inside = (away**2).sum(axis=0) <= radius**2
    else:
        inside = away.max(axis=0) <= CUBE_OVER_SPHERE * radius
    volume: NDArray[np.float32] = (inside + NOISE * rng.normal(size=inside.shape)).astype(np.float32)
    return volume


def main() -> None:
    """Write both classes."""
    rng = np.random.default_rng(0)
    for kind in ("cube", "sphere"):
        (FOLDER / kind).mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            image = nibabel.Nifti1Image(solid(kind, rng), np.eye(4))
            nibabel.save(image, FOLDER / kind / f"{number:03}.nii.gz")
    print(FOLDER)


if __name__ == "__main__":
    main()
