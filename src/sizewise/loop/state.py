"""A run under way: what changes from epoch to epoch, how it begins, and how it is kept while it is stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from sizewise import families
from sizewise import recipe as recipes
from sizewise.engine import Gradients
from sizewise.loop.data import Start
from sizewise.records import Engine, Point, Trial, from_json, to_json
from sizewise.tasks import Task


@dataclass
class State:
    """A run under way.

    Attributes:
        module: what the steps train.
        average: of its weights, where the recipe asks for one.
        best: weights of the best epoch, where the run may stop early.
        parts: in which the gradient of a batch is added up.
        gradients: a faster way to the loss and its gradients, see `tiers`.
        engine: how steps are computed, as it is recorded.
    """

    module: nn.Module
    optimizer: Optimizer
    average: AveragedModel | None = None
    epoch: int = 0
    seconds: float = 0.0
    curve: tuple[Point, ...] = ()
    best: dict[str, Tensor] | None = None
    parts: int = 1
    gradients: Gradients | None = None
    engine: Engine = field(default_factory=Engine)

    @property
    def model(self) -> nn.Module:
        """What is looked at and published: the average, once it is one of something."""
        averaged = self.average is not None and int(self.average.n_averaged)
        return self.average.module if self.average is not None and averaged else self.module


def begin(trial: Trial, task: Task, start: Start) -> State:
    """A run before its first step."""
    family = families.load(trial.family, task.signature)
    module = family.build(trial.width, seed=trial.seed)
    if start.weights is not None:
        families.fill(module, start.weights, start.form)
    module = families.arrange_module(module, task.signature)
    if start.constraint is not None:
        start.constraint.begin(module)
    average = recipes.average(trial.recipe, module)
    return State(module, recipes.optimizer(trial.recipe, module), average, parts=trial.recipe.accumulate)


def snapshot(state: State) -> bytes:
    """The whole state as one safetensors file: weights, optimizer state, and the curve as metadata."""
    from safetensors.torch import save

    tensors = {f"module.{name}": tensor for name, tensor in families.distinct(state.module.state_dict()).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (state.best or {}).items()}
    if state.average is not None:
        tensors |= {f"average.{name}": t for name, t in families.distinct(state.average.state_dict()).items()}
    kept = state.optimizer.state_dict()
    tensors |= {f"optimizer.{index}.{slot}": tensor for index, slot, tensor in _slots(kept, Tensor)}
    record = {
        "epoch": state.epoch,
        "seconds": state.seconds,
        "curve": [to_json(point) for point in state.curve],
        "engine": to_json(state.engine),
        "numbers": list(_slots(kept, int | float)),
        "groups": [_numbers(group) for group in kept["param_groups"]],
    }
    metadata = {"state": json.dumps(record)}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)


def resume(trial: Trial, task: Task, start: Start, checkpoint: Path) -> State | None:
    """The run as its checkpoint left it; None when there is none, or it is damaged, which is said."""
    from safetensors import SafetensorError

    if not checkpoint.exists():
        return None
    state = begin(trial, task, start)
    try:
        _restore(state, checkpoint)
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        print(f"warning: {checkpoint} is damaged ({error}); the trial starts again", file=sys.stderr)
        return None
    return state


def _restore(state: State, path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, a safetensors handle is no dict
        meta = json.loads(file.metadata()["state"])
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "best": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        groups[kind][rest] = tensor
    state.module.load_state_dict(families.complete(groups["module"], state.module))
    state.best = groups["best"] or None
    if state.average is not None:
        state.average.load_state_dict(families.complete(groups["average"], state.average))
    _restore_optimizer(state.optimizer, groups["optimizer"], meta)
    state.epoch, state.seconds = meta["epoch"], meta["seconds"]
    state.engine = from_json(Engine, meta.get("engine", {}))
    state.curve = tuple(Point(**point) for point in meta["curve"])


def _restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """An optimizer's tensors by "parameter.slot", and the numbers that it keeps of each parameter and each group."""
    slots: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = _laid_out(tensor, parameters[int(index)])
    for number, slot, value in meta.get("numbers", ()):
        slots.setdefault(number, {})[slot] = value
    blank = optimizer.state_dict()["param_groups"]
    groups = [group | kept for group, kept in zip(blank, meta.get("groups", [{}] * len(blank)), strict=True)]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _laid_out(slot: Tensor, parameter: Tensor) -> Tensor:
    """An optimizer's values in the memory layout of their weights: fused optimizers walk both as if they had one."""
    return torch.empty_like(parameter).copy_(slot) if slot.shape == parameter.shape else slot


def _slots(kept: dict[str, Any], kind: Any) -> Iterator[tuple[int, str, Any]]:
    """What an optimizer's state holds of one kind: (parameter, slot, value)."""
    for index, slots in kept["state"].items():
        for name, value in slots.items():
            if isinstance(value, kind):
                yield index, name, value


def _numbers(group: dict[str, Any]) -> dict[str, int | float]:
    return {name: value for name, value in group.items() if isinstance(value, int | float)}
