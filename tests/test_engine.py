"""Faster steps are the reference's steps: same gradients, whatever the family, optimizer and loss."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sizewise import families, tasks
from sizewise.engine import Gradients, UnavailableError, compiled, traced
from sizewise.engine.rewrite import convolve_and_pool
from sizewise.loop import Data, Start, tiers, train_one
from sizewise.recipe import OPTIMIZERS
from sizewise.records import Engine, Reading, Recipe, Run, Signature, from_json
from sizewise.store import Store, write_json
from sizewise.tasks import problems
from sizewise.train import Source
from sizewise.train import train as sweep
from tests.builders import toy_task, train, trial, weights

TASK = toy_task()
RECIPE = Recipe(lr=0.01, batch_size=32, epochs=2)
WITH_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")

IMAGES = Signature("classification", (3, 12, 12), 4)
VOLUMES = Signature("classification", (1, 8, 8, 8), 3)
SERIES = Signature("regression", (6, 2), 2)
WINDOWS = Signature("language modelling", (6,), 11, vocabulary=11)
FAMILIES = [
    ("cnn", IMAGES), ("resnet", IMAGES), ("vit", IMAGES), ("cnn3d", VOLUMES), ("cnn1d", SERIES), ("gru", SERIES),
    ("bigru", SERIES), ("transformer", WINDOWS),
]  # fmt: skip


def sample(signature: Signature, count: int = 5) -> tuple[Tensor, Tensor]:
    """A batch and its targets."""
    generator = torch.Generator().manual_seed(7)
    if signature.vocabulary:
        x = torch.randint(1, signature.vocabulary, (count, *signature.input_shape), generator=generator)
        return x, x.roll(-1, 1)
    x = families.arrange(torch.randn(count, *signature.input_shape, generator=generator), signature)
    if signature.problem == "regression":
        return x, torch.randn(count, signature.outputs, generator=generator)
    return x, torch.randint(0, signature.outputs, (count,), generator=generator)


def cross_entropy(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(module(x), y)


def gradients(module: nn.Module, loss: Callable[..., Tensor], *batch: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients by automatic differentiation."""
    found = loss(module, *batch)
    return found.detach(), list(torch.autograd.grad(found, list(module.parameters())))


@pytest.mark.parametrize(("family", "signature"), FAMILIES)
def test_a_traced_step_is_the_step_of_every_family(family: str, signature: Signature) -> None:
    module = families.arrange_module(families.load(family, signature).build(4, seed=0), signature).train()
    problem = problems.make(signature, [str(number) for number in range(signature.outputs)])

    def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        sums, counts = problem.losses(problem.forward(module, x, y), y, Recipe())
        return sums.sum() / counts.sum()

    batch = sample(signature)
    fast = traced(module, loss, batch)
    torch.manual_seed(0)  # of what is dropped
    expected, true = gradients(copy.deepcopy(module), loss, *batch)
    torch.manual_seed(0)
    assert float(fast(*batch)) == pytest.approx(float(expected), rel=1e-6)
    for (name, weight), gradient in zip(module.named_parameters(), true, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6, msg=name)
        assert weight.grad.stride() == weight.stride(), "fused optimizers walk both as if they had one layout"


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="an LSTM is one operation where oneDNN is")
def test_an_lstm_that_is_one_operation_stays_as_it_is() -> None:
    batch = sample(SERIES)
    with pytest.raises(UnavailableError, match="one operation already"):
        traced(families.load("lstm", SERIES).build(4, seed=0), lambda module, x, y: F.mse_loss(module(x), y), batch)


class Normed(nn.Module):
    """Draws what it drops, and remembers means."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.norm(self.layer(x))))
        return logits


def test_a_traced_step_draws_and_remembers_what_the_module_does() -> None:
    torch.manual_seed(0)
    plain, x, y = Normed(), torch.randn(16, 6), torch.randint(0, 3, (16,))
    other = copy.deepcopy(plain)
    fast = traced(other, cross_entropy, (x, y))
    for seed in range(3):
        torch.manual_seed(seed)
        loss, true = gradients(plain, cross_entropy, x, y)
        torch.manual_seed(seed)
        assert torch.equal(fast(x, y), loss)
        assert all(torch.equal(w.grad, g) for w, g in zip(other.parameters(), true, strict=True) if w.grad is not None)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), other.buffers(), strict=True))


class Tossing(Normed):
    """Decides in Python, by chance."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if random.random() < 0.5 else 1.0)


