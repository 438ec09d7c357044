"""Texts and their classes: a table, or a folder with one file of lines for each class; divided, where names say so.

Texts are read without regard to capitals and as tokens of a tokenizer that is trained on the training split. No text is
in two splits: what occurs more than once is kept once, and in data that is divided already the test split keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sizewise.errors import DataError
from sizewise.padding import pad
from sizewise.records import Exclusion, Reading, Signature
from sizewise.tasks import plain
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.table import ENDINGS, table
from sizewise.tasks.task import Split, Task, make_task
from sizewise.tasks.tokens import Tokens, vocabulary_of

VOCABULARY = 8_000
STEPS = (8, 256)
"""Tokens that are read of a text unless the user says otherwise: the power of two that holds the training split's
longest text, within these."""

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15

DIVIDED = {"train": "train", "test": "test", **dict.fromkeys(("val", "valid", "validation", "dev"), "validation")}
"""What files or folders of data that is divided already are called, and the split that each is."""

ABOUT = ("readme", "license", "licence", "copying")
"""Files beside the data that are no data."""


@dataclass(frozen=True)
class Texts:
    """Texts with the name of each one's class, and what was left out of them."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    skipped: tuple[Exclusion, ...] = ()

    def __add__(self, other: Texts) -> Texts:
        return Texts(self.texts + other.texts, self.labels + other.labels, self.skipped + other.skipped)

    def only(self, kept: Sequence[bool], why: str) -> Texts:
        """Those that are `kept`; the others are counted under the reason `why`."""
        pairs = [pair for pair, keep in zip(zip(self.texts, self.labels, strict=True), kept, strict=True) if keep]
        lost = len(self.texts) - len(pairs)
        skipped = self.skipped + ((Exclusion(why, lost, ()),) if lost else ())
        return Texts(tuple(text for text, _ in pairs), tuple(label for _, label in pairs), skipped)


def load(path: Path, reading: Reading) -> Task:
    """Texts of a table (.csv, .tsv) or of a folder.

    A folder holds one file for each class, a text a line, named as `pos.txt` or as `reviews.pos`; or a table; or all of
    that in parts called train, test and perhaps val (valid, validation, dev), as files or folders.

    Args:
        reading: `text` and `target` name the columns, see `table.table`; `vocabulary` is at least 259; of a text
            the first `steps` tokens are read.

    Raises:
        UsageError: a vocabulary that is too small.
        DataError: no texts, bytes that are no text, columns that are not there, or a split that lacks a class.
    """
    parts = _parts(path, reading)
    parts = {"all": _once(parts["all"])} if "all" in parts else _apart(parts)
    names = sorted({label for part in parts.values() for label in part.labels}, key=_number_or_name)
    if "train" in parts:
        _check_known(parts)
    return _task(path, tuple(names), parts, reading)


def _task(path: Path, classes: tuple[str, ...], parts: Mapping[str, Texts], reading: Reading) -> Task:
    """Divide, train the tokenizer on the training split, and turn every text into tokens."""
    texts = [text for part in parts.values() for text in part.texts]
    train, validation, test = _divided(classes, parts)
    tokens = Tokens.train((texts[i] for i in train.x), vocabulary_of(reading, VOCABULARY), lower=True)
    ids = tokens.ids(texts)
    steps = reading.steps or _power_of_two(max(len(ids[i]) for i in train.x))
    long = sum(len(one) > steps for one in ids)
    x = pad([one[:steps] for one in ids], steps)
    skipped = [exclusion for part in parts.values() for exclusion in part.skipped]
    if long:
        skipped.append(Exclusion(f"texts longer than {steps} tokens, which were cut there", long, ()))
    signature = Signature("classification", (steps,), len(classes), vocabulary=len(tokens.vocabulary), dynamic=True)
    splits = (Split(x[split.x], split.y) for split in (train, validation, test))
    name, files = path.resolve().stem, {"tokenizer.json": tokens.write()}
    return make_task(name, str(path), classes, *splits, signature=signature, skipped=skipped, files=files)


def _divided(classes: tuple[str, ...], parts: Mapping[str, Texts]) -> tuple[Split, Split, Split]:
    """Training, validation and test splits of places in all texts, with their classes."""
    numbers, split, start = {name: i for i, name in enumerate(classes)}, {}, 0
    for name, part in parts.items():
        y = np.array([numbers[label] for label in part.labels], np.int64)
        split[name] = Split(np.arange(start, start + len(y)), y)
        start += len(y)
    if "all" in split:
        return in_three(split["all"], VALIDATION_SHARE, TEST_SHARE, classes=classes)
    train, test = split["train"], split["test"]
    train, validation = (
        (train, split["validation"]) if "validation" in split else hold_out(train, VALIDATION_SHARE, classes=classes)
    )
    return train, validation, test


