"""Sentences in two languages, line by line: a folder such as `train.en`, `train.de`, `val.en`, ..., or a table.

Bytes are UTF-8. Lines end at line feeds and nowhere else, since other characters that Unicode calls line ends occur
inside sentences and would shift one side against the other.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError, UsageError
from sizewise.padding import framed, pad
from sizewise.records import Exclusion, Reading, Signature
from sizewise.tasks.splits import SEED
from sizewise.tasks.task import Split, Task, make_task
from sizewise.tasks.tokens import Tokens, vocabulary_of

VOCABULARY = 4000
STEPS = 100
"""Tokens of a language, and most tokens of a sentence, unless the study says otherwise."""

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation"}
"""What files of each name are; those that begin with "test" are the test split."""

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.1

Files = dict[str, dict[str, Path]]
"""Paths by what comes before the last dot of a file's name, and by language."""


@dataclass(frozen=True)
class Pairs:
    """Sentences of two languages.

    Attributes:
        rows: number of each pair in its file, from 1.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: NDArray[np.intp]) -> Pairs:
        """Some of the pairs, by index."""
        return Pairs([self.sources[i] for i in chosen], [self.targets[i] for i in chosen], self.rows[chosen])


def load(path: Path, reading: Reading) -> Task:
    """Sentences to translate from the language `reading.text` to `reading.target`.

    A folder has two files for each split, named SPLIT.LANGUAGE or SPLIT.LANGUAGE.gz: `train`, `val` (or `valid`,
    `validation`, `dev`) and `test...`. Without `val` a tenth of the training pairs is taken; a single pair of files of
    any name is divided. The languages are the names' endings, and one of them has to be called the source, except in a
    table (.tsv): there it is the first column, or the one of that name.

    A pair with an empty side is left out, and so is a training pair of more than `reading.steps` tokens on either side;
    a longer sentence that is to be translated is cut. All are counted. Byte-pair encodings of `reading.vocabulary`
    tokens, one for each language, are learned from the training pairs. References are the target sentences as they are.

    Raises:
        UsageError: it is not said which language is the source, or a number is out of range.
        DataError: a file is missing, damaged or no UTF-8, or the two sides have different numbers of lines.
    """
    vocabulary, steps = vocabulary_of(reading, VOCABULARY), reading.steps or STEPS
    if steps < 2:
        raise UsageError(f"reading.steps is {steps}", hint="it must be at least 2")
    parts = _divided(_from_folder(path, reading) if path.is_dir() else _from_table(path, reading))
    skipped: list[Exclusion] = []
    splits = [_without_empty(pairs, where, skipped) for where, pairs in zip(WHERE, parts, strict=True)]
    tokens = Tokens.train(splits[0].sources, vocabulary), Tokens.train(splits[0].targets, vocabulary)
    encoded = [_encoded(pairs, where, tokens, steps, skipped) for where, pairs in zip(WHERE, splits, strict=True)]
    return _task(path, encoded, tokens, skipped)


WHERE = ("train", "validation", "test")


@dataclass(frozen=True)
class Encoded:
    """Ids of each pair, shapes (tokens,), and the target sentences as they are."""

    sources: list[NDArray[np.int64]]
    targets: list[NDArray[np.int64]]
    references: tuple[str, ...]

    @property
    def longest(self) -> tuple[int, int]:
        """Most tokens of a source and of a target."""
        return max(map(len, self.sources)), max(map(len, self.targets))

    def split(self, steps: int, target_steps: int) -> Split:
        """Ids in arrays."""
        targets = [framed(ids) for ids in self.targets]
        return Split(pad(self.sources, steps), pad(targets, target_steps), self.references)


def _encoded(pairs: Pairs, where: str, tokens: tuple[Tokens, Tokens], steps: int, skipped: list[Exclusion]) -> Encoded:
    """Training pairs that are too long are left out: half a sentence is not the translation of half of the other.
    Sentences that are scored are cut, as they would be in use, and scored against their whole reference."""
    sources, targets = tokens[0].ids(pairs.sources), tokens[1].ids(pairs.targets)
    long = np.array([max(len(a), len(b)) > steps for a, b in zip(sources, targets, strict=True)])
    done = "left out" if where == "train" else "cut"
    _count(skipped, f"{where}: more than {steps} tokens, {done}", pairs.rows[long])
    kept = [i for i in range(len(pairs)) if where != "train" or not long[i]]
    if not kept:
        raise DataError(f"no training pair has at most {steps} tokens on either side", hint="raise reading.steps")
    return Encoded(
        [sources[i][:steps] for i in kept],
        [targets[i][:steps] for i in kept],
        tuple(pairs.targets[i] for i in kept),
    )


def _task(path: Path, encoded: Sequence[Encoded], tokens: tuple[Tokens, Tokens], skipped: list[Exclusion]) -> Task:
    source, target = tokens
    steps, target_steps = (max(part.longest[side] for part in encoded) for side in (0, 1))
    signature = Signature(
        "translation",
        (steps,),
        len(target.vocabulary),
        vocabulary=len(source.vocabulary),
        dynamic=True,
        target_steps=target_steps + 2,
    )
    train, validation, test = (part.split(steps, target_steps + 2) for part in encoded)
    return make_task(
        path.resolve().name if path.is_dir() else path.stem,
        str(path),
        target.vocabulary,
        train,
        validation,
        test,
        signature=signature,
        skipped=skipped,
        files={"tokenizer.json": source.write(), "target.json": target.write()},
    )


def _without_empty(pairs: Pairs, where: str, skipped: list[Exclusion]) -> Pairs:
    there = np.array([bool(a.strip()) and bool(b.strip()) for a, b in zip(pairs.sources, pairs.targets, strict=True)])
    _count(skipped, f"{where}: empty on one side or both, left out", pairs.rows[~there])
    if not there.any():
        raise DataError(f"the {where} split has no pair of sentences", hint="give each split at least one pair")
    return pairs.take(np.flatnonzero(there))


def _count(skipped: list[Exclusion], reason: str, rows: NDArray[np.int64]) -> None:
    if len(rows):
        skipped.append(Exclusion(reason, len(rows), tuple(int(row) for row in rows[:10])))


def _divided(parts: dict[str, Pairs]) -> tuple[Pairs, Pairs, Pairs]:
    """Three splits: the user's, with what is missing taken from the training pairs in a fixed random order."""
    train = parts["train"]
    missing = [(name, share) for name, share in (("validation", VALIDATION_SHARE), ("test", TEST_SHARE))
               if name not in parts]  # fmt: skip
    if len(train) <= len(missing):
        raise DataError(f"there are {len(train)} pairs of sentences", hint="give at least three")
    order, start, found = np.random.default_rng(SEED).permutation(len(train)), 0, dict(parts)
    for name, share in missing:
        count = max(1, round(share * len(train)))
        found[name] = train.take(np.sort(order[start : start + count]))
        start += count
    return train.take(np.sort(order[start:])), found["validation"], found["test"]


