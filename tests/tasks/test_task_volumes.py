"""Folders of scans: orientation and scaling of NIfTI, arrays, and files that do not fit or do not open."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sizewise import tasks
from sizewise.errors import DataError
from sizewise.tasks import Task

nibabel = pytest.importorskip("nibabel")

SHAPE = (4, 5, 6)
"""Depth, height and width."""

TO_CANONICAL = np.diag([2.0, 2.0, 2.0, 1.0])
"""Axes run to the right, anterior and superior; a voxel has 2 mm."""


def nifti(path: Path, voxels: NDArray[Any], affine: NDArray[Any] = TO_CANONICAL) -> None:
    """Save (depth, height, width), or with channels first, as NIfTI."""
    nibabel.save(nibabel.Nifti1Image(voxels.T, affine), path)


def write(folder: Path, *, count: int = 8, end: str = "nii.gz", shape: tuple[int, ...] = SHAPE) -> Path:
    """`count` random scans in each of two class subfolders."""
    rng = np.random.default_rng(0)
    for name in ("healthy", "ill"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            voxels = rng.normal(size=shape).astype(np.float32)
            path = folder / name / f"{number:02}.{end}"
            np.savez_compressed(path, voxels) if end == "npz" else nifti(path, voxels)
    return folder


def load(folder: Path) -> Task:
    return tasks.load("volumes", folder)


def refuse(words: str, folder: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load(folder)
    assert caught.value.hint


def found(task: Task) -> list[bytes]:
    """Every scan of a task, in a fixed order."""
    return sorted(row.tobytes() for split in (task.train, task.validation, task.test) for row in split.x)


@pytest.mark.parametrize("end", ["nii", "nii.gz", "NII.GZ", "npz"])
def test_scans_become_depth_height_width_in_every_format(tmp_path: Path, end: str) -> None:
    task = load(write(tmp_path, end=end))
    assert (task.signature.layout, task.signature.input_shape) == ("volume", (1, *SHAPE))
    assert task.classes == ("healthy", "ill")
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    assert voxels.tobytes() in found(task)


@pytest.mark.parametrize("flipped", [(0,), (1,), (2,), (0, 1, 2)])
def test_scans_of_other_orientations_are_turned(tmp_path: Path, flipped: tuple[int, ...]) -> None:
    straight, turned = write(tmp_path / "straight"), tmp_path / "turned"
    affine = TO_CANONICAL.copy()
    for axis in flipped:
        affine[axis, axis] *= -1
    for path in sorted(straight.rglob("*.nii.gz")):
        (turned / path.parent.name).mkdir(parents=True, exist_ok=True)
        voxels = np.flip(nibabel.load(path).get_fdata(dtype=np.float32), flipped)
        nibabel.save(nibabel.Nifti1Image(voxels, affine), turned / path.parent.name / path.name)
    assert found(load(turned)) == found(load(straight))


def test_axes_in_another_order_are_turned(tmp_path: Path) -> None:
    straight, turned = write(tmp_path / "straight"), tmp_path / "turned"
    for path in sorted(straight.rglob("*.nii.gz")):
        (turned / path.parent.name).mkdir(parents=True, exist_ok=True)
        voxels = nibabel.load(path).get_fdata(dtype=np.float32).transpose(2, 0, 1)
        image = nibabel.Nifti1Image(voxels, TO_CANONICAL[:, [2, 0, 1, 3]])
        nibabel.save(image, turned / path.parent.name / path.name)
    assert found(load(turned)) == found(load(straight))


def test_voxels_are_scaled_by_slope_and_intercept(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for path in folder.rglob("*.nii.gz"):
        image = nibabel.Nifti1Image(np.full(SHAPE[::-1], 3, np.int16), TO_CANONICAL)
        image.header.set_slope_inter(2.0, -1000.0)
        nibabel.save(image, path)
    assert set(load(folder).train.x.ravel()) == {3 * 2.0 - 1000.0}


def test_a_fourth_axis_holds_channels(tmp_path: Path) -> None:
    assert load(write(tmp_path / "nifti", shape=(2, *SHAPE))).signature.input_shape == (2, *SHAPE)
    assert load(write(tmp_path / "npz", end="npz", shape=(2, *SHAPE))).signature.input_shape == (2, *SHAPE)


def test_the_users_own_division_is_kept(tmp_path: Path) -> None:
    for split, count in (("train", 9), ("val", 3), ("test", 4)):
        write(tmp_path / split, count=count)
    task = load(tmp_path)
    assert [len(s) for s in (task.train, task.validation, task.test)] == [18, 6, 8]


def test_scans_of_two_shapes_are_both_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    nifti(folder / "ill" / "03.nii.gz", np.zeros((4, 5, 7), np.float32))
    refuse("00.nii.gz has 1 × 4 × 5 × 6, .*ill/03.nii.gz has 1 × 4 × 5 × 7", folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    folder = write(tmp_path)
    nifti(folder / "ill" / "03.nii.gz", np.full(SHAPE, value, np.float32))
    refuse("ill/03.nii.gz has values that are NaN", folder)


def test_one_broken_scan_of_many_is_left_out_and_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, count=15)
    path = folder / "ill" / "03.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    task = load(folder)
    assert len(found(task)) == 29
    (left_out,) = task.skipped
    assert left_out.count == 1
    assert "ill/03.nii.gz" in left_out.reason


@pytest.mark.parametrize(
    "damage",
    [b"", b"not a scan", gzip.compress(b"not a scan")],
    ids=["empty", "other", "packed"],  # gzip writes the time
)
def test_broken_scans_are_named(tmp_path: Path, damage: bytes) -> None:
    folder = write(tmp_path)
    (folder / "healthy" / "05.nii.gz").write_bytes(damage)
    refuse("healthy/05.nii.gz cannot be read as NIfTI", folder)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros(SHAPE), "b": np.zeros(SHAPE)}, "has 2 arrays"),
        ({"a": np.zeros((5, 6))}, r"holds float64 of shape \(5, 6\)"),
        ({"a": np.array(["text"])}, "holds <U4"),
        ({"a": np.array([None])}, "cannot be read"),
    ],
)
def test_archives_that_hold_no_scan(tmp_path: Path, arrays: dict[str, NDArray[Any]], words: str) -> None:
    folder = write(tmp_path, end="npz")
    np.savez(folder / "ill" / "03.npz", **arrays)  # type: ignore[arg-type]
    refuse(f"03.npz {words}", folder)


def test_a_folder_without_scans(tmp_path: Path) -> None:
    for name in ("healthy", "ill"):
        (tmp_path / name).mkdir()
    refuse("healthy has no scans", tmp_path)