def _power_of_two(longest: int) -> int:
    """The least one of at least `longest`, within the limits."""
    low, high = STEPS
    return min(high, max(low, 1 << (longest - 1).bit_length()))


def _parts(path: Path, reading: Reading) -> dict[str, Texts]:
    """The texts of each split, or all of them under "all"."""
    inside = {_stem(entry): entry for entry in _entries(path)} if path.is_dir() else {}
    divided = {DIVIDED[name]: entry for name, entry in inside.items() if name in DIVIDED}
    if len(divided) < 2:
        return {"all": _texts(path, reading)}
    for needed in ("train", "test"):
        if needed not in divided:
            raise DataError(
                f"{path} is divided into {', '.join(sorted(divided))}, without {needed}",
                hint=f"add {needed}, or give one table or one file a class, which are then divided here",
            )
    return {name: _texts(divided[name], reading) for name in ("train", "validation", "test") if name in divided}


def _texts(path: Path, reading: Reading) -> Texts:
    """The texts of one table, or of a folder of them or of a file of lines a class."""
    files = [path] if path.is_file() else [entry for entry in _entries(path) if entry.is_file()]
    tables = [file for file in files if file.suffix.lower() in ENDINGS]
    if not tables:
        return _of_lines(path, files)
    found = Texts((), ())
    for file in tables:
        found += Texts(*table(file, reading))
    return found


def _of_lines(folder: Path, files: Sequence[Path]) -> Texts:
    """One file for each class, a text a line."""
    if len(files) < 2:
        raise DataError(
            f"{folder} has {len(files)} files of text" + (f": {files[0].name}" if files else ""),
            hint="give one file for each class, a text a line, or a table (.csv, .tsv) with a column of classes",
        )
    found = Texts((), ())
    for name, file in zip(_class_names(files), files, strict=True):
        text, latin = plain.read(file, latin=True)
        lines = [line.strip() for line in text.split("\n")]
        lines = lines[:-1] if lines[-1] == "" else lines
        skipped = [plain.as_latin(file, len(lines))] if latin else []
        empty = [number for number, line in enumerate(lines, 1) if not line]
        skipped += [Exclusion(f"empty lines in {file.name}", len(empty), tuple(empty[:10]))] if empty else []
        lines = [line for line in lines if line]
        found += Texts(tuple(lines), (name,) * len(lines), tuple(skipped))
    return found


def _class_names(files: Sequence[Path]) -> tuple[str, ...]:
    """What tells the files apart: their stems, or their endings where the stems are alike, as in `reviews.pos`."""
    stems, endings = tuple(file.stem for file in files), tuple(file.suffix.lstrip(".") for file in files)
    for names in (stems, endings):
        if len(set(names)) == len(files):
            return names
    return tuple(file.name for file in files)


def _once(part: Texts) -> Texts:
    """Each text once, and none that has two classes: then no text is in two splits, whatever the division."""
    classes: dict[str, set[str]] = {}
    for text, label in zip(part.texts, part.labels, strict=True):
        classes.setdefault(_same(text), set()).add(label)
    part = part.only([len(classes[_same(text)]) == 1 for text in part.texts], "texts that occur with several classes")
    return part.only(_first(map(_same, part.texts)), "texts that occur again; the first of each was kept")


def _apart(parts: Mapping[str, Texts]) -> dict[str, Texts]:
    """Parts of data that is divided already, without the texts that a later one, and so the test split, has too."""
    seen: set[str] = set()
    kept = {}
    for name in ("test", "validation", "train"):
        if name in parts:
            fresh = [_same(text) not in seen for text in parts[name].texts]
            seen |= {_same(text) for text in parts[name].texts}
            kept[name] = parts[name].only(fresh, f"texts of the {name} split that are in another split, too")
    if "validation" not in kept:  # it is still to be taken from the training split
        kept["train"] = _once(kept["train"])
    return {name: kept[name] for name in parts}


def _check_known(parts: Mapping[str, Texts]) -> None:
    known = set(parts["train"].labels)
    for name, part in parts.items():
        if strangers := sorted(set(part.labels) - known):
            raise DataError(
                f"the {name} split has the class {strangers[0]!r}, which the training split lacks",
                hint="give every split the same classes",
            )


def _same(text: str) -> str:
    """What texts have in common that count as one: capitals and spaces aside."""
    return " ".join(text.split()).casefold()


def _first(keys: Iterable[str]) -> list[bool]:
    seen: set[str] = set()
    return [not (key in seen or seen.add(key)) for key in keys]  # type: ignore[func-returns-value]


def _number_or_name(label: str) -> tuple[bool, float, str]:
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, hidden things and files about the data left alone."""
    entries = sorted(folder.iterdir())
    return [e for e in entries if not e.name.startswith(".") and not e.name.lower().startswith(ABOUT)]


def _stem(entry: Path) -> str:
    return (entry.stem if entry.is_file() else entry.name).lower()
