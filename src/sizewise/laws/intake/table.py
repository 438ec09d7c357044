"""Anyone's table of runs as evidence: which columns mean what, what cannot be used, and what is said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError, UsageError
from sizewise.laws.intake.evidence import MOST_EVIDENCE, Array, Evidence, Ints, sample
from sizewise.laws.intake.files import blocks
from sizewise.laws.intake.numbers import Numbers, written
from sizewise.records import Exclusion

VARIABLES = ("params", "samples", "compute", "unique")
COUNTS = {"total": "all parameters", "non-embedding": "parameters without embeddings"}
FLOPS = 6.0
"""Floating-point operations of training, for each parameter and sample (token)."""

CLOSE = 0.02
"""Compute this close to 6·params·samples in nearly all rows was not counted, but made from that formula."""

ODD = np.uint64(0x9E3779B97F4A7C15)

Count = Literal["total", "non-embedding"]


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what; None where there is none.

    Attributes:
        loss, error: the outcome, exactly one of them: a loss above its floor in any unit, or a share of errors.
        params, samples, compute: how large a run is, at least one of them; samples are those seen (tokens), compute is
            in floating-point operations.
        unique: different samples among those seen, beside params and samples.
        seed: tells repeats of one setting apart.
        group: rows of one group share their luck, as checkpoints of one run do; they are resampled together.
        weight: how much a row counts, positive.
        score: accuracy or share of errors beside the loss, in [0, 1], for a link between the two.
        count: which parameters `params` counts; None is unknown.
    """

    loss: str | None = None
    error: str | None = None
    params: str | None = None
    samples: str | None = None
    compute: str | None = None
    unique: str | None = None
    seed: str | None = None
    group: str | None = None
    weight: str | None = None
    score: str | None = None
    count: Count | None = None

    @property
    def metric(self) -> str:
        return "loss" if self.loss else "error"

    @property
    def sizes(self) -> dict[str, str]:
        """Columns of the variables that were given, by variable."""
        return {v: name for v in VARIABLES if (name := getattr(self, v))}

    @property
    def variables(self) -> tuple[str, ...]:
        """What the law depends on: parameters and samples where two of the three sizes say both."""
        sized = [v for v in VARIABLES[:3] if v in self.sizes]
        both = sized if len(sized) < 2 else ["params", "samples"]
        return (*both, "unique") if self.unique else tuple(both)

    def check(self) -> None:
        """
        Raises:
            UsageError: the columns do not make a law.
        """
        if bool(self.loss) == bool(self.error):
            raise UsageError(
                f"a law needs one outcome, and {'two were' if self.loss else 'none was'} given",
                hint="name the column of either the loss or the error",
            )
        if self.score and not self.loss:
            raise UsageError("a score is predicted through the loss, and none is given", hint="name its column too")
        if not self.variables or self.variables == ("unique",):
            raise UsageError("nothing says how large the runs are", hint="name a column of params, samples or compute")
        if self.unique and len(self.variables) != 3:
            raise UsageError("unique samples need params and samples beside them", hint="name those columns too")
        names = [*self.sizes.values(), self.loss or self.error, *([self.score] if self.score else [])]
        if len(set(names)) < len(names):
            raise UsageError(f"a column has two meanings: {', '.join(map(str, names))}", hint="name each column once")


