"""How the steps of a size are computed: timed on a few of them, chosen once, and the same for all its seeds.

What is chosen is kept in the study folder, where every other seed finds it, and in the checkpoint of each run.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sizewise import recipe as recipes
from sizewise.engine import Gradients, UnavailableError, compiled, explained, traced
from sizewise.loop.data import Data, batches, generator
from sizewise.loop.state import State
from sizewise.loop.step import at_a_time, inputs, mean_loss, step
from sizewise.records import Engine, Tier, Trial
from sizewise.store import Store

LEAST_STEPS = 2000
"""Steps of a size below which nothing is tried: looking for a faster way takes as long as a thousand of them."""

COMPILING_SECONDS = 8.0
"""What compiling takes: one to four seconds on a core of its own, more on a busy one."""

WORTH = 0.4
"""Share of a step that compiling is hoped to save, when its worth is weighed."""

TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}
"""Largest distance of a tier's gradient from the reference's, relative to its length."""

CHECKED, TIMED, WARM = 3, 9, 2
"""Batches on which a tier is checked, and steps of each that are timed, after a warm-up."""


def settle(state: State, trial: Trial, data: Data, teacher: Tensor | None, store: Store, runs: int) -> None:
    """Give a run the tier of its size, chosen now if no run of that size was here before.

    Args:
        runs: trials of this size that are to be trained, this one included.
    """
    size = _Size(trial, data, teacher, runs)
    with _undrawn():
        if why := size.impossible(state):
            state.engine = _reference(why)
        elif not state.epoch:  # a resumed run goes on as it began
            state.engine = _of(size, state, store)
        try:
            state.gradients = size.gradients(state.engine.tier, state)
        except UnavailableError as error:
            print(f"warning: no {state.engine.tier} steps here ({error}); {trial.key} goes without", file=sys.stderr)
            state.engine = replace(state.engine, tier="reference")


def _of(size: _Size, state: State, store: Store) -> Engine:
    """What was chosen for a size, or is chosen now. Other workers wait for it."""
    name = f"engine/{size.trial.size}.json"
    if not (store / name).exists() and (why := size.too_short()):
        return _reference(why)
    return store.once(name, Engine, lambda: size.chosen(state))


def _reference(why: str) -> Engine:
    return Engine(left_out={"traced": why, "compiled": why})


@dataclass
class _Size:
    """What the runs of one size share, and what is found out about them."""

    trial: Trial
    data: Data
    teacher: Tensor | None
    runs: int
    states: dict[Tier, State] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Optimizer steps of all its runs."""
        recipe = self.trial.recipe
        return recipes.batches_per_epoch(recipe, len(self.data.x)) * recipe.epochs * self.runs

    def impossible(self, state: State) -> str:
        """Why a run can only be computed as it stands; "" if it is not so."""
        samples = recipes.batch_of(self.trial.recipe, len(self.data.x))
        if not state.group.alone:
            return f"{state.group.size} workers share every batch"
        if self.data.task.signature.dynamic:
            return "lengths differ from batch to batch"
        return "the gradient of a batch is added up in parts" if at_a_time(samples, state.parts) < samples else ""

    def too_short(self) -> str:
        """Why nothing is looked for; "" if there is something to gain."""
        return f"{self.steps:,} steps are too few" if self.steps < LEAST_STEPS else ""

    def chosen(self, state: State) -> Engine:
        """The fastest tier that computes what the reference does, on copies of a run."""
        self._try("reference", state)
        self._try("traced", state)
        times = self._timed()
        saved = WORTH * self.steps * min(times.values())
        if saved > COMPILING_SECONDS:
            self._try("compiled", state)
            times = self._timed()
        else:
            self.left_out["compiled"] = f"{self.steps:,} steps are too few: it would save some {saved:.0f} s"
        fastest = min(times, key=lambda tier: times[tier])
        return Engine(fastest, {tier: 1e3 * seconds for tier, seconds in times.items()}, self.left_out)

    def gradients(self, tier: Tier, state: State) -> Gradients | None:
        """A run's gradients, computed as the tier says. What was traced or compiled for another seed is taken again.

        Raises:
            UnavailableError: the module cannot be traced or compiled.
        """
        if tier == "reference":
            return None
        batch, shape = self._inputs(state)[0], tuple(weight.shape for weight in state.module.parameters())
        known = _KNOWN.get((shape, self.trial.size, tier))
        if known is not None and known.movable and known.fits(len(batch[0])):
            return known.to(state.module)
        state.module.train()
        made = traced(state.module, mean_loss(self.trial, self.data), batch, rewrite=tier == "compiled")
        made = compiled(made, batch) if tier == "compiled" else made
        _KNOWN[shape, self.trial.size, tier] = made.without_weights()
        return made

    def _try(self, tier: Tier, state: State) -> None:
        """Add a tier to what is timed, or the reason why it cannot be."""
        module = copy.deepcopy(state.module).train()
        candidate = State(module, recipes.optimizer(self.trial.recipe, module))
        recipes.training(candidate.optimizer)
        try:
            candidate.gradients = self.gradients(tier, candidate)
            self._check(candidate, state)
        except UnavailableError as error:
            self.left_out[tier] = str(error)
        else:
            self.states[tier] = candidate

    def _check(self, candidate: State, state: State) -> None:
        """Compare gradients, batch by batch, with those of automatic differentiation."""
        if candidate.gradients is None:
            return
        module, loss = copy.deepcopy(state.module).train(), mean_loss(self.trial, self.data)
        for batch in self._inputs(state):
            with _undrawn(), explained():
                candidate.gradients(*batch)
            with _undrawn():
                weights = [module.get_parameter(name) for name in candidate.gradients.names]
                found = torch.autograd.grad(loss(module, *batch), weights)
            for mine, true in zip(candidate.gradients.weights, found, strict=True):
                _compare(mine.grad, true, TOLERANCE[self.trial.recipe.precision])

    def _timed(self) -> dict[Tier, float]:
        """Median seconds of a step of each tier, one after the other in turn, so that all see the same machine."""
        ready = self._batches()
        times: dict[Tier, list[float]] = {tier: [] for tier in self.states}
        for number in range(WARM + TIMED):
            for tier, state in self.states.items():
                began = time.perf_counter()
                step(state, self.trial, self.data, self.teacher, ready[number % len(ready)])
                times[tier].append(time.perf_counter() - began)
        return {tier: float(np.median(taken[WARM:])) for tier, taken in times.items()}

    def _batches(self) -> Sequence[Tensor]:
        """Whole batches of an epoch that no run has."""
        whole = recipes.batch_of(self.trial.recipe, len(self.data.x))
        return [batch for batch in batches(self.data, self.trial.recipe, generator(0)) if len(batch) == whole]

    def _inputs(self, state: State) -> list[tuple[Tensor, ...]]:
        chosen = self._batches()[:CHECKED]
        return [inputs(state, self.trial, self.data, self.teacher, batch) for batch in chosen]


_KNOWN: dict[tuple[tuple[torch.Size, ...], str, Tier], Gradients] = {}
"""What was traced or compiled in this process, by size; pruned models of one size may have several shapes."""


def _compare(mine: Tensor | None, true: Tensor, tolerance: float) -> None:
    distance = torch.linalg.vector_norm(mine - true) if mine is not None else torch.tensor(torch.inf)
    if not distance <= tolerance * torch.linalg.vector_norm(true) + 1e-12:
        raise UnavailableError(f"its gradient is {float(distance):.2g} away from automatic differentiation's")


@contextmanager
def _undrawn() -> Iterator[None]:
    """Looking changes nothing that a run will draw."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
