"""Any module comes in sizes: rungs shrink, streams, groups and heads stay whole, and each size is a proper start."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from sizewise import families
from sizewise.errors import UsageError
from sizewise.families.family import Family
from sizewise.records import Signature

IMAGES = Signature("classification", (1, 28, 28), 10)
TEXTS = Signature("classification", (20,), 3, vocabulary=50, dynamic=True)
SERIES = Signature("classification", (20, 5), 3)
LANGUAGE = Signature("language modelling", (20,), 50, vocabulary=50)

MODULES = (
    ("resnet", IMAGES),
    ("Encoder", TEXTS),
    ("Recurrent", TEXTS),
    ("LastState", SERIES),
    ("our_transformer", TEXTS),
    ("our_transformer", LANGUAGE),
    ("our_bilstm", TEXTS),
    ("bert", TEXTS),
    ("vit", IMAGES),
    ("convnext", IMAGES),
)


def thin(name: str, signature: Signature) -> Family:
    return families.load(f"thin:tests.own_models:{name}", signature)


@pytest.mark.parametrize(("name", "signature"), MODULES, ids=lambda value: getattr(value, "problem", value))
def test_a_fixed_module_comes_in_sizes_from_a_fiftieth_up(name: str, signature: Signature) -> None:
    family = thin(name, signature)
    whole = family.params(32)
    widths = family.ladder(whole // 40, whole, 6)
    params = [family.params(width) for width in widths]
    assert len(params) >= 5
    assert all(a < b for a, b in pairwise(params))
    assert params[0] <= 0.035 * whole
    assert params[-1] == whole
    for width in (widths[0], widths[2]):
        module = family.build(width, seed=0)
        assert families.parameters(module) == family.params(width)
        x = families.example(signature, 3)
        answers = module(*x)
        assert answers.shape == families.output_shape(signature, 3)
        answers.sum().backward()
        assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize(("name", "signature"), [("Recurrent", TEXTS), ("our_transformer", LANGUAGE)])
def test_thin_models_are_rebuilt_from_their_weights(name: str, signature: Signature, tmp_path: Path) -> None:
    family = thin(name, signature)
    module, other = family.build(9, seed=1), family.build(9, seed=2)
    assert any(not torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    for a, b in zip(module.state_dict().values(), family.build(9, seed=1).state_dict().values(), strict=True):
        assert torch.equal(a, b)
    families.save_weights(module.state_dict(), tmp_path / "model.safetensors")
    again = families.load(family.name, signature).build(9, weights=tmp_path / "model.safetensors")
    x = families.example(signature, 2)
    torch.testing.assert_close(again.eval()(*x), module.eval()(*x), rtol=0, atol=0)


def test_heads_are_cut_whole_where_the_code_counts_them() -> None:
    block = thin("our_transformer", TEXTS).build(8, seed=0).stack.blocks[0]
    assert (block.attention.heads, block.attention.query.out_features, block.attention.out.in_features) == (1, 16, 16)


def test_tied_weights_stay_tied() -> None:
    module = thin("our_transformer", LANGUAGE).build(8, seed=0)
    assert module.exit.head.weight is module.entry.layer.weight


def test_groups_and_shortcuts_stay_in_step() -> None:
    module = thin("resnet", IMAGES).build(8, seed=0)
    block = module[3]
    assert (block.first.out_channels, block.second.groups, module[0].out_channels) == (8, 4, 8)


def test_a_thin_layer_computes_with_the_variance_of_the_whole_one() -> None:
    family = thin("our_transformer", TEXTS)
    whole, narrow = (family.build(w, seed=0).stack.blocks[0].hidden.weight for w in (32, 8))
    per_output = [float(w.detach().var() * w.shape[1]) for w in (whole, narrow)]
    assert per_output[1] == pytest.approx(per_output[0], rel=0.2)


def test_the_whole_module_is_left_as_it_is() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        from tests.own_models import resnet

        expected = resnet(IMAGES).state_dict()
    found = thin("resnet", IMAGES).build(32, seed=5).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_instance_is_copied_and_drawn_anew() -> None:
    from tests.own_models import fixed

    before = fixed[1].weight.clone()
    family = thin("fixed", Signature("classification", (1, 8, 8), 10))
    one, two = (family.build(32, seed=s).get_parameter("1.weight") for s in (0, 1))
    assert not torch.equal(one, two)
    assert torch.equal(fixed[1].weight, before)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no width 33"):
        thin("resnet", IMAGES).build(33)
    with pytest.raises(UsageError, match="is a dict"):
        families.load("thin:tests.own_models:_SMALL", IMAGES)
    with pytest.raises(UsageError, match=r"thin:tests\.own_models:fixed") as error:
        families.load("tests.own_models:fixed", IMAGES)
    assert "comes in sizes as" in error.value.hint


def test_modules_without_channels_of_their_own_are_refused() -> None:
    with pytest.raises(UsageError, match="no channels that can be cut"):
        families.load("thin:tests.families.test_thinned:only_a_head", IMAGES)


def only_a_head(task: Signature) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, task.outputs))