def _from_folder(folder: Path, reading: Reading) -> dict[str, Pairs]:
    files = _files(folder)
    source, target = _languages(folder, files, reading)
    wanted = {stem: sides for stem, sides in files.items() if source in sides or target in sides}
    for stem, sides in wanted.items():
        for language in (source, target):
            if language not in sides:
                other = next(iter(sides.values()))
                raise DataError(f"{other} has no counterpart", hint=f"add {folder / f'{stem}.{language}'}")
    named = {stem: _split_of(stem) for stem in wanted}
    if len(wanted) == 1:
        named = dict.fromkeys(wanted, "train")
    _check_splits(folder, named)
    return {split: _read(wanted[stem][source], wanted[stem][target]) for stem, split in named.items() if split}


def _check_splits(folder: Path, named: dict[str, str]) -> None:
    """Refuse a folder in which a split is missing or there twice."""
    found = [split for split in named.values() if split]
    for split in ("train", "test"):
        if split not in found and (split == "train" or len(found) > 1):
            raise DataError(
                f"{folder} has {', '.join(sorted(named))}, without {split}",
                hint="name the files train.LANGUAGE, val.LANGUAGE and test.LANGUAGE, or give one pair of files alone",
            )
    for split in found:
        stems = sorted(stem for stem, other in named.items() if other == split)
        if len(stems) > 1:
            raise DataError(f"{folder} has {' and '.join(stems)}, both for {split}", hint="keep one of them there")


