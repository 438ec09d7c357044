"""Sentences in two languages: which is translated into which, what is left out, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise import tasks
from sizewise.errors import DataError, UsageError
from sizewise.padding import BEGIN, END, lengths
from sizewise.records import Reading
from sizewise.tasks import Task
from sizewise.tasks.tokens import SMALLEST, Tokens

ENGLISH = [f"a man sees {i} dogs in the {place}" for i in range(20) for place in ("park", "house", "river")]
GERMAN = [f"ein Mann sieht {i} Hunde im {place}" for i in range(20) for place in ("Park", "Haus", "Fluß")]
READING = Reading(text="en", target="de", vocabulary=SMALLEST + 40)


def write(folder: Path, **files: list[str]) -> Path:
    """One file for each name, in which `_` stands for the last dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        stem, _, language = name.rpartition("_")
        (folder / f"{stem}.{language}").write_text("".join(f"{line}\n" for line in lines))
    return folder


def divided(folder: Path) -> Path:
    """Forty training pairs, ten for validation and ten for the test."""
    parts = {"train": slice(0, 40), "val": slice(40, 50), "test_2016_flickr": slice(50, 60)}
    files = {f"{name}_en": ENGLISH[part] for name, part in parts.items()}
    return write(folder, **files, **{f"{name}_de": GERMAN[part] for name, part in parts.items()})


def load(path: Path, reading: Reading = READING) -> Task:
    return tasks.load("parallel", path, reading)


def refuse(words: str, path: Path, reading: Reading = READING, kind: type[Exception] = DataError) -> None:
    with pytest.raises(kind, match=words) as caught:
        load(path, reading)
    assert caught.value.hint  # type: ignore[attr-defined]


def test_multi30k(shared_data: Path) -> None:
    task = load(shared_data / "multi30k", Reading(text="en", target="de", vocabulary=2000))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [29_000, 1_014, 1_000]
    assert (task.signature.vocabulary, task.signature.outputs, task.skipped) == (2000, 2000, ())
    assert task.test.references[0] == "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt."
    target = Tokens.read(task.files["target.json"])
    for split in (task.validation, task.test):
        assert [target.text(row) for row in split.y] == list(split.references)


def test_targets_begin_and_end(tmp_path: Path) -> None:
    task = load(divided(tmp_path))
    for split in (task.train, task.validation, task.test):
        assert (split.y[:, 0] == BEGIN).all()
        assert (split.y[np.arange(len(split)), lengths(split.y) - 1] == END).all()
        assert split.y.shape[1] == task.signature.target_steps
    assert task.classes[:3] == ("[PAD]", "[BEGIN]", "[END]")


def test_the_direction_is_the_users(tmp_path: Path) -> None:
    folder = divided(tmp_path)
    assert load(folder).test.references[0] == GERMAN[50]
    assert load(folder, Reading(text="de", target="en")).test.references[0] == ENGLISH[50]
    assert load(folder, Reading(text="en")).test.references[0] == GERMAN[50]
    assert load(folder, Reading(target="en")).test.references[0] == ENGLISH[50]
    refuse("has de, en, and it is not said which", folder, Reading(), UsageError)
    refuse("not said which", folder, Reading(text="en", target="en"), UsageError)
    refuse("reading.target is 'fr'", folder, Reading(text="en", target="fr"), UsageError)
    write(folder, train_fr=ENGLISH[:40])
    refuse("not said which", folder, Reading(text="en"), UsageError)
    assert load(folder).test.references[0] == GERMAN[50]


