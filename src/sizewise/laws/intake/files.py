"""Tables on disk: CSV, JSON lines and Parquet, read in blocks, so that ten million rows fit in memory."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BufferedReader
from itertools import islice
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError, UsageError, extra
from sizewise.laws.intake.numbers import Cell

Cells = Sequence[Cell] | NDArray[np.generic]
Block = Mapping[str, Cells]
"""Some rows: for each column that was asked for its cells."""

BLOCK_BYTES = 4_000_000
BLOCK_ROWS = 50_000


def blocks(path: Path, names: Sequence[str]) -> Iterator[Block]:
    """The named columns of a table, some rows at a time, without its blank lines.

    Args:
        path: .csv or .tsv with a header, .jsonl or .ndjson with one object a line, .parquet.

    Raises:
        UsageError: there is no such file, column or kind of file.
        DataError: the file is not what its name says.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is no table that can be read", hint=f"kinds of tables: {', '.join(_READERS)}")
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="check the path")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty", hint="it needs a header and rows, or one JSON object a line")
        yield from reader(path, names)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}", hint="check the file and its permissions") from error


def is_table(path: Path) -> bool:
    """Whether a name is that of a table."""
    return path.suffix.lower() in _READERS


def _check_columns(path: Path, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if known.count(name) == 1:
            continue
        if name in known:
            raise DataError(f"{path} has {known.count(name)} columns {name!r}", hint="give each column its own name")
        folded = {k.casefold(): k for k in reversed(known)}
        near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
        suggestion = f"did you mean {folded[near[0]]!r}? " if near else ""
        listed = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
        raise UsageError(f"{path} has no column {name!r}", hint=f"{suggestion}its columns: {listed}")


# ---- CSV ---------------------------------------------------------------------------------------------------------


def _csv(path: Path, names: Sequence[str]) -> Iterator[Block]:
    with path.open("rb") as file:
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        header = _header(path, file, separator)
        _check_columns(path, names, header)
        place = {name: header.index(name) for name in names}
        before = 0
        for text in _chunks(path, file):
            # Quotes may hide separators and ends of lines: from the first of them on, Python's slower reader is used.
            fields = _split(text, separator.encode(), len(header))
            if b'"' not in text and fields is not None:
                before += len(fields) // len(header)
                yield {name: fields[place[name] :: len(header)] for name in names}
                continue
            quoted = b'"' in text
            lines = _lines(path, text.splitlines(keepends=True), file if quoted else ())
            for rows in _batches(path, csv.reader(lines, delimiter=separator), len(header), before):
                before += len(rows)
                yield {name: [row[place[name]] for row in rows] for name in names}
            if quoted:
                return


def _header(path: Path, file: BufferedReader, separator: str) -> list[str]:
    if b"\0" in file.peek(4096):
        raise DataError(f"{path} is not a text file", hint="save it as CSV in UTF-8")
    lines = _lines(path, (), file)
    try:
        cells = next(csv.reader(lines, delimiter=separator), [])
    except csv.Error as error:
        raise DataError(f"{path} has no readable header: {error}", hint="save it as CSV in UTF-8") from error
    header = [cell.removeprefix("\ufeff").strip() for cell in cells]
    if len(header) == 1 and separator == "," and any(mark in header[0] for mark in ";\t"):
        raise DataError(
            f"the columns of {path} are not separated by commas: its first line is {header[0][:80]!r}",
            hint="save it with commas between columns and points in decimals, or name it .tsv if tabs separate them",
        )
    if not any(header):
        raise DataError(f"the first line of {path} is blank", hint="it must name the columns")
    return header


def _chunks(path: Path, file: BufferedReader) -> Iterator[bytes]:
    """The rest of a file in pieces that end where a line ends."""
    while text := file.read(BLOCK_BYTES):
        text += file.readline()
        if b"\0" in text:
            raise DataError(f"{path} is not a text file", hint="save it as CSV in UTF-8")
        yield text.replace(b"\r\n", b"\n")


def _split(text: bytes, separator: bytes, width: int) -> list[bytes] | None:
    """All fields of a piece without quotes, row by row; None when not every line has as many as the header."""
    lines = text.removesuffix(b"\n").split(b"\n")
    if set(map(methodcaller("count", separator), lines)) != {width - 1} or (width == 1 and b"" in lines):
        return None
    return separator.join(lines).split(separator)


def _lines(path: Path, first: Iterable[bytes], rest: Iterable[bytes]) -> Iterator[str]:
    try:
        for part in (first, rest):
            for line in part:
                yield line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}", hint="save it as CSV in UTF-8") from error


def _batches(path: Path, rows: Iterator[list[str]], width: int, before: int) -> Iterator[list[list[str]]]:
    """Rows some at a time, each checked to have as many cells as the header; `before` rows have been read already."""
    filled = (row for row in rows if row)
    try:
        while batch := list(islice(filled, BLOCK_ROWS)):
            for i, row in enumerate(batch):
                if len(row) != width:
                    raise DataError(
                        f"row {before + i + 1:,} of {path} has {len(row)} cells and its header {width}",
                        hint="rows are counted from the first below the header; quote cells that contain commas",
                    )
            before += len(batch)
            yield batch
    except csv.Error as error:
        raise DataError(f"{path} cannot be read below row {before:,}: {error}", hint="check its quotes") from error


# ---- JSON lines --------------------------------------------------------------------------------------------------


def _json_lines(path: Path, names: Sequence[str]) -> Iterator[Block]:
    missing: set[str] = set(names)
    known: set[str] = set()
    with path.open("rb") as file:
        objects = _objects(path, file)
        while batch := list(islice(objects, BLOCK_ROWS)):
            if missing:
                known |= {key for item in batch for key in item}
                missing -= known
            yield {name: [item.get(name) for item in batch] for name in names}
    if known:
        _check_columns(path, sorted(missing), sorted(known))


def _objects(path: Path, file: BufferedReader) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:  # also what is not UTF-8
            raise DataError(
                f"line {number:,} of {path} is not JSON: {error}", hint="write one object a line"
            ) from error
        if not isinstance(found, dict):
            kind = "list" if isinstance(found, list) else "value"
            raise DataError(f"line {number:,} of {path} is a {kind}, not an object", hint="write one object a line")
        yield found


# ---- Parquet -----------------------------------------------------------------------------------------------------


def _parquet(path: Path, names: Sequence[str]) -> Iterator[Block]:
    with extra("parquet", needed_for="reading Parquet"):
        import pyarrow
        from pyarrow import parquet
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, names, file.schema_arrow.names)
            for batch in file.iter_batches(BLOCK_ROWS, columns=list(names)):
                yield {name: _cells(batch.column(name)) for name in names}
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}", hint="write it again") from error


def _cells(column: Any) -> Cells:
    array: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)  # a null among numbers becomes NaN
    return array if array.dtype.kind in "iuf" else list(array)


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Block]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
