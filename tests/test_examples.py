"""Every example runs, on less data than it speaks of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_halving_claim(shared_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "halving_claim.py"), "--data", str(shared_data / "mnist")]
    command += ["--images", "500", "--epochs", "2", "--seeds", "5", "--out", str(tmp_path / "claim")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "693,962 → 173,930, a cut of 75 %, not of 50 %" in result.stdout
    assert re.search(r"larger minus smaller: [+-]\d+\.\d\d \[.*\] points \(95% interval, 5 paired seeds", result.stdout)


@pytest.mark.slow
def test_sizes_and_samples_make_a_table_that_fit_reads(shared_data: Path, tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    command = [sys.executable, str(ROOT / "examples" / "sizes_and_samples.py"), "--data", str(shared_data / "mnist")]
    command += ["--most", "0.05", "--seeds", "1", "--out", str(table)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert table.read_text().splitlines()[0] == (ROOT / "examples" / "runs.csv").read_text().splitlines()[0]
    columns = ["--params", "params", "--samples", "samples", "--loss", "loss", "--seed", "seed"]
    fit = [sys.executable, "-m", "sizewise.cli", "fit", str(table), *columns]
    assert subprocess.run(fit, capture_output=True, check=False).returncode in (0, 3)


def test_keras_mnist_is_as_everyone_writes_it() -> None:
    code = (ROOT / "examples" / "keras_mnist.py").read_text()  # it is run in sizes by tests/families/test_keras.py
    assert 'model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])' in code


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'"examples" / "(\w+\.py)"', Path(__file__).read_text()))
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == tested