class Counting(Normed):
    """Decides in Python, by what it did before."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


class Branching(Normed):
    """Decides by the values of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if float(x.sum()) > 0 else 1.0)


@pytest.mark.parametrize("kind", [Tossing, Counting, Branching])
def test_what_a_line_cannot_say_is_refused(kind: type[Normed]) -> None:
    with pytest.raises(UnavailableError):
        traced(kind(), cross_entropy, (torch.randn(4, 6), torch.zeros(4, dtype=torch.long)))


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 3),
    side=st.integers(6, 11),
    kernel=st.integers(1, 3),
    padding=st.integers(0, 1),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_convolution_and_its_pool_are_the_maximum_of_four_products(
    channels: int, side: int, kernel: int, padding: int, bias: bool, seed: int
) -> None:
    """Empty background ties all four places under a maximum: the gradient then goes to the first of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, channels, side, side + 1, generator=generator)
    x[..., : side // 2] = 0.0  # whose sums are the same at every place, in whatever order a kernel takes them
    weight = torch.randn(4, channels, kernel, kernel, generator=generator)
    offset = torch.randn(4, generator=generator) if bias else None
    pad = (padding, padding)
    a, w, b, v = (tensor.clone().requires_grad_() for tensor in (x, weight, x, weight))
    plain, product = F.max_pool2d(F.conv2d(a, w, offset, padding=pad), 2), convolve_and_pool(b, v, offset, pad)
    torch.testing.assert_close(product, plain, rtol=1e-5, atol=1e-5)
    toward = torch.randn(plain.shape, generator=generator)
    plain.backward(toward)
    product.backward(toward)
    torch.testing.assert_close(v.grad, w.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arranged", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_rewritten_step_is_the_same_up_to_rounding(channels: int, arranged: bool) -> None:
    """However images and weights lie in memory."""
    signature = replace(IMAGES, input_shape=(channels, 8, 8))
    module, batch = families.load("cnn", signature).build(2, seed=0), sample(signature)
    module = families.arrange_module(module, signature) if arranged else module
    loss, true = gradients(copy.deepcopy(module), cross_entropy, *batch)
    fast = traced(module, cross_entropy, batch, rewrite=True)
    assert not fast.graph.graph.find_nodes(op="call_function", target=torch.ops.aten.convolution.default)
    assert float(fast(*batch)) == pytest.approx(float(loss), rel=1e-5)
    for weight, gradient in zip(module.parameters(), true, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_no_strided_convolution_of_single_places_is_left_to_a_compiler() -> None:
    """Its gradient, channels last, writes where it must not; statistics that the module keeps are kept all the same."""
    signature = replace(IMAGES, input_shape=(3, 16, 16))
    module, batch = families.load("resnet", signature).build(2, seed=0), sample(signature)
    module = families.arrange_module(module, signature)
    assert any(m.kernel_size == (1, 1) and m.stride > (1, 1) for m in module.modules() if isinstance(m, nn.Conv2d))
    plain = copy.deepcopy(module)
    loss, true = gradients(plain, cross_entropy, *batch)
    fast = traced(module, cross_entropy, batch, rewrite=True)
    for node in fast.graph.graph.find_nodes(op="call_function", target=torch.ops.aten.convolution_backward.default):
        assert node.args[2].meta["val"].shape[2:] != (1, 1) or max(node.args[4]) == 1
    assert float(fast(*batch)) == pytest.approx(float(loss), rel=1e-5)
    for weight, gradient in zip(module.parameters(), true, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)
    for kept, buffer in zip(module.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(kept, buffer)


@pytest.fixture
def eager_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs are worth a look, too, and nothing is known yet."""
    monkeypatch.setattr(tiers, "LEAST_STEPS", 1)
    monkeypatch.setattr(tiers, "_KNOWN", {})


