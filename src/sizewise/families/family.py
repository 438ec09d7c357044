"""A family of models with one dial."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sizewise.errors import UsageError
from sizewise.families.count import example, parameters
from sizewise.families.form import load_weights
from sizewise.records import Recipe, Signature

Builder = Callable[[int, Signature], nn.Module]


@dataclass(frozen=True)
class Entry:
    """A built-in family.

    Attributes:
        builder: makes the model of a width and, where it can be asked for, of a depth.
        smallest, largest: widths from which and up to which a quick study looks.
        depths: what a search tries, first that which (small) models have by themselves; empty where there is one only.
    """

    builder: str
    smallest: int
    largest: int
    depths: tuple[int, ...] = ()


LAYERS = (2, 1, 4)
"""Depths of recurrent networks and Transformers."""

NAMES = {
    "cnn": Entry("sizewise.families.cnn:build", 2, 32),
    "cnn1d": Entry("sizewise.families.cnn1d:build", 4, 64),
    "cnn3d": Entry("sizewise.families.cnn3d:build", 2, 24),
    "bag": Entry("sizewise.families.bag:build", 1, 16),
    "bilstm": Entry("sizewise.families.rnn:bilstm", 4, 64, LAYERS),
    "transformer": Entry("sizewise.families.transformer:transformer", 16, 96, LAYERS),
    "translator": Entry("sizewise.families.translator:translator", 32, 192),
    "detector": Entry("sizewise.families.detector:build", 4, 32),
    "resnet": Entry("sizewise.families.resnet:build", 4, 32, (1, 2, 3)),
    "vit": Entry("sizewise.families.transformer:vit", 16, 96, LAYERS),
    "lstm": Entry("sizewise.families.rnn:lstm", 4, 64, LAYERS),
    "bigru": Entry("sizewise.families.rnn:bigru", 4, 64, LAYERS),
    "gru": Entry("sizewise.families.rnn:gru", 4, 64, LAYERS),
}
"""Built-in families; a task whose study names none gets the first that takes it."""

LARGE_IMAGE = 40
"""Pixels of the shorter side beyond which the residual CNN comes first."""

KINDS = {
    "thin": Entry("sizewise.families.thinned", 4, 32),
    "transformers": Entry("sizewise.families.hub", 4, 24),
    "keras": Entry("sizewise.families.keras", 2, 32),
}
"""Models that did not come in sizes, named `kind:what`; `builder(what)` of the module makes a family of one."""

OWN = Entry("", 2, 32)
"""Widths of a quick study of a user's own family."""

WIDEST = 1 << 16

_MANY = {"image": "images", "volume": "volumes", "series": "series", "tokens": "texts"}


@dataclass(frozen=True)
class Family:
    """Models of one architecture for one task, in every size.

    Attributes:
        name: built-in name, `name:depth`, or `package.module:function`.
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
        width = low if params * params <= self.params(low) * self.params(high) else high
        while width > 1 and self.params(width - 1) == self.params(width):
            width -= 1  # a thin module's layers may round to the same channels at two widths: one name for one size
        return width

    def ladder(self, smallest: int, largest: int, sizes: int) -> tuple[int, ...]:
        """At most `sizes` distinct widths, log-spaced in parameters between two parameter counts."""
        steps = range(sizes)
        targets = (round(smallest * (largest / smallest) ** (i / max(sizes - 1, 1))) for i in steps)
        return tuple(sorted({self.at(max(target, self.params(1))) for target in targets}))


def ladder_of(name: str) -> tuple[int, int]:
    """Smallest and largest width of a quick study."""
    entry = NAMES.get(_deep(name)[0]) or KINDS.get(name.partition(":")[0], OWN)
    return entry.smallest, entry.largest


def widest(name: str) -> int:
    """The largest width that there is: a module that is made thinner has no larger one."""
    return KINDS["thin"].largest if name.startswith("thin:") else WIDEST


def recipe_of(name: str) -> Recipe:
    """How a family is trained if the study does not say: as a Keras model was compiled, else as any other."""
    if name.startswith("keras:"):
        from sizewise.families import keras

        return keras.recipe(name.partition(":")[2])
    return Recipe(epochs=0, batch_size=0)


def suited(signature: Signature) -> str:
    """The built-in family for a task whose study names none: the first that takes its samples.

    Images beyond `LARGE_IMAGE` pixels a side get the residual CNN: the reference CNN's one dense layer would have
    nearly all of its parameters.

    Raises:
        UsageError: there is none.
    """
    large = signature.layout == "image" and min(signature.input_shape[1:]) > LARGE_IMAGE
    for name in ("resnet", *NAMES) if large else NAMES:
        try:
            load(name, signature)
        except UsageError:
            continue
        return name
    raise UsageError(
        f"no built-in family does {signature.problem} with {_MANY[signature.layout]}",
        hint="bring your own: --family package.module:function",
    )


def load(name: str, signature: Signature) -> Family:
    """The family called `name`, for samples and answers of a signature.

    Raises:
        UsageError: there is no such family, or it cannot be built for these samples.
    """
    family = Family(name, _builder(name), signature)
    family.params(1)  # builds once without storage, so that samples it cannot take are refused here
    return family


def _builder(name: str) -> Builder:
    kind, _, what = name.partition(":")
    if kind in KINDS:
        module = importlib.import_module(KINDS[kind].builder)
        made: Builder = module.builder(what)
        return made
    base, depth = _deep(name)
    if depth is not None:
        return _at_depth(base, depth)
    path = NAMES[name].builder if name in NAMES else name
    if ":" not in path:
        near = difflib.get_close_matches(name, NAMES, n=1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"unknown family {name!r}",
            hint=f"{suggestion}built in: {', '.join(NAMES)}; your own is written package.module:function",
        )
    found = imported(path)
    if not callable(found) or isinstance(found, nn.Module):
        raise UsageError(
            f"family {name!r} is a {type(found).__name__}, not a function build(width, task)",
            hint=f"a module of one size comes in sizes as thin:{name}",
        )
    builder: Builder = found
    return builder


def _deep(name: str) -> tuple[str, int | None]:
    """A name without the depth that is asked for, and that depth; None is the family's own."""
    base, _, depth = name.partition(":")
    return (base, int(depth)) if base in NAMES and depth.isdecimal() else (name, None)


