"""Optimizers, schedules and losses are the textbooks', and follow the width as documented."""

from __future__ import annotations

import math
import typing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise import families
from sizewise import recipe as recipes
from sizewise.errors import UsageError
from sizewise.records import Recipe, Signature, Trial
from sizewise.tasks import problems
from sizewise.tasks.problems import Problem
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
        if r.optimizer == "rmsprop":
            b = 0.99 * b + 0.01 * g * g
            self.memory[name] = (a, b)
            return w - r.lr * g / (b.sqrt() + 1e-8)
        if r.optimizer in ("momentum", "nesterov"):
            a = r.momentum * a + g
            self.memory[name] = (a, b)
            return w - r.lr * (g + r.momentum * a if r.optimizer == "nesterov" else a)
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
@pytest.mark.parametrize("name", ["gd", "sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"])
def test_an_optimizer_takes_the_steps_of_its_paper(name: str, decay: float) -> None:
    recipe = replace(SGD, optimizer=name, lr=0.01, weight_decay=decay)  # type: ignore[arg-type]
    (ours, batches), (theirs, _) = module_and_batches(), module_and_batches()
    optimizer, reference = recipes.optimizer(recipe, ours), Reference(recipe)
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


def test_linear_warms_up_and_ends_at_zero() -> None:
    factor = recipes.schedule(Recipe(schedule="linear", warmup=0.1), 100)
    assert [factor(i) for i in (0, 9, 10, 55, 100)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])


def test_wsd_stays_and_then_falls_over_its_last_epochs() -> None:
    """1 - √share over the last fifth, after a warm-up over a share of one epoch."""
    recipe = Recipe(schedule="wsd", warmup=0.5, epochs=10)
    factor = recipes.schedule(recipe, 100)
    assert [factor(i) for i in (0, 4, 5, 80)] == pytest.approx([0.2, 1.0, 1.0, 1.0])
    assert factor(85) == pytest.approx(1 - 0.5)
    assert 0 < factor(99) < 0.03
    assert recipes.stable_epochs(recipe) == 8


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 50])
def test_wsd_of_every_length_begins_alike(epochs: int) -> None:
    short = Recipe(schedule="wsd", epochs=epochs)
    long = replace(short, epochs=100)
    a, b = recipes.schedule(short, 20 * epochs), recipes.schedule(long, 2000)
    assert [a(i) for i in range(20 * recipes.stable_epochs(short))] == [
        b(i) for i in range(20 * recipes.stable_epochs(short))
    ]
    assert all(0 < a(i) <= 1 for i in range(20 * epochs))


def test_schedule_free_warms_up_and_stays_whatever_the_schedule() -> None:
    factor = recipes.schedule(Recipe("schedule-free", schedule="cosine", warmup=0.1), 100)
    assert [factor(i) for i in (0, 9, 50, 99)] == pytest.approx([0.1, 1.0, 1.0, 1.0])


def test_the_registry_is_what_a_recipe_may_name() -> None:
    assert set(typing.get_args(typing.get_type_hints(Recipe)["optimizer"])) == set(recipes.OPTIMIZERS)


def test_trials_of_older_recipes_keep_their_keys() -> None:
    """Computed before `decay`, `accumulate` and `average` were there."""
    old = Recipe("momentum", lr=1, patience=3, clip=1.0)
    assert Trial("toy", "f00d", "cnn", 4, 1.0, Recipe(), 0).key == "9e0de8ba35526256"
    assert Trial("toy", "f00d", "cnn", 4, 0.5, old, 1).key == "3c5d5dbfa57f062c"


@pytest.mark.parametrize(
    "changed", [{"decay": 0.3}, {"accumulate": 2}, {"average": "ema"}, {"average_decay": 0.9}, {"dropout": 0.1}]
)
def test_newer_settings_make_another_trial(changed: dict[str, typing.Any]) -> None:
    a, b = (Trial("toy", "f00d", "cnn", 4, 1.0, r, 0) for r in (Recipe(), replace(Recipe(), **changed)))
    assert a.key != b.key


def test_muon_orthogonalises_hidden_matrices_and_leaves_the_rest_to_adamw() -> None:
    """One step from scratch: the change of a hidden matrix has singular values near 0.2·lr·√(its longer side)."""
    module, batches = module_and_batches()
    recipe = Recipe("muon", lr=0.01, weight_decay=0.0)
    made = recipes.optimizer(recipe, module)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    gradients(module, *batches[0])
    made.step()
    matrices = [n for n, p in module.named_parameters() if p.ndim == 2]
    for name, p in module.named_parameters():
        change = p.detach() - before[name]
        if name in matrices[:-1]:
            values = torch.linalg.svdvals(change) / (0.2 * recipe.lr * max(p.shape) ** 0.5)
            kept = values[: torch.linalg.matrix_rank(p.grad)]  # type: ignore[arg-type,misc]
            assert 0.3 < kept.min() <= kept.max() < 1.6, (name, values)
        else:  # Adam's first step is as long as the rate, in the sign of the gradient
            moved = p.grad.abs() > 1e-4  # type: ignore[union-attr]
            torch.testing.assert_close(
                change[moved].abs(), torch.full_like(change[moved], recipe.lr), rtol=0.01, atol=0
            )


def test_muon_without_a_hidden_matrix_is_refused() -> None:
    with pytest.raises(UsageError, match="hidden matrices"):
        recipes.optimizer(Recipe("muon"), nn.Linear(4, 3))


def test_prodigy_finds_a_rate_and_refuses_that_of_others() -> None:
    with pytest.raises(UsageError, match="finds its rate itself"):
        recipes.check(Recipe("prodigy"))
    recipes.check(Recipe("prodigy", lr=1.0))


