"""Shared by all tests: the real data beside the project, and one thread for PyTorch, so that runs repeat bitwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from sizewise.runtimes import Runtime
from tests.builders import Models, make_models

DATA = Path(__file__).parents[2] / "shared" / "data"

torch.set_num_threads(1)

# Studies of tests leave nothing to those of whoever runs them, nor to one another.
os.environ["SIZEWISE_LIBRARY"] = tempfile.mkdtemp(prefix="sizewise-library-")


@pytest.fixture(autouse=True)
def own_library(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library of one test, empty."""
    folder = tmp_path_factory.mktemp("library")
    monkeypatch.setenv("SIZEWISE_LIBRARY", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it say so where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"real data is not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study of the digits, small enough for a test, made by the real command: once, then copied to each of the
    processes that test."""
    made = tmp_path_factory.getbasetemp().parent / f"digits-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            _make_small_study(tmp_path_factory.mktemp("making") / "digits").rename(made)
    return shutil.copytree(made, tmp_path_factory.mktemp("small") / "digits")


def _make_small_study(folder: Path) -> Path:
    command = [sys.executable, "-m", "sizewise.cli", "run", "digits", "--widths", "2,4,6,9,13"]
    command += ["--seeds", "3", "--epochs", "8", "--out", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return folder


@pytest.fixture(scope="module")
def ray_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Held while a file of tests has a Ray cluster: two that start on one machine at a time take the same names."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "ray.lock"):
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Trained models of the digits and their candidates in every runtime; tests that change them copy them first."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Runtime, Path]:
    """One untrained model as an exported folder for each runtime; tests that change them copy them first."""
    from tests.test_runtimes import write_folders

    return write_folders(tmp_path_factory.mktemp("served"), width=8)
