"""`sizewise fit` on anyone's table: its words, its JSON, its exit codes."""

from __future__ import annotations

import json
import os
import re
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
    assert record.keys() == {
        "law",
        "predictions",
        "findings",
        "optimum",
        "serving",
        "equal_loss",
        "growth",
        "next_runs",
        "link",
        "scores",
        "spending",
    }
    assert record["link"] is None
    assert record["scores"] == []
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


@pytest.fixture(scope="module")
def scored(runs: Path) -> Path:
    """The same law with accuracies of 2,000 examples; two runs were never scored."""
    rng = np.random.default_rng(1)
    header, *rows = runs.read_text().splitlines()[:49]
    loss = np.array([float(row.rpartition(",")[2]) for row in rows])
    accuracy = rng.binomial(2000, 0.25 + 0.6 / (1 + np.exp(2.5 * (loss - 3)))) / 2000
    cells = ["", "n/a", *(f"{a:.4f}" for a in accuracy[2:])]
    rows, cells = [*rows, rows[0]], [*cells, cells[0]]
    path = runs.with_name("scored.csv")
    path.write_text("\n".join([f"{header},acc", *(f"{row},{cell}" for row, cell in zip(rows, cells, strict=True))]))
    return path


SCORED = (*COLUMNS, "--score", "acc", "--chance", "0.25", "--examples", "2k")


def test_accuracy_is_predicted_through_the_loss(scored: Path, points: Path, tmp_path: Path) -> None:
    page = tmp_path / "law.html"
    arguments = ("fit", scored, *SCORED, "--predict", points)
    record = json.loads(call(*arguments, "--json", "--report", page).stdout)
    assert record["link"]["status"] == "supported"
    assert record["link"]["parameters"]["low"]["value"] == 0.25
    assert record["link"]["runs"] == 46
    for score, loss in zip(record["scores"], record["predictions"], strict=True):
        truth = 0.25 + 0.6 / (1 + np.exp(2.5 * (loss["value"] - 3)))
        assert score["low"] < truth < score["high"]
        assert 0.25 < score["low"] < score["value"] < score["high"] < 1
    text = call(*arguments).stdout
    for words in (
        "row 49: equal to an earlier row",
        "accuracy through loss: supported",
        "beyond the losses seen",
        "2 of 48 runs have no score",
    ):
        assert words in text, text
    assert f"{record['scores'][0]['value']:.4g}" in text
    assert "Accuracy through loss" in page.read_text()


def test_an_error_beside_the_loss_is_a_score_too(scored: Path, points: Path) -> None:
    wrong = scored.with_name("wrong.csv")
    header, *rows = scored.read_text().splitlines()[:1] + scored.read_text().splitlines()[3:-1]
    pairs = [row.rpartition(",") for row in rows]
    wrong.write_text("\n".join([header, *(f"{rest},{100 * (1 - float(acc)):.3f} %" for rest, _, acc in pairs)]))
    arguments = (*COLUMNS, "--score", "acc", "--chance", "0.75", "--predict", points)
    text = call("fit", wrong, *arguments).stdout
    assert "error through loss: supported" in text
    assert all(
        0 < e["low"] < e["high"] < 0.75 for e in json.loads(call("fit", wrong, *arguments, "--json").stdout)["scores"]
    )


def test_scores_that_say_nothing_are_exit_3(scored: Path, points: Path) -> None:
    flat = scored.with_name("flat.csv")
    flat.write_text(re.sub(r",[^,]*$", ",0.25", scored.read_text(), flags=re.M).replace("loss,0.25", "loss,acc", 1))
    result = call("fit", flat, *SCORED, "--predict", points)
    assert result.returncode == 3
    assert "through loss: unreliable" in result.stdout
    assert "nan" not in result.stdout


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    """133 runs of models of language; a table that others made."""
    return shared_data / "scaling" / "runs" / "llama3_raw.csv"


ASKED = ("--budget", "1e21", "--serve", "1T", "--target", "0.8", "--next", "1e21")


