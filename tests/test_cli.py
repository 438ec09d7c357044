"""The command line as a user meets it: its words, its JSON, its exit codes, and one clear error for each mistake."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sizewise import cli

TRAIN = ("train", "digits", "--widths", "2,3", "--seeds", "2", "--epochs", "2", "--no-probes")


def sizewise(*arguments: str | Path, limit: str = "") -> subprocess.CompletedProcess[str]:
    """Run the real command; `limit` is shell code that runs before it."""
    command = [sys.executable, "-m", "sizewise.cli", *map(str, arguments)]
    if limit:
        command = ["bash", "-c", f'{limit}; exec "$@"', "bash", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same command inside this process, which has PyTorch loaded already."""
    words, out, errors = [str(word) for word in arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = cli.main(words)
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())


def refused(result: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """One clear error with a hint, the right exit code, and nothing on stdout."""
    assert result.returncode == code, result.stdout + result.stderr
    assert re.search(words, result.stderr), result.stderr
    assert result.stderr.count("error:") == 1
    assert "\nhint: " in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def numbers(record: Any) -> set[str]:
    """Every number of a JSON document as people might write it."""
    if isinstance(record, dict):
        return set().union(*map(numbers, record.values())) if record else set()
    if isinstance(record, list):
        return set().union(*map(numbers, record)) if record else set()
    if isinstance(record, bool) or not isinstance(record, int | float):
        return set(re.findall(r"\d[\d.,]*\d|\d", record)) if isinstance(record, str) else set()
    forms = {
        f"{abs(v):,.{d}f}" for v in (record, 100 * record, 1e3 * record, record / 1e3, record / 1e6) for d in range(5)
    }
    return forms | {f"{abs(record):.{d}g}" for d in range(1, 6)}


VERBS = {
    "plan": ("plan",),
    "fit": ("fit",),
    "diagnose": ("diagnose",),
    "choose": ("choose",),
    "compress": ("compress",),
    "measure": ("measure",),
    "export": ("export",),
    "report": ("report",),
}


@pytest.mark.parametrize("verb", VERBS)
def test_json_holds_the_numbers_of_the_screen(verb: str, small_study: Path) -> None:
    screen, machine = call(verb, small_study), call(verb, small_study, "--json")
    assert screen.returncode == machine.returncode
    assert screen.returncode in (0, 3), screen.stderr
    known = numbers(json.loads(machine.stdout))
    lines = [line for line in screen.stdout.splitlines() if not line.startswith("note:")]
    shown = re.findall(r"(?<![\w.-])\d+\.\d{2,}(?![\w.])", "\n".join(lines))
    # Sums, notes of ratios and times of the moment are made for the screen; all else must be in the records.
    strangers = [n for n in shown if n not in known and n.rstrip("0") not in known]
    assert not strangers, strangers


def test_train_and_compare_speak_json(tmp_path: Path) -> None:
    trained = sizewise(*TRAIN, "--out", tmp_path / "a", "--json")
    assert trained.returncode == 0, trained.stderr
    assert len(json.loads(trained.stdout)) == 4
    compared = sizewise(
        "compare", "width=3", "width=2", "--seeds", "5", "--epochs", "2", "--out", tmp_path / "b", "--json"
    )
    record = json.loads(compared.stdout)
    assert record["difference"]["n"] == 5
    assert compared.returncode == (3 if record["verdict"] == "undetermined" else 0)
    interval = record["difference"]
    assert (interval["low"] > 0) == (record["verdict"] == "a is better")


def test_run_speaks_json_and_does_nothing_twice(small_study: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small_study.rglob("run.json")}
    measured = (small_study / "measurements.json").read_bytes()
    again = call("run", small_study, "--json")
    assert again.returncode in (0, 3), again.stderr
    record = json.loads(again.stdout)
    assert {"choice", "laws", "findings", "measurements", "exports", "report"} <= record.keys()
    assert {p: p.stat().st_mtime_ns for p in small_study.rglob("run.json")} == before
    assert (small_study / "measurements.json").read_bytes() == measured


def test_a_wider_plan_trains_only_what_is_new(tmp_path: Path) -> None:
    assert sizewise(*TRAIN, "--out", tmp_path).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("run.json")}
    wider = [*TRAIN]
    wider[wider.index("--seeds") + 1] = "3"
    assert sizewise(*wider, "--out", tmp_path).returncode == 0
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("run.json")}
    assert len(before) == 4
    assert len(after) == 6
    assert {p: after[p] for p in before} == before


def test_progress_off_a_terminal_is_plain(tmp_path: Path) -> None:
    result = sizewise(*TRAIN, "--out", tmp_path)
    assert "\x1b" not in result.stdout + result.stderr
    assert "· train 4 trials" in result.stderr


def test_dry_run_and_plan_write_nothing(tmp_path: Path) -> None:
    for verb in (("run", "--dry-run"), ("train", "--dry-run"), ("plan",)):
        result = call(verb[0], "digits", *verb[1:], "--out", tmp_path / "study")
        assert result.returncode == 0, result.stderr
        assert "94 trials" in result.stdout
    assert not (tmp_path / "study").exists()