@pytest.mark.parametrize("name", ["muon", "schedule-free", "prodigy", "nesterov", "rmsprop"])
def test_an_optimizer_learns(name: str, tmp_path: Path) -> None:
    rate = {"prodigy": 1.0, "nesterov": 0.05}.get(name, 0.01)
    # Prodigy begins at a rate of 1e-6 and needs some hundred steps to find its own.
    recipe = Recipe(name, lr=rate, batch_size=16, epochs=50 if name == "prodigy" else 12)  # type: ignore[arg-type]
    task = toy_task()
    assert train(trial(task, width=4, recipe=recipe), task, tmp_path).validation.score > 0.9


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_the_model_is_the_average_of_its_weights(average: str, tmp_path: Path) -> None:
    """Over four steps, each the end of an epoch, with the definition written out."""
    task = toy_task(16)
    recipe = replace(SGD, lr=0.1, epochs=4, average=average, average_decay=0.8)  # type: ignore[arg-type]
    averaged = weights(train(trial(task, recipe=recipe), task, tmp_path), tmp_path)
    shorter = [trial(task, recipe=replace(SGD, lr=0.1, epochs=n)) for n in range(1, 5)]
    path = [weights(train(made, task, tmp_path), tmp_path) for made in shorter]
    for name, value in averaged.items():
        expected = path[0][name]
        for later in path[1:]:
            expected = 0.8 * expected + 0.2 * later[name]
        torch.testing.assert_close(value, expected if average == "ema" else path[-1][name], rtol=1e-5, atol=1e-6)


def test_swa_is_the_mean_over_the_last_quarter() -> None:
    recipe = Recipe(average="swa", epochs=8)
    assert [e for e in range(1, 9) if recipes.average_epoch(recipe, e)] == [7, 8]
    assert recipes.average_epoch(replace(recipe, epochs=1), 1)


def test_a_loss_that_a_problem_has_not_is_refused() -> None:
    problem = toy_task().problem
    problem.check(Recipe(loss="huber"))
    tagging = make("tagging")
    with pytest.raises(UsageError, match="tagging has no loss 'mse'"):
        tagging.check(Recipe(loss="mse"))


@pytest.mark.parametrize("loss", ["mse", "half_sse", "mae", "huber", "cross_entropy"])
def test_a_loss_of_numbers_is_its_definition(loss: str) -> None:
    rng = np.random.default_rng(0)
    outputs, y = (rng.normal(scale=2, size=(5, 3)).astype(np.float32) for _ in range(2))
    problem = make("regression")
    sums, counts = problem.losses(torch.from_numpy(outputs), torch.from_numpy(y), Recipe(loss=loss))  # type: ignore[arg-type]
    off = np.abs(outputs - y).astype(float)
    expected = {
        "mse": (off**2).mean(axis=1),
        "cross_entropy": (off**2).mean(axis=1),
        "half_sse": 0.5 * (off**2).sum(axis=1),
        "mae": off.mean(axis=1),
        "huber": np.where(off <= 1, 0.5 * off**2, off - 0.5).mean(axis=1),
    }[loss]
    np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-5)
    assert counts.tolist() == [1] * 5


def make(problem: str) -> Problem:
    kind: typing.Any = problem
    return problems.make(
        Signature(kind, (4, 1), 3), ("a", "b", "c") if problem == "tagging" else (), target_std=(1.0,) * 3
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "half_sse", "mae", "huber", "binary"])
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
        off = [abs(z - h) for z, h in zip(row, hot, strict=True)]
        if loss in ("mse", "half_sse"):
            expected += sum(d**2 for d in off) * (0.5 if loss == "half_sse" else 1 / CLASSES)
        elif loss in ("mae", "huber"):
            expected += sum(d if loss == "mae" else 0.5 * d**2 if d <= 1 else d - 0.5 for d in off) / CLASSES
        elif loss == "binary":
            expected += sum(math.log1p(math.exp(-z if h else z)) for z, h in zip(row, hot, strict=True)) / CLASSES
        else:
            expected += math.log(sum(math.exp(z) for z in row)) - row[label]
    assert run.train_loss == pytest.approx(expected / len(logits), rel=1e-4)


FACTORS = {"adam": 2.0, "adamw": 2.0, "rmsprop": 2.0, "muon": 2.0, "sgd": 1.0, "gd": 1.0, "prodigy": 1.0}


@pytest.mark.parametrize(("optimizer", "factor"), FACTORS.items())
def test_a_rate_is_stated_at_width_32_and_follows_the_width(optimizer: str, factor: float) -> None:
    recipe = Recipe(optimizer=optimizer, lr=0.01)  # type: ignore[arg-type]
    assert recipes.at_width(recipe, 32).lr == pytest.approx(0.01)
    assert recipes.at_width(recipe, 8).lr == pytest.approx(0.01 * factor)
    assert recipes.at_width(recipe, 128).lr == pytest.approx(0.01 / factor)


@pytest.mark.parametrize("optimizer", recipes.OPTIMIZERS)
def test_the_optimizer_keeps_as_many_values_as_its_memory_is_counted_with(optimizer: str) -> None:
    module, batches = module_and_batches()
    recipe = replace(SGD, optimizer=optimizer)  # type: ignore[arg-type]
    made, slots = recipes.optimizer(recipe, module), recipes.slots(recipe)
    recipes.training(made)
    gradients(module, *batches[0])
    made.step()
    parameter = next(module.parameters())
    kept = [v for v in made.state[parameter].values() if isinstance(v, Tensor) and v.numel() == parameter.numel()]
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
        {"decay": 0.0},
        {"accumulate": 0},
        {"dropout": 1.0},
        {"average_decay": 1.0},
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
