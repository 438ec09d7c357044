"""Where layers are of one kind, a study may ask for their number; sizes of another depth are found by parameters."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sizewise import families
from sizewise.errors import UsageError
from sizewise.families.resnet import Block
from sizewise.families.transformer import Block as Attending
from sizewise.records import Signature
from sizewise.tune.space import equal_width

IMAGES = Signature("classification", (1, 28, 28), 10)
TEXTS = Signature("classification", (12,), 4, vocabulary=50)
LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "transformer": Attending, "vit": Attending, "resnet": Block}


def signature(name: str) -> Signature:
    return IMAGES if name in ("vit", "resnet") else TEXTS


def layers(family: str, name: str) -> int:
    module = families.load(family, signature(name)).build(8, seed=0)
    return sum(isinstance(part, LAYERS[name]) for part in module.modules())


@pytest.mark.parametrize("name", LAYERS)
def test_depth_is_what_was_asked_for(name: str) -> None:
    one = layers(f"{name}:1", name)
    assert [layers(f"{name}:{depth}", name) for depth in (2, 3, 5)] == [2 * one, 3 * one, 5 * one]
    family = families.load(f"{name}:3", signature(name))
    families.check_output(family, 8)
    assert family.params(16) > families.load(f"{name}:1", signature(name)).params(16)


@pytest.mark.parametrize("name", LAYERS)
def test_a_search_tries_other_depths_than_the_familys_own(name: str) -> None:
    own, *others = families.shapes(name)
    assert own == name
    assert others
    assert layers(name, name) not in [layers(other, name) for other in others]
    deep, *rest = families.shapes(others[0])
    assert deep == others[0]
    assert others[0] not in rest
    assert len(rest) == len(others)


def test_a_depth_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="the cnn family has one depth, and 2 was asked for"):
        families.load("cnn:2", IMAGES)
    with pytest.raises(UsageError, match="a depth of 0 was asked of resnet"):
        families.load("resnet:0", IMAGES)
    assert families.shapes("cnn") == ("cnn",)
    assert families.shapes("my.models:build") == ("my.models:build",)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["lstm:1", "lstm:4", "transformer:4", "transformer:1"]), st.integers(8, 96))
def test_another_depth_has_as_many_parameters(other: str, width: int) -> None:
    own = families.load(other.partition(":")[0], TEXTS)
    family = families.load(other, TEXTS)
    found = equal_width(own.name, width, other, TEXTS)
    wanted = own.params(width)
    off = abs(math.log(family.params(found) / wanted))
    assert off <= min(abs(math.log(family.params(w) / wanted)) for w in (max(1, found - 1), found + 1))


def test_a_depth_whose_smallest_model_is_too_large_has_no_width() -> None:
    assert equal_width("lstm", 1, "lstm:4", TEXTS) == 0


def test_weights_are_those_of_a_seed() -> None:
    a, b = (families.load("lstm:3", TEXTS).build(8, seed=1).state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
