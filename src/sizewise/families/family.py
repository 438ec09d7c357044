"""A family of models with one dial."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sizewise.errors import UsageError
from sizewise.families.count import parameters
from sizewise.families.weights import load_weights
from sizewise.records import Signature

Builder = Callable[[int, Signature], nn.Module]


@dataclass(frozen=True)
class Entry:
    """A built-in family: its builder, and the widths from which and up to which a quick study looks."""

    builder: str
    smallest: int
    largest: int


NAMES = {
    "cnn": Entry("sizewise.families.cnn:build", 2, 32),
    "cnn1d": Entry("sizewise.families.cnn1d:build", 4, 64),
    "cnn3d": Entry("sizewise.families.cnn3d:build", 2, 24),
    "bag": Entry("sizewise.families.bag:build", 1, 16),
    "bilstm": Entry("sizewise.families.rnn:bilstm", 4, 64),
    "transformer": Entry("sizewise.families.transformer:transformer", 16, 96),
    "translator": Entry("sizewise.families.transformer:translator", 32, 192),
    "detector": Entry("sizewise.families.detector:build", 4, 32),
    "resnet": Entry("sizewise.families.resnet:build", 4, 32),
    "vit": Entry("sizewise.families.transformer:vit", 16, 96),
    "lstm": Entry("sizewise.families.rnn:lstm", 4, 64),
    "bigru": Entry("sizewise.families.rnn:bigru", 4, 64),
    "gru": Entry("sizewise.families.rnn:gru", 4, 64),
}
"""Built-in families; a task whose study names none gets the first that takes it."""

OWN = (2, 32)
"""Widths of a quick study of a user's own family."""

WIDEST = 1 << 16


@dataclass(frozen=True)
class Family:
    """Models of one architecture for one task, in every size.

    Attributes:
        name: built-in name or `package.module:function`.
        builder: makes the model of a width.
        signature: what goes into a model and what comes out.
    """

    name: str
    builder: Builder
    signature: Signature

    def build(self, width: int, *, seed: int | None = None, weights: Path | None = None) -> nn.Module:
        """The model at `width` >= 1 with random weights, the same for the same seed, or those of a safetensors file.

        Raises:
            UsageError: the width is below 1.
            DataError: the file holds another model.
        """
        if width < 1:
            raise UsageError(f"width is {width}", hint="a width is a whole number of at least 1")
        if weights is not None:
            module = self.builder(width, self.signature)
            load_weights(module, weights)
            return module
        if seed is None:
            return self.builder(width, self.signature)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.builder(width, self.signature)

    def params(self, width: int) -> int:
        """Trainable parameters at `width`, counted on a model without storage."""
        with torch.device("meta"):
            return parameters(self.build(width))

    def at(self, params: int) -> int:
        """The width whose parameter count is nearest to `params` on a logarithmic scale.

        Raises:
            UsageError: `params` lies below the smallest model or above the widest that is considered.
        """
        smallest = self.params(1)
        if params < smallest:
            raise UsageError(
                f"no {self.name} model has {params:,} parameters: the smallest has {smallest:,}",
                hint=f"ask for at least {smallest:,} parameters",
            )
        low, high = 1, 2
        while self.params(high) < params:
            low, high = high, 2 * high
            if high > WIDEST:
                raise UsageError(f"{params:,} parameters need a width above {WIDEST}", hint="ask for a smaller model")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.params(middle) <= params else (low, middle)
        return low if params * params <= self.params(low) * self.params(high) else high

    def ladder(self, smallest: int, largest: int, sizes: int) -> tuple[int, ...]:
        """At most `sizes` distinct widths, log-spaced in parameters between two parameter counts."""
        steps = range(sizes)
        targets = (round(smallest * (largest / smallest) ** (i / max(sizes - 1, 1))) for i in steps)
        return tuple(sorted({self.at(max(target, self.params(1))) for target in targets}))


def ladder_of(name: str) -> tuple[int, int]:
    """Smallest and largest width of a quick study."""
    return (NAMES[name].smallest, NAMES[name].largest) if name in NAMES else OWN


def suited(signature: Signature) -> str:
    """The built-in family for a task whose study names none: the first that takes its samples.

    Raises:
        UsageError: there is none.
    """
    for name in NAMES:
        try:
            load(name, signature)
        except UsageError:
            continue
        return name
    raise UsageError(
        f"no built-in family does {signature.problem} on a {signature.layout}",
        hint="bring your own: --family package.module:function",
    )


def load(name: str, signature: Signature) -> Family:
    """The family called `name`, for samples and answers of a signature.

    Raises:
        UsageError: there is no such family, or it cannot be built for these samples.
    """
    path = NAMES[name].builder if name in NAMES else name
    if ":" not in path:
        near = difflib.get_close_matches(name, NAMES, n=1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"unknown family {name!r}",
            hint=f"{suggestion}built in: {', '.join(NAMES)}; your own is written package.module:function",
        )
    module, _, function = path.partition(":")
    try:
        builder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"family {name!r} cannot be imported: {error}",
            hint="write package.module:function, importable from the folder you are in",
        ) from error
    family = Family(name, builder, signature)
    family.params(1)  # builds once without storage, so that samples it cannot take are refused here
    return family


def refuse(family: str, signature: Signature, needs: str) -> UsageError:
    """The error of a family that cannot take these samples or give these answers."""
    shape = " × ".join(map(str, signature.input_shape))
    return UsageError(
        f"the {family} family cannot do {signature.problem} on a {signature.layout} of {shape}",
        hint=f"it needs {needs}",
    )
