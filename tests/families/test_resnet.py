"""The residual CNN: its sizes, its cuts, its exports, and runs that may be interrupted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sizewise import families, loop
from sizewise.compress import quantize
from sizewise.compress.narrow import narrow
from sizewise.errors import UsageError
from sizewise.families.resnet import stages
from sizewise.families.weights import read_weights
from sizewise.records import Recipe, Run, Signature, Trial
from sizewise.runtimes import eager, onnxruntime, openvino
from sizewise.store import Store
from sizewise.tasks import Preprocessor, Split, Task, make_task

GREY = Signature("classification", (1, 28, 28), 10)
COLOUR = Signature("classification", (3, 64, 64), 3)
LARGE = Signature("regression", (3, 224, 224), 2)


def counted(module: nn.Module, signature: Signature) -> int:
    """Floating-point operations of every convolution and dense layer, from the shapes that pass through them."""
    found: list[int] = []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        found.append(2 * output.numel() * weight[0].numel())

    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        module.eval()(torch.zeros(1, *signature.input_shape))
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.mark.parametrize(
    ("side", "expected"), [(4, 1), (8, 1), (14, 2), (28, 3), (32, 3), (64, 3), (96, 3), (128, 3), (224, 4), (900, 4)]
)
def test_the_stages_follow_the_size_of_the_image(side: int, expected: int) -> None:
    assert stages(side) == expected


@pytest.mark.parametrize(("signature", "side"), [(GREY, 7), (COLOUR, 8), (LARGE, 7)])
def test_the_last_maps_have_seven_pixels_or_a_few_more(signature: Signature, side: int) -> None:
    module = families.load("resnet", signature).build(2, seed=0).eval()
    maps = module.blocks(module.stem(torch.zeros(1, *signature.input_shape)))
    assert maps.shape[2:] == (side, side)


def test_at_width_16_it_has_the_layers_of_resnet_8() -> None:
    convolutions = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 16 * 32 + 32 * 64
    normalisations, head = 2 * (3 * 16 + 3 * 32 + 3 * 64), 64 * 10 + 10
    family = families.load("resnet", Signature("classification", (3, 32, 32), 10))
    assert family.params(16) == convolutions + normalisations + head


@given(side=st.integers(4, 90), wide=st.integers(4, 90), width=st.integers(1, 24))
@settings(max_examples=20, deadline=None)
def test_parameters_grow_with_the_width_for_images_of_any_shape(side: int, wide: int, width: int) -> None:
    family = families.load("resnet", Signature("classification", (3, side, wide), 5))
    assert family.params(width + 1) > family.params(width)
    with torch.no_grad():
        assert family.build(2, seed=0).eval()(torch.zeros(2, 3, side, wide)).shape == (2, 5)


@pytest.mark.parametrize("signature", [GREY, COLOUR, LARGE])
def test_flops_agree_with_an_independent_count(signature: Signature) -> None:
    module = families.load("resnet", signature).build(4, seed=0)
    assert families.flops(module, signature) == counted(module, signature)


def test_every_block_begins_as_its_shortcut() -> None:
    module = families.load("resnet", GREY).build(4, seed=0).eval()
    x = torch.rand(2, 4, 28, 28)
    first = module.blocks[0]
    torch.testing.assert_close(first(x), x)


def test_the_same_seed_gives_the_same_weights() -> None:
    family = families.load("resnet", GREY)
    a, b, other = (family.build(4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], other["head.weight"])


@pytest.mark.parametrize("shape", [(1, 3, 3), (8, 8), (1, 8, 8, 8)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="cannot do classification with"):
        families.load("resnet", Signature("classification", shape, 10))


@pytest.mark.parametrize(("signature", "smaller_width"), [(GREY, 5), (COLOUR, 1), (LARGE, 3)])
def test_it_is_cut_to_the_exact_shapes_of_a_smaller_width(signature: Signature, smaller_width: int) -> None:
    family = families.load("resnet", signature)
    smaller = family.build(smaller_width)
    smaller.load_state_dict(narrow(family.build(8, seed=0), family, smaller_width))
    assert families.parameters(smaller) == family.params(smaller_width)


def test_what_is_cut_are_the_channels_that_do_nothing() -> None:
    """Every second channel is 0 everywhere: without it answers are the same."""
    family = families.load("resnet", GREY)
    module = family.build(8, seed=0).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.ones_(layer.weight)[::2] = 0.0
            elif isinstance(layer, nn.Conv2d):
                layer.weight[::2] = 0.0
                layer.weight[:, : 0 if layer.weight.shape[1] == 1 else None : 2] = 0.0
        module.head.weight[:, ::2] = 0.0
    x = torch.rand(4, 1, 28, 28)
    expected = module(x)
    smaller = family.build(4).eval()
    smaller.load_state_dict(narrow(module, family, 4))
    torch.testing.assert_close(smaller(x), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[eager.Deployable, Path]:
    """A model with running statistics of its own, and its files for both runtimes and precisions."""
    folder = tmp_path_factory.mktemp("graphs")
    torch.manual_seed(0)
    net = families.load("resnet", COLOUR).build(4, seed=0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    model = eager.Deployable(net, Preprocessor((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)), COLOUR)
    onnxruntime.export(model, COLOUR, folder)
    openvino.convert_file(folder / "model.onnx", folder / "model.xml")
    samples = np.random.default_rng(0).normal(size=(64, 3, 64, 64)).astype(np.float32)
    quantize.onnxruntime_int8(folder / "model.onnx", folder / "int8.onnx", samples)
    quantize.openvino_int8(folder / "model.onnx", folder / "int8.xml", samples)
    return model, folder


@pytest.mark.parametrize("batch", [1, 5])
def test_every_runtime_computes_the_same_at_every_batch_size(graphs: tuple[eager.Deployable, Path], batch: int) -> None:
    model, folder = graphs
    x = np.random.default_rng(1).normal(size=(batch, 3, 64, 64)).astype(np.float32)
    expected = eager.session(model, COLOUR)(x)
    for answers in (
        onnxruntime.open_file(folder / "model.onnx", 1)(x),
        openvino.open_file(folder / "model.xml", "fp32", 1)(x),
    ):
        np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-4)
    for answers in (
        onnxruntime.open_file(folder / "int8.onnx", 1)(x),
        openvino.open_file(folder / "int8.xml", "int8", 1)(x),
    ):
        # CPUs without VNNI add up pairs of products in 16 bits, which saturate: 0.126 there, below 0.1 elsewhere
        assert np.abs(answers - expected).max() < 0.2 * np.ptp(expected)


def stripes(samples: int) -> Task:
    """Grey images of 8×8 pixels: stripes that lie, stand or lean, in noise."""
    rng = np.random.default_rng(0)
    down, right = np.indices((8, 8))
    waves = np.stack([np.cos(np.pi * place / 2) for place in (down, right, down + right)])

    def split(count: int) -> Split:
        y = np.arange(count, dtype=np.int64) % 3
        x = waves[y][:, None] + rng.normal(size=(count, 1, 8, 8))
        return Split(x.astype(np.float32), y)

    return make_task("stripes", "", ("lie", "stand", "lean"), split(samples), split(60), split(60))


def train(task: Task, root: Path, recipe: Recipe, progress: loop.Progress = lambda share: None) -> Run:
    trial = Trial(task.name, task.fingerprint, "resnet", 4, 1.0, recipe, 0)
    return loop.train_one(trial, loop.Data.of(task), Store(root), loop.Start(), progress)


class StoppedError(Exception):
    """The process was killed."""


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_run_that_was_stopped_is_the_run_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """Weights, running statistics, their whole-number counters and the best epoch's weights all come back."""
    recipe = Recipe(optimizer, lr=0.05, batch_size=16, epochs=12, schedule="constant", patience=4)  # type: ignore[arg-type]
    task = stripes(96)
    whole = train(task, tmp_path / "whole", recipe)
    best = min(whole.curve, key=lambda point: point.validation_loss).epoch
    stop = min(best + 1, len(whole.curve) - 1)

    def killed(share: float) -> None:
        if share >= (stop + 1) / recipe.epochs:
            raise StoppedError

    monkeypatch.setattr("sizewise.loop.run.CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(StoppedError):
        train(task, tmp_path / "stopped", recipe, killed)
    assert list((tmp_path / "stopped").rglob("checkpoint.safetensors"))
    resumed = train(task, tmp_path / "stopped", recipe)
    assert [p.validation_loss for p in resumed.curve] == [p.validation_loss for p in whole.curve]
    a, b = (read_weights(next(tmp_path.glob(f"{name}/trials/*/model.safetensors"))) for name in ("whole", "stopped"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["stem.1.num_batches_tracked"] == best * 6


def test_it_learns(tmp_path: Path) -> None:
    run = train(stripes(180), tmp_path, Recipe(lr=0.01, batch_size=32, epochs=20))
    assert run.validation.score > 0.9
    assert all(b.seconds > a.seconds for a, b in pairwise(run.curve))