def read_table(path: str | PathLike[str], columns: Columns) -> Evidence:
    """Runs of any table, one a row, as evidence for `fit_evidence`.

    Rows are numbered from 1, the first below the header (JSON lines: the first object); blank lines do not count.

    Args:
        path: .csv or .tsv with a header, .jsonl or .ndjson, .parquet (needs the extra "parquet").
        columns: what its columns mean. Numbers may be written as 1.2e9, 7B, 300M or 1,234,567, an outcome also as 12 %.

    Returns:
        Evidence with parameters and samples as its variables where two of params, samples and compute are given: the
        third follows from compute = 6·params·samples. Rows without positive, finite numbers are left out, and so are
        rows equal to an earlier one in all named columns; `excluded` says which and why, `notes` how the rest was read.

    Raises:
        UsageError: there is no such file or column, or the columns do not make a law.
        DataError: the file is damaged, mixes units, or has no row that can be used.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    columns.check()
    read = _read(Path(path), columns)
    rows, excluded = _usable(Path(path), columns, read)
    score = _scores(path, read)
    # No score equals no score, but NaN is never NaN.
    outcomes = read.numbers if score is None else read.numbers | {"score": np.where(np.isnan(score), -1.0, score)}
    again = _repeats([*outcomes.values(), *read.labels.values()], rows)
    if len(again):
        where = "" if columns.seed else "; if they are repeats, name the column of their seeds"
        excluded.append(_excluded(f"equal to an earlier row in all named columns{where}", rows[again]))
        rows = np.delete(rows, again)
    rows, times, drawn = _drawn(columns, read, rows)
    x, notes = _variables(columns, read, rows)
    y = read.numbers[columns.metric][rows]
    notes += [*drawn, *_outcome_notes(columns, y), *_score_notes(score, rows), *_row_notes(excluded)]
    return Evidence(
        metric=columns.metric,
        variables=columns.variables,
        x=x,
        y=y,
        weight=_weight(read, rows, times),
        cluster=(cluster := _clusters(read, rows)),
        stratum=_strata(x, cluster),
        label=rows + 1,
        excluded=tuple(excluded),
        notes=tuple(notes),
        score=None if score is None else score[rows],
    )


def read_points(path: str | PathLike[str], columns: Columns) -> list[dict[str, float]]:
    """Places to predict at: for each row of a table the law's variables, from the same columns as the runs'.

    Raises:
        UsageError, DataError, MissingExtraError: as `read_table`, and when a row is not positive and finite.
    """
    used = [v for v in columns.sizes if v in columns.variables or len(columns.sizes) - bool(columns.unique) < 3]
    sizes = {v: name for v, name in columns.sizes.items() if v in used}
    only = Columns(
        params=sizes.get("params"),
        samples=sizes.get("samples"),
        compute=sizes.get("compute"),
        unique=sizes.get("unique"),
    )
    read = _read(Path(path), only)
    for name, values in read.numbers.items():
        bad = np.flatnonzero(~_positive(values))
        if len(bad):
            odd = read.strange[name]
            shown = repr(odd[0]) if odd and np.isnan(values[bad[0]]) else f"{values[bad[0]]:g}"
            raise DataError(
                f"row {bad[0] + 1:,} of {path} has no positive number of {name}: {shown}",
                hint="rows are counted from the first below the header; correct it, or leave it out",
            )
    x, _ = _variables(only, read, np.arange(len(next(iter(read.numbers.values())))))
    if not len(x):
        raise DataError(f"{path} has no rows", hint="it needs one row for each prediction")
    return [dict(zip(only.variables, map(float, row), strict=True)) for row in x]


@dataclass(frozen=True)
class _Read:
    """Columns as they were read, by meaning: numbers, and labels as numbers; each (rows,)."""

    numbers: dict[str, Array]
    labels: dict[str, Ints]
    blank: dict[str, NDArray[np.bool_]]
    strange: dict[str, list[str]]
    names: dict[str, str]


def _read(path: Path, columns: Columns) -> _Read:
    outcome = {columns.metric: name} if (name := columns.loss or columns.error) else {}
    outcome |= {"score": columns.score} if columns.score else {}
    weight = {"weight": columns.weight} if columns.weight else {}
    names = columns.sizes | outcome | weight
    labels = {k: name for k in ("seed", "group") if (name := getattr(columns, k))}
    found = {k: Numbers(name, outcome=k in outcome) for k, name in names.items()}
    hashes: dict[str, list[Ints]] = {k: [] for k in labels}
    for block in blocks(path, list(dict.fromkeys([*names.values(), *labels.values()]))):
        for key, numbers in found.items():
            numbers.add(block[names[key]])
        for key, name in labels.items():
            hashes[key].append(_hashes(block[name]))
    whole = {k: np.concatenate(hashes.pop(k) or [np.zeros(0, np.int64)]) for k in labels}
    return _Read(
        numbers={k: numbers.values() for k, numbers in found.items()},
        labels={k: _by_appearance(values) for k, values in whole.items()},
        blank={k: values == hash(b"") for k, values in whole.items()},
        strange={k: numbers.strange for k, numbers in found.items()},
        names=names | labels,
    )


def _hashes(cells: Sequence[object] | NDArray[np.generic]) -> Ints:
    """64 bits for each label, since ten million of them may differ and would not fit in memory as text."""
    return np.fromiter((hash(written(cell).strip().encode()) for cell in cells), np.int64, count=len(cells))


def _by_appearance(labels: Ints) -> Ints:
    """Labels numbered from 0 as they first appear: hashes differ from one process to the next, and results must not."""
    known = np.unique(labels)
    place = np.searchsorted(known, labels)
    first = np.empty(len(known), dtype=np.int64)
    first[place[::-1]] = np.arange(len(labels) - 1, -1, -1)  # the last of these stays: where a label is first met
    return np.asarray(np.argsort(np.argsort(first))[place])


def _positive(values: Array) -> NDArray[np.bool_]:
    return np.isfinite(values) & (values > 0)


def _usable(path: Path, columns: Columns, read: _Read) -> tuple[Ints, list[Exclusion]]:
    """Rows, numbered from 0, that have all they need, and why the others do not."""
    good, excluded = np.ones(len(read.numbers[columns.metric]), dtype=bool), []
    for key, values in read.numbers.items():
        if key == "score":  # a run without one still has its loss
            continue
        named = key if read.names[key] == key else f"{key} ({read.names[key]})"
        bad = good & ~_positive(values)
        if bad.any():
            odd = read.strange[key]
            such = f", such as {' and '.join(map(repr, odd))}" if any(odd) else ""
            excluded.append(_excluded(f"{named} is not a positive number{such}", np.flatnonzero(bad)))
            good &= ~bad
    if "group" in read.blank and (bad := good & read.blank["group"]).any():
        excluded.append(_excluded(f"group ({read.names['group']}) is blank", np.flatnonzero(bad)))
        good &= ~bad
    if not len(good):
        raise DataError(f"{path} has no rows", hint="it needs one row for each run")
    if not good.any():
        why = "; ".join(f"{e.count:,} times {e.reason}" for e in excluded)
        raise DataError(f"no row of {path} can be used: {why}", hint="check which columns were named, and their units")
    return np.flatnonzero(good), excluded


def _excluded(reason: str, rows: Ints) -> Exclusion:
    return Exclusion(reason, len(rows), tuple(int(r) + 1 for r in rows[:10]))


def _repeats(values: Sequence[Array | Ints], rows: Ints) -> Ints:
    """Which of the rows equal an earlier one. Places among them, in order."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for value in values:
        # Equal rows have equal sums of products, and few others have: those are compared in full.
        mixed ^= mixed >> np.uint64(29)
        mixed *= ODD
        mixed += value[rows].view(np.uint64)
    mixed *= ODD
    ordered = np.sort(mixed)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return np.zeros(0, dtype=np.int64)
    suspects = np.flatnonzero(np.isin(mixed, twice))
    order, alike = _order(values, rows[suspects])
    return np.sort(suspects[order[1:][alike]])


