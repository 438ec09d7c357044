"""Text to continue: divided by place, cut into windows, each token to be foretold from those before it.

The first 90 % of the text are for training, the next 5 % for validation and the last 5 % for the test: neighbouring
sentences are too alike to be dealt out at random. In training, windows follow each other. In validation and test they
overlap by half, and only what a window adds is scored: every token is foretold once, and all but those of the first
half window from at least half a window of text before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError
from sizewise.padding import BEGIN, PAD, pad
from sizewise.records import Reading, Signature
from sizewise.tasks import plain
from sizewise.tasks.task import Split, Task, make_task
from sizewise.tasks.tokens import SPECIAL, Tokens, vocabulary_of

VOCABULARY, STEPS = 1_024, 128
VALIDATION_SHARE, TEST_SHARE = 0.05, 0.05
ENDINGS = (".txt", ".text", ".md")


def load(path: Path, reading: Reading) -> Task:
    """A file of text, or all those of a folder and what is below it, one after the other by name.

    A split's references are the bytes that each window's targets stand for in UTF-8. The targets that are not scored,
    because another window scores them, are padding.

    Args:
        reading: `vocabulary` of `SMALLEST` (259) makes every byte a token; windows have `steps` tokens.

    Raises:
        UsageError: a vocabulary that is too small.
        DataError: no text, a file that is not UTF-8, or less text than a window in a split.
    """
    steps = reading.steps or STEPS
    parts = _divided(_text(path))
    tokens = Tokens.train(_lines(parts[0]), vocabulary_of(reading, VOCABULARY))
    streams = [np.concatenate([[BEGIN], *tokens.ids(_lines(part))]).astype(np.int64) for part in parts]
    _check_long_enough(path, streams, steps)
    size = _bytes(tokens.vocabulary)
    strides = (steps, steps // 2 or 1, steps // 2 or 1)
    splits = [_windows(stream, size, steps, stride) for stream, stride in zip(streams, strides, strict=True)]
    vocabulary = len(tokens.vocabulary)
    signature = Signature("language modelling", (steps,), vocabulary, vocabulary=vocabulary, dynamic=True)
    files = {"tokenizer.json": tokens.write()}
    return make_task(path.resolve().stem, str(path), tokens.vocabulary, *splits, signature=signature, files=files)


def _text(path: Path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if _is_text(p.relative_to(path)))
    if not files:
        raise DataError(f"{path} has no files of text", hint=f"give files that end in {', '.join(ENDINGS)}")
    texts = [plain.read(file)[0] for file in files if file.is_file()]
    return "".join(text if text.endswith("\n") or len(files) == 1 else text + "\n" for text in texts if text)


def _is_text(inside: Path) -> bool:
    return inside.suffix.lower() in ENDINGS and not any(part.startswith(".") for part in inside.parts)


def _divided(text: str) -> tuple[str, str, str]:
    """Training, validation and test text, cut where a line ends if one does soon."""
    ends = [_cut(text, round(len(text) * share)) for share in (1 - VALIDATION_SHARE - TEST_SHARE, 1 - TEST_SHARE)]
    return text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :]


def _cut(text: str, place: int, soon: int = 1000) -> int:
    """The end of the line at `place`, or the place itself if the line goes on for long."""
    return text.find("\n", place, place + min(soon, len(text) // 100)) + 1 or place


def _lines(text: str) -> list[str]:
    """A text in pieces that the tokenizer takes one by one: no token reaches over the end of a line."""
    return text.splitlines(keepends=True)


def _check_long_enough(path: Path, streams: Sequence[NDArray[np.int64]], steps: int) -> None:
    shortest = min(len(stream) - 1 for stream in streams)
    if shortest < steps:
        raise DataError(
            f"{path} is too short: its three parts have {', '.join(f'{len(s) - 1:,}' for s in streams)} tokens, and a "
            f"window has {steps}",
            hint="give more text, or shorter windows with reading.steps",
        )


def _bytes(vocabulary: Sequence[str]) -> NDArray[np.int64]:
    """Bytes that each token stands for; the tokenizer writes one character for each."""
    return np.array([0] * len(SPECIAL) + [len(token) for token in vocabulary[len(SPECIAL) :]], np.int64)


def _windows(stream: NDArray[np.int64], size: NDArray[np.int64], steps: int, stride: int) -> Split:
    """Windows of `steps` tokens that start every `stride`, each scored where the one before has ended."""
    x, y = stream[:-1], stream[1:]
    overlap = steps - stride
    starts = range(0, max(len(x) - overlap, 1), stride)
    targets = []
    for start in starts:
        kept = y[start : start + steps].copy()
        if start:
            kept[:overlap] = PAD
        targets.append(kept)
    scored = pad(targets, steps)
    return Split(pad([x[s : s + steps] for s in starts], steps), scored, tuple(map(int, size[scored].sum(axis=1))))
