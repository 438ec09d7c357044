"""What is learned, and how its data is read."""

from __future__ import annotations

import dataclasses
from typing import Literal

Problem = Literal[
    "classification",
    "regression",
    "tagging",
    "language modelling",
    "transcription",
    "translation",
    "dictation",
    "detection",
]
"""What is learned: one label or several numbers a sample, a label at each step, the next token, labels without their
places in time (CTC), a sentence from a sentence or from sound, token by token, boxes in an image."""

Layout = Literal["image", "volume", "series", "tokens"]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out: all that a family has to know of a task.

    A model takes one tensor, a batch of samples. Padding can be seen in it: a token 0, or, in a series that is
    `dynamic`, a last channel that is 1 where there is a step and 0 where there is none. Where answers are made
    token by token, it takes the target's beginning as a second one.

    Attributes:
        problem: decides what comes out; shapes are in `families.output_shape`.
        input_shape: of one sample: (channels, height, width) of an image, (channels, depth, height, width) of a volume,
            (steps, channels) of a series, (tokens,) of a text.
        outputs: classes, numbers or tokens of the target; the blank of CTC, number 0, included.
        vocabulary: tokens of the input, ids in [0, vocabulary); 0 where the input is numbers.
        dynamic: whether samples may have fewer steps than `input_shape` says.
        target_steps: longest target with its first and last token; 0 where targets have no steps of their own.
    """

    problem: Problem
    input_shape: tuple[int, ...]
    outputs: int
    vocabulary: int = 0
    dynamic: bool = False
    target_steps: int = 0

    @property
    def layout(self) -> Layout:
        """What one sample is."""
        layouts: dict[int, Layout] = {1: "tokens", 2: "series", 3: "image", 4: "volume"}
        return layouts[len(self.input_shape)]

    @property
    def autoregressive(self) -> bool:
        """Whether answers are made token by token, each from those before it, by an encoder and a decoder."""
        return self.target_steps > 0

    @property
    def channels(self) -> int:
        """Channels of the input, where the input is numbers."""
        return self.input_shape[-1] if self.layout == "series" else self.input_shape[0]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How data is read, where its form leaves that open. 0, "" and () are the loader's own choice.

    Attributes:
        size: (height, width) in pixels that images are brought to.
        steps: longest text, series or window, in tokens or steps; what is longer is cut, and counted.
        vocabulary: tokens of the tokenizer that is trained on the training split.
        text, target: columns of a table that hold the sample and what is to be learned from it.
    """

    size: tuple[int, ...] = ()
    steps: int = 0
    vocabulary: int = 0
    text: str = ""
    target: str = ""