def test_help_and_version() -> None:
    helped = sizewise("--help")
    assert helped.returncode == 0
    assert all(verb in helped.stdout for verb in cli.VERBS)
    assert re.fullmatch(r"sizewise \d+\.\d+\.\d+\n", sizewise("--version").stdout)
    assert sizewise().returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("dance",), 2, "invalid choice: 'dance'"),
        (("run", "digits", "--colour", "red"), 2, "unrecognized arguments: --colour"),
        (("run", "digits", "--time", "soon"), 2, "'soon' is not a time such as 90s"),
        (("run", "digits", "--effort", "heroic"), 2, "sweep.effort is 'heroic'"),
        (("run", "digist"), 2, "there is no task"),
        (("plan", "digits", "--lr", "-1"), 2, "recipe.lr is -1.0"),
        (("plan", "digits", "--family", "cmn"), 2, "unknown family 'cmn'"),
        (("plan", "digits", "--widths", "8"), 2, "single width 8"),
        (("plan", "digits", "--max-params", "10"), 3, "the smallest size has 262 parameters, and the budget allows 10"),
        (("plan", "digits", "--max-latency-ms", "-1"), 2, "budget.max_latency_ms is -1.0"),
        (("plan", "digits", "--time", "1s"), 3, "the smallest honest plan takes about .* and the limit is 1 s"),
        (("fit", "nowhere"), 2, "there is no study in nowhere"),
        (("compare", "width=4", "depth=2"), 2, "cannot read the setting 'depth=2'"),
        (("compare", "width=4", "lr=0.1"), 2, "has no width"),
        (("serve", "nowhere"), 1, "nowhere"),
        (("plan", "mnist", "--data", "nowhere"), 1, "there is no folder nowhere"),
    ],
)
def test_mistakes_get_one_clear_error(arguments: tuple[str, ...], code: int, words: str) -> None:
    refused(call(*arguments), code, words)


def test_unknown_toml_keys(tmp_path: Path) -> None:
    toml = tmp_path / "study.toml"
    toml.write_text('task = "digits"\n[recipe]\nlearning_rat = 0.1\n')
    refused(call("plan", toml), 2, "unknown key 'recipe.learning_rat'")
    toml.write_text('task = "digits"\nmargn = 0.1\n')
    refused(call("plan", toml), 2, "unknown key 'margn'")
    assert "did you mean 'margin'?" in call("plan", toml).stderr
    toml.write_text("task = digits\n")
    refused(call("plan", toml), 2, "not valid TOML")


def test_an_unmet_minimum_is_exit_3(small_study: Path) -> None:
    result = call("run", small_study, "--min-score", "0.9999", "--out", small_study)
    assert result.returncode == 3
    assert "worse than the 99.99% asked for" in result.stdout
    call("run", small_study, "--min-score", "0.5", "--out", small_study)


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(sizewise(*TRAIN, "--out", tmp_path / "file" / "study"), 1, "cannot write .*file/study")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files through the shell")
def test_a_full_disk_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    """A limit on the size of files makes every write above it fail, as a full disk does."""
    study = tmp_path / "study"
    result = sizewise(*TRAIN, "--out", study, limit="ulimit -f 2")
    assert result.returncode == 1, result.stderr
    assert "cannot write" in result.stderr
    assert "hint: free some space" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(study.rglob("run.json"))
    assert sizewise(*TRAIN, "--out", study).returncode == 0
    assert len(list(study.rglob("run.json"))) == 4
    assert not list(study.rglob(".tmp-*"))


@pytest.mark.parametrize("name", ["run.json", "curves.jsonl", "model.safetensors", "validation.safetensors"])
def test_a_damaged_trial_is_set_aside_named_and_trained_again(name: str, tmp_path: Path) -> None:
    assert sizewise(*TRAIN, "--out", tmp_path).returncode == 0
    victim, *others = sorted((tmp_path / "trials").iterdir())
    untouched = {p: (p / "run.json").stat().st_mtime_ns for p in others}
    data = bytearray((victim / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (victim / name).write_bytes(bytes(data))
    again = sizewise(*TRAIN, "--out", tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"set aside as {victim}.damaged-1" in again.stderr
    assert (victim / "run.json").exists()
    assert {p: (p / "run.json").stat().st_mtime_ns for p in others} == untouched


def test_two_commands_do_not_share_a_folder(tmp_path: Path) -> None:
    slow = [sys.executable, "-m", "sizewise.cli", *TRAIN[:-3], "--epochs", "200", "--no-probes", "--out", str(tmp_path)]
    first = subprocess.Popen(slow, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "plan.json").exists() and first.poll() is None:
            pass
        refused(sizewise(*TRAIN, "--out", tmp_path), 1, "another sizewise process is writing")
    finally:
        first.kill()
        first.wait()
    assert sizewise(*TRAIN, "--out", tmp_path).returncode == 0


def test_a_model_folder_whose_hash_does_not_match_is_not_served(small_study: Path, tmp_path: Path) -> None:
    name = json.loads((small_study / "recommendation.json").read_text())["name"]
    folder = shutil.copytree(small_study / "models" / name, tmp_path / name)
    weights = next(p for p in sorted(folder.iterdir()) if p.name.startswith("model."))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    refused(call("serve", folder, "--port", "0"), 1, weights.name)


def test_a_users_own_family_goes_all_the_way(tmp_path: Path) -> None:
    result = sizewise(
        "run", "digits", "--family", "tests.own_family:build", "--widths", "2,4,8", "--seeds", "2", "--epochs", "3",
        "--no-probes", "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode in (0, 3), result.stderr
    assert (tmp_path / "report.html").exists()
    assert list((tmp_path / "models").glob("*/manifest.json"))


def test_a_reader_that_has_seen_enough_is_no_crash(small_study: Path) -> None:
    command = [sys.executable, "-m", "sizewise.cli", "fit", str(small_study), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.close()
        said = writer.stderr.read().decode()
    assert "Traceback" not in said
    assert writer.returncode == cli.UNREAD
