"""Anyone's table becomes evidence: numbers as people write them, three kinds of files, a clear word on bad rows."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.errors import DataError, MissingExtraError, SizewiseError, UsageError
from sizewise.laws import Columns, Evidence, fit_evidence, read_points, read_table
from sizewise.laws.intake import files, table
from sizewise.laws.intake.numbers import parse

BOTH = Columns(loss="loss", params="params", samples="tokens")


def write(folder: Path, text: str, name: str = "runs.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def grid(header: str = "params,tokens,loss", rows: int = 6) -> str:
    """A table of different runs."""
    return "\n".join([header, *(f"{10**i},{20 * 10**i},{3 - i / 10}" for i in range(1, rows + 1)), ""])


# ---- numbers -----------------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_as_it_was_written(value: float) -> None:
    assert parse(repr(value)) == (value, "")


@given(st.integers())
def test_commas_between_thousands_change_nothing(value: int) -> None:
    assert parse(f"{value:,}")[0] == float(value)


@given(
    st.integers(0, 10**6),
    st.integers(0, 999),
    st.sampled_from([("K", 3), ("M", 6), ("B", 9), ("G", 9), ("T", 12)]),
    st.booleans(),
    st.sampled_from(["", " "]),
)
def test_a_suffix_multiplies(whole: int, part: int, unit: tuple[str, int], lower: bool, gap: str) -> None:
    letter, power = unit
    value, suffix = parse(f"{whole}.{part:03d}{gap}{letter.lower() if lower else letter}")
    assert suffix == letter
    assert value == pytest.approx((whole + part / 1000) * 10.0**power)


@given(st.floats(0, 1e4))
def test_percent_is_a_share(value: float) -> None:
    assert parse(f"{value:.6f} %") == (pytest.approx(float(f"{value:.6f}") / 100), "%")


@given(st.text())
def test_any_text_is_a_number_or_nan(text: str) -> None:
    value, suffix = parse(text)
    assert isinstance(value, float)
    assert suffix in {"", "K", "M", "B", "G", "T", "%"}


@pytest.mark.parametrize(
    "text", ["", " ", "7KB", "7 MiB", "1,23,456", "1,2", "7BB", "B", "1e3M", "0x10", "seven", "1 2", "--1"]
)
def test_what_is_no_number(text: str) -> None:
    assert np.isnan(parse(text)[0])


# ---- the real tables ---------------------------------------------------------------------------------------------


def test_the_public_run_sets_are_read_whole(shared_data: Path) -> None:
    for path in sorted((shared_data / "scaling" / "runs").glob("*.csv")):
        found = read_table(path, BOTH)
        expected = np.loadtxt(path, delimiter=",", skiprows=1)
        kept = found.label - 1
        assert (np.column_stack([found.x, found.y]) == expected[kept]).all()
        left_out = sum(e.count for e in found.excluded)
        assert len(kept) + left_out == len(expected)
        assert len(np.unique(expected, axis=0)) == len(kept)


def test_samples_follow_from_compute(shared_data: Path) -> None:
    columns = Columns(loss="loss", params="Model Size", compute="Training FLOP")
    found = read_table(shared_data / "scaling" / "chinchilla_fig4.csv", columns)
    assert found.variables == ("params", "samples")
    assert len(found.y) == 245
    assert 6 * found.x[0].prod() == pytest.approx(9.992853e18, rel=1e-3)
    assert "samples = compute / (6·params)" in found.notes


def test_one_variable_is_enough(shared_data: Path) -> None:
    columns = Columns(error="Loss", samples="Seen Examples", group="Model")
    found = read_table(shared_data / "scaling" / "learning_curves.csv", columns)
    assert found.variables == ("samples",)
    assert found.metric == "error"
    assert 1 < found.clusters < len(found.y)


# ---- what the columns mean ---------------------------------------------------------------------------------------


def sized(folder: Path, factor: float) -> Evidence:
    rows = [f"{n},{20 * n},{factor * 120 * n * n},{3 - 0.1 * i}" for i, n in enumerate((10**3, 10**4, 10**5))]
    path = write(folder, "\n".join(["n,d,c,loss", *rows]))
    return read_table(path, Columns(loss="loss", params="n", samples="d", compute="c", count="total"))


def test_compute_is_compared_with_six_n_d(tmp_path: Path) -> None:
    assert any("within" in note for note in sized(tmp_path, 1.01).notes)
    assert any("counted: 1.31 [1.31, 1.31] times" in note for note in sized(tmp_path, 1.31).notes)
    assert "params are total: all parameters" in sized(tmp_path, 1.0).notes


def test_params_follow_from_compute(tmp_path: Path) -> None:
    path = write(tmp_path, "d,c,loss\n10,600,3\n100,6e6,2\n")
    found = read_table(path, Columns(loss="loss", samples="d", compute="c"))
    assert found.x.tolist() == [[10, 10], [10_000, 100]]


def test_unique_samples_are_at_most_those_seen(tmp_path: Path) -> None:
    path = write(tmp_path, "n,d,u,loss\n10,600,100,3\n100,50,100,2\n")
    found = read_table(path, Columns(loss="loss", params="n", samples="d", unique="u"))
    assert found.variables == ("params", "samples", "unique")
    assert found.x[:, 2].tolist() == [100, 50]
    assert any("in 1 rows fewer samples" in note for note in found.notes)


def test_weights_have_mean_one_and_groups_are_clusters(tmp_path: Path) -> None:
    path = write(tmp_path, "n,loss,w,run\n1e3,3,1,a\n1e4,2,3,a\n1e3,3.1,2,b\n1e4,2.1,2,b\n")
    found = read_table(path, Columns(loss="loss", params="n", weight="w", group="run"))
    assert found.weight.tolist() == [0.5, 1.5, 1, 1]
    assert found.cluster.tolist() == [0, 0, 1, 1]
    assert len(set(found.stratum.tolist())) == 1


def test_repeats_of_a_setting_are_a_stratum(tmp_path: Path) -> None:
    path = write(tmp_path, "n,loss,s\n1e4,3,0\n1e3,3.2,0\n1e4,3.1,1\n")
    found = read_table(path, Columns(loss="loss", params="n", seed="s"))
    assert found.stratum[0] == found.stratum[2] != found.stratum[1]
    assert found.clusters == 3


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (Columns(params="params"), "none was given"),
        (Columns(loss="loss", error="loss", params="params"), "two were given"),
        (Columns(loss="loss"), "nothing says how large"),
        (Columns(loss="loss", params="params", unique="tokens"), "need params and samples"),
        (Columns(loss="loss", params="params", samples="params"), "two meanings"),
        (Columns(loss="loss", params="parms"), "no column 'parms'"),
        (Columns(loss="loss", params="params", group="gruop"), "no column 'gruop'"),
    ],
)
def test_columns_that_make_no_law(columns: Columns, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        read_table(write(tmp_path, grid()), columns)


def test_a_near_name_is_suggested_and_all_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path, grid("Params,tokens,loss"))
    with pytest.raises(UsageError, match=r"did you mean 'Params'.*its columns: Params, tokens, loss"):
        read_table(path, BOTH)


# ---- kinds of files ----------------------------------------------------------------------------------------------

ROWS = [("7B", "1.4T", "2.1"), ("300M", "6,000,000,000", "3.2"), ("1e6", "2e7", "5.5")]
VALUES = [[7e9, 1.4e12, 2.1], [3e8, 6e9, 3.2], [1e6, 2e7, 5.5]]


def same(found: Evidence) -> None:
    assert np.column_stack([found.x, found.y]) == pytest.approx(np.array(VALUES))
    assert found.excluded == ()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(end: str, mark: str, tmp_path: Path) -> None:
    lines = ["params,tokens,loss,name", *(",".join(f'"{c}"' for c in row) + ',"a ""b"", c"' for row in ROWS)]
    path = tmp_path / "runs.csv"
    path.write_bytes((mark + end.join(lines)).encode())
    same(read_table(path, BOTH))


def test_tsv_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "params\ttokens\tloss\n" + "\n\n".join("\t".join(row) for row in ROWS) + "\n\n", "runs.tsv")
    found = read_table(path, BOTH)
    same(found)
    assert found.label.tolist() == [1, 2, 3]


def test_json_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"params": n, "tokens": d, "loss": float(y), "note": [1]}) for n, d, y in ROWS]
    same(read_table(write(tmp_path, "\n".join(lines) + "\n\n", "runs.jsonl"), BOTH))


def test_json_lines_may_lack_values(tmp_path: Path) -> None:
    lines = ['{"params": 1e3, "tokens": 10}', '{"params": 1e3, "tokens": true, "loss": 3}']
    lines += ['{"params": [1], "tokens": 10, "loss": 3}', '{"params": 1e3, "tokens": 10, "loss": 3}']
    found = read_table(write(tmp_path, "\n".join(lines), "runs.jsonl"), BOTH)
    assert found.label.tolist() == [4]
    assert sum(e.count for e in found.excluded) == 3


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "params": pyarrow.array([7 * 10**9, 3 * 10**8, 10**6, None]),
        "tokens": pyarrow.array([row[1] for row in ROWS] + ["1T"]),
        "loss": pyarrow.array([2.1, 3.2, 5.5, 3.0]),
    }
    path = tmp_path / "runs.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    found = read_table(path, BOTH)
    assert np.column_stack([found.x, found.y]) == pytest.approx(np.array(VALUES))
    assert found.excluded[0].rows == (4,)
    with pytest.raises(UsageError, match="no column 'n'"):
        read_table(path, Columns(loss="loss", params="n"))
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_table(path, BOTH)


def test_parquet_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sizewise\[parquet\]'"):
        read_table(write(tmp_path, "PAR1", "runs.parquet"), BOTH)


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes and blank lines anywhere, in blocks of a few lines: the same as in one block."""
    lines = [f'{i},"{20 * i}",{3 + 1 / i}' if i % 50 == 49 else f"{i},{20 * i},{3 + 1 / i}" for i in range(1, 200)]
    path = write(tmp_path, "params,tokens,loss\n" + "\n".join(lines) + "\n")
    whole = read_table(path, BOTH)
    monkeypatch.setattr(files, "BLOCK_BYTES", 100)
    monkeypatch.setattr(files, "BLOCK_ROWS", 3)
    pieces = read_table(path, BOTH)
    assert (whole.x == pieces.x).all()
    assert whole.x[:, 0].tolist() == list(range(1, 200))
    assert (whole.label == pieces.label).all()


