"""One version of one model, loaded: what it takes, what it answers, and how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import runtimes
from sizewise.errors import DataError, IntegrityError
from sizewise.records import Signature
from sizewise.runtimes import OUTPUTS, Config
from sizewise.runtimes.worded import Heard, Tokenised, Words, heard, tokenised, worded
from sizewise.serve.refusals import Invalid
from sizewise.serve.tensors import TEXT, Tensor
from sizewise.tasks.problems import Session

Json = dict[str, Any]

TEXT_INPUT = "text"
"""Name of the input that is given instead of tokens."""

SOUND_INPUT = "sound"
"""Name of the input, a WAV, FLAC or OGG file, that is given instead of the series of its features."""

WORDED = {"classification": "label", "tagging": "tags"}
"""What the output in words is called where it is no `text`."""


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded folder. It has one input, named after what a sample is (`image`, `volume`, `series` or `tokens`, raw
    values), or, where it knows how its task read them, `text` or `sound` instead. Its outputs are numbers, see
    `runtimes.OUTPUTS`, and where these stand for words one more, `label`, `text` or `tags`.

    Attributes:
        name: what clients call it.
        version: a whole number from 1, as text.
        card: what its folder's README.md says.
    """

    name: str
    version: str
    config: Config
    session: Session
    words: Words
    tokens: Tokenised | None
    sounds: Heard | None
    card: str

    @property
    def signature(self) -> Signature:
        """What goes in and comes out."""
        return self.config.signature

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, of which a request has one."""
        others = ((TEXT_INPUT, self.tokens), (SOUND_INPUT, self.sounds))
        return (self.signature.layout, *(name for name, there in others if there))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return (OUTPUTS[self.signature.problem], *_worded(self.signature))

    def samples(self, inputs: Sequence[Tensor]) -> NDArray[Any]:
        """The array that the session takes, float32, or int64 tokens.

        Raises:
            Invalid: the inputs are not what the model takes.
        """
        names = [tensor.name for tensor in inputs]
        if len(names) != 1 or names[0] not in self.inputs:
            raise Invalid(f"the inputs are {names}; expected {' or '.join(f'[{name!r}]' for name in self.inputs)}")
        (tensor,) = inputs
        if self.tokens and tensor.name == TEXT_INPUT:
            return self.tokens(tensor.texts())
        if self.sounds and tensor.name == SOUND_INPUT:
            return _listened(self.sounds, tensor.contents())
        self._check_shape(tensor)
        values = tensor.numbers()
        if self.signature.vocabulary:
            return self._ids(values)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and the model decides
            return values.astype(np.float32)

    def kind(self, samples: NDArray[Any]) -> object | None:
        """What samples must have in common to be run together; None is run alone.

        Answers without steps do not change with padding, so there lengths need only be similar: within a factor of 2.
        A beam search gives as many steps as its longest target needs, so what it answers is not mixed.
        """
        if self.signature.autoregressive:
            return None
        if self.signature.dynamic and self.signature.problem in ("classification", "regression"):
            return int(samples.shape[1] - 1).bit_length()
        return tuple(samples.shape[1:])

    def run(self, samples: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Every output, each with a row for each sample. One call at a time."""
        answers = self.session(samples)
        first, *rest = self.outputs
        return {first: answers} | {name: self.words(answers, samples) for name in rest}

    def metadata(self, versions: Sequence[str]) -> Json:
        """What the protocol tells clients about the model."""
        first, *rest = self.signature.input_shape
        kind = "INT64" if self.signature.vocabulary else "FP32"
        inputs = [_described(self.signature.layout, kind, [-1, -1 if self.signature.dynamic else first, *rest])]
        inputs += [_described(name, TEXT, [-1, 1]) for name in self.inputs[1:]]
        numbers, *words = self.outputs
        answered = "INT64" if self.signature.autoregressive else "FP32"
        outputs = [_described(numbers, answered, _output_shape(self.signature))]
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": runtimes.RUNTIMES[self.config.runtime].platform,
            "inputs": inputs,
            "outputs": outputs + [_described(name, TEXT, [-1, 1]) for name in words],
        }

    def _check_shape(self, tensor: Tensor) -> None:
        shape = list(tensor.shape)
        longest, *rest = self.signature.input_shape
        fits = all(type(size) is int for size in shape) and len(shape) == 2 + len(rest) and shape[0] >= 1
        steps = range(1, longest + 1) if self.signature.dynamic else (longest,)
        if not fits or shape[1] not in steps or shape[2:] != rest:
            first = f"1 to {longest}" if self.signature.dynamic else str(longest)
            expected = f"[n, {', '.join([first, *map(str, rest)])}] with n of at least 1"
            raise Invalid(f"input {tensor.name!r} has shape {shape}; expected {expected}")

    def _ids(self, values: NDArray[Any]) -> NDArray[np.int64]:
        if not ((values >= 0) & (values < self.signature.vocabulary) & (values == np.floor(values))).all():
            raise Invalid(
                f"input 'tokens' holds numbers that are no ids; expected 0 to {self.signature.vocabulary - 1}"
            )
        return values.astype(np.int64)


def load(name: str, version: str, folder: Path, *, threads: int) -> Model:
    """Verify a folder, load it and let it answer once.

    Args:
        name: what clients will call it; "" takes the name that it was exported under.

    Raises:
        IntegrityError: it is not what its manifest says, or cannot be loaded.
    """
    config = runtimes.verify(folder)
    card = folder / "README.md"
    model = Model(
        name or config.name,
        version,
        config,
        runtimes.load(folder, threads=threads),
        worded(config, folder),
        tokenised(config, folder),
        heard(config, folder),
        card.read_text() if card.is_file() else "",
    )
    _warm_up(model, folder)
    return model


def _warm_up(model: Model, folder: Path) -> None:
    """Let it answer once: runtimes then allocate what they need, and a model that cannot answer is not served."""
    kind = np.int64 if model.signature.vocabulary else np.float32
    try:
        model.run(np.zeros((1, *model.signature.input_shape), kind))
    except Exception as error:  # every runtime has its own exceptions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise IntegrityError(
            f"the model in {folder} does not answer: {reason}", hint="export it again with `sizewise export`"
        ) from error


def _listened(heard: Heard, sounds: list[bytes]) -> NDArray[Any]:
    try:
        return heard(sounds)
    except DataError as error:
        raise Invalid(f"input {SOUND_INPUT!r}: {error.message}; {error.hint}") from error


def _described(name: str, datatype: str, shape: list[int]) -> Json:
    return {"name": name, "datatype": datatype, "shape": shape}


def _worded(signature: Signature) -> tuple[str, ...]:
    """Names of the outputs that say in words what the numbers stand for."""
    if signature.problem in WORDED:
        return (WORDED[signature.problem],)
    return ("text",) if signature.autoregressive or signature.problem == "transcription" else ()


def _output_shape(signature: Signature) -> list[int]:
    match signature.problem:
        case "classification" | "regression":
            return [-1, signature.outputs]
        case "translation" | "dictation":
            return [-1, -1]
        case "detection":
            return [-1, -1, 6]
        case _:
            return [-1, -1, signature.outputs]