def _drawn(columns: Columns, read: _Read, rows: Ints) -> tuple[Ints, Array, list[str]]:
    """The rows that are used when there are very many, how many each stands for, and a note about it."""
    if len(rows) <= MOST_EVIDENCE:
        return rows, np.ones(len(rows)), []
    scale = np.zeros(len(rows))
    for v in columns.sizes:
        scale += np.log(read.numbers[v][rows])
    picked, times = sample(scale, MOST_EVIDENCE)
    note = (
        f"{len(picked):,} of {len(rows):,} rows were drawn, fewer where sizes are crowded, and weigh as much as all of "
        "them; intervals are those of the rows drawn"
    )
    return rows[picked], times, [note]


def _order(values: Sequence[Array | Ints], rows: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """An order that brings equal rows together, earlier ones first, and for each but the first if it equals the last.

    Sorting columns costs a fraction of the memory of sorting rows.
    """
    picked = [v if len(v) == len(rows) else v[rows] for v in values]
    order = np.lexsort(picked)
    alike = np.ones(max(len(rows) - 1, 0), dtype=bool)
    for value in picked:
        alike &= value[order[1:]] == value[order[:-1]]
    return order, alike


def _variables(columns: Columns, read: _Read, rows: Ints) -> tuple[Array, list[str]]:
    """The law's variables, (rows, variables), and how they were made."""
    given = {v: read.numbers[v][rows] for v in columns.sizes}
    notes = _count_notes(columns)
    if "compute" in given and len(given) > 1:
        notes.append(_complete(given))
    elif "samples" in given and "params" in given:
        notes.append("compute, where it is spoken of, is 6·params·samples")
    elif "compute" in given:
        notes.append("compute is as given: whether it was counted or is 6·params·samples is not known")
    if "unique" in given and (more := int((given["unique"] > given["samples"]).sum())):
        given["unique"] = np.minimum(given["unique"], given["samples"])
        notes.append(f"in {more:,} rows fewer samples were seen than are unique: those seen were all different")
    return np.column_stack([given[v] for v in columns.variables]), notes


def _complete(given: dict[str, Array]) -> str:
    """Add what follows from compute, or say how compute compares with 6·params·samples."""
    if "params" not in given:
        given["params"] = given["compute"] / (FLOPS * given["samples"])
        return "params = compute / (6·samples)"
    if "samples" not in given:
        given["samples"] = given["compute"] / (FLOPS * given["params"])
        return "samples = compute / (6·params)"
    ratio = given["compute"] / (FLOPS * given["params"] * given["samples"])
    low, middle, high = map(float, np.quantile(ratio, [0.05, 0.5, 0.95]))
    if low >= 1 - CLOSE and high <= 1 + CLOSE:
        return f"compute is 6·params·samples within {max(1 - low, high - 1, 1e-3):.1%}; params and samples are used"
    return (
        f"compute was counted: {middle:.2f} [{low:.2f}, {high:.2f}] times 6·params·samples (median, 5 to 95 % of the "
        "rows); params and samples are used"
    )


def _count_notes(columns: Columns) -> list[str]:
    if "params" not in columns.sizes:
        return []
    if columns.count:
        return [f"params are {columns.count}: {COUNTS[columns.count]}"]
    return ["params are as given: whether they include embeddings is not known, and laws of the two counts differ"]


def _outcome_notes(columns: Columns, y: Array) -> list[str]:
    if columns.error and y.max() > 1:
        return [f"errors reach {y.max():g}, so they are no shares: they were read in a unit of their own"]
    return []


def _scores(path: str | PathLike[str], read: _Read) -> Array | None:
    """Scores by row, NaN where there is none.

    Raises:
        DataError: a score is outside [0, 1], or there is none at all.
    """
    if "score" not in read.numbers:
        return None
    score, name = read.numbers["score"], read.names["score"]
    outside = np.flatnonzero((score < 0) | (score > 1))
    if len(outside):
        raise DataError(
            f"row {outside[0] + 1:,} of {path} has a score ({name}) of {score[outside[0]]:g}, which is no share",
            hint="write scores from 0 to 1, or with % behind them",
        )
    if not np.isfinite(score).any():
        odd = f", such as {read.strange['score'][0]!r}" if any(read.strange["score"]) else ""
        raise DataError(f"no row of {path} has a score ({name}){odd}", hint="leave it out, or name another column")
    return score


def _score_notes(score: Array | None, rows: Ints) -> list[str]:
    if score is None or not (without := int((~np.isfinite(score[rows])).sum())):
        return []
    return [f"{without:,} of {len(rows):,} runs have no score: they speak for the law and not for the link"]


def _row_notes(excluded: Sequence[Exclusion]) -> list[str]:
    return ["rows are numbered from the first below the header"] if excluded else []


def _weight(read: _Read, rows: Ints, times: Array) -> Array:
    weight = read.numbers["weight"][rows] * times if "weight" in read.numbers else times
    return np.asarray(weight / weight.mean())


def _clusters(read: _Read, rows: Ints) -> Ints:
    return read.labels["group"][rows] if "group" in read.labels else np.arange(len(rows))


def _strata(x: Array, cluster: Ints) -> Ints:
    """The setting of each cluster's first row: clusters that begin alike are repeats of one experiment."""
    order, alike = _order(list(x.T), np.arange(len(x)))
    setting = np.empty(len(x), dtype=np.int64)
    setting[order] = np.concatenate([[0], np.cumsum(~alike)])
    if (cluster == np.arange(len(x))).all():
        return setting
    _, first, inverse = np.unique(cluster, return_index=True, return_inverse=True)
    return np.asarray(setting[first][inverse])
