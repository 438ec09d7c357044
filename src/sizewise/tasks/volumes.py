"""A folder of scans, one subfolder for each class: NIfTI files (.nii, .nii.gz) or arrays (.npz)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import room
from sizewise.errors import DataError, extra
from sizewise.records import Reading
from sizewise.tasks import folders
from sizewise.tasks.task import Task

SCANS = folders.Kind("scans", (".nii", ".nii.gz", ".npz"))


def load(folder: Path, reading: Reading) -> Task:
    """Scans from class subfolders, or from class subfolders inside `train`, `test` and perhaps `val`.

    All have one shape, (depth, height, width) or with channels, and become (channels, depth, height, width) in float32.
    A NIfTI file is turned to the canonical orientation, in which its axes run to the right, anterior and superior; they
    become width, height and depth. Its voxels are scaled by its slope and intercept; a fourth axis holds channels. How
    many millimetres a voxel has is not looked at. An .npz file holds one array, with channels first if it has four
    axes. A few broken files are left out and counted.

    Raises:
        DataError: no scans, too many broken ones, two shapes, a class or a split that is missing.
        MissingExtraError: there are NIfTI files, and nibabel is not installed.
    """
    files = folders.find(folder, SCANS)
    files, scans, skipped = folders.opened(files, SCANS, _open)
    for path, scan in zip(files.paths, scans, strict=True):
        if scan.shape != scans[0].shape:
            first, other = (" × ".join(map(str, s.shape)) for s in (scans[0], scan))
            raise DataError(
                f"scans differ in channels × depth × height × width: {files.paths[0]} has {first}, {path} has {other}",
                hint="bring all scans to one shape first, with nibabel.processing or a tool of your scanner's",
            )
    return folders.task(files, room.stacked(scans), skipped)


def _open(path: Path) -> NDArray[np.float32]:
    """One scan (channels, depth, height, width)."""
    scan = _array(path) if path.suffix.lower() == ".npz" else _nifti(path)
    if scan.ndim == 3:
        scan = scan[None]
    if scan.ndim != 4 or not scan.size or scan.dtype.kind not in "uif":
        raise DataError(
            f"{path} holds {scan.dtype} of shape {scan.shape}",
            hint="a scan is numbers of shape (depth, height, width), or with channels",
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        scan = scan.astype(np.float32)
    if not np.isfinite(scan).all():
        raise DataError(f"{path} has values that are NaN or infinite", hint="repair or remove the file")
    return scan


def _nifti(path: Path) -> NDArray[Any]:
    """(depth, height, width), or with channels first."""
    with extra("medical", needed_for="reading NIfTI files"):
        import nibabel
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        voxels: NDArray[Any] = image.get_fdata(dtype=np.float32)
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} cannot be read as NIfTI: {reason}", hint="repair or remove the file") from error
    return voxels.T


def _array(path: Path) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in file.files]
    except Exception as error:  # zip files and their compressions raise whatever they stumble over
        raise DataError(f"{path} cannot be read: {error}", hint="save it again with numpy.savez") from error
    if len(arrays) != 1:
        raise DataError(f"{path} has {len(arrays)} arrays", hint="save one scan in each file: numpy.savez(path, scan)")
    return np.asarray(arrays[0])
