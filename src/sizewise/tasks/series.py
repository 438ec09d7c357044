"""A table of measurements over time, .csv or .tsv: one row a step, or one row a sample."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sizewise import padding
from sizewise.errors import DataError, UsageError
from sizewise.records import Exclusion, Reading, Signature
from sizewise.tasks.splits import hold_out, in_three
from sizewise.tasks.task import Split, Task, check_classes, make_task

SAMPLE, STEP, TARGET, SPLIT = ("sample", "id"), ("step", "time"), ("target", "label", "class"), ("split",)
"""Names of the columns that are no channels."""

PARTS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}
"""What the column `split` may hold."""

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15
LARGEST = float(np.finfo(np.float32).max)
WHOLE, NUMBERED = re.compile(r"[+-]?\d+"), re.compile(r"(.*?)[._ ]?(\d+)")


def load(path: Path, reading: Reading) -> Task:
    """Series from a table with a header.

    In long form each row is one step of one sample: the columns `sample` (or `id`) and `step` (or `time`) say which,
    and samples may have different numbers of steps. Without these two columns the table is in wide form, one row a
    sample, its steps side by side. There columns that are all called after a channel and a step, such as `x_0`, `x_1`,
    `y_0`, `y_1`, are several channels; any others are the steps of one. Empty cells at the end of a row make its series
    shorter.

    The target is the column `reading.target`, or the one called `target`, `label` or `class`: classes if it holds text
    or whole numbers without a decimal point, otherwise numbers to learn. A column `split` holds `train`, `test` and
    perhaps `validation`. Series longer than `reading.steps` are cut, and counted.

    Raises:
        UsageError: there is no such target.
        DataError: an empty table, a cell that is no number, with its row and column, a sample whose target or split
            changes, two rows of one step, or a class or a split that is missing.
    """
    table = _read(path)
    columns = _Columns.of(table, reading.target)
    samples = list(_long(table, columns) if columns.step else _wide(table, columns))
    samples, skipped = _cut(samples, reading.steps)
    x, dynamic = _together([sample.steps for sample in samples])
    y, classes = _targets(table, [sample.target for sample in samples])
    whole = Split(x, y)
    signature = Signature(
        "classification" if classes else "regression", tuple(x.shape[1:]), len(classes) or 1, dynamic=dynamic
    )
    splits = _splits(table, whole, [sample.part for sample in samples], classes)
    return make_task(path.stem, str(path), classes, *splits, signature=signature, skipped=skipped)


@dataclass(frozen=True)
class _Table:
    """A header and rows, each with the number of its line in the file."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def where(self, line: int, column: int) -> str:
        return f"{self.path}, row {line}, column {self.header[column]!r}"


@dataclass(frozen=True)
class _Columns:
    """Where in a row things stand; None is nowhere.

    Attributes:
        values: the columns of each channel in long form (one each), or of each channel's steps in wide form.
    """

    target: int
    sample: int | None
    step: int | None
    split: int | None
    values: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, table: _Table, target: str) -> _Columns:
        """The columns by their names."""
        names = [name.lower() for name in table.header]
        found = _target(table, names, target)
        sample, step = _first(names, SAMPLE, found), _first(names, STEP, found)
        split = _first(names, SPLIT, found)
        left = [i for i in range(len(names)) if i not in (found, sample, step, split)]
        if sample is None and step is not None:
            raise DataError(
                f"{table.path} has a column {table.header[step]!r}, and none called {' or '.join(SAMPLE)}",
                hint="name the column that says which sample a row belongs to",
            )
        if not left:
            raise DataError(f"{table.path} has no columns of measurements", hint="give at least one")
        return cls(found, sample, step, split, _channels(table, left) if step is None else tuple((i,) for i in left))


@dataclass(frozen=True)
class _Sample:
    """One series: numbers (steps, channels), its target as it is written, and the split it belongs to."""

    target: tuple[int, str]
    part: tuple[int, str]
    steps: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))


def _read(path: Path) -> _Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            lines = [(reader.line_num, tuple(cell.strip() for cell in row)) for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}", hint="save it as CSV in UTF-8") from error
    if len(lines) < 2:
        raise DataError(f"{path} has {len(lines)} rows", hint="give a header and one row for each step or sample")
    (_, header), *rows = lines
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DataError(f"{path} has two columns {doubled[0]!r}", hint="give each column a name of its own")
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {line} has {len(row)} cells, its header {len(header)}", hint="repair or remove the row"
            )
    return _Table(path, header, tuple(rows))


def _first(names: Sequence[str], wanted: Sequence[str], target: int) -> int | None:
    return next((names.index(name) for name in wanted if name in names and names.index(name) != target), None)


def _target(table: _Table, names: Sequence[str], wanted: str) -> int:
    if wanted in table.header:
        return table.header.index(wanted)
    usual = [names.index(name) for name in TARGET if name in names]
    if wanted or not usual:
        raise UsageError(
            f"{table.path} has no column {wanted or TARGET[0]!r}",
            hint=f"name what is to be learned: --target with one of {', '.join(table.header)}",
        )
    return usual[0]


