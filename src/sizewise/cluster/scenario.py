"""A large run as a file describes it, and what it would take."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from sizewise.cluster.memory import FITS
from sizewise.cluster.simulate import Hardware, Layout, Step, best, simulate
from sizewise.cluster.work import Transformer
from sizewise.errors import UsageError
from sizewise.records import from_json


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes:
        batch: sequences of a step.
        tokens: of the whole run.
    """

    batch: int
    tokens: float


@dataclass(frozen=True)
class Scenario:
    """A model, machines and what is trained; without a layout it is the fastest that fits."""

    model: Transformer
    hardware: Hardware
    training: Training
    layout: Layout | None = None


@dataclass(frozen=True)
class Forecast:
    """A simulated run.

    Attributes:
        params: of the model.
        step: one of its steps.
        fits: whether a device has room for it.
        steps: optimizer steps of the run.
        hours: of all steps.
        cost: of the nodes for so long, at their price.
    """

    params: int
    step: Step
    fits: bool
    steps: int
    hours: float
    cost: float


def read(path: Path) -> Scenario:
    """Read a scenario from TOML.

    Raises:
        UsageError: there is no such file, or it says something else.
    """
    try:
        return from_json(Scenario, tomllib.loads(path.read_text()))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="name a file such as examples/cluster.toml"
        ) from error
    except Exception as error:  # TOML's own, or groups of whatever the fields raised
        raise UsageError(
            f"{path} describes no run: {_first(error)}",
            hint="it needs [model], [hardware] and [training], see examples/cluster.toml",
        ) from error


def _first(error: BaseException) -> str:
    """The innermost reason of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def forecast(scenario: Scenario) -> Forecast:
    """Simulate a run.

    Raises:
        UsageError: the layout does not share the batch out.
        BudgetError: no layout fits, where none is given.
    """
    work, hardware, training = scenario.model.work(), scenario.hardware, scenario.training
    layout = scenario.layout
    step = best(work, hardware, training.batch) if layout is None else simulate(work, hardware, layout)
    shared = step.replicas * step.layout.samples * step.layout.parts
    if shared != training.batch:
        raise UsageError(
            f"{step.replicas} replicas with {step.layout.parts} micro-batches of {step.layout.samples} are a batch of "
            f"{shared}, not of {training.batch}",
            hint="change layout.samples or layout.parts, or leave [layout] out",
        )
    steps = -(-int(training.tokens) // (training.batch * scenario.model.steps))
    hours = steps * step.seconds / 3600
    fits = step.memory_bytes <= FITS * hardware.memory_bytes
    return Forecast(work.params, step, fits, steps, hours, hours * hardware.nodes * hardware.price)


__all__ = ["Forecast", "Scenario", "Training", "forecast", "read"]
