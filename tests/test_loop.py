"""One training run: repeatable to the bit, fair to its data, and honest when it fails."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sizewise import console, laws, loop, tasks
from sizewise import recipe as recipes
from sizewise.choose import choose
from sizewise.diagnose import diagnose
from sizewise.errors import UsageError
from sizewise.families.weights import read_weights
from sizewise.loop import Data, Start
from sizewise.loop import run as run_page
from sizewise.methods import Distil
from sizewise.records import Origin, Recipe, Run, Signature, from_json, to_json
from sizewise.store import Store
from sizewise.train import _waves
from tests.builders import toy_task, train, trial, weights

TASK = toy_task()
RECIPE = Recipe(lr=0.01, batch_size=32, epochs=3)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_seed_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    made = trial(TASK, seed=3, recipe=RECIPE)
    a, b = train(made, TASK, tmp_path / "a"), train(made, TASK, tmp_path / "b")
    assert same(weights(a, tmp_path / "a"), weights(b, tmp_path / "b"))
    assert [p.validation_loss for p in a.curve] == [p.validation_loss for p in b.curve]


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    runs = [train(trial(TASK, seed=seed, recipe=RECIPE), TASK, tmp_path) for seed in (0, 1)]
    assert not same(*(weights(run, tmp_path) for run in runs))


def test_a_run_learns_and_says_what_it_cost(tmp_path: Path) -> None:
    run = train(trial(TASK, width=4, recipe=RECIPE), TASK, tmp_path)
    assert run.validation.score > 0.9
    assert run.curve[-1].train_loss < run.curve[0].train_loss
    assert [p.step for p in run.curve] == [6, 12, 18]
    assert run.seconds > 0
    assert run.params == sum(t.numel() for t in weights(run, tmp_path).values())


def test_what_is_stored_of_each_example_is_what_the_stored_weights_say(tmp_path: Path) -> None:
    run = train(trial(TASK, recipe=RECIPE), TASK, tmp_path)
    store, data = Store(tmp_path), Data.of(TASK)
    from sizewise import families

    path = store.trial_folder(run.trial.key)
    module = families.load("cnn", TASK.signature).build(2, weights=path / "model.safetensors")
    logits = loop.predict(module, data.x_validation, TASK.signature)
    kept = read_weights(path / "validation.safetensors")
    assert torch.equal(kept["accuracy"], (logits.argmax(1) == data.y_validation).double())
    judged = TASK.problem.judge(logits.numpy(), TASK.validation)
    for name, values in judged.examples.items():
        assert float(kept[name].mean()) == pytest.approx(judged.values[name]) == run.validation.values[name]
        np.testing.assert_allclose(kept[name].numpy(), values, rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_the_whole_batch_is_one_step_however_it_is_chunked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    recipe = replace(RECIPE, optimizer="gd", lr=0.5, epochs=2)
    whole = train(trial(TASK, recipe=recipe), TASK, tmp_path / "whole")
    monkeypatch.setattr("sizewise.loop.step.FULL_BATCH_CHUNK", chunk)
    parts = train(trial(TASK, recipe=recipe), TASK, tmp_path / "parts")
    for name, tensor in weights(whole, tmp_path / "whole").items():
        torch.testing.assert_close(weights(parts, tmp_path / "parts")[name], tensor, rtol=1e-3, atol=1e-5)
    assert [p.step for p in parts.curve] == [1, 2]


@pytest.mark.parametrize("parts", [2, 3, 100])
def test_a_batch_in_parts_is_the_same_batch(tmp_path: Path, parts: int) -> None:
    whole = train(trial(TASK, recipe=RECIPE), TASK, tmp_path / "whole")
    added = train(trial(TASK, recipe=replace(RECIPE, accumulate=parts)), TASK, tmp_path / "added")
    assert added.memory_bytes < whole.memory_bytes
    assert added.train_loss == pytest.approx(whole.train_loss, rel=1e-3)
    assert [p.step for p in added.curve] == [p.step for p in whole.curve]


def test_dropout_is_the_recipes_where_it_says_so(tmp_path: Path) -> None:
    from sizewise.loop.state import begin

    shares = []
    for dropout in (None, 0.0, 0.4):
        state = begin(trial(tagged(), family="lstm", recipe=Recipe(dropout=dropout)), tagged(), Start())
        shares += [layer.p for layer in state.module.modules() if isinstance(layer, torch.nn.Dropout)]
    assert shares == [0.1, 0.0, 0.4]
    with pytest.raises(UsageError, match=r"recipe.dropout is 0.4, and a Cnn has no layer of dropout"):
        begin(trial(TASK, recipe=Recipe(dropout=0.4)), TASK, Start())


def test_parts_of_a_batch_count_by_their_tokens(tmp_path: Path) -> None:
    """Sentences of different lengths: the gradient in parts is that of the whole, where a mean of means is not."""
    from sizewise.loop.state import begin
    from sizewise.loop.step import step

    task = tagged()
    data = Data.of(task)
    found = []
    for parts in (1, 3):
        made = trial(task, family="lstm", recipe=Recipe("sgd", lr=1.0, batch_size=12, accumulate=parts))
        state = begin(made, task, Start())
        state.module.eval()  # which leaves no weights out at random
        step(state, made, data, None, torch.arange(12))
        found.append([p.grad.clone() for p in state.module.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def tagged() -> tasks.Task:
    """Tokens that are their own tags, in sentences of one to six."""
    rng = np.random.default_rng(0)

    def split(count: int) -> tasks.Split:
        x = rng.integers(1, 4, (count, 6))
        x[np.arange(6) >= rng.integers(1, 7, (count, 1))] = 0
        return tasks.Split(x, x.copy())

    signature = Signature("tagging", (6,), 4, vocabulary=4, dynamic=True, target_steps=0)
    return tasks.make_task("tagged", "", ("-", "a", "b", "c"), split(12), split(6), split(6), signature=signature)


def test_longer_runs_branch_off_the_trunk_that_shorter_ones_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm-up, stable, decay: bitwise the runs that begin at their beginning, with 23 epochs instead of 35."""
    epochs: list[int] = []
    one = run_page._epoch

    def counted(*given: Any) -> None:
        epochs.append(1)
        one(*given)

    monkeypatch.setattr(run_page, "_epoch", counted)
    lengths = [trial(TASK, recipe=replace(RECIPE, schedule="wsd", epochs=n)) for n in (5, 10, 20)]
    shared = [train(made, TASK, tmp_path / "shared") for made in lengths]
    assert len(epochs) == 5 + 6 + 12
    alone = [train(made, TASK, tmp_path / made.key) for made in lengths]
    assert len(epochs) == 23 + 35
    for a, b in zip(shared, alone, strict=True):
        assert a.files["model.safetensors"] == b.files["model.safetensors"]
        assert [p.validation_loss for p in a.curve] == [p.validation_loss for p in b.curve]