def _channels(table: _Table, columns: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Columns of a wide table by channel, each channel's in the order of its steps."""
    matches = [NUMBERED.fullmatch(table.header[i]) for i in columns]
    groups: dict[str, list[tuple[int, int]]] = {}
    for column, match in zip(columns, matches, strict=True):
        if match:
            groups.setdefault(match[1], []).append((int(match[2]), column))
    steps = {tuple(sorted(step for step, _ in group)) for group in groups.values()}
    if not all(matches) or len(steps) != 1:
        return (tuple(columns),)
    return tuple(tuple(column for _, column in sorted(group)) for group in groups.values())


def _long(table: _Table, columns: _Columns) -> Iterator[_Sample]:
    """Samples of a long table, in the order in which they first occur."""
    assert columns.sample is not None
    assert columns.step is not None
    samples: dict[str, _Sample] = {}
    steps: dict[str, dict[float, list[float]]] = {}
    for line, row in table.rows:
        name = row[columns.sample]
        sample = _sample(line, row, columns)
        _check_same(table, columns, name, samples.setdefault(name, sample), sample)
        at = _number(table, line, row, columns.step)
        if at in steps.setdefault(name, {}):
            raise DataError(
                f"{table.where(line, columns.step)}: sample {name!r} has two rows for {row[columns.step]}",
                hint="give each step of a sample one row",
            )
        steps[name][at] = [_number(table, line, row, column) for (column,) in columns.values]
    for name, sample in samples.items():
        yield replace(sample, steps=np.array([steps[name][at] for at in sorted(steps[name])], np.float32))


def _wide(table: _Table, columns: _Columns) -> Iterator[_Sample]:
    """Samples of a wide table, one a row."""
    for line, row in table.rows:
        by_step = list(zip(*columns.values, strict=True))
        while by_step and not any(row[column] for column in by_step[-1]):
            by_step.pop()
        if not by_step:
            raise DataError(f"{table.path}, row {line} has no values", hint="remove the row")
        values = [[_number(table, line, row, column) for column in step] for step in by_step]
        yield replace(_sample(line, row, columns), steps=np.array(values, np.float32))


def _sample(line: int, row: tuple[str, ...], columns: _Columns) -> _Sample:
    return _Sample((line, row[columns.target]), (line, "" if columns.split is None else row[columns.split].lower()))


def _check_same(table: _Table, columns: _Columns, name: str, first: _Sample, again: _Sample) -> None:
    pairs = ((columns.target, first.target, again.target), (columns.split, first.part, again.part))
    for column, (line, said), (here, found) in pairs:
        if column is not None and found != said:
            raise DataError(
                f"{table.where(here, column)}: {found!r}, though sample {name!r} has {said!r} in row {line}",
                hint="repeat a sample's target and split in all of its rows",
            )


def _number(table: _Table, line: int, row: tuple[str, ...], column: int) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = float("nan")
    if not abs(value) <= LARGEST:
        what = f"{row[column]!r} is no number" if row[column] else "the cell is empty"
        raise DataError(
            f"{table.where(line, column)}: {what}", hint="fill it in, or leave out the row, sample or column"
        )
    return value


def _cut(samples: list[_Sample], steps: int) -> tuple[list[_Sample], tuple[Exclusion, ...]]:
    """The samples with at most `steps` steps; 0 is no limit."""
    longer = [sample for sample in samples if steps and len(sample.steps) > steps]
    if not longer:
        return samples, ()
    rows = tuple(sample.target[0] for sample in longer[:10])
    samples = [replace(sample, steps=sample.steps[:steps]) for sample in samples]
    return samples, (
        Exclusion(f"series with more than {steps:,} steps, of which the rest was cut off", len(longer), rows),
    )


def _together(series: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], bool]:
    """All series in one array, and whether they differ in length and are therefore padded."""
    if len({len(steps) for steps in series}) == 1:
        return np.stack(series), False
    return padding.pad(series), True


def _targets(
    table: _Table, cells: Sequence[tuple[int, str]]
) -> tuple[NDArray[np.float32] | NDArray[np.int64], tuple[str, ...]]:
    """Indices of classes (n,) with the classes' names, or numbers (n, 1) and no classes."""
    empty = next((line for line, cell in cells if not cell), None)
    if empty:
        raise DataError(f"{table.path}, row {empty}: the target is empty", hint="fill it in, or leave the sample out")
    names = {cell for _, cell in cells}
    if all(WHOLE.fullmatch(name) for name in names):
        classes = sorted(names, key=int)
    elif all(_is_number(name) for name in names):
        return np.array([[float(cell)] for _, cell in cells], np.float32), ()
    else:
        classes = sorted(names)
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[cell] for _, cell in cells], np.int64), tuple(classes)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _splits(
    table: _Table, whole: Split, parts: Sequence[tuple[int, str]], classes: tuple[str, ...]
) -> tuple[Split, Split, Split]:
    """The table's own division, or a stratified one."""
    if classes:
        check_classes(str(table.path), whole.y, classes)
    if not any(name for _, name in parts):
        return in_three(whole, VALIDATION_SHARE, TEST_SHARE, classes=classes)
    for line, name in parts:
        if name not in PARTS:
            raise DataError(f"{table.path}, row {line}: the split is {name!r}", hint=f"write one of {', '.join(PARTS)}")
    number = np.array([PARTS[name] for _, name in parts])
    train, validation, test = (whole.take(np.flatnonzero(number == i)) for i in range(3))
    for name, split in {"train": train, "test": test}.items():
        if not len(split):
            raise DataError(f"{table.path} has a column 'split' without {name!r}", hint="give train and test samples")
    if not len(validation):
        train, validation = hold_out(train, VALIDATION_SHARE, classes=classes)
    return train, validation, test
