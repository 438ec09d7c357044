"""The tasks that adaptive sweeps and searches for recipes are measured on: real data, models that train in seconds."""

from __future__ import annotations

from pathlib import Path

from sizewise.config import Study, Sweep
from sizewise.records import Reading, Recipe

DATA = Path(__file__).parents[2] / "shared" / "data"
POOL = 30
"""Seeds of each size that are trained."""


def sweep(*widths: int) -> Sweep:
    """Sizes whose seeds make a pool."""
    return Sweep(widths=widths, seeds=POOL, probes=False)


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
    "keywords": Study(
        "sounds",
        data=str(DATA / "fsdd" / "recordings.zip"),
        family="cnn1d",
        recipe=Recipe(lr=2e-3, batch_size=32, epochs=5),
        sweep=sweep(3, 4, 6, 9, 13),
    ),
}

SEARCHED = {"digits": 8, "reviews": 4, "pneumonia": 3, "news": 4, "mnist": 2, "keywords": 4}
"""Widths at which recipes are searched for."""
