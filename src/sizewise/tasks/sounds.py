"""Sounds to classify: spoken words, or anything that can be heard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import pad
from sizewise.records import Reading, Signature
from sizewise.tasks.audio import BANDS, Skips, described, filterbanks, frames, listen
from sizewise.tasks.recordings import Recording, divide, opened, recordings
from sizewise.tasks.task import Split, Task, make_task

LONGEST = frames(10.0)
"""Steps that are kept of a sound unless the study says otherwise."""


def load(path: Path, reading: Reading) -> Task:
    """Sounds in a folder or a .zip, as series of log mel filterbank features, one step every 10 ms.

    WAV, FLAC or OGG files lie in class subfolders; or in class subfolders inside `train`, `test` and perhaps `val`; or
    side by side, named LABEL_SPEAKER_TAKE as the Free Spoken Digit Dataset has them, whose takes 0 to 4 are the test
    split. Where validation is not given it is 15 % of the training split, every class (and speaker) in proportion;
    where nothing is given 15 % are the test split, too. Several channels become their mean, all files get the lowest
    sampling rate among them (at most 16 kHz), and sounds longer than `reading.steps` (default: 10 s) are cut.

    Broken files and those shorter than 25 ms are left out and counted.

    Raises:
        DataError: no sounds, no usable one, a class or a split that is missing.
        MissingExtraError: the libraries for sound are not installed.
    """
    with opened(path) as files:
        found = recordings(path, files)
        listened, skipped = listen(files, [r.name for r in found], lambda wave, rate: (filterbanks(wave, rate), rate))
    heard, rate = {name: series for name, (series, _) in listened.items()}, next(iter(listened.values()))[1]
    classes = tuple(sorted({r.label for r in found}))
    found = tuple(r for r in found if r.name in heard)
    limit = reading.steps or LONGEST
    skips = Skips()
    for row, (name, series) in enumerate(heard.items(), 1):
        if len(series) > limit:
            skips.add(f"cut to the first {limit:,} steps", row, name)
            heard[name] = series[:limit]
    steps = max(map(len, heard.values()))
    splits = [_split(part, heard, classes, steps) for part in divide(found, classes)]
    signature = Signature("classification", (steps, BANDS + 1), len(classes), dynamic=True)
    name = path.resolve().stem
    return make_task(
        name,
        str(path),
        classes,
        *splits,
        signature=signature,
        skipped=(*skipped, *skips.exclusions()),
        files=described(rate),
    )


def _split(part: Sequence[Recording], heard: dict[str, NDArray[Any]], classes: tuple[str, ...], steps: int) -> Split:
    x = pad([heard[r.name] for r in part], steps)
    return Split(x, np.array([classes.index(r.label) for r in part], np.int64))
