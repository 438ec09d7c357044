"""The optimizers by name: the one place that knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer, RMSprop

from sizewise.errors import UsageError, extra
from sizewise.records import Recipe

LEAST_PRODIGY_RATE = 0.01
"""Prodigy's rate is a factor of the one that it finds; the usual rates of other optimizers would hold it still."""


@dataclass(frozen=True)
class Method:
    """An optimizer.

    Attributes:
        build: makes it for a model at a recipe's learning rate.
        slots: values of state that it keeps for each weight, at most.
        exponent: of the width, in learning rate ∝ (reference width / width)^exponent; `scaling` says why.
        scheduled: whether its rate follows the recipe's schedule to the end, or stays after the warm-up.
        factor: whether its rate is a factor of one that it finds itself.
    """

    build: Callable[[Recipe, nn.Module], Optimizer]
    slots: int
    exponent: float
    scheduled: bool = True
    factor: bool = False


@runtime_checkable
class Moded(Protocol):
    """An optimizer that trains at one point and answers at another."""

    def train(self) -> None:
        """Move the weights to where gradients are taken."""

    def eval(self) -> None:
        """Move the weights to where the model is used."""


class Shared(Optimizer):
    """Two optimizers that share out the weights of one model, seen as one: it has the groups and the state of both."""

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self.parts = (first, second)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._hand_out()

    def _hand_out(self) -> None:
        """Let both parts work on this one's groups and state."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of both."""
        super().load_state_dict(state_dict)
        self._hand_out()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each on its own weights."""
        for part in self.parts:
            part.step()


def optimizer(recipe: Recipe, module: nn.Module) -> Optimizer:
    """The optimizer of a recipe whose learning rate is already that of its width.

    Raises:
        UsageError: Muon has no matrix to work on in this model.
        MissingExtraError: its package is not installed.
    """
    return OPTIMIZERS[recipe.optimizer].build(recipe, module)


def slots(recipe: Recipe) -> int:
    """Values that are kept for each weight besides its gradient."""
    return OPTIMIZERS[recipe.optimizer].slots + (recipe.average != "none")


def training(optimizer: Optimizer) -> None:
    """Before the steps of an epoch."""
    if isinstance(optimizer, Moded):
        optimizer.train()


def evaluating(optimizer: Optimizer) -> None:
    """After them: the weights are those of the model that would be used, and may be stored."""
    if isinstance(optimizer, Moded):
        optimizer.eval()


def unfused(optimizer: Optimizer) -> None:
    """Let SGD take its steps weight by weight: in PyTorch 2.13 its fused ones know nothing of parts of weights."""
    for group in optimizer.param_groups if isinstance(optimizer, SGD) else ():
        group["fused"] = False


def _sgd(momentum: bool, nesterov: bool = False) -> Callable[[Recipe, nn.Module], Optimizer]:
    def build(recipe: Recipe, module: nn.Module) -> Optimizer:
        return SGD(
            module.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum if momentum else 0.0,
            nesterov=nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    return build


def _rmsprop(recipe: Recipe, module: nn.Module) -> Optimizer:
    return RMSprop(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)


def _adam(recipe: Recipe, module: nn.Module) -> Optimizer:
    return Adam(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def _adamw(recipe: Recipe, module: nn.Module) -> Optimizer:
    return AdamW(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def _muon(recipe: Recipe, module: nn.Module) -> Optimizer:
    """Muon on the hidden matrices, with steps as long as AdamW's, which takes the rest.

    Jordan et al. 2024 ("Muon: an optimizer for hidden layers in neural networks"); the length of the step is that of
    Liu et al. 2025, arXiv:2502.16982, equation 4, with which both parts share one rate and one weight decay.
    """
    matrices, rest = hidden_matrices(module)
    if not matrices:
        raise UsageError(
            "muon works on hidden matrices, and this model has none", hint="take another optimizer: --optimizer adamw"
        )
    rate, decay = recipe.lr, recipe.weight_decay
    return Shared(
        Muon(matrices, lr=rate, weight_decay=decay, momentum=recipe.momentum, adjust_lr_fn="match_rms_adamw"),
        AdamW(rest, lr=rate, weight_decay=decay, fused=True),
    )


def hidden_matrices(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices that are neither a table of token vectors nor the output layer, and all other parameters."""
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    matrices = [p for p in module.parameters() if p.ndim == 2 and id(p) not in tables][:-1]
    chosen = set(map(id, matrices))
    return matrices, [p for p in module.parameters() if id(p) not in chosen]


def _schedule_free(recipe: Recipe, module: nn.Module) -> Optimizer:
    """Defazio et al. 2024, arXiv:2405.15682. Batch norms keep the statistics of the point where gradients are taken."""
    with extra("optimizers", needed_for="the optimizer schedule-free"):
        from schedulefree import AdamWScheduleFree

    made: Optimizer = AdamWScheduleFree(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    return made


def _prodigy(recipe: Recipe, module: nn.Module) -> Optimizer:
    """Mishchenko & Defazio 2024, arXiv:2306.06101, as they advise for a schedule with a warm-up."""
    with extra("optimizers", needed_for="the optimizer prodigy"):
        from prodigyopt import Prodigy

    made: Optimizer = Prodigy(module.parameters(), lr=recipe.lr, use_bias_correction=True, safeguard_warmup=True)
    for group in made.param_groups:  # here, since its constructor prints what it does with a weight decay
        group["weight_decay"] = recipe.weight_decay
    return made


OPTIMIZERS: dict[str, Method] = {
    "gd": Method(_sgd(momentum=False), slots=0, exponent=0.0),
    "sgd": Method(_sgd(momentum=False), slots=0, exponent=0.0),
    "momentum": Method(_sgd(momentum=True), slots=1, exponent=0.0),
    "nesterov": Method(_sgd(momentum=True, nesterov=True), slots=1, exponent=0.0),
    "rmsprop": Method(_rmsprop, slots=1, exponent=0.5),
    "adam": Method(_adam, slots=2, exponent=0.5),
    "adamw": Method(_adamw, slots=2, exponent=0.5),
    "muon": Method(_muon, slots=2, exponent=0.5),
    "schedule-free": Method(_schedule_free, slots=2, exponent=0.5, scheduled=False),
    "prodigy": Method(_prodigy, slots=4, exponent=0.0, factor=True),
}

__all__ = ["OPTIMIZERS", "Method", "evaluating", "hidden_matrices", "optimizer", "slots", "training", "unfused"]
