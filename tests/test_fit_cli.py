"""`sizewise fit` on anyone's table: its words, its JSON, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_cli import call, numbers, refused

COLUMNS = ("--params", "params", "--samples", "tokens", "--loss", "loss")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An additive law, 8 sizes by 6 amounts of data, with one wild run, one duplicate and one bad row."""
    rng = np.random.default_rng(0)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 6)))
    loss = (1.8 + 480 * n**-0.35 + 2000 * d**-0.37) * np.exp(0.01 * rng.normal(size=len(n)))
    loss[20] *= 2
    lines = [f"{a:.6g},{b:.6g},{y:.6g}" for a, b, y in zip(n, d, loss, strict=True)]
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    path.write_text("\n".join(["params,tokens,loss", *lines, lines[3], "1e6,1e8,-1"]) + "\n")
    return path


@pytest.fixture(scope="module")
def points(runs: Path) -> Path:
    path = runs.with_name("points.csv")
    path.write_text("params,tokens\n7B,140B\n1e8,2e9\n")
    return path


def test_json_holds_the_law_and_predictions_in_order(runs: Path, points: Path) -> None:
    result = call("fit", runs, *COLUMNS, "--predict", points, "--json")
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record.keys() == {"law", "predictions"}
    assert record["law"]["status"] == "supported"
    assert record["law"]["runs"] == 48
    far, near = record["predictions"]
    assert far["low"] < 1.8 + 480 * 7e9**-0.35 + 2000 * 1.4e11**-0.37 < far["high"]
    assert near["low"] < near["value"] < near["high"]
    assert far["value"] < near["value"]
    assert far["level"] == 0.9


def test_the_screen_says_all_that_matters(runs: Path, points: Path) -> None:
    result = call("fit", runs, *COLUMNS, "--count", "total", "--predict", points)
    assert result.returncode == 0, result.stderr
    for words in (
        "loss by params and samples: supported",
        "90% interval",
        "back-test error",
        "hidden runs inside their 90% intervals",
        "left out: row 50: loss is not a positive number",
        "left out: row 49: equal to an earlier row",
        "outliers: row 21",
        "note: params are total",
        "beyond the evidence",
        "within the evidence",
    ):
        assert words in result.stdout, result.stdout
    assert max(map(len, result.stdout.splitlines())) < 160
    assert "nan" not in result.stdout


def test_the_screen_shows_numbers_of_the_json(runs: Path, points: Path) -> None:
    arguments = ("fit", runs, *COLUMNS, "--predict", points)
    known = numbers(json.loads(call(*arguments, "--json").stdout))
    shown = [w.strip("[],") for w in call(*arguments).stdout.split("prediction ")[1].split()]
    assert {w for w in shown if w.replace(".", "").isdigit() and "." in w} <= known


def test_the_level_widens_predictions_and_the_form_can_be_named(runs: Path, points: Path) -> None:
    wide = json.loads(call("fit", runs, *COLUMNS, "--predict", points, "--level", "0.99", "--json").stdout)
    usual = json.loads(call("fit", runs, *COLUMNS, "--predict", points, "--json").stdout)
    for a, b in zip(wide["predictions"], usual["predictions"], strict=True):
        assert a["low"] < b["low"] < b["high"] < a["high"]
    one = call("fit", runs, *COLUMNS, "--form", "additive", "--delta", "1e-3", "--draws", "0", "--json")
    law = json.loads(one.stdout)["law"]
    assert [f["form"] for f in law["forms"]] == ["additive"]
    assert law["forms"][0]["parameters"]["E"]["low"] is None
    assert "additive" in call("fit", runs, *COLUMNS, "--form", "additive", "--draws", "0").stdout


def test_thin_evidence_is_exit_3(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("params,tokens,loss\n1,2,3\n2,3,2\n3,4,1\n")
    result = call("fit", path, *COLUMNS)
    assert result.returncode == 3
    assert "insufficient" in result.stdout
    record = json.loads(call("fit", path, *COLUMNS, "--predict", path, "--json").stdout)
    assert [p["value"] for p in record["predictions"]] == [None] * 3
    assert call("fit", path, *COLUMNS, "--predict", path).returncode == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere.csv", *COLUMNS), 2, "there is no file nowhere.csv"),
        (("RUNS", "--params", "parms", "--loss", "loss"), 2, "no column 'parms'"),
        (("RUNS",), 2, "a law needs one outcome, and none was given"),
        (("RUNS", "--loss", "loss"), 2, "nothing says how large the runs are"),
        (("RUNS", *COLUMNS, "--form", "magic"), 2, "no form 'magic'"),
        (("RUNS", *COLUMNS, "--level", "90"), 2, "'90' is not a number between 0 and 1"),
        (("RUNS", *COLUMNS, "--delta", "-1"), 2, "'-1' is not a positive number"),
        (("RUNS", *COLUMNS, "--draws", "3"), 2, "'3' is not 0 or a whole number from 20"),
        (("RUNS", *COLUMNS, "--count", "all"), 2, "invalid choice: 'all'"),
        (("RUNS", *COLUMNS, "--predict", "RUNS"), 1, "row|points"),
        (("FOLDER", *COLUMNS), 2, "--params is for tables"),
    ],
)
def test_mistakes_get_one_clear_error(arguments: tuple[str, ...], code: int, words: str, runs: Path) -> None:
    if arguments[-2:] == ("--predict", "RUNS"):
        bad = runs.with_name("bad.csv")
        bad.write_text("params,tokens\n1,2\n0,2\n")
        arguments = (*arguments[:-1], str(bad))
        words = "row 2 of .*bad.csv has no positive number of params: 0"
    places = {"RUNS": str(runs), "FOLDER": str(runs.parent)}
    refused(call("fit", *(places.get(a, a) for a in arguments)), code, words)


def test_a_table_needs_no_torch(runs: Path) -> None:
    code = f"""
import sys
from sizewise import cli
assert cli.main(["fit", {str(runs)!r}, "--params", "params", "--samples", "tokens", "--loss", "loss"]) == 0
assert not {{"torch", "sklearn", "onnxruntime", "rich", "scipy.stats"}} & set(sys.modules), sorted(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_results_do_not_depend_on_the_process(runs: Path, tmp_path: Path) -> None:
    """Labels are hashed, and Python's hashes differ from one process to the next."""
    lines = runs.read_text().splitlines()[:-1]
    table = tmp_path / "grouped.csv"
    table.write_text("\n".join([f"{lines[0]},run", *(f"{line},run{i % 12}" for i, line in enumerate(lines[1:]))]))
    command = [sys.executable, "-m", "sizewise.cli", "fit", str(table), *COLUMNS, "--group", "run", "--json"]
    said = {
        subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
