"""Text to continue: every byte of it is foretold once, in its own split, and nothing else is."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizewise import tasks
from sizewise.errors import DataError, UsageError
from sizewise.padding import BEGIN, mask
from sizewise.records import Reading
from sizewise.tasks import Split, Task
from sizewise.tasks.tokens import SMALLEST, Tokens


def load(path: Path, text: str | bytes = "", *, vocabulary: int = SMALLEST, steps: int = 8) -> Task:
    if text:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return tasks.load("language", path, Reading(vocabulary=vocabulary, steps=steps))


def refuse(words: str, path: Path, text: str | bytes = "", **reading: int) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load(path, text, **reading)
    assert caught.value.hint


def splits(task: Task) -> tuple[Split, Split, Split]:
    return task.train, task.validation, task.test


def scored(task: Task, split: Split) -> str:
    """The text of everything that is to be foretold, in order."""
    return Tokens.read(task.files["tokenizer.json"]).text(split.y[mask(split.y)])


def test_tiny_shakespeare(shared_data: Path) -> None:
    path = shared_data / "tinyshakespeare" / "input.txt"
    task = load(path, vocabulary=512, steps=128)
    assert task.signature.problem == "language modelling"
    assert task.signature.outputs == task.signature.vocabulary == len(task.classes) == 512
    assert task.signature.input_shape == (128,)
    assert task.signature.dynamic
    sizes = [sum(split.references) for split in splits(task)]
    assert sum(sizes) == path.stat().st_size
    np.testing.assert_allclose(np.array(sizes) / sum(sizes), [0.9, 0.05, 0.05], atol=0.002)
    assert scored(task, task.test) == path.read_text()[-sizes[2] :]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=20, max_size=120), st.integers(2, 9), st.sampled_from([SMALLEST, 300]))
def test_every_byte_is_foretold_once(tmp_path: Path, text: str, steps: int, vocabulary: int) -> None:
    text = "".join(c for c in text if c not in "\0\r\ufeff") + "and so on, to be long enough" * 60
    task = load(tmp_path / "any.txt", text, vocabulary=vocabulary, steps=steps)
    text = unicodedata.normalize("NFC", text)
    found = [scored(task, split) for split in splits(task)]
    assert "".join(found) == text
    assert [sum(split.references) for split in splits(task)] == [len(part.encode()) for part in found]


def test_targets_are_one_step_ahead_and_have_text_before_them(tmp_path: Path) -> None:
    task = load(tmp_path / "a.txt", "".join(chr(97 + i % 26) for i in range(800)), steps=8)
    assert task.train.x[0, 0] == task.test.x[0, 0] == BEGIN
    for split in splits(task):
        there = mask(split.y)[:, :-1]
        np.testing.assert_array_equal(split.y[:, :-1][there], split.x[:, 1:][there])
    assert mask(task.train.y)[:-1].all()
    assert not mask(task.test.y)[1:, :4].any()
    assert mask(task.test.y)[1:-1, 4:].all()


def test_a_line_is_not_cut_when_it_ends_soon(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(3000))
    task = load(tmp_path / "a.txt", text)
    assert all(scored(task, split).endswith("\n") for split in splits(task))
    assert all(scored(task, split).startswith("line ") for split in splits(task))


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    parts = {"b.txt": "second " * 60, "a.txt": "first " * 60, "deeper/c.md": "third " * 60}
    for name, text in parts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("no")
    task = load(tmp_path)
    found = "".join(scored(task, split) for split in splits(task))
    assert found == f"{parts['a.txt']}\n{parts['b.txt']}\n{parts['deeper/c.md']}\n"


def test_what_cannot_be_learned_from(tmp_path: Path) -> None:
    refuse("no files of text", tmp_path)
    path = tmp_path / "a.txt"
    refuse("not UTF-8: byte 3 is 0xe9", path, b"caf\xe9 " * 100)
    refuse("byte 2 is 0", path, b"ab\0cd" * 100)
    refuse("three parts have 18, 1, 1 tokens, and a window has 8", path, "x" * 20)
    path.write_text("")
    refuse("three parts have 0, 0, 0 tokens", path)
    with pytest.raises(UsageError, match="vocabulary is 100"):
        load(path, "text " * 100, vocabulary=100)


def test_the_tokenizer_knows_the_training_text_only(tmp_path: Path) -> None:
    task = load(tmp_path / "a.txt", "seen words\n" * 900 + "zyzzyva\n" * 60, vocabulary=300)
    assert not any("yzz" in token for token in task.classes)
    assert "zyzzyva" in scored(task, task.test)