def by(tier: str, recipe: Recipe, root: Path, seed: int = 0) -> Run:
    """A run whose size was found to be fastest in this way."""
    made = trial(TASK, seed=seed, recipe=recipe)
    write_json(Store(root) / "engine" / f"{made.size}.json", from_json(Engine, {"tier": tier}))
    run = train(made, TASK, root)
    assert run.engine.tier == tier
    return run


def same(a: Run, b: Run, root_a: Path, root_b: Path) -> bool:
    left, right = weights(a, root_a), weights(b, root_b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "gd"])
def test_a_traced_run_is_the_reference_run_to_the_bit(optimizer: Any, tmp_path: Path) -> None:
    rate = 1.0 if OPTIMIZERS[optimizer].factor else 0.01
    recipe = replace(RECIPE, optimizer=optimizer, lr=rate, clip=1.0)
    plain, fast = by("reference", recipe, tmp_path / "a"), by("traced", recipe, tmp_path / "b")
    assert same(plain, fast, tmp_path / "a", tmp_path / "b")
    assert [p.train_loss for p in plain.curve] == [p.train_loss for p in fast.curve]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "half_sse", "mae", "huber", "binary"])
def test_a_traced_run_learns_by_the_same_loss(loss: Any, tmp_path: Path) -> None:
    smoothed = {"label_smoothing": 0.1} if loss == "cross_entropy" else {}
    recipe = replace(RECIPE, loss=loss, average="ema", **smoothed)
    plain, fast = by("reference", recipe, tmp_path / "a"), by("traced", recipe, tmp_path / "b")
    assert same(plain, fast, tmp_path / "a", tmp_path / "b")


def test_what_was_traced_for_one_seed_serves_the_next(tmp_path: Path, eager_to_try: None) -> None:
    by("traced", RECIPE, tmp_path / "a")
    later, alone = by("traced", RECIPE, tmp_path / "a", seed=1), by("reference", RECIPE, tmp_path / "b", seed=1)
    assert same(later, alone, tmp_path / "a", tmp_path / "b")


def test_the_seeds_of_a_size_are_trained_alike_and_it_is_recorded(tmp_path: Path, eager_to_try: None) -> None:
    runs = [train(trial(TASK, seed=seed, recipe=RECIPE), TASK, tmp_path) for seed in (0, 1)]
    assert runs[0].engine == runs[1].engine
    assert runs[0].engine.step_ms.keys() >= {"reference", "traced"}
    assert runs[0].engine.tier == min(runs[0].engine.step_ms, key=lambda tier: runs[0].engine.step_ms[tier])
    assert "too few" in runs[0].engine.left_out["compiled"]
    assert Store(tmp_path).run(runs[0].trial.key).engine == runs[0].engine


def test_a_sweep_looks_once_for_all_seeds_of_a_size(tmp_path: Path) -> None:
    """In real worker processes. One seed alone would be too short to look."""
    task, recipe = tasks.load("digits"), Recipe(lr=0.01, batch_size=8, epochs=5)
    trials = [trial(task, seed=seed, recipe=recipe) for seed in range(3)]
    source = Source("digits", None, Reading(), "", task.fingerprint)
    runs = sweep(trials, source, Store(tmp_path), workers=2)
    assert runs[0].curve[-1].step < tiers.LEAST_STEPS
    assert len(list((tmp_path / "engine").glob("*.json"))) == 1
    assert all(run.engine == runs[0].engine and "traced" in run.engine.step_ms for run in runs)


class StoppedError(Exception):
    """Stands for whatever ends a process in the middle of a run."""


