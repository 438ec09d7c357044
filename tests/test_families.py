"""Sizes are counted, the dial is monotone, and weights come back exactly."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise import families
from sizewise.errors import DataError, UsageError
from sizewise.records import Signature

MNIST = Signature("classification", (1, 28, 28), 10)


def test_reference_cnn_has_the_published_sizes() -> None:
    cnn = families.load("cnn", MNIST)
    assert cnn.params(32) == 693_962
    assert cnn.params(16) == 173_930


def test_reference_cnn_computes_relu_before_or_after_the_pool_alike() -> None:
    module = families.load("cnn", MNIST).build(8, seed=0)
    x = torch.randn(4, *MNIST.input_shape)
    pooled = module.pool(torch.relu(module.convolution(x)))
    textbook = module.head(torch.relu(module.hidden(torch.flatten(pooled, 1))))
    torch.testing.assert_close(module(x), textbook, rtol=0, atol=0)


@given(width=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_at_inverts_params(width: int) -> None:
    cnn = families.load("cnn", MNIST)
    assert cnn.at(cnn.params(width)) == width
    assert cnn.params(width + 1) > cnn.params(width)


def test_at_refuses_what_no_width_has() -> None:
    with pytest.raises(UsageError, match="the smallest has"):
        families.load("cnn", MNIST).at(5)


def test_ladder_is_log_spaced_over_two_decades() -> None:
    cnn = families.load("cnn", MNIST)
    widths = cnn.ladder(cnn.params(2), cnn.params(32), 7)
    assert (widths[0], widths[-1], len(widths)) == (2, 32, 7)
    assert cnn.params(32) / cnn.params(2) > 100
    ratios = [cnn.params(b) / cnn.params(a) for a, b in pairwise(widths)]
    assert max(ratios) / min(ratios) < 2


def test_flops_agree_with_the_count_by_hand() -> None:
    module = families.load("cnn", MNIST).build(32)
    convolution, hidden, head = 26 * 26 * 32 * 9, 5408 * 128, 128 * 10
    assert families.flops(module, MNIST) == 2 * (convolution + hidden + head)


def test_training_memory_grows_with_batch_and_optimizer_state() -> None:
    module = families.load("cnn", MNIST).build(4)
    weights = 4 * families.parameters(module)
    small = families.training_bytes(module, MNIST, 8, 0)
    assert families.training_bytes(module, MNIST, 8, 2) == small + 2 * weights
    # The input and the convolution's output alone are kept for the backward pass.
    assert families.activation_bytes(module, MNIST, 8) >= 8 * 4 * (28 * 28 + 4 * 26 * 26)
    assert families.activation_bytes(module, MNIST, 16) == 2 * families.activation_bytes(module, MNIST, 8)


def test_counting_holds_on_to_nothing() -> None:
    module = families.load("cnn", MNIST).build(4)
    families.activation_bytes(module, MNIST, 8)
    alive = weakref.ref(next(module.parameters()))
    del module
    gc.collect()
    assert alive() is None


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    cnn = families.load("cnn", MNIST)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, two, other = (cnn.build(4, seed=s).state_dict()["head.weight"] for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.rand(1), expected)


def test_weights_survive_the_file(tmp_path: Path) -> None:
    cnn = families.load("cnn", MNIST)
    module, again = cnn.build(4, seed=1), cnn.build(4, seed=2)
    families.save_weights(module.state_dict(), tmp_path / "model.safetensors")
    families.load_weights(again, tmp_path / "model.safetensors")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    cnn = families.load("cnn", MNIST)
    families.save_weights(cnn.build(4).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="does not fit the model"):
        families.load_weights(cnn.build(5), tmp_path / "model.safetensors")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(DataError, match="cannot read weights"):
        families.load_weights(families.load("cnn", MNIST).build(4), tmp_path / "model.safetensors")


def test_unknown_family_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'cnn'"):
        families.load("cmn", MNIST)


def test_images_too_small_for_the_cnn_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot do classification with images of 1 × 3 × 3"):
        families.load("cnn", replace(MNIST, input_shape=(1, 3, 3)))


def test_a_users_own_builder_is_a_family() -> None:
    family = families.load("tests.own_family:build", MNIST)
    assert family.params(3) > family.params(2)


def test_large_images_get_the_residual_cnn_and_small_ones_the_reference() -> None:
    assert families.suited(Signature("classification", (3, 64, 64), 5)) == "resnet"
    assert families.suited(Signature("classification", (1, 28, 28), 10)) == "cnn"
