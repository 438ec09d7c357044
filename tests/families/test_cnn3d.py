"""The CNN for volumes: its sizes, its cuts, its exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sizewise import families
from sizewise.compress import quantize
from sizewise.compress.narrow import narrow
from sizewise.errors import UsageError
from sizewise.families.cnn3d import strides
from sizewise.records import Signature
from sizewise.runtimes import Config, eager, onnxruntime, openvino
from sizewise.tasks import Preprocessor

CUBE = Signature("classification", (1, 16, 16, 16), 2)
SLICES = Signature("regression", (2, 5, 32, 24), 3)


def test_sides_are_halved_as_long_as_they_have_eight_voxels() -> None:
    assert strides(16, 16, 16) == [(1, 1, 1), (2, 2, 2), (2, 2, 2)]
    assert strides(5, 32, 24) == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 1)]
    assert strides(4, 4, 4) == [(1, 1, 1)]
    assert strides(64, 64, 64) == [(2, 2, 2)] * 4


@given(sides=st.tuples(st.integers(2, 40), st.integers(1, 40), st.integers(1, 40)), width=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_parameters_grow_with_the_width_for_volumes_of_any_shape(sides: tuple[int, int, int], width: int) -> None:
    family = families.load("cnn3d", Signature("classification", (1, *sides), 4))
    assert family.params(width + 1) > family.params(width)
    with torch.no_grad():
        assert family.build(2, seed=0).eval()(torch.zeros(2, 1, *sides)).shape == (2, 4)


@pytest.mark.parametrize("signature", [CUBE, SLICES])
def test_flops_agree_with_the_count_by_hand(signature: Signature) -> None:
    channels, *sides = signature.input_shape
    total = 0
    for number, stride in enumerate(strides(*sides)):
        sides = [-(-side // step) for side, step in zip(sides, stride, strict=True)]
        total += 2 * 27 * channels * 4 * 2**number * int(np.prod(sides))
        channels = 4 * 2**number
    module = families.load("cnn3d", signature).build(4, seed=0)
    assert families.flops(module, signature) == total + 2 * channels * signature.outputs


def test_the_same_seed_gives_the_same_weights() -> None:
    family = families.load("cnn3d", CUBE)
    a, b, other = (family.build(4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], other["head.weight"])


@pytest.mark.parametrize("shape", [(1, 16, 16), (8, 8), (1, 1, 1, 1)])
def test_what_is_no_volume_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="cannot do classification with"):
        families.load("cnn3d", Signature("classification", shape, 10))


@pytest.mark.parametrize(("signature", "smaller_width"), [(CUBE, 5), (SLICES, 3)])
def test_it_is_cut_to_the_exact_shapes_of_a_smaller_width(signature: Signature, smaller_width: int) -> None:
    family = families.load("cnn3d", signature)
    smaller = family.build(smaller_width)
    smaller.load_state_dict(narrow(family.build(8, seed=0), family, smaller_width))
    assert families.parameters(smaller) == family.params(smaller_width)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[eager.Deployable, Path]:
    """A model with running statistics of its own, and its files for both runtimes and precisions."""
    folder = tmp_path_factory.mktemp("graphs")
    torch.manual_seed(0)
    net = families.load("cnn3d", CUBE).build(4, seed=0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    model = eager.Deployable(net, Preprocessor((0.5,), (2.0,)), CUBE)
    onnxruntime.export(model, CUBE, folder)
    openvino.convert_file(folder / "model.onnx", folder / "model.xml")
    samples = np.random.default_rng(0).normal(size=(64, 1, 16, 16, 16)).astype(np.float32)
    quantize.onnxruntime_int8(folder / "model.onnx", folder / "int8.onnx", samples)
    quantize.openvino_int8(folder / "model.onnx", folder / "int8.xml", samples)
    return model, folder


@pytest.mark.parametrize("batch", [1, 5])
def test_every_runtime_computes_the_same_at_every_batch_size(graphs: tuple[eager.Deployable, Path], batch: int) -> None:
    model, folder = graphs
    x = np.random.default_rng(1).normal(size=(batch, 1, 16, 16, 16)).astype(np.float32)
    expected = eager.session(model, CUBE)(x)
    onnx, vino = (onnxruntime.open_file(folder / "model.onnx", 1), openvino.open_file(folder / "model.xml", "fp32", 1))
    for run in (onnx, vino):
        np.testing.assert_allclose(run(x), expected, rtol=1e-3, atol=1e-4)
    onnx, vino = (onnxruntime.open_file(folder / "int8.onnx", 1), openvino.open_file(folder / "int8.xml", "int8", 1))
    for run in (onnx, vino):
        assert np.abs(run(x) - expected).max() < 0.1 * np.ptp(expected)


def test_a_folder_of_weights_answers_as_its_model_does(graphs: tuple[eager.Deployable, Path], tmp_path: Path) -> None:
    model, _ = graphs
    config = Config(1, "solids", "torch", "fp32", "cnn3d", 4, CUBE, ("cube", "sphere"), Preprocessor((0.5,), (2.0,)))
    families.save_weights(model.net.state_dict(), tmp_path / "model.safetensors")
    x = np.random.default_rng(2).normal(size=(3, 1, 16, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(eager.load(tmp_path, config, 1)(x), eager.session(model, CUBE)(x), atol=1e-5)