def test_decisions_are_answered_with_intervals(real: Path) -> None:
    result = call("fit", real, *COLUMNS, *ASKED, "--json")
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    best, life, equal = record["optimum"], record["serving"], record["equal_loss"]
    assert best["status"] == life["status"] == equal["status"] == "supported"
    assert {a["approach"] for a in best["approaches"]} == {"envelope", "iso-FLOP", "parametric"}
    assert best["params"]["low"] < best["params"]["value"] < best["params"]["high"]
    assert 6 * best["params"]["value"] * best["samples"]["value"] == pytest.approx(1e21)
    assert life["target"] == pytest.approx(0.8)
    assert life["params"]["value"] < life["trained"]["value"]
    assert equal["params"] == pytest.approx(life["trained"]["value"])
    assert [g["how"] for g in record["growth"]] == ["compute", "params", "samples"]
    assert 0 < sum(run["cost"] for run in record["next_runs"]["runs"]) <= 1e21
    assert "compute-optimal" in record["next_runs"]["purpose"]


def test_decisions_on_the_screen_are_those_of_the_json(real: Path) -> None:
    known = numbers(json.loads(call("fit", real, *COLUMNS, *ASKED, "--json").stdout))
    text = call("fit", real, *COLUMNS, *ASKED).stdout
    decided = text[text.index("compute-optimal for") :]
    shown = {w.strip("[],%;") for w in decided.split()}
    assert {w for w in shown if w.replace(".", "").isdigit() and "." in w} - known <= _ratios(decided)
    for words in (
        "compute-optimal for 1e+21 FLOP: supported",
        "do they agree: agree",
        "cheapest to train and serve 1e+12 samples, loss 0.8: supported",
        "of the params:",
        "along the optimal path",
        "next runs for the compute-optimal params at 1e+21 FLOP, at most 1e+21 FLOP together: supported",
    ):
        assert words in decided, decided
    assert max(map(len, decided.splitlines())) < 160
    assert "nan" not in decided


def _ratios(decided: str) -> set[str]:
    """The last two columns of the table of equal loss: multiples of the model's own size, made for reading."""
    table = decided.split("times samples\n")[1].split("\nwithout")[0]
    return {word for line in table.splitlines() for word in line.split()[-2:]}


def test_the_level_widens_decisions(real: Path) -> None:
    wide, usual = (
        json.loads(call("fit", real, *COLUMNS, "--budget", "1e21", "--level", level, "--json").stdout)["optimum"]
        for level in ("0.99", "0.5")
    )
    assert wide["params"]["low"] < usual["params"]["low"] < usual["params"]["high"] < wide["params"]["high"]


def test_serving_takes_the_loss_that_a_budget_reaches(real: Path) -> None:
    record = json.loads(call("fit", real, *COLUMNS, "--budget", "1e21", "--serve", "1T", "--json").stdout)
    assert record["equal_loss"] is record["next_runs"] is None
    assert record["serving"]["target"] == pytest.approx(record["optimum"]["loss"]["value"], rel=0.01)


def test_a_loss_that_no_model_reaches_has_no_answer(real: Path) -> None:
    result = call("fit", real, *COLUMNS, "--target", "0.01", "--serve", "1T")
    assert result.returncode == 0
    assert "models of equal loss: undetermined" in result.stdout
    assert "loss 0.01: undetermined" in result.stdout


def test_a_law_of_one_variable_plans_its_next_runs(runs: Path, tmp_path: Path) -> None:
    table, rng = tmp_path / "sizes.csv", np.random.default_rng(0)
    n = np.geomspace(1e5, 1e9, 12)
    rows = [f"{a:.4g},{y}" for a, y in zip(n, (2 + 300 * n**-0.3) * np.exp(0.02 * rng.normal(size=12)), strict=True)]
    table.write_text("\n".join(["params,loss", *rows]))
    arguments = ("fit", table, "--params", "params", "--loss", "loss", "--next")
    result = call(*arguments)
    assert result.returncode == 0, result.stderr
    assert "next runs for the loss further out, 1e+10 params, at most 1e+09 params together: supported" in result.stdout
    planned = json.loads(call(*arguments, "--json").stdout)["next_runs"]["runs"]
    assert planned[-1]["removed"] > 0.01
    assert all(1e9 / 30 <= run["cost"] <= 1e9 for run in planned)
    assert "ten times the compute" not in result.stdout


