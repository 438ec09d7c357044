"""A table of texts and their classes, with a header or without one."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from sizewise.errors import DataError
from sizewise.records import Exclusion, Reading
from sizewise.tasks import plain

ENDINGS = (".csv", ".tsv")

TEXT_NAMES = (
    "text", "sentence", "review", "content", "comment", "message", "document", "body", "tweet", "post", "utterance",
    "question", "description", "headline", "title",
)  # fmt: skip
TARGET_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "polarity", "class index", "tag",
)  # fmt: skip
"""Usual names of columns, the likeliest first."""

LONGEST_FIELD = 1 << 27


def table(path: Path, reading: Reading) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Exclusion, ...]]:
    """Texts, the name of each one's class, and what was left out, from a file of comma-, semicolon- or tab-separated
    values; in those with tabs, quotes are characters like any other.

    Args:
        reading: `text` names the column of texts, or several whose texts are joined by a line feed: "title+body";
            `target` that of classes. "" is a usual name. Columns of a table without a header are numbers from 1.

    Raises:
        DataError: bytes that are no text, quotes that do not end, no rows, or no such column.
    """
    content, latin = plain.read(path, latin=True)
    rows = _rows(path, content)
    if not rows:
        raise DataError(f"{path} is empty", hint="give a table with a row for each text")
    texts, target, header = _columns(path, rows[0], reading)
    found: list[tuple[str, str]] = []
    ragged: list[int] = []
    empty: list[int] = []
    for number, row in enumerate(rows[header:], 1 + header):
        if len(row) != len(rows[0]):
            ragged.append(number)
            continue
        text, label = "\n".join(row[i].strip() for i in texts).strip(), row[target].strip()
        if text and label:
            found.append((text, label))
        else:
            empty.append(number)
    skipped = [plain.as_latin(path, len(rows))] if latin else []
    for what, numbers in ((f"rows without {len(rows[0])} columns", ragged), ("rows without a text or a class", empty)):
        if numbers:
            skipped.append(Exclusion(f"{what} in {path.name}", len(numbers), tuple(numbers[:10])))
    return tuple(t for t, _ in found), tuple(y for _, y in found), tuple(skipped)


def _rows(path: Path, content: str) -> list[list[str]]:
    """Every row that is not empty."""
    first = content.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    csv.field_size_limit(LONGEST_FIELD)
    lines, plainly = io.StringIO(content, newline=""), delimiter == "\t"
    reader = csv.reader(
        lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if plainly else csv.QUOTE_MINIMAL, strict=not plainly
    )
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as a table: line {reader.line_num:,}: {error}",
            hint="put texts that hold quotes into quotes, and double those inside",
        ) from error


def _columns(path: Path, first: Sequence[str], reading: Reading) -> tuple[list[int], int, bool]:
    """Places of the texts' columns and of the classes', and whether the first row is a header."""
    asked = [*(reading.text.split("+") if reading.text else []), *([reading.target] if reading.target else [])]
    names = [name.strip().lower() for name in first]
    numbered = all(name.isdecimal() for name in asked) and not set(asked) <= set(names)
    if numbered and reading.text and reading.target:
        places = [_numbered(path, name, len(first)) for name in asked]
        return places[:-1], places[-1], False
    texts = reading.text.split("+") if reading.text else [_usual(path, first, TEXT_NAMES, "text")]
    target = reading.target or _usual(path, first, TARGET_NAMES, "target")
    return [_named(path, first, name, "text") for name in texts], _named(path, first, target, "target"), True


def _numbered(path: Path, name: str, columns: int) -> int:
    if not 1 <= int(name) <= columns:
        raise DataError(f"{path} has no column {name}", hint=f"its first row has columns 1 to {columns}")
    return int(name) - 1


def _named(path: Path, first: Sequence[str], name: str, what: str) -> int:
    names = [column.strip().lower() for column in first]
    if name.strip().lower() not in names:
        raise DataError(f"{path} has no column {name!r} for reading.{what}", hint=_listed(first))
    return names.index(name.strip().lower())


def _usual(path: Path, first: Sequence[str], usual: Sequence[str], what: str) -> str:
    names = [column.strip().lower() for column in first]
    for name in usual:
        if name in names:
            return name
    raise DataError(f"{path} has no column with a usual name for reading.{what}", hint=_listed(first))


def _listed(first: Sequence[str]) -> str:
    shown = ", ".join(f"{column.strip():.30}" for column in first[:20])
    return (
        f"name them with reading.text and reading.target; its first row is: {shown}. If that is no header, "
        "give numbers from 1, several texts as 2+3"
    )
