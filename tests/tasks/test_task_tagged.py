"""Words and their tags: files as users have them, what is asked at which token, and how answers are scored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise import check_task, tasks
from sizewise.errors import DataError, SizewiseError, UsageError
from sizewise.padding import mask
from sizewise.records import Reading, Signature
from sizewise.tasks import Split, Task
from sizewise.tasks.problems import make
from sizewise.tasks.problems.tagging import entities
from sizewise.tasks.tokens import BEGINS_WORD, Tokens

BYTES = Reading(vocabulary=259)
NAMES = ("", "O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORDS = st.lists(
    st.text(st.characters(blacklist_categories=["Z", "C"]), min_size=1, max_size=6), min_size=1, max_size=5
)


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def lines(count: int, mark: str = "x") -> str:
    """Sentences of two words, all different."""
    return "".join(f"the DT\n{mark}{i} NN\n\n" for i in range(count))


def capitals(text: str) -> Iterator[str]:
    """Real sentences in small letters, each word tagged with how it was written: to learn where capitals belong."""
    for line in text.splitlines():
        words = re.findall(r"[A-Za-z']+|[.,;:!?]", line)
        yield "".join(f"{word.lower()}\t{'Capital' if word[0].isupper() else 'small'}\n" for word in words)


def refuse(kind: type[SizewiseError], words: str, path: Path, reading: Reading = BYTES) -> None:
    with pytest.raises(kind, match=words) as caught:
        tasks.load("tagged", path, reading)
    assert caught.value.hint


def read_back(task: Task, split: Split) -> list[tuple[list[str], list[str]]]:
    """Words and tags of each sample, from tokens and targets alone."""
    tokens = Tokens.read(task.files["tokenizer.json"])
    words = [tokens.text(row).split() for row in split.x]
    return [(one, [task.classes[i] for i in row[row > 0]]) for one, row in zip(words, split.y, strict=True)]


def test_a_file_is_divided_and_every_word_keeps_its_tag(tmp_path: Path) -> None:
    task = tasks.load(str(write(tmp_path / "words.conll", "-DOCSTART- -X- O\n\n" + lines(40) + "\n\n")))
    assert task.classes == ("", "DT", "NN")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [28, 6, 6]
    found = [pair for split in (task.train, task.validation, task.test) for pair in read_back(task, split)]
    assert sorted(found) == sorted((["the", f"x{i}"], ["DT", "NN"]) for i in range(40))
    assert all(check.passed for check in check_task(task))


def test_tabs_part_columns_that_hold_spaces(tmp_path: Path) -> None:
    content = "1\tNew York\tNNP\n".replace("1\t", "") + "is\tVBZ\n\n" + lines(20).replace(" ", "\t")
    task = tasks.load("tagged", write(tmp_path / "a.tsv", content), BYTES)
    words = [
        word
        for split in (task.train, task.validation, task.test)
        for pair in read_back(task, split)
        for word in pair[1]
    ]
    assert words.count("NNP") == 1


def test_a_folder_is_divided_by_its_files_and_no_sentence_is_in_two_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", lines(30) + lines(4, "y"))
    write(tmp_path / "dev.txt", lines(5, "z") + lines(2))
    write(tmp_path / "test.txt", lines(6, "y"))
    task = tasks.load("tagged", tmp_path, BYTES)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [28, 7, 6]
    assert [(e.reason, e.count) for e in task.skipped] == [("sentences that occur again, of which one was kept", 6)]


def test_long_sentences_are_cut_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", lines(20) + "word NN\n" * 50)
    task = tasks.load("tagged", path, Reading(vocabulary=259, steps=12))
    assert task.signature.input_shape == (12,)
    assert [(e.reason, e.count) for e in task.skipped] == [("sentences longer than 12 tokens, which were cut there", 1)]


def test_bad_files_are_named_with_the_line(tmp_path: Path) -> None:
    refuse(
        DataError,
        r"a\.conll, line 4: 'alone' has no word or no tag",
        write(tmp_path / "a.conll", "a X\nb Y\n\nalone\n"),
    )
    refuse(DataError, "no sentences", write(tmp_path / "b.conll", "\n\n"))
    refuse(DataError, "one tag only: 'X'", write(tmp_path / "c.conll", "a X\n\nb X\n\nc X\n"))
    refuse(DataError, "no file called train", write(tmp_path / "d" / "test.txt", lines(3)).parent)
    refuse(DataError, "needs at least", write(tmp_path / "e.conll", "a X\n\nb Y\n"))
    refuse(UsageError, "vocabulary is 12", write(tmp_path / "f.conll", lines(9)), Reading(vocabulary=12))


@given(sentences=st.lists(WORDS, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_word_begins_where_its_first_token_says_so(sentences: list[list[str]]) -> None:
    """Whoever serves a tagger finds the words of a sentence again in its tokens."""
    tokens = Tokens.train(["the quick brown fox, don't you know"], 300)
    for words in sentences:
        pieces = tokens.ids([f" {word}" for word in words])
        whole = tokens.ids(["".join(f" {word}" for word in words)])[0]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
        begins = [tokens.vocabulary[i].startswith(BEGINS_WORD) for i in whole]
        np.testing.assert_array_equal(np.flatnonzero(begins), np.cumsum([0, *map(len, pieces)])[:-1])


TAGS = st.lists(st.sampled_from(NAMES[1:]), min_size=1, max_size=12)


def test_entities_are_read_as_the_shared_task_reads_them() -> None:
    assert list(entities(["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-PER"])) == [
        (0, 2, "PER"),
        (3, 4, "LOC"),
        (4, 5, "LOC"),
        (5, 6, "PER"),
    ]


@given(tags=TAGS)
def test_entities_part_a_sentence(tags: list[str]) -> None:
    """They lie one after the other and cover what is not O; each begins with a new one or another kind before it."""
    found = list(entities(tags))
    assert [i for start, end, _ in found for i in range(start, end)] == [i for i, tag in enumerate(tags) if tag != "O"]
    for start, end, kind in found:
        assert {tag[2:] for tag in tags[start:end]} == {kind}
        assert not any(tag.startswith("B-") for tag in tags[start + 1 : end])


@given(pairs=st.lists(st.tuples(TAGS, st.integers(0, 2**32 - 1)), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_metrics_are_the_means_of_what_sentences_contribute(pairs: list[tuple[list[str], int]]) -> None:
    steps = max(len(tags) for tags, _ in pairs)
    y, said = np.zeros((2, len(pairs), steps), np.int64)
    for i, (tags, seed) in enumerate(pairs):
        y[i, : len(tags)] = [NAMES.index(tag) for tag in tags]
        said[i] = np.where(np.random.default_rng(seed).random(steps) < 0.5, np.maximum(y[i], 1), 1)
    problem = make(Signature("tagging", (steps,), len(NAMES), vocabulary=9, dynamic=True), NAMES, metric="entity F1")
    judged = problem.judge(said, Split(y, y))
    assert judged.values["accuracy"] == pytest.approx((said == y)[mask(y)].mean())
    assert judged.values["entity F1"] == pytest.approx(_entity_f1(said, y))
    perfect = problem.judge(np.maximum(y, 1), Split(y, y)).values
    assert perfect == pytest.approx({"accuracy": 1, "F1": 1, "entity F1": 1})


def _entity_f1(said: np.ndarray, y: np.ndarray) -> float:
    """Written as its definition reads."""
    ours, theirs = (
        {(i, *e) for i in range(len(y)) for e in entities([NAMES[c] for c in rows[i][y[i] > 0]])} for rows in (said, y)
    )
    return 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 1.0


def test_series_have_a_class_at_each_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 6, 2)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.int64)
    x[::3, 4:] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=y, layout="series", classes=np.array(["down", "up"]))
    task = tasks.load(str(tmp_path / "a.npz"))
    assert (task.signature.problem, task.classes) == ("tagging", ("", "down", "up"))
    for split in (task.train, task.validation, task.test):
        np.testing.assert_array_equal(split.y, np.where(mask(split.x), 1 + (split.x[..., 0] > 0), 0))


def test_where_capitals_belong_is_learned_from_real_text(shared_data: Path, tmp_path: Path) -> None:
    import torch

    from sizewise.loop import Data, Start, train_one
    from sizewise.records import Recipe, Trial
    from sizewise.store import Store

    torch.set_num_threads(1)
    text = (shared_data / "tinyshakespeare" / "input.txt").read_text()[:120_000]
    path = write(tmp_path / "capitals.conll", "\n".join(capitals(text)))
    task = tasks.load("tagged", path, Reading(vocabulary=1000))
    trial = Trial(task.name, task.fingerprint, "gru", 24, 1.0, Recipe(lr=0.01, epochs=3), 0)
    run = train_one(trial, Data.of(task), Store(tmp_path / "study"), Start())
    usual = (task.validation.y == task.classes.index("small")).sum() / mask(task.validation.y).sum()
    assert run.validation.values["accuracy"] > 1 - 0.6 * (1 - usual)
    assert run.validation.values["F1"] > 0.7