def test_a_resumed_run_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager_to_try: None) -> None:
    """Whatever was found out about its size in the meantime; and it is bitwise the run that was never stopped."""
    monkeypatch.setattr("sizewise.loop.run.CHECKPOINT_SECONDS", 0.0)
    recipe = replace(RECIPE, epochs=3)
    made, data, store = trial(TASK, recipe=recipe), Data.of(TASK), Store(tmp_path / "b")
    whole = by("traced", recipe, tmp_path / "a")

    def stop(share: float) -> None:
        if share > 0.5:  # after the checkpoint of the first epoch
            raise StoppedError

    place = store / "engine" / f"{made.size}.json"
    write_json(place, from_json(Engine, {"tier": "traced"}))
    with pytest.raises(StoppedError):
        train_one(made, data, store, Start(), stop)
    write_json(place, Engine())
    resumed = train_one(made, data, store, Start())
    assert resumed.engine.tier == "traced"
    assert same(whole, resumed, tmp_path / "a", tmp_path / "b")


def test_looking_for_the_fastest_way_changes_nothing(tmp_path: Path, eager_to_try: None) -> None:
    looked, plain = trial(TASK, recipe=RECIPE), by("reference", RECIPE, tmp_path / "b")
    assert same(train(looked, TASK, tmp_path / "a"), plain, tmp_path / "a", tmp_path / "b")


def test_a_short_run_is_not_held_up(tmp_path: Path) -> None:
    run = train(trial(TASK, recipe=RECIPE), TASK, tmp_path)
    assert run.engine == Engine(left_out=dict.fromkeys(("traced", "compiled"), "12 steps are too few"))


def test_a_module_that_cannot_be_traced_is_trained_as_it_stands(tmp_path: Path, eager_to_try: None) -> None:
    made = trial(TASK, family="tests.own_family:tossing", recipe=RECIPE)
    run = train(made, TASK, tmp_path)
    assert run.engine.tier == "reference"
    assert "draws or counts in Python" in run.engine.left_out["traced"]


def test_a_gradient_that_differs_is_not_taken(
    tmp_path: Path, eager_to_try: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*given: Any, **options: Any) -> Gradients:
        made = traced(*given, **options)
        return replace(made, line=lambda *tensors: [1.01 * tensor for tensor in made.line(*tensors)])

    monkeypatch.setattr(tiers, "traced", wrong)
    run = train(trial(TASK, recipe=RECIPE), TASK, tmp_path)
    assert run.engine.tier == "reference"
    assert "away from automatic differentiation" in run.engine.left_out["traced"]


@pytest.mark.slow
@WITH_COMPILER
def test_a_compiled_run_repeats_to_the_bit_and_is_the_reference_run_up_to_rounding(
    tmp_path: Path, eager_to_try: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "COMPILING_SECONDS", 0.0)
    chosen = train(trial(TASK, recipe=RECIPE), TASK, tmp_path / "chosen")
    assert chosen.engine.step_ms.keys() == {"reference", "traced", "compiled"}
    plain, fast = by("reference", RECIPE, tmp_path / "a"), by("compiled", RECIPE, tmp_path / "b")
    assert same(fast, by("compiled", RECIPE, tmp_path / "c"), tmp_path / "b", tmp_path / "c")
    for name, tensor in weights(plain, tmp_path / "a").items():
        torch.testing.assert_close(weights(fast, tmp_path / "b")[name], tensor, rtol=1e-3, atol=1e-4)
    losses = [[p.train_loss for p in run.curve] for run in (plain, fast)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_where_there_is_no_compiler_it_is_said(tmp_path: Path) -> None:
    from torch._inductor import config

    module, batch = nn.Linear(3, 2), (torch.randn(7, 3), torch.randint(0, 2, (7,)))
    absent = config.patch({"cpp.cxx": (None, str(tmp_path / "no-such-compiler"))})
    with absent, pytest.raises(UnavailableError, match="compiler"):
        compiled(traced(module, cross_entropy, batch), batch)


def test_bf16_is_another_trial_and_learns(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=4)
    plain, short = (
        train(trial(TASK, width=4, recipe=r), TASK, tmp_path) for r in (recipe, replace(recipe, precision="bf16"))
    )
    assert plain.trial.key != short.trial.key
    assert short.validation.score > 0.9
    assert not same(plain, short, tmp_path, tmp_path)
    assert all(tensor.dtype == torch.float32 for tensor in weights(short, tmp_path).values())
