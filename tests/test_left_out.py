"""What a task leaves out of its data is said where a study begins, and on its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sizewise import cli, config
from sizewise.console import left_out
from sizewise.records import Exclusion
from sizewise.report.study_page import write
from sizewise.study import Workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of two classes, one of them broken."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number:02}.png")
    (tmp_path / "pets" / "dog" / "07.png").write_bytes(b"broken")
    return tmp_path / "pets"


def test_the_command_line_says_it_on_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder), "--widths", "2,3", "--seeds", "2", "--no-probes", "--out", str(folder.parent / "study")]
    assert cli.main(["plan", *arguments]) == 0
    printed = capsys.readouterr()
    assert f"note: left out of the data: 1 image that cannot be read: {folder / 'dog' / '07.png'}" in printed.err
    assert "left out" not in printed.out
    (folder / "dog" / "07.png").unlink()
    cli.main(["plan", *arguments])
    assert "left out" not in capsys.readouterr().err


def test_the_page_says_it_near_its_top(folder: Path) -> None:
    sweep = config.Sweep(widths=(2, 3), seeds=2, probes=False)
    space = Workspace.create(config.Study(str(folder), sweep=sweep), folder.parent / "study")
    space.store.save("plan.json", space.plan())
    page = write(space).read_text()
    assert "Left out of the data: 1 image that cannot be read" in page
    assert page.index("Left out of the data") < page.index("Size and performance")


def test_rows_of_a_table_are_named() -> None:
    skipped = [Exclusion("series with more than 9 steps", 12, (2, 5)), Exclusion("images", 3, ())]
    assert left_out(skipped) == [
        "left out of the data: 12 series with more than 9 steps (rows 2, 5 and 10 more)",
        "left out of the data: 3 images",
    ]
