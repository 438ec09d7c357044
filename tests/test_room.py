"""Data that is larger than memory: the same numbers, in less of it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from sizewise import room, tasks
from sizewise.errors import DataError, StoreError, UsageError
from sizewise.loop import Data
from sizewise.loop.data import Streamed
from sizewise.records import Recipe
from tests.builders import train, trial

Numbers = NDArray[Any]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing above a kilobyte fits into memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "limit", lambda: 1024)


def mapped(x: Numbers) -> bool:
    base: object = x
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def pictures(count: int = 120, side: int = 12) -> tuple[Numbers, Numbers]:
    """Images whose class is the half that is bright, shape (count, side, side)."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 200, (count, side, side), np.uint8), np.arange(count) % 2
    x[y == 0, : side // 2] += 50
    return x, y


@settings(max_examples=40, deadline=None)
@given(arrays(np.int16, array_shapes(min_dims=2, max_dims=4, max_side=6)), st.sampled_from([0, 50, 10**6]), st.data())
def test_arrays_are_the_same_wherever_they_lie(x: Numbers, limit: int, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(x) - 1), min_size=1, max_size=20)))
    moved = np.moveaxis(x, -1, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "limit", lambda: limit)
        patch.setattr(room, "PIECE", 16)
        patch.setattr(room, "SEGMENT", 64)
        shelf = room.Shelf()
        on_shelf = [shelf.put(row) for row in x]
        assert np.array_equal(room.taken(x, rows), x[rows])
        assert np.array_equal(room.contiguous(moved, np.float32), moved.astype(np.float32))
        assert np.array_equal(room.stacked(on_shelf), x)
        assert mapped(room.taken(x, rows)) == (x[rows].nbytes > limit)
        assert not room.empty((0, 3), np.float32).size


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["uint8", "float64"])
@pytest.mark.usefixtures("narrow")
def test_a_large_archive_is_the_same_task(
    save: Any, order: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = pictures()
    colour = np.stack([x, x // 2, x // 3], axis=-1).astype(kind)
    save(tmp_path / "data.npz", x=np.asarray(colour, order=order), y=y)
    large = tasks.load(str(tmp_path / "data.npz"))
    assert all(map(mapped, (large.train.x, large.validation.x, large.test.x)))
    monkeypatch.setattr(room, "limit", lambda: 1 << 30)
    small = tasks.load(str(tmp_path / "data.npz"))
    assert not mapped(small.train.x)
    assert large.fingerprint == small.fingerprint
    assert np.array_equal(large.test.x, small.test.x)


@pytest.mark.usefixtures("narrow")
def test_a_divided_archive_is_looked_at_where_it_lies(tmp_path: Path) -> None:
    x, y = pictures()
    parts = {"x_train": x[:80, None], "y_train": y[:80], "x_val": x[80:100, None], "y_val": y[80:100]}
    np.savez(tmp_path / "data.npz", **parts, x_test=x[100:, None], y_test=y[100:])
    task = tasks.load(str(tmp_path / "data.npz"))
    assert np.array_equal(task.train.x, parts["x_train"])
    assert not (tmp_path / "cache").exists(), "nothing is copied"


@pytest.mark.usefixtures("narrow")
def test_a_large_folder_of_images_is_the_same_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pictures()
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        place = tmp_path / "data" / "ab"[label] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image if number % 3 else np.stack([image, image // 2, image], axis=-1)).save(place)
    large = tasks.load(str(tmp_path / "data"))
    assert mapped(large.train.x)
    assert large.train.x.shape[1:] == (3, 12, 12)
    monkeypatch.setattr(room, "limit", lambda: 1 << 30)
    assert large.fingerprint == tasks.load(str(tmp_path / "data")).fingerprint


@pytest.mark.usefixtures("narrow")
def test_a_large_folder_of_volumes_is_the_same_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pictures(60, 8)
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        place = tmp_path / "data" / "ab"[label] / f"{number}.npz"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(place, np.stack([image, image // 2, image // 3]))
    large = tasks.load("volumes", tmp_path / "data")
    assert mapped(large.train.x)
    assert large.train.x.shape[1:] == (1, 3, 8, 8)
    monkeypatch.setattr(room, "limit", lambda: 1 << 30)
    assert large.fingerprint == tasks.load("volumes", tmp_path / "data").fingerprint


@pytest.mark.usefixtures("narrow")
def test_values_that_are_no_numbers_are_found_in_any_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PIECE", 2000)
    x, y = pictures()
    broken = x.astype(np.float32)
    broken[77, 3, 3] = broken[99, 0, 0] = np.nan
    np.savez(tmp_path / "data.npz", x=broken, y=y)
    with pytest.raises(DataError, match="2 values are NaN or infinite, the first in sample 77"):
        tasks.load(str(tmp_path / "data.npz"))


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.usefixtures("narrow")
def test_a_run_on_streamed_samples_is_that_on_samples_in_memory(
    fraction: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = pictures(400)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    made = {}
    for limit in (1024, 1 << 30):
        monkeypatch.setattr(room, "limit", lambda limit=limit: limit)
        task = tasks.load(str(tmp_path / "data.npz"))
        assert isinstance(Data.of(task).x, Streamed) == (limit == 1024)
        recipe = Recipe(lr=0.01, batch_size=16, epochs=3)
        made[limit] = train(trial(task, 4, recipe=recipe, fraction=fraction), task, tmp_path / str(limit))
    streamed, held = made.values()
    assert streamed.curve[-1].train_loss == held.curve[-1].train_loss
    assert streamed.validation == held.validation
    assert streamed.files == held.files


def resident(x: Numbers, row: int) -> bool:
    """Whether the page that a row begins on is in memory."""
    page = x[row : row + 1].ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    answer = (ctypes.c_ubyte * 1)()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(page), ctypes.c_size_t(1), answer) == 0
    return bool(answer[0] & 1)


def test_the_next_batch_is_read_before_it_is_looked_at(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((64, 1 << 16), np.uint8))
    with (tmp_path / "x.npy").open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    x = np.asarray(np.load(tmp_path / "x.npy", mmap_mode="r"))
    rows = np.array([40, 3, 21])
    room.expect(x, rows)
    until = time.monotonic() + 10
    while not all(resident(x, row) for row in rows.tolist()) and time.monotonic() < until:
        time.sleep(0.01)
    assert all(resident(x, row) for row in rows.tolist())


def test_memory_alone_expects_nothing() -> None:
    room.expect(np.zeros((4, 4)), np.array([1, 2]))


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZEWISE_ROOM", "2GB")
    with pytest.raises(UsageError, match=r"SIZEWISE_ROOM is '2GB'\nhint: give a number of bytes"):
        room.limit.__wrapped__()


@pytest.mark.usefixtures("narrow")
def test_a_full_disk_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match=r"no room for 4\.0 GB of data in .*: No space left on device\nhint: free"):
        room.empty((1_000_000_000,), np.float32)


LIMITED = """
import os, resource, sys
from pathlib import Path
import numpy as np, torch
from sizewise import tasks
from sizewise.loop import Data
from sizewise.records import Recipe
from tests.builders import toy_task, train, trial
torch.set_num_threads(1)
recipe = Recipe(lr=0.01, batch_size=128, epochs=1)
train(trial(toy_task(), 2, recipe=recipe), toy_task(), Path(sys.argv[1]) / "warm")
data = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + (256 << 20), data + (256 << 20)))
task = tasks.load(sys.argv[2])
run = train(trial(task, 2, recipe=recipe), task, Path(sys.argv[1]) / "run")
print(task.train.x.nbytes, run.validation.score)
"""


@pytest.mark.slow
def test_memory_stays_bounded_on_data_that_is_larger(shared_data: Path, tmp_path: Path) -> None:
    """MNIST at twice its size, 500 MB of it, in a process that may have 256 MB more than it begins with."""
    mnist = tasks.load("mnist", shared_data / "mnist")
    rows = np.arange(160_000) % len(mnist.train.x)
    x, y = mnist.train.x[rows].repeat(2, axis=2).repeat(2, axis=3), mnist.train.y[rows]
    np.savez(tmp_path / "many.npz", x=x, y=y)
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(tmp_path / "many.npz")]
    environment = os.environ | {"SIZEWISE_ROOM": str(32 << 20), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    size, score = result.stdout.split()
    assert int(size) > 256 << 20
    assert float(score) > 0.8
    held = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment | {"SIZEWISE_ROOM": str(1 << 40)}
    )
    assert held.returncode, "the limit means nothing: all of the data fits"
