"""Utterances: tables of what is said, and spoken digits that are joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.sounds import takes, tone, write

from sizewise import tasks
from sizewise.errors import DataError
from sizewise.padding import lengths
from sizewise.records import Reading
from sizewise.tasks import Task, utterances
from sizewise.tasks.audio import STEP_MS


def load(path: Path, steps: int = 0) -> Task:
    return tasks.load("utterances", path, Reading(steps=steps))


def splits(task: Task) -> tuple[tasks.Split, ...]:
    return task.train, task.validation, task.test


def said(task: Task, split: tasks.Split) -> list[str]:
    return [" ".join(task.classes[i] for i in row if i) for row in split.y]


def table(folder: Path, lines: list[str], header: str = "path,text", name: str = "transcripts.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return folder


def spoken(folder: Path, count: int = 20) -> list[str]:
    """Sounds of 0.5 s and their lines of a table."""
    for i in range(count):
        write(folder / "clips" / f"{i}.wav", tone(0.5, pitch=200 + 40 * i))
    return [f"clips/{i}.wav,{'Left right' if i % 2 else 'stop'}" for i in range(count)]


def test_a_table_of_paths_and_words(tmp_path: Path) -> None:
    task = load(table(tmp_path, spoken(tmp_path)))
    assert task.classes == ("", "left", "right", "stop")
    assert task.signature.problem == "transcription"
    assert task.signature.outputs == 4
    assert task.signature.input_shape == (50, 41)
    assert [len(split) for split in splits(task)] == [14, 3, 3]
    assert {text for split in splits(task) for text in said(task, split)} == {"left right", "stop"}
    assert not task.skipped
    assert task.fingerprint == load(tmp_path).fingerprint


def test_a_table_with_tabs_that_names_the_splits(tmp_path: Path) -> None:
    parts = ["train"] * 10 + ["val"] * 6 + ["test"] * 4
    lines = [line.replace(",", "\t") + f"\t{part}" for line, part in zip(spoken(tmp_path), parts, strict=True)]
    task = load(table(tmp_path, lines, "path\ttext\tsplit", "transcripts.tsv"))
    assert [len(split) for split in splits(task)] == [10, 6, 4]


def test_lines_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    lines = spoken(tmp_path)
    (tmp_path / "clips" / "0.wav").write_bytes(b"")
    lines[1] = "clips/1.wav,"
    lines[2] = "clips/none.wav,stop"
    lines[3] = "clips/3.wav," + "left " * 6
    task = load(table(tmp_path, lines))
    assert sum(map(len, splits(task))) == 16
    assert {(e.reason, e.rows) for e in task.skipped} == {
        ("cannot be read as sound: clips/0.wav", (1,)),
        ("has no words: clips/1.wav", (2,)),
        ("is in the table and nowhere else: clips/none.wav", (3,)),
        ("has more than ten words a second: clips/3.wav", (4,)),
    }


def test_utterances_beyond_the_limit_are_left_out_and_not_cut(tmp_path: Path) -> None:
    lines = spoken(tmp_path)
    write(tmp_path / "clips" / "5.wav", tone(0.7))
    task = load(table(tmp_path, lines), steps=60)
    assert sum(map(len, splits(task))) == 19
    assert [e.reason for e in task.skipped] == ["is longer than 60 steps: clips/5.wav"]


@pytest.mark.parametrize(
    ("header", "lines", "words"),
    [
        ("file,text", ["clips/0.wav,stop"], "no column 'path'; its columns are file, text"),
        ("path,text", [], "names no sound that is there"),
        ("path,text", ["clips/0.wav,stop"], "leaves the .* split empty"),
        ("path,text,split", ["clips/0.wav,stop,dev"], "row 1: the split 'dev'"),
        ("path,text,split", ["clips/0.wav,stop,train", "clips/1.wav,stop,"], "gives 1 utterances no split"),
        ("path,text,split", ["clips/0.wav,stop,train", "clips/1.wav,stop,train"], "leaves the test split empty"),
    ],
)
def test_tables_that_say_too_little(tmp_path: Path, header: str, lines: list[str], words: str) -> None:
    spoken(tmp_path, 2)
    with pytest.raises(DataError, match=words) as caught:
        load(table(tmp_path, lines, header))
    assert caught.value.hint


def test_a_table_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "transcripts.csv").write_bytes(b"path,text\n\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8"):
        load(tmp_path)


def test_neither_a_table_nor_takes(tmp_path: Path) -> None:
    for name in ("a/1.wav", "b/1.wav"):
        write(tmp_path / name)
    with pytest.raises(DataError, match="says neither"):
        load(tmp_path)


def test_single_words_are_joined_without_a_take_in_two_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[set[str]] = []
    spoken_by = utterances._spoken

    def spy(part, *rest):  # type: ignore[no-untyped-def]
        heard.append({recording.name for recording in part})
        return spoken_by(part, *rest)

    monkeypatch.setattr(utterances, "_spoken", spy)
    task = load(takes(tmp_path, count=12))
    train, validation, test = heard
    assert not train & validation
    assert not (train | validation) & test
    assert test == {f"{label}_{who}_{take}.wav" for label in "ab" for who in ("ann", "bob") for take in range(5)}
    assert task.classes == ("", "a", "b")
    for split, names in zip(splits(task), heard, strict=True):
        words = lengths(split.y)
        assert words.max() <= utterances.WORDS[1]
        assert words.sum() == utterances.USES * len(names), "each take is used as often as another"


def test_an_utterance_has_frames_for_its_words_and_pauses(tmp_path: Path) -> None:
    task = load(takes(tmp_path))
    assert task.fingerprint == load(tmp_path).fingerprint
    for split in splits(task):
        words, steps = lengths(split.y), lengths(split.x)
        pauses = utterances.PAUSE[1] * 1000 / STEP_MS * (words + 1)
        assert (steps >= 20 * words).all()
        assert (steps <= 30 * words + pauses + 1).all()


def test_joined_utterances_end_before_the_limit(tmp_path: Path) -> None:
    task = load(takes(tmp_path), steps=80)
    assert task.signature.input_shape[0] <= 80
    assert all(lengths(split.y).min() >= 1 for split in splits(task))


def test_the_spoken_digits_in_a_row(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utterances, "USES", 1)  # a seventh of the utterances, in a seventh of the time
    task = load(shared_data / "fsdd" / "recordings.zip")
    assert task.classes == ("", *"0123456789")
    assert task.signature.input_shape[0] <= 500
    assert [int(lengths(split.y).sum()) for split in splits(task)] == [2295, 405, 300]
    counts = np.bincount(task.test.y[task.test.y > 0])
    assert (counts[1:] == 30).all()