def test_many_rows_fit_in_memory(tmp_path: Path) -> None:
    """200 bytes a row would be the limit for ten million rows in 2 GB."""
    rng = np.random.default_rng(0)
    rows = 300_000
    path = tmp_path / "runs.csv"
    np.savetxt(path, rng.uniform(1, 2, (rows, 3)), fmt="%.8f", delimiter=",", header="params,tokens,loss", comments="")
    tracemalloc.start()
    found = read_table(path, BOTH)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.y) == rows
    assert peak < 150 * rows + 16 * files.BLOCK_BYTES


# ---- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("runs.csv", "", DataError, "is empty"),
        ("runs.csv", "params,tokens,loss\n", DataError, "has no rows"),
        ("runs.jsonl", "\n", DataError, "has no rows"),
        ("runs.csv", "\nparams,tokens,loss\n1,2,3", DataError, "first line .* is blank"),
        ("runs.csv", "params,tokens,loss\n1,2,3\n1,2\n", DataError, "row 2 .* has 2 cells and its header 3"),
        ("runs.csv", "params,tokens,loss\n1,2,3,4\n1,2\n", DataError, "row 1 .* has 4 cells and its header 3"),
        ("runs.csv", 'params,tokens,loss\n1,2,3\n"1",2\n', DataError, "row 2 .* has 2 cells"),
        ("runs.csv", "params,tokens,loss,loss\n1,2,3,4\n", DataError, "2 columns 'loss'"),
        ("runs.csv", "params;tokens;loss\n1;2;3,4\n", DataError, "not separated by commas"),
        ("runs.csv", "1,2,3\n4,5,6\n", UsageError, "no column 'params'"),
        ("runs.xlsx", "x", UsageError, "no table that can be read"),
        ("runs.jsonl", '{"params": 1}\n{"params": \n', DataError, "line 2 .* is not JSON"),
        ("runs.jsonl", "[1, 2]\n", DataError, "line 1 .* is a list"),
        ("runs.csv", "params,tokens,loss\nx,2,3\n1,2,-3\n", DataError, "no row of .* such as 'x'"),
        (
            "runs.csv",
            "params,tokens,loss\n7B,2,3\n70,2,3\n",
            DataError,
            "mixes units.*7e\\+09 in row 1 and 70 in row 2",
        ),
        ("runs.csv", "params,tokens,loss\n7B,2,12 %\n8B,2,0.1\n", DataError, "column 'loss' mixes units"),
    ],
)
def test_a_bad_file_is_one_clear_error(
    name: str, text: str, error: type[SizewiseError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words) as caught:
        read_table(write(tmp_path, text, name), BOTH)
    assert caught.value.hint


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 100, b"params,tokens,loss\n" + b"1,2,\x00\n", "params\n".encode("utf-16")]
)
def test_a_binary_file_is_no_table(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match="is not a text file"):
        read_table(path, BOTH)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes("params,tokens,löss\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_table(path, BOTH)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_table(tmp_path / "runs.csv", BOTH)


@pytest.mark.parametrize("cell", ["0", "-1", "nan", "inf", "", "7KB", "n/a", "5 %"])
def test_a_bad_value_is_left_out_and_reported(cell: str, tmp_path: Path) -> None:
    found = read_table(write(tmp_path, f"{grid()}{cell},10,2\n"), BOTH)
    assert len(found.y) == 6
    assert [(e.count, e.rows) for e in found.excluded] == [(1, (7,))]
    assert "params is not a positive number" in found.excluded[0].reason
    assert any("numbered from the first below the header" in note for note in found.notes)


def test_a_decimal_comma_is_no_thousand(tmp_path: Path) -> None:
    found = read_table(write(tmp_path, f'{grid()}10,10,"2,574"\n'), BOTH)
    assert found.excluded[0].rows == (7,)


def test_duplicates_are_left_out_and_reported(tmp_path: Path) -> None:
    text = grid("params,tokens,loss") + "10,200,2.9\n100,2000,9\n10,200,2.9\n"
    found = read_table(write(tmp_path, text), BOTH)
    assert found.label.tolist() == [1, 2, 3, 4, 5, 6, 8]
    assert found.excluded[0].rows == (7, 9)
    assert "name the column of their seeds" in found.excluded[0].reason


def test_repeats_are_found_as_sorting_finds_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{10 ** rng.integers(3)},{2 ** rng.integers(9)},{rng.integers(1, 4)}" for _ in range(300)]
    found = read_table(write(tmp_path, "\n".join(["params,tokens,loss", *rows])), BOTH)
    assert [r + 1 for r, row in enumerate(rows) if row not in rows[:r]] == list(found.label)


def test_of_very_many_rows_a_sample_stands_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_EVIDENCE", 100)
    rows = [f"{1000 + i},{2000 + i},{2 + i / 1000}" for i in range(400)]
    path = write(tmp_path, "\n".join(["params,tokens,loss", *rows, rows[7], "1000000,2000000,1.5"]))
    found = read_table(path, BOTH)
    assert len(found.y) <= 100
    assert found.label[-1] == 402
    assert found.weight.mean() == pytest.approx(1)
    assert found.weight[-1] < found.weight[0]
    assert [e.rows for e in found.excluded] == [(401,)]
    assert f"{len(found.y)} of 401 rows were drawn" in " ".join(found.notes)


def test_seeds_tell_repeats_apart(tmp_path: Path) -> None:
    path = write(tmp_path, "n,loss,s\n10,3,a\n10,3,b\n10,3,a\n")
    found = read_table(path, Columns(loss="loss", params="n", seed="s"))
    assert found.label.tolist() == [1, 2]


def test_a_blank_group_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "n,loss,g\n10,3,a\n10,3.1,\n")
    found = read_table(path, Columns(loss="loss", params="n", group="g"))
    assert [e.reason for e in found.excluded] == ["group (g) is blank"]


