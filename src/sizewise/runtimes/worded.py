"""What answers stand for, in words: the name of a class, a transcript, a translation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.runtimes import Config
from sizewise.tasks.problems.transcription import BLANK, collapse

Words = Callable[[NDArray[Any]], NDArray[Any]]
"""Answers (n, ...) to strings (n, 1)."""


def worded(config: Config, folder: Path) -> Words:
    """The words of a model folder's answers; those of a translator come from its tokenizer."""
    if config.signature.problem == "translation":
        from sizewise.tasks.tokens import Tokens

        tokenizer = Tokens.read((folder / "target.json").read_bytes())
        return lambda answers: _column([tokenizer.text(row) for row in answers])
    if config.signature.problem == "transcription":
        return lambda answers: _column([_labels(row, config.classes) for row in collapse(answers.argmax(axis=2))])
    return lambda answers: np.array(config.classes, dtype=object)[answers.argmax(axis=-1)].reshape(-1, 1)


def _labels(row: NDArray[Any], classes: tuple[str, ...]) -> str:
    return " ".join(classes[i] for i in row.astype(int) if i != BLANK)


def _column(texts: list[str]) -> NDArray[Any]:
    return np.array(texts, dtype=object).reshape(-1, 1)
