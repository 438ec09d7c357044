"""Optimizers, schedules and losses are the textbooks', and follow the width as documented."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise import families
from sizewise import recipe as recipes
from sizewise.errors import UsageError
from sizewise.records import Recipe
from tests.builders import CLASSES, toy_task, train, trial, weights

STEPS = 3
SGD = Recipe("sgd", lr=0.1, batch_size=16, epochs=1, schedule="constant")


class Reference:
    """The updates as their papers write them, one function of (weight, gradient, memory, step) each."""

    def __init__(self, recipe: Recipe) -> None:
        self.r = recipe
        self.memory: dict[str, tuple[Tensor, Tensor]] = {}

    def update(self, name: str, w: Tensor, g: Tensor, step: int) -> Tensor:
        r = self.r
        a, b = self.memory.get(name, (torch.zeros_like(w), torch.zeros_like(w)))
        if r.optimizer != "adamw":
            g = g + r.weight_decay * w
        if r.optimizer in ("gd", "sgd"):
            return w - r.lr * g
        if r.optimizer == "momentum":
            a = r.momentum * a + g
            self.memory[name] = (a, b)
            return w - r.lr * a
        a, b = 0.9 * a + 0.1 * g, 0.999 * b + 0.001 * g * g
        self.memory[name] = (a, b)
        shrunk = w * (1 - r.lr * r.weight_decay) if r.optimizer == "adamw" else w
        return shrunk - r.lr * (a / (1 - 0.9**step)) / ((b / (1 - 0.999**step)).sqrt() + 1e-8)


def module_and_batches() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    task = toy_task(48)
    module = families.load("cnn", task.signature).build(2, seed=0)
    x, y = torch.from_numpy(task.preprocessor(task.train.x)), torch.from_numpy(task.train.y)
    return module, list(zip(torch.split(x, 16), torch.split(y, 16), strict=True))


def gradients(module: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    F.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["gd", "sgd", "momentum", "adam", "adamw"])
def test_an_optimizer_takes_the_steps_of_its_paper(name: str, decay: float) -> None:
    recipe = replace(SGD, optimizer=name, lr=0.01, weight_decay=decay)  # type: ignore[arg-type]
    (ours, batches), (theirs, _) = module_and_batches(), module_and_batches()
    optimizer, reference = recipes.optimizer(recipe, ours.parameters()), Reference(recipe)
    for step, (x, y) in enumerate(batches[:STEPS], start=1):
        gradients(ours, x, y)
        optimizer.step()
        updates = gradients(theirs, x, y)
        with torch.no_grad():
            for key, w in theirs.named_parameters():
                w.copy_(reference.update(key, w, updates[key], step))
    for (key, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6), key


def test_a_run_of_gradient_descent_is_one_step_on_the_whole_split(tmp_path: Path) -> None:
    task = toy_task(48)
    recipe = replace(SGD, optimizer="gd")
    run = train(trial(task, recipe=recipe), task, tmp_path)
    module, _ = module_and_batches()
    x, y = torch.from_numpy(task.preprocessor(task.train.x)), torch.from_numpy(task.train.y)
    for name, gradient in gradients(module, x, y).items():
        expected = module.get_parameter(name) - recipe.lr * gradient
        torch.testing.assert_close(weights(run, tmp_path)[name], expected, rtol=1e-4, atol=1e-6)
    assert run.curve[0].step == 1


def test_cosine_warms_up_linearly_and_ends_at_zero() -> None:
    factor = recipes.schedule(Recipe(schedule="cosine", warmup=0.1), 100)
    assert [factor(i) for i in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(10) == 1.0
    assert factor(55) == pytest.approx(0.5)
    assert 0 < factor(99) < 0.001
    assert factor(100) == pytest.approx(0.0)
    assert all(factor(i + 1) < factor(i) for i in range(10, 99))


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 10), (0.05, 1), (0.99, 3)])
def test_a_schedule_is_a_share_at_every_step(warmup: float, steps: int) -> None:
    factor = recipes.schedule(Recipe(schedule="cosine", warmup=warmup), steps)
    assert all(0 < factor(i) <= 1 for i in range(steps))


def test_a_constant_schedule_is_constant() -> None:
    factor = recipes.schedule(Recipe(schedule="constant", warmup=0.5), 10)
    assert {factor(i) for i in range(10)} == {1.0}


def test_the_rate_of_each_step_follows_the_schedule(tmp_path: Path) -> None:
    task, recipe = toy_task(64), Recipe(lr=0.01, batch_size=16, epochs=3)
    run = train(trial(task, recipe=recipe), task, tmp_path)
    factor = recipes.schedule(recipe, 12)
    assert [point.lr for point in run.curve] == pytest.approx([0.01 * factor(i) for i in (3, 7, 11)])


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_loss_is_its_definition(tmp_path: Path, loss: str) -> None:
    """Of a whole-batch run without a step worth mentioning: the loss before it is that of the initial weights."""
    task = toy_task(48)
    recipe = replace(SGD, optimizer="gd", lr=1e-12, loss=loss)  # type: ignore[arg-type]
    run = train(trial(task, recipe=recipe), task, tmp_path)
    module, _ = module_and_batches()
    with torch.no_grad():
        logits = module(torch.from_numpy(task.preprocessor(task.train.x))).double().numpy()
    expected = 0.0
    for row, label in zip(logits, task.train.y, strict=True):
        hot = [float(c == label) for c in range(CLASSES)]
        if loss == "mse":
            expected += sum((z - h) ** 2 for z, h in zip(row, hot, strict=True)) / CLASSES
        else:
            expected += math.log(sum(math.exp(z) for z in row)) - row[label]
    assert run.train_loss == pytest.approx(expected / len(logits), rel=1e-4)


@pytest.mark.parametrize(("optimizer", "factor"), [("adam", 2.0), ("adamw", 2.0), ("sgd", 1.0), ("gd", 1.0)])
def test_a_rate_is_stated_at_width_32_and_follows_the_width(optimizer: str, factor: float) -> None:
    recipe = Recipe(optimizer=optimizer, lr=0.01)  # type: ignore[arg-type]
    assert recipes.at_width(recipe, 32).lr == pytest.approx(0.01)
    assert recipes.at_width(recipe, 8).lr == pytest.approx(0.01 * factor)
    assert recipes.at_width(recipe, 128).lr == pytest.approx(0.01 / factor)


@pytest.mark.parametrize(("optimizer", "slots"), recipes.OPTIMIZER_SLOTS.items())
def test_the_optimizer_keeps_as_many_values_as_its_memory_is_counted_with(optimizer: str, slots: int) -> None:
    module, batches = module_and_batches()
    made = recipes.optimizer(replace(SGD, optimizer=optimizer), module.parameters())  # type: ignore[arg-type]
    gradients(module, *batches[0])
    made.step()
    parameter = next(module.parameters())
    kept = [v for v in made.state[parameter].values() if isinstance(v, Tensor) and v.shape == parameter.shape]
    assert len(kept) == slots


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": 0.0},
        {"lr": math.inf},
        {"lr": math.nan},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"batch_size": 0},
        {"epochs": 0},
        {"warmup": 1.0},
        {"patience": -1},
    ],
)
def test_values_that_cannot_train_are_refused_with_their_range(changed: dict[str, float]) -> None:
    (field,) = changed
    with pytest.raises(UsageError, match=rf"recipe\.{field} is"):
        recipes.check(replace(Recipe(), **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(("optimizer", "batch", "steps"), [("adam", 16, 4), ("adam", 1000, 1), ("gd", 16, 1)])
def test_steps_of_an_epoch(optimizer: str, batch: int, steps: int) -> None:
    recipe = replace(SGD, optimizer=optimizer, batch_size=batch)  # type: ignore[arg-type]
    assert recipes.batches_per_epoch(recipe, 50) == steps
