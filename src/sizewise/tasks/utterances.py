"""Utterances to transcribe: sounds, and the words that are said in them, without their places in time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError
from sizewise.padding import pad
from sizewise.records import Exclusion, Reading, Signature
from sizewise.tasks.audio import BANDS, Files, Skips, Wave, described, filterbanks, frames, listen
from sizewise.tasks.recordings import (
    PARTS,
    TEST_SHARE,
    VALIDATION_SHARE,
    Recording,
    divide,
    opened,
    takes,
)  # fmt: skip
from sizewise.tasks.splits import SEED
from sizewise.tasks.task import Split, Task, make_task

TABLES = {"transcripts.csv": ",", "transcripts.tsv": "\t"}
LONGEST, LONGEST_JOINED = frames(30.0), frames(5.0)
"""Steps of an utterance, at most, unless the study says otherwise."""

STEPS_A_WORD = frames(0.1)
"""Fewer are said by nobody, and models that look at every fourth step could not tell the words apart."""

WORDS = (3, 7)
PAUSE = (0.02, 0.2)
"""Fewest and most words of an utterance that is joined, and seconds between them."""

NOISE = 1e-3
"""Amplitude of the pauses: no microphone is silent, and a model would only listen for the zeros."""

USES = 7
"""How often a take is used on average."""


@dataclass(frozen=True)
class Utterance:
    """Features (frames, bands), the rate of the sound that they are of, words, and the split they belong to ("" where
    nobody says)."""

    features: NDArray[Any]
    rate: int
    words: tuple[str, ...]
    part: str = ""


def load(path: Path, reading: Reading) -> Task:
    """Sounds and their words from a folder or a .zip, as series of log mel filterbank features, one step every 10 ms.

    Either there is a table `transcripts.csv` or `transcripts.tsv` with columns `path` (of the sound, seen from the
    table), `text` (words with spaces between them, of which capital letters are read as small ones) and perhaps
    `split` (train, val or test; else 15 % each are validation and test, at random with a fixed seed). Or sounds are
    single words named LABEL_SPEAKER_TAKE as in the Free Spoken Digit Dataset. Then utterances are made of them once,
    with a fixed seed: 3 to 7 words of one speaker with pauses of 0.02 to 0.2 s. Takes 0 to 4 make those of the test
    split and 15 % of the others, of every word and speaker, the validation split's, so that no take is heard in two
    splits. A take is used seven times on average, in other company each time, so utterances of one split are not quite
    independent of each other.

    Labels are the words of all splits, in alphabetical order from number 1; number 0 is the blank. Utterances longer
    than `reading.steps` (default: 30 s; joined ones end before 5 s), with more than ten words a second or none,
    missing, broken and too short ones are left out and counted.

    Raises:
        DataError: no table and no such names, a column that is missing, no usable utterance, or an empty split.
        MissingExtraError: the libraries for sound are not installed.
    """
    with opened(path) as files:
        table = next((name for name in sorted(files, key=len) if name.rsplit("/", 1)[-1] in TABLES), None)
        parts, skipped = _written(files, table, reading) if table else _joined(path, files, reading)
    words = sorted({word for part in parts for utterance in part for word in utterance.words})
    steps = max(len(utterance.features) for part in parts for utterance in part)
    splits = [_split(part, {word: i for i, word in enumerate(words, 1)}, steps) for part in parts]
    signature = Signature("transcription", (steps, BANDS + 1), len(words) + 1, dynamic=True)
    name, rate = path.resolve().stem, parts[0][0].rate
    labels = ("", *words)
    return make_task(name, str(path), labels, *splits, signature=signature, skipped=skipped, files=described(rate))


def _split(part: Sequence[Utterance], ids: Mapping[str, int], steps: int) -> Split:
    y = pad([np.array([ids[word] for word in utterance.words], np.int64) for utterance in part])
    return Split(pad([utterance.features for utterance in part], steps), y)


Parts = Sequence[Sequence[Utterance]]
"""Training, validation and test utterances."""


def _written(files: Files, table: str, reading: Reading) -> tuple[Parts, tuple[Exclusion, ...]]:
    """Utterances of a table."""
    skips, wanted = Skips(), {}
    folder = table.rpartition("/")[0]
    for row, line in enumerate(_lines(files[table](), table), 1):
        name, words = line["path"].strip(), tuple(line["text"].lower().split())
        file = f"{folder}/{name}" if folder else name
        if not words:
            skips.add("has no words", row, name)
        elif file not in files:
            skips.add("is in the table and nowhere else", row, name)
        else:
            wanted[row] = (file, words, _part(line, table, row))
    if not wanted:
        raise DataError(f"{table} names no sound that is there", hint="give paths as seen from the table's folder")
    named = list(dict.fromkeys(file for file, _, _ in wanted.values()))
    heard, unheard = listen(files, named, lambda wave, rate: (filterbanks(wave, rate), rate))
    limit, kept = reading.steps or LONGEST, []
    for row, (file, words, part) in wanted.items():
        if file not in heard:
            continue  # counted by `listen`
        series, rate = heard[file]
        if len(series) > limit:
            skips.add(f"is longer than {limit:,} steps", row, file)
        elif len(series) < STEPS_A_WORD * len(words):
            skips.add("has more than ten words a second", row, file)
        else:
            kept.append(Utterance(series, rate, words, part))
    return _parts(kept, table), (*skips.exclusions(), *unheard)


def _lines(data: bytes, table: str) -> Iterator[dict[str, str]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8: {error}", hint="save it as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=TABLES[table.rsplit("/", 1)[-1]], restval="")
    columns = reader.fieldnames or []
    for needed in ("path", "text"):
        if needed not in columns:
            raise DataError(
                f"{table} has no column {needed!r}; its columns are {', '.join(columns) or 'none'}",
                hint="name the columns in the first line: path, text, and split if you like",
            )
    yield from reader


def _part(line: Mapping[str, str], table: str, row: int) -> str:
    name = line.get("split", "").strip().lower()
    if name and name not in PARTS:
        raise DataError(f"{table}, row {row}: the split {name!r}", hint=f"write one of {', '.join(PARTS)}, or nothing")
    return PARTS.get(name, "")


def _parts(utterances: list[Utterance], table: str) -> Parts:
    """The table's own division, or one at random; validation comes out of training where only that is missing."""
    train, validation, test, loose = (
        [u for u in utterances if u.part == name] for name in ("train", "validation", "test", "")
    )
    if loose and len(loose) < len(utterances):
        raise DataError(f"{table} gives {len(loose):,} utterances no split, and others one", hint="give all or none")
    if loose:
        train, test = _parted(loose, TEST_SHARE)
    if not validation:
        train, validation = _parted(train, VALIDATION_SHARE / (1 - TEST_SHARE) if loose else VALIDATION_SHARE)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if not part:
            raise DataError(f"{table} leaves the {name} split empty", hint="give it more utterances, or other splits")
    return train, validation, test


