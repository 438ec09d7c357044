"""Keras 3 models in sizes, on its PyTorch backend: `keras:package.module:model`, the code as it is.

One dial: width 32 is the model as it is written, and its compiled learning rate belongs there; at width w every layer
but the last that has `filters` or `units` gets w/32 of them. Layers are made anew from their own configurations, with
their own initial weights. The answers are the last layer's before its softmax or sigmoid, which is left out, since
losses here take logits. Images turn their channels last on their way in.

A study that says nothing of how to train takes the optimizer and learning rate that the model was compiled with, and
Keras' own defaults: 32 samples a step, a constant rate.
"""

from __future__ import annotations

import copy
import os
import random
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sizewise.errors import UsageError, extra
from sizewise.families.family import Builder, imported
from sizewise.records import Recipe, Signature

AS_WRITTEN = 32
"""The width that is the model as the user wrote it."""

SIZES = ("filters", "units")
PROBABILITIES = ("softmax", "sigmoid")
OPTIMIZERS = {"adam": "adam", "adamw": "adamw", "sgd": "sgd", "rmsprop": "rmsprop"}
BUILT = ("build_config", "build_input_shape", "compile_config")
"""What a configuration remembers of the shapes and training that it once had."""


class Wrapped(nn.Module):
    """A Keras model that takes samples as `sizewise` does: images with their channels first."""

    def __init__(self, model: Any, task: Signature) -> None:
        super().__init__()
        self.model, self.turned = model, task.layout in ("image", "volume")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.movedim(1, -1) if self.turned else x, training=self.training)
        return logits


def builder(target: str) -> Builder:
    """The family of a Keras model.

    Args:
        target: `package.module:object`: a `Sequential` or functional model, or a function of the task or of nothing
            that makes one.

    Raises:
        UsageError: there is none, or Keras runs on another backend.
    """
    keras = _keras()

    def build(width: int, task: Signature) -> nn.Module:
        if torch.get_default_device().type == "meta":
            return copy.deepcopy(_counted(target, width, task))
        with _drawn_from_torch():
            return Wrapped(_sized(keras, target, width, task), task)

    return build


@cache
def _counted(target: str, width: int, task: Signature) -> nn.Module:
    """The model without storage; Keras makes its weights on a device of its own, so they are made and dropped."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return builder(target)(width, task).to("meta")


def recipe(target: str) -> Recipe:
    """How the model was compiled to be trained, epochs left open.

    Raises:
        UsageError: by an optimizer that `sizewise` does not have.
    """
    _keras()
    optimizer = getattr(_given(target, None), "optimizer", None)
    if optimizer is None:
        return Recipe(epochs=0, batch_size=0)
    settings = optimizer.get_config()
    name = OPTIMIZERS.get(type(optimizer).__name__.lower())
    if name is None or not isinstance(settings["learning_rate"], int | float):
        raise UsageError(
            f"keras:{target} is compiled with {type(optimizer).__name__}, learning rate {settings['learning_rate']}",
            hint=f"say how to train it in the study's [recipe]; known optimizers: {', '.join(OPTIMIZERS)}",
        )
    momentum = float(settings.get("momentum", 0.0)) if name == "sgd" else 0.0
    with_momentum = "nesterov" if settings.get("nesterov") else "momentum"
    return Recipe(
        optimizer=with_momentum if momentum else name,  # type: ignore[arg-type]
        lr=float(f"{settings['learning_rate']:.6g}"),  # Keras keeps it in single precision
        momentum=momentum or Recipe.momentum,
        weight_decay=float(settings.get("weight_decay") or 0.0),
        batch_size=AS_WRITTEN,
        epochs=0,
        schedule="constant",
    )


def _keras() -> Any:
    """Keras on PyTorch.

    Raises:
        UsageError: it was imported before with another backend, which cannot be changed then.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    with extra("keras", needed_for="a Keras model"):
        import keras
    if keras.backend.backend() != "torch":
        raise UsageError(
            f"Keras was imported with the backend {keras.backend.backend()!r}",
            hint="set the environment variable KERAS_BACKEND=torch before anything imports it",
        )
    return keras


def _given(target: str, task: Signature | None) -> Any:
    """The user's model, or what their function makes."""
    from sizewise.families.thinned import takes_one

    made = imported(target)
    if callable(made) and not isinstance(made, nn.Module):
        made = (made(task) if task else None) if takes_one(made) else made()
    return made


def _sized(keras: Any, target: str, width: int, task: Signature) -> Any:
    given = _given(target, task)
    if not isinstance(given, keras.Model):
        raise UsageError(
            f"keras:{target} is a {type(given).__name__}", hint="name a keras.Model, or a function making one"
        )
    try:
        settings = _thinner(given.get_config(), width / AS_WRITTEN)
        model = type(given).from_config(settings)
        shape = task.input_shape
        model.build((None, *((*shape[1:], shape[0]) if task.layout in ("image", "volume") else shape)))
        return keras.Model(model.inputs, model.outputs)
    except (NotImplementedError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"keras:{target} cannot be built at width {width} for samples of {task.input_shape}: {reason}",
            hint="it must be a Sequential or functional model that takes them, images with their channels last",
        ) from error


def _thinner(settings: dict[str, Any], share: float) -> dict[str, Any]:
    """A model's configuration with a share of the filters and units, and without probabilities at its end."""
    settings = _forgetting(settings)
    layers = settings["layers"]
    if layers[-1]["class_name"] == "Softmax" or layers[-1]["config"].get("activation") in PROBABILITIES:
        if set(SIZES) & set(layers[-1]["config"]):
            layers[-1]["config"]["activation"] = "linear"
        elif "input_layers" not in settings:
            layers.pop()
        else:
            raise ValueError("the softmax of a functional model must be its last layer's activation")
    last = max(i for i, layer in enumerate(layers) if set(SIZES) & set(layer["config"]))
    for layer in layers[:last]:
        for name in set(SIZES) & set(layer["config"]):
            layer["config"][name] = max(1, round(layer["config"][name] * share))
    return settings


def _forgetting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _forgetting(v) for k, v in value.items() if k not in BUILT}
    return [_forgetting(v) for v in value] if isinstance(value, list) else value


class _drawn_from_torch:  # noqa: N801, used like a function
    """Keras seeds its initial weights from Python's generator: here that follows PyTorch's, and is given back after."""

    def __enter__(self) -> None:
        self.state = random.getstate()
        random.seed(int(torch.randint(2**31, (1,))))

    def __exit__(self, *_: object) -> None:
        random.setstate(self.state)
