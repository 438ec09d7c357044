"""Words for numbers: texts as a model takes them, and what answers stand for: a class, a transcript, a translation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import BEGIN, pad
from sizewise.runtimes import Config
from sizewise.tasks.problems.transcription import BLANK, collapse

Words = Callable[[NDArray[Any]], NDArray[Any]]
"""Answers (n, ...) to strings (n, 1)."""

Tokenised = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to tokens (n, steps)."""

TOKENIZER = "tokenizer.json"
"""What a model folder calls the tokenizer of its input."""


def tokenised(config: Config, folder: Path) -> Tokenised | None:
    """How a model folder's task made tokens of texts, if it did.

    Of a text that is too long, a classifier gets the beginning, and a language model the end.
    """
    if config.signature.layout != "tokens" or not (folder / TOKENIZER).exists():
        return None
    from sizewise.tasks.tokens import Tokens

    tokenizer, steps = Tokens.read((folder / TOKENIZER).read_bytes()), config.signature.input_shape[0]
    fewest = 2 if config.signature.dynamic else steps
    if config.signature.problem == "language modelling":
        begin = np.array([BEGIN], np.int64)
        return lambda texts: pad([np.append(begin, ids)[-steps:] for ids in tokenizer.ids(texts)], fewest)
    return lambda texts: pad([ids[:steps] for ids in tokenizer.ids(texts)], fewest)


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