def test_runs_of_one_trunk_are_trained_one_after_the_other() -> None:
    made = [trial(TASK, w, recipe=replace(RECIPE, schedule="wsd", epochs=n)) for w, n in ((2, 9), (4, 9), (2, 3))]
    other = trial(TASK, recipe=RECIPE)
    assert _waves([*made, other]) == [[made[1], made[2], other], [made[0]]]


def test_memory_counts_the_samples_that_are_held_at_once(tmp_path: Path) -> None:
    """Batch gradient descent ignores the batch size, and so must its memory."""
    batch = train(trial(TASK, recipe=replace(RECIPE, optimizer="sgd", batch_size=8)), TASK, tmp_path)
    whole = train(trial(TASK, recipe=replace(RECIPE, optimizer="gd", batch_size=8)), TASK, tmp_path)
    assert whole.memory_bytes > 5 * batch.memory_bytes


def test_smaller_shares_of_the_data_nest_in_larger_ones() -> None:
    data = replace(Data.of(TASK), y=torch.arange(len(TASK.train.y)))
    shares = [set(data.subset(fraction).y.tolist()) for fraction in (0.1, 0.25, 0.5, 1.0)]
    assert [len(share) for share in shares] == [18, 45, 90, 180]
    assert all(small < large for small, large in pairwise(shares))


def test_images_and_labels_of_a_share_belong_together() -> None:
    data = Data.of(TASK)
    part = data.subset(0.2)
    for x, y in zip(part.x, part.y, strict=True):
        (place,) = (data.x == x).flatten(1).all(1).nonzero()[0].tolist()
        assert data.y[place] == y


def test_a_teacher_belongs_to_the_samples_it_saw(tmp_path: Path) -> None:
    """Half the data, and a teacher that is certain of each label: the student learns them."""
    teacher = 20 * torch.nn.functional.one_hot(torch.from_numpy(TASK.train.y), TASK.signature.outputs).float()
    made = trial(TASK, width=4, fraction=0.5, recipe=replace(RECIPE, epochs=6))
    made = replace(made, origin=Origin(Distil(temperature=1.0, weight=1.0), ""))
    run = train(made, TASK, tmp_path, Start(teacher=teacher))
    assert run.validation.score > 0.9