def test_a_refused_law_decides_nothing(tmp_path: Path) -> None:
    """Pure noise, and three rows: every decision says so, and none has a number."""
    rng = np.random.default_rng(1)
    noise, few = tmp_path / "noise.csv", tmp_path / "few.csv"
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    rows = [f"{a},{b},{y}" for a, b, y in zip(n, d, np.exp(rng.normal(size=36)), strict=True)]
    noise.write_text("\n".join(["params,tokens,loss", *rows]))
    few.write_text("params,tokens,loss\n1,2,3\n2,3,2\n3,4,1\n")
    for path in (noise, few):
        result = call("fit", path, *COLUMNS, *ASKED)
        assert result.returncode == 3, result.stdout
        for words in ("compute-optimal for 1e+21 FLOP: ", "loss 0.8: ", "models of equal loss: ", "next runs"):
            line = next(line for line in result.stdout.splitlines() if words in line)
            assert line.endswith(("insufficient", "unreliable")), line
        record = json.loads(call("fit", path, *COLUMNS, *ASKED, "--json").stdout)
        assert record["optimum"]["params"] is record["serving"]["params"] is record["equal_loss"]["rate"] is None
        assert record["growth"] == []


def test_next_runs_that_would_decide_nothing_are_not_named(tmp_path: Path) -> None:
    """Sizes that all have one loss: no run puts the best size for the budget anywhere."""
    table = tmp_path / "flat.csv"
    rng = np.random.default_rng(1)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    rows = [f"{a},{b},{2 * np.exp(1e-3 * e)}" for a, b, e in zip(n, d, rng.normal(size=36), strict=True)]
    table.write_text("\n".join(["params,tokens,loss", *rows]))
    result = call("fit", table, *COLUMNS, "--budget", "1e8", "--next")
    assert result.returncode == 3, result.stderr
    assert re.search(r"next runs: insufficient\n(no runs|none of the law's forms)", result.stdout), result.stdout


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
        (("RUNS", *COLUMNS, "--score", "acc"), 2, "no column 'acc'"),
        (("RUNS", *COLUMNS, "--score", "params"), 2, "two meanings"),
        (("RUNS", *COLUMNS[:4], "--error", "loss", "--score", "acc"), 2, "predicted through the loss"),
        (("RUNS", *COLUMNS, "--chance", "0.1"), 2, "--chance says more about a score"),
        (("SCORED", *SCORED[:-4], "--chance", "1"), 2, "'1' is not a number between 0 and 1"),
        (("SCORED", *COLUMNS[:4], "--loss", "acc", "--score", "loss"), 1, "a score .loss. of .*no share"),
        (("RUNS", *COLUMNS, "--form", "magic"), 2, "no form 'magic'"),
        (("RUNS", *COLUMNS, "--level", "90"), 2, "'90' is not a number between 0 and 1"),
        (("RUNS", *COLUMNS, "--delta", "-1"), 2, "'-1' is not a positive number"),
        (("RUNS", *COLUMNS, "--draws", "3"), 2, "'3' is not 0 or a whole number from 20"),
        (("RUNS", *COLUMNS, "--count", "all"), 2, "invalid choice: 'all'"),
        (("RUNS", *COLUMNS, "--predict", "RUNS"), 1, "row|points"),
        (("FOLDER", *COLUMNS), 2, "--params is for tables"),
        (("FOLDER", "--budget", "1e21"), 2, "--budget is for tables"),
        (("RUNS", *COLUMNS, "--budget", "lots"), 2, "'lots' is not a positive number such as 1e21"),
        (("RUNS", *COLUMNS, "--budget", "5%"), 2, "'5%' is not a positive number"),
        (("RUNS", *COLUMNS, "--serve", "1T"), 2, "none is given\nhint: give the loss as --target"),
        (("RUNS", *COLUMNS, "--next", "1"), 2, "costs as little as 1 FLOP"),
        (("RUNS", "--params", "params", "--loss", "loss", "--budget", "1e21"), 2, "how params and samples trade"),
        (("RUNS", *COLUMNS, "--unique", "u", "--target", "2"), 2, "how params and samples trade"),
    ],
)
def test_mistakes_get_one_clear_error(
    arguments: tuple[str, ...], code: int, words: str, runs: Path, scored: Path
) -> None:
    if arguments[-2:] == ("--predict", "RUNS"):
        bad = runs.with_name("bad.csv")
        bad.write_text("params,tokens\n1,2\n0,2\n")
        arguments = (*arguments[:-1], str(bad))
        words = "row 2 of .*bad.csv has no positive number of params: 0"
    places = {"RUNS": str(runs), "SCORED": str(scored), "FOLDER": str(runs.parent)}
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
