"""Every example runs, on less data than it speaks of."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

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


@pytest.mark.slow
def test_the_news_go_from_a_table_to_a_served_text(shared_data: Path, tmp_path: Path) -> None:
    study, out = tmp_path / "study.toml", tmp_path / "out"
    text = (ROOT / "examples" / "news" / "study.toml").read_text()
    assert "../shared/data" in text
    study.write_text(text.replace("../shared/data", str(shared_data)))
    command = [sys.executable, "-m", "sizewise.cli", "run", str(study), "--widths", "1,2", "--seeds", "2"]
    command += ["--epochs", "1", "--no-probes", "--methods", "int8", "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stdout + result.stderr
    models = [path.parent for path in (out / "models").glob("*/manifest.json")]
    assert models
    assert all((folder / "tokenizer.json").exists() for folder in models)
    with TestClient(app(models[:1])) as client:
        name = models[0].name
        inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Stocks fell on Wall Street."]}]
        answer = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).json()
    assert {o["name"] for o in answer["outputs"]} == {"logits", "label"}


def test_keras_mnist_is_as_everyone_writes_it() -> None:
    code = (ROOT / "examples" / "keras_mnist.py").read_text()  # it is run in sizes by tests/families/test_keras.py
    assert 'model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])' in code


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'"examples" / "(\w+\.py)"', Path(__file__).read_text()))
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == tested