def test_patience_keeps_the_best_epoch(tmp_path: Path) -> None:
    """Few samples, a high rate and many epochs: the loss turns upward."""
    task = toy_task(24, noise=2.0)
    recipe = Recipe(lr=0.05, batch_size=8, epochs=60, schedule="constant", patience=4)
    run = train(trial(task, width=8, recipe=recipe), task, tmp_path)
    best = min(run.curve, key=lambda point: point.validation_loss)
    assert len(run.curve) == best.epoch + recipe.patience < recipe.epochs
    assert run.validation.loss == pytest.approx(best.validation_loss, rel=1e-5)
    shorter = replace(recipe, epochs=best.epoch, patience=0)
    assert same(weights(run, tmp_path), weights(train(trial(task, 8, recipe=shorter), task, tmp_path), tmp_path))


def test_epochs_after_the_best_are_run_without_patience(tmp_path: Path) -> None:
    task = toy_task(24, noise=2.0)
    run = train(trial(task, width=8, recipe=Recipe(lr=0.05, batch_size=8, epochs=30)), task, tmp_path)
    assert len(run.curve) == 30


@pytest.fixture
def diverged(tmp_path: Path) -> Run:
    return train(trial(TASK, width=8, seed=2, recipe=Recipe("sgd", lr=1e6, batch_size=32, epochs=50)), TASK, tmp_path)


def test_a_run_that_diverges_ends_early_and_is_published(diverged: Run, tmp_path: Path) -> None:
    assert len(diverged.curve) < 5
    assert math.isnan(diverged.train_loss)
    assert math.isnan(diverged.validation.loss)
    assert diverged.validation.score < 0.5
    assert to_json(from_json(Run, to_json(diverged))) == to_json(diverged)
    kept = Store(tmp_path).find_run(diverged.trial)
    assert kept is not None
    assert math.isnan(kept.curve[-1].train_loss)


def test_a_run_that_diverges_breaks_no_later_stage(diverged: Run, tmp_path: Path) -> None:
    """Its seed is left out of the law, widens what it touches, and is printed like any other."""
    store = Store(tmp_path)
    sizes = {
        width: [train(trial(TASK, width, seed, recipe=RECIPE), TASK, tmp_path) for seed in range(3)] for width in (2, 8)
    }
    everything = {2: sizes[2], 8: [*sizes[8][:2], diverged]}
    for metric in ("loss", "error"):
        law = laws.fit([run for runs in everything.values() for run in runs], metric)
        assert all(math.isfinite(value) for _, value in law.points)
        assert "nan" not in console.laws([law])
    law = laws.fit([*sizes[2], *sizes[8], diverged], "loss")
    assert len(law.points) == len(laws.fit([*sizes[2], *sizes[8]], "loss").points)
    choice = choose(everything, store)
    assert choice.status == "undetermined"
    assert "nan" not in console.choice(choice)
    assert "nan" not in console.findings(diagnose(everything, [diverged], store))
    assert "nan" in console.runs([diverged])


def test_a_step_is_timed_for_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning times one chunk of a whole-batch step and multiplies; without that it would say a quarter."""
    from sizewise import families

    data = Data.of(toy_task(2000))
    module = families.load("cnn", TASK.signature).build(16, seed=0)
    recipe = replace(RECIPE, optimizer="gd")
    whole = min(loop.time_steps(module, recipe, data) for _ in range(5))
    monkeypatch.setattr("sizewise.loop.step.FULL_BATCH_CHUNK", 500)
    assert min(loop.time_steps(module, recipe, data) for _ in range(5)) / whole > 1 / 2


def test_the_default_recipe_learns_the_real_digits(tmp_path: Path) -> None:
    task = tasks.load("digits", None)
    recipe = recipes.at_width(Recipe(batch_size=32, epochs=25), 16)
    run = train(trial(task, width=16, recipe=recipe), task, tmp_path)
    assert run.validation.score > 0.95
    assert np.array(run.validation.confusion).sum() == len(task.validation.y)


def test_training_leaves_the_callers_arithmetic_alone(tmp_path: Path) -> None:
    smallest = np.nextafter(0.0, 1.0)
    train(trial(TASK, recipe=RECIPE), TASK, tmp_path)
    assert smallest * np.float64(1.0) > 0, "denormal numbers are flushed to zero after training"
