"""Every example runs, on less data than it speaks of."""

from __future__ import annotations

import gzip
import math
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from sizewise import config, tasks
from sizewise.serve import app
from tests.builders import toy_task

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


STUDIES = sorted((ROOT / "examples").glob("*/study.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_a_study_has_sizes_and_seeds_enough_for_an_answer(path: Path) -> None:
    study = config.read(path)
    config.check(config.resolve(replace(study, family="cnn"), toy_task()))
    assert study.task in tasks.FORMATS or study.task in tasks.NAMES
    assert len(study.sweep.widths) >= 4 or study.sweep.sizes >= 4
    assert study.sweep.seeds >= 2
    assert "sizewise run" in path.read_text(), "a study says how it is run"


SMALL = {
    "detection": ("--widths", "2,4"),
    "digits_in_a_row": ("--widths", "3,5", "--steps", "200"),
    "keywords": ("--widths", "3,4"),
    "mnist": ("--widths", "2,3"),
    "news": ("--widths", "1,2"),
    "pneumonia": ("--widths", "1,2"),
    "series": ("--widths", "2,4"),
    "shakespeare": ("--widths", "8,16", "--steps", "32"),
    "translation": ("--widths", "8,16"),
    "volumes": ("--widths", "1,2"),
}
"""Two sizes of each study that train in seconds. Reviews are read as news are; the other detector has its own test."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_study_goes_from_data_to_a_served_model(name: str, shared_data: Path, tmp_path: Path) -> None:
    path = ROOT / "examples" / name / "study.toml"
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(path.read_text().replace("../shared/data", str(_less(name, shared_data, tmp_path))))
    made = path.parent / "make.py"
    if made.exists():
        subprocess.run([sys.executable, str(made)], cwd=tmp_path, check=True, capture_output=True)
    command = [sys.executable, "-m", "sizewise.cli", "run", str(study), *SMALL[name], "--seeds", "2"]
    command += ["--epochs", "1", "--no-probes", "--methods", "int8", "--runtimes", "onnxruntime", "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode in (0, 3), result.stdout + result.stderr
    assert "Warning" not in result.stderr
    assert (out / "report.html").stat().st_size > 10_000
    folders = sorted(path.parent for path in (out / "models").glob("*/manifest.json"))
    assert folders
    with TestClient(app(folders)) as client:
        for folder in folders:
            assert _ask(client, folder).status_code == 200


def _less(name: str, data: Path, folder: Path) -> Path:
    """The real data; of the large sets a part."""
    less = folder / "data"
    if name == "translation":
        (less / "multi30k").mkdir(parents=True)
        for source in (data / "multi30k").glob("*.gz"):
            with gzip.open(source) as lines:
                (less / "multi30k" / source.name).write_bytes(gzip.compress(b"".join(islice(lines, 150))))
    elif name == "mnist":
        (less / "mnist").mkdir(parents=True)
        for source in (data / "mnist").glob("*.gz"):
            _shorten(source, less / "mnist" / source.name)
    elif name in ("keywords", "digits_in_a_row"):
        _thin(data / "fsdd" / "recordings.zip", less / "fsdd" / "recordings.zip", lambda file: "_1" in file)
    else:
        return data
    return less


def _thin(source: Path, target: Path, keep: Callable[[str], bool]) -> None:
    """An archive with some of its files."""
    target.parent.mkdir(parents=True)
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as less:
        for name in filter(keep, whole.namelist()):
            less.writestr(name, whole.read(name))


def _shorten(source: Path, target: Path, samples: int = 2000) -> None:
    """The first samples of an IDX file, whose header says how many it has."""
    whole = gzip.decompress(source.read_bytes())
    axes = whole[3]
    header = 4 + 4 * axes
    each = math.prod(struct.unpack(f">{axes - 1}I", whole[8:header]))
    target.write_bytes(gzip.compress(whole[:4] + struct.pack(">I", samples) + whole[8 : header + samples * each]))


def _ask(client: TestClient, folder: Path) -> Any:
    """What the server answers to a sample of the shape that it says it takes."""
    name = folder.name
    inputs = client.get(f"/v2/models/{name}").json()["inputs"]
    tensor = next((one for one in inputs if one["name"] == "text"), inputs[0])
    shape = [1, *(abs(size) if size > 0 else 40 for size in tensor["shape"][1:])]
    if tensor["datatype"] == "BYTES":
        shape, values = [1], ["two small dogs run over the green grass"]
    else:
        values = np.random.default_rng(0).integers(0, 200, shape).ravel().tolist()
    body = {"inputs": [{"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape, "data": values}]}
    return client.post(f"/v2/models/{name}/infer", json=body)


def test_keras_mnist_is_as_everyone_writes_it() -> None:
    code = (ROOT / "examples" / "keras_mnist.py").read_text()  # it is run in sizes by tests/families/test_keras.py
    assert 'model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])' in code


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'"examples" / "(\w+\.py)"', Path(__file__).read_text()))
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == tested