@pytest.mark.parametrize("plain", ["125000000", "1e6", "5e4"])
def test_plain_numbers_beside_suffixes_may_be_what_they_say(plain: str, tmp_path: Path) -> None:
    found = read_table(write(tmp_path, f"n,loss\n7B,2\n{plain},3\n"), Columns(loss="loss", params="n"))
    assert found.x[1, 0] == float(plain)


def test_percent_makes_shares(tmp_path: Path) -> None:
    path = write(tmp_path, "n,e\n10,12 %\n20,5%\n")
    assert read_table(path, Columns(error="e", params="n")).y == pytest.approx([0.12, 0.05])


@pytest.mark.parametrize(
    "text", [grid(rows=3), grid(rows=1), "params,tokens,loss\n" + "".join(f"7B,1T,2.{i}\n" for i in range(9))]
)
def test_thin_evidence_is_insufficient_and_never_nan_with_support(text: str, tmp_path: Path) -> None:
    law = fit_evidence(read_table(write(tmp_path, text), BOTH))
    assert law.status == "insufficient"
    assert law.reason


# ---- points ------------------------------------------------------------------------------------------------------


def test_points_come_in_order_and_need_no_outcome(tmp_path: Path) -> None:
    path = write(tmp_path, "tokens,params,other\n1T,7B,x\n1e9,1e6,\n")
    assert read_points(path, BOTH) == [{"params": 7e9, "samples": 1e12}, {"params": 1e6, "samples": 1e9}]


def test_points_derive_samples_as_the_runs_do(tmp_path: Path) -> None:
    path = write(tmp_path, "n,c\n10,6000\n")
    assert read_points(path, Columns(loss="loss", params="n", compute="c")) == [{"params": 10, "samples": 100}]
    three = Columns(loss="loss", params="n", compute="c", samples="d")
    with pytest.raises(UsageError, match="no column 'd'"):
        read_points(path, three)


@pytest.mark.parametrize("cell", ["0", "-3", "x", "nan", ""])
def test_a_bad_point_is_an_error_that_names_its_row(cell: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2 of .* has no positive number of params"):
        read_points(write(tmp_path, f"params,tokens\n1,2\n{cell},3\n"), BOTH)


def test_no_points(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        read_points(write(tmp_path, "params,tokens\n"), BOTH)
