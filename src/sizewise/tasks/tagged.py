"""Sentences with a tag for each word, in columns: one word a line, an empty line after each sentence.

The layout is that of the CoNLL shared tasks (Tjong Kim Sang & De Meulder 2003, cs/0306050): the first column is the
word, the last its tag, whatever stands between. A word may be several tokens; its tag is asked for at the first one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError
from sizewise.padding import PAD, pad
from sizewise.records import Exclusion, Reading, Signature
from sizewise.tasks import plain
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Split, Task, make_task
from sizewise.tasks.tokens import Tokens, vocabulary_of

VOCABULARY, STEPS = 4_000, 256
"""Tokens, and most tokens of a sentence, unless the study says otherwise."""

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15

PARTS = {"train": "train", "test": "test", **dict.fromkeys(("val", "valid", "validation", "dev"), "validation")}
"""What files of data that is divided already are called, and the split that each is."""

UNBROKEN = "\u00a0"
"""Stands for a space inside a word."""

DOCUMENT = "-DOCSTART-"
"""A line that begins a document and is no word."""


@dataclass(frozen=True)
class Sentence:
    """Words and the tag of each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def pieces(self) -> list[str]:
        """Each word with a space before it, which tells the tokenizer, and whoever reads tokens, where one begins."""
        return [" " + word.replace(" ", UNBROKEN) for word in self.words]


def load(path: Path, reading: Reading) -> Task:
    """Tagged words of one file, which is then divided, or of a folder of `train`, `test` and perhaps `val` (or `valid`,
    `validation`, `dev`), with any ending.

    A sentence that occurs again is left out, so that none is in two splits; of data that is divided already the test
    split keeps it. A sentence of more than `reading.steps` tokens is cut there. Both are counted.

    Raises:
        UsageError: a number of `reading` is out of range.
        DataError: a line without a tag, with its file and number; no sentences; no training or test file; one tag only.
    """
    parts, skipped = _apart(_parts(path))
    tags = tuple(sorted({tag for part in parts.values() for sentence in part for tag in sentence.tags}))
    if len(tags) < 2:
        raise DataError(f"{path} has one tag only: {', '.join(tags)!r}", hint="the last column of a line is its tag")
    splits, longest = _divided(parts), reading.steps or STEPS
    tokens = Tokens.train(("".join(sentence.pieces) for sentence in splits[0]), vocabulary_of(reading, VOCABULARY))
    encoded = [[_encoded(sentence, tokens, tags) for sentence in split] for split in splits]
    cut = sum(len(ids) > longest for split in encoded for ids, _ in split)
    if cut:
        skipped.append(Exclusion(f"sentences longer than {longest} tokens, which were cut there", cut, ()))
    steps = min(longest, max(len(ids) for split in encoded for ids, _ in split))
    size = len(tokens.vocabulary)
    signature = Signature("tagging", (steps,), len(tags) + 1, vocabulary=size, dynamic=True)
    train, validation, test = (_split(pairs, steps) for pairs in encoded)
    files = {"tokenizer.json": tokens.write()}
    return make_task(
        path.resolve().stem, str(path), ("", *tags), train, validation, test, signature=signature, skipped=skipped,
        files=files,
    )  # fmt: skip


def _encoded(sentence: Sentence, tokens: Tokens, tags: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens of a sentence, and at the first one of each word its tag, from 1; 0 at all others."""
    pieces = tokens.ids(sentence.pieces)
    targets = np.full(sum(map(len, pieces)), PAD, np.int64)
    starts = np.cumsum([0, *map(len, pieces)])[:-1]
    targets[starts] = [1 + tags.index(tag) for tag in sentence.tags]
    return np.concatenate(pieces), targets


def _split(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], steps: int) -> Split:
    return Split(pad([ids[:steps] for ids, _ in pairs], steps), pad([tags[:steps] for _, tags in pairs], steps))


def _divided(parts: Mapping[str, list[Sentence]]) -> list[list[Sentence]]:
    """Training, validation and test sentences."""
    if "validation" in parts:
        return list(parts.values())
    name = next(iter(parts))
    places = Split(np.arange(len(parts[name])), np.arange(len(parts[name])))
    if name == "all":
        return [_at(parts[name], split) for split in in_three(places, VALIDATION_SHARE, TEST_SHARE, classes=())]
    return [*(_at(parts[name], split) for split in hold_out(places, VALIDATION_SHARE, classes=())), parts["test"]]


def _at(sentences: Sequence[Sentence], places: Split) -> list[Sentence]:
    return [sentences[i] for i in places.x]


def _apart(parts: Mapping[str, Sequence[Sentence]]) -> tuple[dict[str, list[Sentence]], list[Exclusion]]:
    """Every sentence once, in the last split that has it."""
    seen: set[tuple[str, ...]] = set()
    kept: dict[str, list[Sentence]] = {}
    for name, part in reversed(list(parts.items())):
        fresh = []
        for sentence in part:
            if sentence.words not in seen:
                fresh.append(sentence)
            seen.add(sentence.words)
        kept[name] = fresh
    again = sum(map(len, parts.values())) - sum(map(len, kept.values()))
    skipped = [Exclusion("sentences that occur again, of which one was kept", again, ())] if again else []
    return {name: kept[name] for name in parts}, skipped


def _parts(path: Path) -> dict[str, list[Sentence]]:
    """The sentences of each split, the training split first and the test split last, or all of them under "all"."""
    if path.is_file():
        return {"all": _read(path)}
    files = {PARTS[file.stem.lower()]: file for file in sorted(path.iterdir()) if file.stem.lower() in PARTS}
    for needed in ("train", "test"):
        if needed not in files:
            raise DataError(
                f"{path} has no file called {needed}", hint="give train and test, or one file, which is then divided"
            )
    return {name: _read(files[name]) for name in ("train", "validation", "test") if name in files}


def _read(path: Path) -> list[Sentence]:
    sentences = list(_sentences(path))
    if not sentences:
        raise DataError(f"{path} has no sentences", hint="give one word and its tag a line, an empty line between them")
    return sentences


def _sentences(path: Path) -> Iterator[Sentence]:
    """Tabs part columns in a line that has any, spaces in any other."""
    found: list[tuple[str, str]] = []
    for number, line in enumerate(plain.read(path)[0].split("\n"), 1):
        columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
        if columns and columns[0] != DOCUMENT:
            found.append(_word(path, number, columns))
        elif found:
            yield _sentence(found)
            found = []
    if found:
        yield _sentence(found)


def _word(path: Path, number: int, columns: Sequence[str]) -> tuple[str, str]:
    if len(columns) < 2 or not columns[0] or not columns[-1]:
        raise DataError(
            f"{path}, line {number}: {' '.join(columns)!r} has no word or no tag",
            hint="the first column is the word, the last its tag; an empty line ends a sentence",
        )
    return columns[0], columns[-1]


def _sentence(found: Sequence[tuple[str, str]]) -> Sentence:
    words, tags = zip(*found, strict=True)
    return Sentence(words, tags)
