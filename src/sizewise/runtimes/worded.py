"""Numbers for texts and sounds, and words for answers: a class, a transcript, a translation, a tag for each word."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import BEGIN, mask, pad
from sizewise.runtimes import Config
from sizewise.tasks.problems.transcription import collapse, spoken

Words = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""Answers (n, ...) and the samples (n, ...) that they answer to strings (n, 1)."""

Tokenised = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to tokens (n, steps)."""

Heard = Callable[[Sequence[bytes]], NDArray[Any]]
"""Contents of sound files to series (n, steps, channels)."""

SOUND = "sound.json"
"""What a model folder calls the file with the sampling rate, samples a second, that its features are made at."""

TOKENIZER = "tokenizer.json"
"""What a model folder calls the tokenizer of its input."""


def tokenised(config: Config, folder: Path) -> Tokenised | None:
    """How a model folder's task made tokens of texts, if it did.

    Of a text that is too long, a language model gets the end, and any other the beginning. What a tagger tags are the
    words between spaces.
    """
    if config.signature.layout != "tokens" or not (folder / TOKENIZER).exists():
        return None
    from sizewise.tasks.tokens import Tokens

    tokenizer, steps = Tokens.read((folder / TOKENIZER).read_bytes()), config.signature.input_shape[0]
    fewest = 2 if config.signature.dynamic else steps
    if config.signature.problem == "language modelling":
        begin = np.array([BEGIN], np.int64)
        return lambda texts: pad([np.append(begin, ids)[-steps:] for ids in tokenizer.ids(texts)], fewest)
    if config.signature.problem == "tagging":
        return lambda texts: pad([ids[:steps] for ids in tokenizer.ids([_apart(text) for text in texts])], fewest)
    return lambda texts: pad([ids[:steps] for ids in tokenizer.ids(texts)], fewest)


def heard(config: Config, folder: Path) -> Heard | None:
    """How a model folder's task made features of sound files, if it did. What is too long is cut.

    It raises DataError for what is no sound.
    """
    if not (folder / SOUND).exists():
        return None
    from sizewise.tasks.audio import features

    rate, steps = int(json.loads((folder / SOUND).read_text())["rate"]), config.signature.input_shape[0]
    fewest = 2 if config.signature.dynamic else steps
    features(_silence(2 * rate), rate)  # imports what the first sound would otherwise wait for
    return lambda sounds: pad([features(sound, rate)[:steps] for sound in sounds], fewest)


def _silence(rate: int) -> bytes:
    """A tenth of a second of it, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(bytes(2 * (rate // 10)))
    return file.getvalue()


def _apart(text: str) -> str:
    """A text with one space before each word, as a tagger's sentences are written."""
    return "".join(f" {word}" for word in text.split())


def worded(config: Config, folder: Path) -> Words:
    """The words of a model folder's answers; those of a translator come from its tokenizer."""
    classes = config.classes
    match config.signature.problem:
        case "translation":
            from sizewise.tasks.tokens import Tokens

            tokenizer = Tokens.read((folder / "target.json").read_bytes())
            return lambda answers, samples: _column([tokenizer.text(row) for row in answers])
        case "transcription":
            return lambda answers, samples: _column(spoken(collapse(answers.argmax(axis=2)), classes))
        case "dictation":
            return lambda answers, samples: _column(spoken(answers, classes))
        case "tagging":
            return _tags(config, folder)
    return lambda answers, samples: np.array(classes, dtype=object)[answers.argmax(axis=-1)].reshape(-1, 1)


def _tags(config: Config, folder: Path) -> Words:
    """The tags of each sample's words, or steps, with spaces between."""
    asked = _asked(config, folder)

    def words(answers: NDArray[Any], samples: NDArray[Any]) -> NDArray[Any]:
        said = answers[..., 1:].argmax(axis=-1) + 1
        rows = zip(said, asked(samples)[:, : said.shape[1]], strict=True)
        return _column([" ".join(config.classes[tag] for tag in row[there]) for row, there in rows])

    return words


def _asked(config: Config, folder: Path) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """Where a tag is asked for: at the first token of a word, and at every step of a series."""
    if config.signature.layout == "tokens" and (folder / TOKENIZER).exists():
        from sizewise.tasks.tokens import BEGINS_WORD, Tokens

        tokens = Tokens.read((folder / TOKENIZER).read_bytes()).vocabulary
        begins = np.array([token.startswith(BEGINS_WORD) for token in tokens])
        return lambda samples: begins[samples]
    if config.signature.dynamic:
        return mask
    return lambda samples: np.ones(samples.shape[:2], bool)


def _column(texts: list[str]) -> NDArray[Any]:
    return np.array(texts, dtype=object).reshape(-1, 1)