def _parted(utterances: list[Utterance], share: float) -> tuple[list[Utterance], list[Utterance]]:
    """What stays, and what was parted off at random: at least one."""
    order = np.random.default_rng(SEED).permutation(len(utterances))
    count = max(1, round(share * len(order)))
    return [utterances[i] for i in np.sort(order[count:])], [utterances[i] for i in np.sort(order[:count])]


def _joined(path: Path, files: Files, reading: Reading) -> tuple[Parts, tuple[Exclusion, ...]]:
    """Utterances made of single words."""
    found = takes(path, files)
    heard, skipped = listen(files, [r.name for r in found], lambda wave, rate: (wave, rate))
    classes = tuple(sorted({r.label for r in found}))
    limit = reading.steps or LONGEST_JOINED
    parts = divide([r for r in found if r.name in heard], classes)
    return [list(_spoken(part, heard, limit, seed)) for seed, part in enumerate(parts)], skipped


def _spoken(
    part: Sequence[Recording], heard: Mapping[str, tuple[Wave, int]], limit: int, seed: int
) -> Iterator[Utterance]:
    """Each speaker's takes in a random order, again and again, cut into utterances."""
    rng = np.random.default_rng((SEED, seed))
    for speaker in sorted({r.speaker for r in part}):
        own = [r for r in part if r.speaker == speaker]
        deck = [own[i] for _ in range(USES) for i in rng.permutation(len(own))]
        while deck:
            said, wave, rate = _join(deck, heard, limit, rng)
            yield Utterance(filterbanks(wave, rate), rate, said)


def _join(
    deck: list[Recording], heard: Mapping[str, tuple[Wave, int]], limit: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], Wave, int]:
    """Take the next words off the deck, as many as chance and the limit of steps allow, but one at least."""
    rate, most = heard[deck[0].name][1], int(rng.integers(WORDS[0], WORDS[1] + 1))
    pieces, said = [_pause(rate, rng)], list[str]()
    while deck and len(said) < most:
        longer = [*pieces, heard[deck[-1].name][0], _pause(rate, rng)]
        if said and frames(sum(map(len, longer)) / rate) > limit:
            break
        pieces = longer
        said.append(deck.pop().label)
    return tuple(said), np.concatenate(pieces), rate


def _pause(rate: int, rng: np.random.Generator) -> Wave:
    return (NOISE * rng.standard_normal(round(rng.uniform(*PAUSE) * rate))).astype(np.float32)