def _at_depth(base: str, depth: int) -> Builder:
    if not NAMES[base].depths:
        deep = [name for name, entry in NAMES.items() if entry.depths]
        raise UsageError(
            f"the {base} family has one depth, and {depth} was asked for",
            hint=f"a depth can be asked of {', '.join(deep)}",
        )
    if depth < 1:
        raise UsageError(f"a depth of {depth} was asked of {base}", hint="a depth is a whole number of at least 1")
    made = imported(NAMES[base].builder)
    return lambda width, signature: made(width, signature, depth)


def shapes(name: str) -> tuple[str, ...]:
    """The families that differ from one in depth alone and are worth a try, itself first."""
    base, depth = _deep(name)
    depths = NAMES[base].depths if base in NAMES else ()
    others = [other for other in depths if other != (depth or depths[0])]
    return name, *(f"{base}:{other}" for other in others)


def imported(path: str) -> Any:
    """What `package.module:object` names; modules in the current folder are found, as `python -m` finds them.

    Raises:
        UsageError: it cannot be imported, or there is no such object.
    """
    module, _, name = path.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        with torch.device("cpu"):  # what a module makes when it is imported is to have values
            return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{path!r} cannot be imported: {error}",
            hint="write package.module:function, importable from the folder you are in",
        ) from error


def output_shape(signature: Signature, batch: int) -> tuple[int | None, ...] | None:
    """What a model answers a batch of the longest samples with; None is any number, or any shape at all (boxes)."""
    steps = {
        "tagging": signature.input_shape[0],
        "language modelling": signature.input_shape[0],
        "transcription": None,
        "translation": signature.target_steps - 1,
        "dictation": signature.target_steps - 1,
    }
    if signature.problem == "detection":
        return None
    if signature.problem in steps:
        return batch, steps[signature.problem], signature.outputs
    return batch, signature.outputs


def check_output(family: Family, width: int) -> None:
    """Run two made samples through a model: whether it takes them, and answers in the shape that the problem needs.

    Raises:
        UsageError: it does not, with both shapes.
    """
    module, samples, wanted = family.build(width, seed=0).eval(), example(family.signature, 2), None
    sample = " and ".join(str(tuple(x.shape)) for x in samples)
    try:
        with torch.no_grad():
            answer = module(*samples)
    except Exception as error:  # a user's own code fails in its own way
        raise UsageError(
            f"{family.name} at width {width} cannot take samples of shape {sample}: {first_line(error)}",
            hint="the module must take one batch, as family.signature says: see the guide 'Your own model'",
        ) from error
    wanted = output_shape(family.signature, 2)
    got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else None
    if got is None or (wanted and not _agree(got, wanted)):
        shown = " × ".join("any" if n is None else str(n) for n in wanted or ())
        raise UsageError(
            f"{family.name} at width {width} answers samples of shape {sample} with "
            f"{got if got is not None else 'a ' + type(answer).__name__}, and {family.signature.problem} needs one "
            f"tensor of {shown}",
            hint="return logits (numbers, in regression), the last dimension being task.outputs",
        )


def _agree(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(got) == len(wanted) and all(b in (None, a) for a, b in zip(got, wanted, strict=True))


def first_line(error: Exception) -> str:
    """What an error of another library says, for the middle of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def refuse(family: str, signature: Signature, needs: str) -> UsageError:
    """The error of a family that cannot take these samples or give these answers."""
    shape = " × ".join(map(str, signature.input_shape))
    return UsageError(
        f"the {family} family cannot do {signature.problem} with {_MANY[signature.layout]} of {shape}",
        hint=f"it needs {needs}",
    )