def _split_of(stem: str) -> str:
    return "test" if stem.startswith("test") else SPLITS.get(stem, "")


def _files(folder: Path) -> Files:
    found: Files = {}
    for path in sorted(folder.iterdir()):
        stem, _, language = path.name.removesuffix(".gz").rpartition(".")
        if not stem or path.name.startswith(".") or not path.is_file():
            continue
        if language in found.setdefault(stem, {}):
            raise DataError(f"{path} and {found[stem][language]} are both there", hint="keep one of them")
        found[stem][language] = path
    pairs = {stem: sides for stem, sides in found.items() if len(sides) > 1 or _split_of(stem)}
    if not any(len(sides) > 1 for sides in pairs.values()):
        raise DataError(
            f"{folder} has no two files of one name in two languages",
            hint="name them as in train.en and train.de; gzipped ones end in .gz after that",
        )
    return pairs


def _languages(folder: Path, files: Files, reading: Reading) -> tuple[str, str]:
    """Source and target. It is never guessed which of two is which."""
    known = sorted({language for sides in files.values() for language in sides})
    source, target = reading.text, reading.target
    for field, language in (("text", source), ("target", target)):
        if language and language not in known:
            raise UsageError(f"reading.{field} is {language!r}", hint=f"{folder} has {', '.join(known)}")
    if len(known) == 2 and bool(source) != bool(target):
        other = next(language for language in known if language != (source or target))
        source, target = source or other, target or other
    if not source or not target or source == target:
        raise UsageError(
            f"{folder} has {', '.join(known)}, and it is not said which is translated into which",
            hint=f'say so: reading.text = "{known[0]}" and reading.target = "{known[1]}", or the other way round',
        )
    return source, target


def _read(source: Path, target: Path) -> Pairs:
    sources, targets = _lines(source), _lines(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources):,} lines and {target} has {len(targets):,}",
            hint="line N of one must be the translation of line N of the other; an empty line may stand for a lost one",
        )
    return Pairs(sources, targets, np.arange(1, len(sources) + 1))


def _from_table(path: Path, reading: Reading) -> dict[str, Pairs]:
    """A table of two columns, or one with a line of names when the columns are called by theirs."""
    rows = [line.split("\t") for line in _lines(path)]
    places, first = (0, 1), 0
    if reading.text or reading.target:
        header = rows[0] if rows else []
        for field, name in (("text", reading.text), ("target", reading.target)):
            if name not in header:
                raise UsageError(f"reading.{field} is {name!r}", hint=f"the columns of {path} are {', '.join(header)}")
        places, first = (header.index(reading.text), header.index(reading.target)), 1
    width = len(rows[0]) if first else 2
    for number, row in enumerate(rows, 1):
        if len(row) != width and row != [""]:
            raise DataError(
                f"{path} has {len(row)} columns in line {number}, and {width} are expected",
                hint="separate the two sentences by one tab; of more columns, name two by reading.text and .target",
            )
    sides = [[row[place] if len(row) == width else "" for row in rows[first:]] for place in places]
    return {"train": Pairs(sides[0], sides[1], np.arange(1 + first, len(rows) + 1))}


def _lines(path: Path) -> list[str]:
    opened: Callable[[bytes], bytes] = gzip.decompress if path.suffix == ".gz" else bytes
    try:
        content = opened(path.read_bytes()).removeprefix(b"\xef\xbb\xbf")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="repair the file, or take an intact copy") from error
    lines = content.split(b"\n")
    return [_decoded(line, path, number) for number, line in enumerate(lines if lines[-1] else lines[:-1], 1)]


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise DataError(
            f"{path} is not UTF-8: byte 0x{byte:02x} in line {number}", hint="convert the file to UTF-8 first"
        ) from error
