"""Arrays that may be larger than memory: what does not fit lies in a file, and the system reads what is looked at.

Such a file is a nameless one in the user's cache folder, gone with the last process that has it. Its pages are no
memory of the process: the system writes and drops them as it needs to, and reads ahead where it is told what comes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sizewise.cache import cache_folder
from sizewise.errors import StoreError, UsageError

PIECE = 2 << 20
"""Bytes that are worked on at a time."""

SEGMENT = 64 << 20
"""Bytes of a file that many small arrays share."""


@cache
def limit() -> int:
    """Bytes that one array may take in memory.

    What `SIZEWISE_ROOM` says, in bytes; else half of a core's share of the memory that is free when first asked, since
    every core has a worker with data of its own.

    Raises:
        UsageError: `SIZEWISE_ROOM` is no number.
    """
    given = os.environ.get("SIZEWISE_ROOM", "")
    if not given:
        return free() // (2 * (os.cpu_count() or 1))
    if not given.isdecimal():
        raise UsageError(f"SIZEWISE_ROOM is {given!r}", hint="give a number of bytes, such as 2000000000")
    return int(given)


def free() -> int:
    """Memory in bytes that the machine, or the container that this runs in, has left; 8 GB where nothing says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 8 << 30
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    bound = Path("/sys/fs/cgroup/memory.max")
    said = bound.read_text().strip() if bound.is_file() else "max"
    return min(free, int(said)) if said.isdecimal() else free


def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """An array to be filled, in memory if it fits there.

    Raises:
        StoreError: there is no room on the disk either.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    return np.empty(shape, dtype) if size <= limit() else _file(shape, dtype)


def _file(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    folder, size = cache_folder("room"), prod(shape) * np.dtype(dtype).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # what is mapped stays when the file has no name any more
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that is full says so now, not when a page is written
            return np.asarray(np.memmap(file, dtype, "r+", shape=tuple(shape)))
    except OSError as error:
        raise StoreError(
            f"no room for {size / 1e9:.1f} GB of data in {folder}: {error.strerror}",
            hint="free some space, or name a folder on another disk as SIZEWISE_CACHE",
        ) from error


def pieces(x: NDArray[Any]) -> Iterator[slice]:
    """Rows of an array, some at a time, none twice."""
    rows = max(1, PIECE // max(1, x[:1].nbytes))
    return (slice(start, start + rows) for start in range(0, len(x), rows))


def contiguous(x: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """An array as one block of `dtype`; itself where it is that already."""
    dtype = np.dtype(x.dtype if dtype is None else dtype)
    if x.flags.c_contiguous and x.dtype == dtype:
        return x
    out = empty(x.shape, dtype)
    for part in pieces(x):
        out[part] = x[part]
    return out


def taken(x: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """The rows of an array, in the order of `rows`."""
    out = empty((len(rows), *x.shape[1:]), x.dtype)
    for part in pieces(out):
        out[part] = x[rows[part]]
    return out


def stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of one shape as one with an axis more, in front."""
    out = empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[...] = array
    return out


class Shelf:
    """Many arrays, those in memory that fit there."""

    def __init__(self) -> None:
        self._held, self._segment, self._used = 0, np.empty(0, np.uint8), 0

    def put(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or its like in a file."""
        self._held += array.nbytes
        if self._held <= limit():
            return array
        if self._used + array.nbytes > len(self._segment):
            self._segment, self._used = _file((max(SEGMENT, array.nbytes),), np.uint8), 0
        part = self._segment[self._used : self._used + array.nbytes]
        self._used += -(-array.nbytes // 64) * 64  # numbers begin where processors like them to
        out = part.view(array.dtype).reshape(array.shape)
        out[...] = array
        return out


def expect(x: NDArray[Any], rows: NDArray[Any]) -> None:
    """Have the rows of an array read while something else is done; nothing where it lies in memory."""
    mapped, start = _mapping(x)
    if mapped is None or not hasattr(mapped, "madvise"):
        return
    for row in rows.tolist():
        first = start + row * x.strides[0]
        page = first - first % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, page, first + x[:1].nbytes - page)


def _mapping(x: NDArray[Any]) -> tuple[mmap.mmap | None, int]:
    """The file that an array lies in, and where in it the array begins."""
    base: Any = x
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap):
        return None, 0
    return base, x.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
