"""Texts and their classes: what counts as one text, as a table, as a class and as a split."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewise import tasks
from sizewise.errors import DataError, UsageError
from sizewise.padding import lengths
from sizewise.records import Reading
from sizewise.tasks import Split, Task
from sizewise.tasks.tokens import Tokens

BYTES = Reading(vocabulary=259)


def texts(task: Task, split: Split) -> list[str]:
    tokenizer = Tokens.read(task.files["tokenizer.json"])
    return [tokenizer.text(row) for row in split.x]


def everything(task: Task) -> list[str]:
    return [text for split in (task.train, task.validation, task.test) for text in texts(task, split)]


def rows(count: int, mark: str = "") -> str:
    return "".join(f"{'good' if i % 2 else 'bad'} film {mark}{i},{'pos' if i % 2 else 'neg'}\n" for i in range(count))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refuse(words: str, path: Path, reading: Reading = BYTES) -> DataError:
    with pytest.raises(DataError, match=words) as caught:
        tasks.load("text", path, reading)
    assert caught.value.hint
    return caught.value


def left_out(task: Task) -> dict[str, int]:
    return {exclusion.reason: exclusion.count for exclusion in task.skipped}


def test_the_reviews_are_one_file_a_class(shared_data: Path) -> None:
    task = tasks.load("text", shared_data / "rt-polarity", Reading(vocabulary=1000, steps=40))
    assert task.classes == ("neg", "pos")
    assert task.signature.input_shape == (40,)
    assert task.signature.vocabulary == 1000
    sizes = [len(split) for split in (task.train, task.validation, task.test)]
    assert sum(sizes) == 10_662
    assert sizes[1:] == [1599, 1599]
    whole = tasks.load("text", shared_data / "rt-polarity", Reading(vocabulary=1000, steps=400))
    longer = sum(int((lengths(split.x) > 40).sum()) for split in (whole.train, whole.validation, whole.test))
    assert left_out(task) == {"texts longer than 40 tokens, which were cut there": longer}
    assert not whole.skipped


def test_the_news_have_no_header_and_two_columns_of_text(shared_data: Path) -> None:
    path = shared_data / "ag-news" / "ag_news_7600.csv"
    task = tasks.load("text", path, Reading(text="2+3", target="1", vocabulary=300, steps=400))
    assert task.classes == ("1", "2", "3", "4")
    assert sum(map(len, (task.train, task.validation, task.test))) + sum(left_out(task).values()) >= 7_600
    first = "fears for t n pension after talks\nunions representing workers at turner   newall say"
    assert any(text.startswith(first) for text in everything(task))


def test_a_table_with_usual_names_needs_no_more(tmp_path: Path) -> None:
    path = write(tmp_path / "films.csv", "Sentence,Label\n" + rows(40))
    task = tasks.load(str(path))
    assert task.name == "films"
    assert task.classes == ("neg", "pos")
    assert sorted(everything(task)) == sorted(f"{'good' if i % 2 else 'bad'} film {i}" for i in range(40))


@pytest.mark.parametrize(("end", "separator"), [("tsv", "\t"), ("csv", ";"), ("csv", "\t")])
def test_other_separators(tmp_path: Path, end: str, separator: str) -> None:
    content = 'text,class\n"so"-so film 0,neg\n' if separator == "\t" else "text,class\n"
    path = write(tmp_path / f"films.{end}", (content + rows(20)).replace(",", separator))
    task = tasks.load("text", path, BYTES)
    assert task.classes == ("neg", "pos")
    assert ('"so"-so film 0' in everything(task)) == (separator == "\t")


def test_named_columns_may_be_joined_and_numbers_sort_as_numbers(tmp_path: Path) -> None:
    content = "stars,head,body\n" + "".join(f"{i % 11},title {i},words {i}\n" for i in range(66))
    path = write(tmp_path / "stars.csv", content)
    task = tasks.load("text", path, Reading(text="head+body", target="stars", vocabulary=259))
    assert task.classes == tuple(map(str, range(11)))
    assert "title 7\nwords 7" in everything(task)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n" + rows(10))
    assert "its first row is: a, b" in refuse("no column with a usual name for reading.text", path).hint
    refuse("no column 'c' for reading.text", path, Reading(text="c", target="b"))
    refuse("no column 3", path, Reading(text="3", target="1"))


def test_rows_that_cannot_be_used_are_counted_by_number(tmp_path: Path) -> None:
    content = "text,label\n" + rows(10) + "  ,pos\nno class,\nonly text\n\none,two,three\n" + rows(10, "b")
    task = tasks.load("text", write(tmp_path / "t.csv", content), BYTES)
    assert len(everything(task)) == 20
    found = {exclusion.reason: (exclusion.count, exclusion.rows) for exclusion in task.skipped}
    assert found["rows without a text or a class in t.csv"] == (2, (12, 13))
    assert found["rows without 2 columns in t.csv"][0] == 2


def test_quotes_that_do_not_end(tmp_path: Path) -> None:
    refuse("line 3", write(tmp_path / "t.csv", 'text,label\ngood,pos\n"bad,neg\n'))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    refuse("byte 4 is 0", write(tmp_path / "t.csv", b"text\0label\n"))
    refuse("empty", write(tmp_path / "e.csv", b""))


def test_latin_1_is_read_and_said(tmp_path: Path) -> None:
    for name, word in (("pos", "Café"), ("neg", "théâtre")):
        write(tmp_path / f"reviews.{name}", "".join(f"{word} {name} {i}\n" for i in range(8)).encode("latin-1"))
    task = tasks.load("text", tmp_path, BYTES)
    assert task.classes == ("neg", "pos")
    assert "café pos 3" in everything(task)
    assert left_out(task)["lines of reviews.pos kept, but read as Latin-1: it is not UTF-8"] == 8


def test_empty_lines_hidden_files_and_readmes(tmp_path: Path) -> None:
    for name in ("pos", "neg"):
        write(tmp_path / f"{name}.txt", f"\n{name} 0\n\n" + "".join(f"{name} {i}\n" for i in range(1, 8)))
    write(tmp_path / "README.txt", "about the data")
    write(tmp_path / ".DS_Store", b"\0\1")
    task = tasks.load("text", tmp_path, BYTES)
    assert task.classes == ("neg", "pos")
    assert left_out(task) == {"empty lines in neg.txt": 2, "empty lines in pos.txt": 2}


def test_a_folder_without_classes(tmp_path: Path) -> None:
    write(tmp_path / "pos.txt", "one\ntwo\n")
    refuse("1 files of text: pos.txt", tmp_path)


def test_a_text_is_in_one_split_only_and_has_one_class(tmp_path: Path) -> None:
    content = "text,label\n" + rows(40) + "Good  FILM 1,pos\nboth,pos\nboth,neg\n" + rows(40)
    task = tasks.load("text", write(tmp_path / "t.csv", content), BYTES)
    assert len(everything(task)) == len(set(everything(task))) == 40
    assert left_out(task) == {
        "texts that occur with several classes": 2,
        "texts that occur again; the first of each was kept": 41,
    }


@pytest.mark.parametrize("form", ["tables", "folders"])
@pytest.mark.parametrize("validation", ["", "dev"])
def test_divided_data_stays_divided_and_the_test_split_whole(tmp_path: Path, form: str, validation: str) -> None:
    for name, count in (("train", 40), ("test", 10), *([(validation, 12)] if validation else [])):
        lines = rows(count, name) + "seen in all,pos\n"
        if form == "tables":
            write(tmp_path / f"{name}.csv", "text,label\n" + lines)
        else:
            for label in ("pos", "neg"):
                kept = [line.split(",")[0] + "\n" for line in lines.splitlines() if line.endswith(label)]
                write(tmp_path / name / f"{label}.txt", "".join(kept))
    task = tasks.load("text", tmp_path, BYTES)
    assert len(task.test) == 11
    assert "seen in all" in texts(task, task.test)
    assert "seen in all" not in texts(task, task.train) + texts(task, task.validation)
    assert len(task.train) + len(task.validation) == 40 + (12 if validation else 0)
    assert left_out(task)["texts of the train split that are in another split, too"] == 1


def test_divided_without_a_test_split_or_with_a_new_class(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write(tmp_path / f"{name}.csv", "text,label\n" + rows(20, name))
    refuse("divided into train, validation, without test", tmp_path)
    write(tmp_path / "test.csv", "text,label\n" + rows(20, "t") + "so,so\n")
    refuse("the test split has the class 'so'", tmp_path)


def test_the_tokenizer_knows_the_training_split_only(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\n" + rows(40))
    write(
        tmp_path / "test.csv", "text,label\n" + "".join(f"zyzzyva {i},{'pos' if i % 2 else 'neg'}\n" for i in range(10))
    )
    task = tasks.load("text", tmp_path, Reading(vocabulary=400))
    known = Tokens.read(task.files["tokenizer.json"]).vocabulary
    assert "film" in {token.strip("Ġ") for token in known}
    assert not any("yzz" in token for token in known)
    assert "zyzzyva 1" in texts(task, task.test)


def test_too_small_a_vocabulary(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\n" + rows(20))
    with pytest.raises(UsageError, match="vocabulary is 100"):
        tasks.load("text", path, Reading(vocabulary=100))
