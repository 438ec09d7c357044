"""The tasks that adaptive sweeps and searches for recipes are measured on: real data, models that train in seconds."""

from __future__ import annotations

import gzip
import tempfile
import zipfile
from pathlib import Path

from sizewise.config import Study, Sweep
from sizewise.records import Reading, Recipe
from sizewise.study import Workspace

DATA = Path(__file__).parents[2] / "shared" / "data"
MADE = Path(tempfile.gettempdir()) / "sizewise-tasks"
"""Where data is written that other tasks are made of."""

POOL = 30
"""Seeds of each size that are trained."""


def sweep(*widths: int) -> Sweep:
    """Sizes whose seeds make a pool."""
    return Sweep(widths=widths, seeds=POOL, probes=False)


def language(data: Path) -> Study:
    """A language model of some text, of half-words and for one pass."""
    return Study(
        "language",
        data=str(data),
        family="lstm",
        reading=Reading(vocabulary=512, steps=64),
        recipe=Recipe(lr=2e-3, batch_size=32, epochs=1),
        sweep=sweep(8, 16, 32),
    )


def sounds(data: Path) -> Study:
    """Recordings to tell apart."""
    return Study(
        "sounds",
        data=str(data),
        family="cnn1d",
        recipe=Recipe(lr=2e-3, batch_size=32, epochs=5),
        sweep=sweep(3, 4, 6, 9, 13),
    )


TASKS = {
    "digits": Study("digits", recipe=Recipe(epochs=20, batch_size=32), sweep=sweep(2, 3, 5, 8, 13, 22, 37, 64)),
    "reviews": Study(
        "text",
        data=str(DATA / "rt-polarity"),
        reading=Reading(steps=80),
        recipe=Recipe(lr=3e-3, batch_size=32, epochs=5),
        sweep=sweep(1, 2, 4, 8, 16),
    ),
    "pneumonia": Study(
        "npz",
        data=str(DATA / "pneumonia" / "pneumoniamnist.npz"),
        family="cnn",
        metric="AUROC",
        recipe=Recipe(lr=2e-3, batch_size=32, epochs=6),
        sweep=sweep(1, 2, 3, 5, 8, 13),
    ),
    "news": Study(
        "text",
        data=str(DATA / "ag-news" / "ag_news_7600.csv"),
        reading=Reading(text="2+3", target="1", steps=128),
        recipe=Recipe(lr=3e-3, batch_size=32, epochs=5),
        sweep=sweep(1, 2, 4, 8, 16),
    ),
    "mnist": Study(
        "mnist",
        data=str(DATA / "mnist"),
        family="cnn",
        recipe=Recipe(lr=2e-3, batch_size=64, epochs=1),
        sweep=sweep(1, 2, 4, 8, 16),
    ),
    "keywords": sounds(DATA / "fsdd" / "recordings.zip"),
    "speakers": sounds(MADE / "speakers.zip"),
    "shakespeare": language(DATA / "tinyshakespeare" / "input.txt"),
    "captions-en": language(MADE / "captions-en.txt"),
    "captions-de": language(MADE / "captions-de.txt"),
}

SEARCHED = {
    "digits": 8, "reviews": 4, "pneumonia": 3, "news": 4, "mnist": 2, "keywords": 4, "speakers": 4,
    "shakespeare": 16, "captions-en": 16, "captions-de": 16,
}  # fmt: skip
"""Widths at which recipes are searched for."""


def workspace(name: str, root: Path) -> Workspace:
    """A task's study, its data written first where it is made of another's."""
    make = {"speakers": speakers, "captions-en": captions, "captions-de": captions}.get(name)
    if make and not Path(TASKS[name].data).exists():
        MADE.mkdir(exist_ok=True)
        make(Path(TASKS[name].data))
    return Workspace.create(TASKS[name], root / name)


def speakers(path: Path) -> None:
    """The spoken digits, named by who speaks instead of what is said."""
    with zipfile.ZipFile(DATA / "fsdd" / "recordings.zip") as said, zipfile.ZipFile(path, "w") as made:
        for name in said.namelist():
            if name.endswith(".wav"):
                digit, speaker, take = Path(name).name.split("_")
                made.writestr(f"{speaker}_{digit}_{take}", said.read(name))


def captions(path: Path) -> None:
    """The captions in one of their languages, as text to continue."""
    packed = DATA / "multi30k" / f"train.{path.stem.removeprefix('captions-')}.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
