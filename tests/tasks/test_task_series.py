"""Tables of series: long and wide, whole and with cells that are no numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise import tasks
from sizewise.errors import DataError, UsageError
from sizewise.records import Reading
from sizewise.tasks import Task

Rows = Sequence[Sequence[object]]


def save(folder: Path, header: str, rows: Rows, name: str = "series.csv") -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerows([header.split(), *rows])
    return path


def load(path: Path, **reading: object) -> Task:
    return tasks.load("series", path, Reading(**reading))  # type: ignore[arg-type]


def refuse(words: str, path: Path, **reading: object) -> None:
    with pytest.raises((DataError, UsageError), match=words) as caught:
        load(path, **reading)
    assert caught.value.hint


def long(samples: int = 20, steps: int = 3) -> list[list[object]]:
    """Rows `sample step x y label`; x is 10·sample + step, y its negative."""
    return [
        [f"s{i}", t, 10 * i + t, -(10 * i + t), "up" if i % 2 else "down"] for i in range(samples) for t in range(steps)
    ]


LONG = "sample step x y label"


def values(task: Task) -> dict[float, list[list[float]]]:
    """Every series by its first number."""
    return {float(row[0, 0]): row.tolist() for split in (task.train, task.validation, task.test) for row in split.x}


def test_a_long_table_has_one_row_a_step(tmp_path: Path) -> None:
    task = load(save(tmp_path, LONG, long()))
    assert (task.signature.layout, task.signature.input_shape, task.signature.dynamic) == ("series", (3, 2), False)
    assert task.classes == ("down", "up")
    assert values(task)[70.0] == [[70, -70], [71, -71], [72, -72]]


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    rows = long()
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert values(load(save(tmp_path, LONG, shuffled))) == values(load(save(tmp_path, LONG, rows, "a.csv")))


def test_tabs_other_names_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = save(tmp_path, "ID Time x y Class", long(), "series.tsv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert values(load(path)) == values(load(save(tmp_path, LONG, long())))


@given(lengths=st.lists(st.integers(1, 5), min_size=8, max_size=16))
@settings(max_examples=15, deadline=None)
def test_samples_may_have_different_numbers_of_steps(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    lengths = [*lengths, 2, 4]
    rows = [[i, t, 100 + i, i % 2] for i, steps in enumerate(lengths) for t in range(steps)]
    task = load(save(tmp_path_factory.mktemp("dynamic"), "sample step x label", rows))
    assert task.signature.dynamic
    assert task.signature.input_shape == (max(lengths), 2)
    found = {
        int(row[0, 0]) - 100: int(row[:, -1].sum()) for s in (task.train, task.validation, task.test) for row in s.x
    }
    assert found == dict(enumerate(lengths))


def test_a_wide_table_has_one_row_a_sample(tmp_path: Path) -> None:
    rows = [[i, i + 1, i + 2, i % 2] for i in range(0, 40)]
    task = load(save(tmp_path, "monday tuesday wednesday label", rows))
    assert task.signature.input_shape == (3, 1)
    assert values(task)[7.0] == [[7], [8], [9]]


def test_columns_called_after_channel_and_step_are_channels(tmp_path: Path) -> None:
    rows = [[i, i + 1, i + 0.5, i + 1.5, i % 2] for i in range(40)]
    task = load(save(tmp_path, "x_1 x_0 y_0 y_1 label", rows))
    assert values(task)[8.0] == [[8, 7.5], [7, 8.5]]


def test_empty_cells_at_the_end_make_a_series_shorter(tmp_path: Path) -> None:
    rows = [[i, i, "" if i % 3 else i, i % 2] for i in range(40)]
    task = load(save(tmp_path, "a b c label", rows))
    assert task.signature.dynamic
    assert values(task)[4.0] == [[4, 1], [4, 1], [0, 0]]


def test_whole_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    rows = [[i, i, (1, 2, 10)[i % 3]] for i in range(60)]
    assert load(save(tmp_path, "a b label", rows)).classes == ("1", "2", "10")


def test_numbers_with_a_point_are_learned_as_numbers(tmp_path: Path) -> None:
    rows = [[i, i, f"{i}.5"] for i in range(60)]
    task = load(save(tmp_path, "a b weight", rows), target="weight")
    assert (task.signature.problem, task.signature.outputs, task.classes) == ("regression", 1, ())
    assert task.metric.name == "MSE"
    np.testing.assert_allclose(task.test.y[:, 0], task.test.x[:, 0, 0] + 0.5)
    assert [len(s) for s in (task.train, task.validation, task.test)] == [42, 9, 9]


def test_a_column_says_the_split(tmp_path: Path) -> None:
    parts = ["train"] * 30 + ["val"] * 10 + ["Test"] * 20
    rows = [[i, i, i % 2, part] for i, part in enumerate(parts)]
    task = load(save(tmp_path, "a b label split", rows))
    assert [len(s) for s in (task.train, task.validation, task.test)] == [30, 10, 20]
    assert task.test.x[:, 0, 0].tolist() == list(range(40, 60))
    fewer = [row for row in rows if row[-1] != "val"]
    task = load(save(tmp_path, "a b label split", fewer))
    assert len(task.train) + len(task.validation) == 30
    refuse("without 'test'", save(tmp_path, "a b label split", rows[:40]))
    refuse("row 2: the split is 'first'", save(tmp_path, "a b label split", [[1, 1, 1, "first"], *rows]))


def test_long_series_are_cut_and_counted(tmp_path: Path) -> None:
    rows = long()
    rows += [["s3", t, 0, 0, "up"] for t in (3, 4)]
    task = load(save(tmp_path, LONG, rows), steps=3)
    assert task.signature.input_shape == (3, 2)
    (cut,) = task.skipped
    assert (cut.count, cut.rows) == (1, (11,))
    assert load(save(tmp_path, LONG, rows)).skipped == ()


@pytest.mark.parametrize(
    ("cell", "words"),
    [("", "the cell is empty"), ("n/a", "'n/a' is no number"), ("nan", "'nan' is no"), ("1e99", "'1e99' is no")],
)
def test_cells_that_are_no_numbers_have_a_row_and_a_column(tmp_path: Path, cell: str, words: str) -> None:
    rows = long()
    rows[4][3] = cell
    refuse(f"row 6, column 'y': {words}", save(tmp_path, LONG, rows))
    rows = [[1, 2, 3, i % 2] for i in range(20)]
    rows[4][1] = cell  # type: ignore[call-overload]
    refuse(f"row 6, column 'b': {words}", save(tmp_path, "a b c label", rows))


def test_a_gap_inside_a_wide_series(tmp_path: Path) -> None:
    refuse("row 2, column 'b': the cell is empty", save(tmp_path, "a b c label", [[1, "", 3, 0], [1, 2, 3, 1]]))
    refuse("row 2 has no values", save(tmp_path, "a b label", [["", "", 0], [1, 2, 1]]))


def test_what_contradicts_itself(tmp_path: Path) -> None:
    refuse(
        "row 4, column 'label': 'up', though sample 's0' has 'down' in row 2",
        save(tmp_path, LONG, [*long()[:2], ["s0", 2, 1, 1, "up"]]),
    )
    refuse("row 4, column 'step': sample 's0' has two rows for 1", save(tmp_path, LONG, [*long()[:2], long()[1]]))


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("a b label", [], "has 1 rows"),
        ("a a label", [[1, 2, 0]], "two columns 'a'"),
        ("a b label", [[1, 2, 0], [1, 2]], "row 3 has 2 cells, its header 3"),
        ("a b label", [[1, 2, ""]], "row 2: the target is empty"),
        ("label split", [[1, "train"]], "no columns of measurements"),
        ("step x label", [[1, 2, 0]], "a column 'step', and none called sample or id"),
        ("a b", [[1, 2]], "no column 'target'"),
        ("a b label", [[i, i, "same"] for i in range(9)], "one class only: 'same'"),
        ("a b label", [[1, 2, "x"], [1, 2, "y"], [1, 2, "y"], [1, 2, "y"]], "class 'x' has 1 examples"),
    ],
)
def test_tables_that_cannot_be_learned_from(tmp_path: Path, header: str, rows: Rows, words: str) -> None:
    refuse(words, save(tmp_path, header, rows))


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    refuse("no column 'wieght'", save(tmp_path, "a b weight", [[1, 2, 3]]), target="wieght")


def test_an_empty_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(b"")
    refuse("has 0 rows", path)
    path.write_bytes(b"\xff\xfe\x00a,b")
    refuse("cannot be read as a table", path)
    refuse("cannot be read as a table", tmp_path)