def test_gzipped_files_are_the_same(tmp_path: Path) -> None:
    plain = divided(tmp_path / "plain")
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    for path in plain.iterdir():
        (zipped / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert load(zipped).fingerprint == load(plain).fingerprint
    (zipped / "train.en.gz").write_bytes((zipped / "train.en.gz").read_bytes()[:-20])
    refuse("train.en.gz cannot be read", zipped)
    (zipped / "train.en").write_text("twice")
    refuse("are both there", zipped)


def test_one_pair_is_divided_always_alike(tmp_path: Path) -> None:
    folder = write(tmp_path, corpus_en=ENGLISH, corpus_de=GERMAN)
    (folder / "README.md").write_text("about it")
    task, again = load(folder), load(folder)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [48, 6, 6]
    assert task.fingerprint == again.fingerprint
    everything = [r for split in (task.train, task.validation, task.test) for r in split.references]
    assert sorted(everything) == sorted(GERMAN)


def test_a_table_of_two_columns(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    rows = [f"{a}\t{b}" for a, b in zip(ENGLISH, GERMAN, strict=True)]
    path.write_text("\n".join(rows))
    task = load(path, Reading())
    assert set(task.train.references) <= set(GERMAN)
    named = [f"{i}\t{b}\t{a}" for i, (a, b) in enumerate(zip(ENGLISH, GERMAN, strict=True))]
    path.write_text("\n".join(["id\tde\ten", *named, ""]))
    assert set(load(path).train.references) <= set(GERMAN)
    refuse("3 columns in line 1, and 2 are expected", path, Reading())
    refuse("reading.text is 'fr'", path, Reading(text="fr", target="de"), UsageError)
    path.write_text("\n".join([*rows[:7], "no tab here", *rows[7:]]))
    refuse("1 columns in line 8", path, Reading())


def test_counts_of_lines_that_differ(tmp_path: Path) -> None:
    write(divided(tmp_path), val_de=GERMAN[40:49])
    refuse("val.en has 10 lines and .*val.de has 9", tmp_path)


def test_empty_lines_are_counted(tmp_path: Path) -> None:
    english, german = list(ENGLISH[:40]), list(GERMAN[:40])
    english[3], german[5], english[7], german[7] = "", "  ", "", ""
    task = load(write(divided(tmp_path), train_en=english, train_de=german))
    assert [(e.reason, e.count, e.rows) for e in task.skipped] == [
        ("train: empty on one side or both, left out", 3, (4, 6, 8))
    ]
    assert len(task.train) == 37
    refuse("the test split has no pair", write(tmp_path, test_2016_flickr_en=[""] * 10))


def test_long_sentences_are_counted(tmp_path: Path) -> None:
    english, german = list(ENGLISH[:40]), list(GERMAN[:40])
    english[1] = "dogs " * 200
    validation = [*ENGLISH[40:49], "dogs " * 300]
    folder = write(divided(tmp_path), train_en=english, val_en=validation)
    task = load(folder)
    assert [(e.reason, e.count, e.rows) for e in task.skipped] == [
        ("train: more than 100 tokens, left out", 1, (2,)),
        ("validation: more than 100 tokens, cut", 1, (10,)),
    ]
    assert (len(task.train), len(task.validation), task.signature.input_shape) == (39, 10, (100,))
    assert task.train.references == tuple(german[:1] + german[2:])
    refuse("no training pair has at most 2 tokens", folder, Reading(text="en", target="de", steps=2))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = divided(tmp_path)
    (folder / "train.de").write_bytes("\n".join(GERMAN[:40]).encode("latin-1"))
    refuse("train.de is not UTF-8: byte 0xdf in line 3", folder)


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    german = [GERMAN[0], GERMAN[1] + "\u2028\x0b\x85 und mehr", *GERMAN[2:40]]
    folder = divided(tmp_path)
    (folder / "train.de").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(german).encode())
    assert load(folder).train.references == tuple(german)


def test_splits_that_are_missing_or_there_twice(tmp_path: Path) -> None:
    folder = divided(tmp_path)
    for language in ("en", "de"):
        (folder / f"val.{language}").unlink()
    assert len(load(folder).validation) == 4
    write(folder, test_other_en=ENGLISH[:2], test_other_de=GERMAN[:2])
    refuse("test_2016_flickr and test_other, both for test", folder)
    for path in folder.glob("test*"):
        path.unlink()
    write(folder, val_en=ENGLISH[:2], val_de=GERMAN[:2])
    refuse("without test", folder)
    (folder / "val.de").unlink()
    refuse("val.en has no counterpart", folder)
    refuse("no two files of one name", write(tmp_path / "empty"))
    refuse("there is no file or folder", tmp_path / "nowhere")


def test_numbers_out_of_range(tmp_path: Path) -> None:
    refuse("reading.vocabulary is 100", divided(tmp_path), Reading(text="en", vocabulary=100), UsageError)
    refuse("reading.steps is 1", tmp_path, Reading(text="en", steps=1), UsageError)


SENTENCES = st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: bool(text.strip())
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=3, max_size=12))
def test_every_sentence_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = write(tmp_path_factory.mktemp("any"), a_x=[a for a, _ in pairs], a_y=[b for _, b in pairs])
    task = load(folder, Reading(text="x", steps=10_000))
    found = [r for split in (task.train, task.validation, task.test) for r in split.references]
    assert sorted(found) == sorted(b for _, b in pairs)
