"""Pruning and factorization take away what matters least, and what is left is built again from its file alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sizewise import families, loop, methods
from sizewise.compress.factorize import factorize
from sizewise.compress.importance import Scores, weight_scores
from sizewise.compress.prune import prune
from sizewise.compress.units import survey
from sizewise.errors import DataError, SizewiseError, UsageError
from sizewise.families import Form
from sizewise.families.form import Product
from sizewise.families.weights import read_metadata
from sizewise.loop import Data
from sizewise.methods import QAT, Distil, Factorize, Prune, Quantize, Shorten, Sparsify
from sizewise.records import Origin, Recipe, Signature, from_json, to_json
from tests.builders import toy_task

IMAGE = Signature("classification", (1, 8, 8), 3)
TEXT = Signature("classification", (12,), 4, vocabulary=30, dynamic=True)
NEXT = Signature("language modelling", (12,), 30, vocabulary=30)
SERIES = Signature("classification", (12, 5), 4)

MODELS = [
    ("cnn", 8, IMAGE),
    ("resnet", 6, IMAGE),
    ("lstm", 8, TEXT),
    ("bigru", 6, SERIES),
    ("transformer", 48, TEXT),
    ("transformer", 48, NEXT),
]


def ids(value: object) -> str | None:
    return value.problem if isinstance(value, Signature) else None


# -- How chains are written --------------------------------------------------------------------------------------------

SHARES = st.floats(0.001, 0.999)
TRAINING = st.one_of(
    st.builds(Prune, SHARES, st.sampled_from(methods.IMPORTANCES), st.sampled_from(["global", "uniform"])),
    st.builds(Factorize, SHARES),
    st.builds(Shorten, SHARES),
    st.builds(Distil, lesson=st.sampled_from(["answers", "features"])),
)
LAST = st.builds(Sparsify, SHARES) | st.sampled_from([Sparsify(0.5, "2:4"), QAT()])
QUANTIZED = st.one_of(
    st.builds(Quantize, st.just(4), rounding=st.sampled_from(["nearest", "gptq"])),
    st.builds(Quantize, st.just(8), st.sampled_from(methods.RULES), st.sampled_from(["all", "mixed"])),
    st.just(Quantize(8, parts="weights")),
)


@settings(deadline=None)
@given(st.lists(TRAINING, min_size=1, max_size=3), st.none() | LAST, st.none() | QUANTIZED)
def test_a_chain_is_read_as_it_is_written(
    steps: list[methods.Training], settled: methods.Training | None, last: Quantize | None
) -> None:
    chain = (*steps, *(method for method in (settled, last) if method))
    assert methods.parse("+".join(map(methods.written, chain))) == chain
    assert from_json(methods.Chain, to_json(chain)) == chain  # type: ignore[type-var]


@settings(deadline=None)
@given(TRAINING | LAST, TRAINING | LAST)
def test_two_methods_have_one_name_only_if_they_are_one(a: methods.Training, b: methods.Training) -> None:
    assert (methods.label(a) == methods.label(b)) == (a == b)
    assert (Origin(a, "key") == Origin(b, "key")) == (a == b)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prun=0.5", "did you mean 'prune'"),
        ("prune", "write a share"),
        ("prune=1.5", "write a share"),
        ("prune=half", "write a share"),
        ("prune=0.5:best", "no option 'best'"),
        ("distil=3", "takes no number"),
        ("factorize=0.9:taylor", "it takes none"),
        ("int8+distil", "put it last"),
        ("qat+distil", "that would undo it"),
        ("sparsify=0.3+qat+int8", "that would undo it"),
        ("int8:gptq", "no option 'gptq'"),
        ("", "known: prune"),
    ],
)
def test_a_chain_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        methods.parse(text)
    assert message in str(caught.value)


# -- Forms -------------------------------------------------------------------------------------------------------------


def squares(module: nn.Module) -> Scores:
    return {name: p.detach().square() for name, p in module.named_parameters()}


def form_of(module: nn.Module, name: str, width: int, task: Signature) -> Form:
    with torch.device("meta"):
        return Form.of(module, families.load(name, task).build(width))


def answers(module: nn.Module, task: Signature) -> Tensor:
    with torch.no_grad():
        found: Tensor = module.eval()(*samples(task))
    return found


def samples(task: Signature) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    if task.vocabulary:
        return (torch.randint(1, task.vocabulary, (5, *task.input_shape), generator=generator),)
    return (torch.randn(5, *task.input_shape, generator=generator),)


@pytest.mark.parametrize(("name", "width", "task"), MODELS, ids=ids)
def test_a_pruned_and_factorized_model_is_built_again_from_its_file(
    name: str, width: int, task: Signature, tmp_path: Path
) -> None:
    family = families.load(name, task)
    module = family.build(width, seed=1)
    whole = families.parameters(module)
    prune(module, Prune(0.7), task, squares(module))
    pruned = families.parameters(module)
    assert 0.55 * whole < pruned <= 0.7 * whole
    factorize(module, Factorize(0.6), task)
    assert families.parameters(module) < pruned
    form = form_of(module, name, width, task)
    families.save_weights(module.state_dict(), tmp_path / "model.safetensors", form.metadata)
    again = family.build(width, weights=tmp_path / "model.safetensors")
    assert families.parameters(again) == families.parameters(module)
    torch.testing.assert_close(answers(again, task), answers(module, task), rtol=0, atol=0)
    assert form_of(again, name, width, task) == form


def test_a_model_of_the_family_has_no_form_and_its_file_says_none(tmp_path: Path) -> None:
    module = families.load("cnn", IMAGE).build(4, seed=0)
    form = form_of(module, "cnn", 4, IMAGE)
    assert form == Form()
    families.save_weights(module.state_dict(), tmp_path / "model.safetensors", form.metadata)
    assert read_metadata(tmp_path / "model.safetensors") == {}


@pytest.mark.parametrize("said", ['{"factored": ["nowhere"]}', '{"counts": {"nowhere.heads": [1]}}', "no JSON", "[1]"])
def test_a_form_of_another_model_is_refused(said: str, tmp_path: Path) -> None:
    module = families.load("cnn", IMAGE).build(4, seed=0)
    families.save_weights(module.state_dict(), tmp_path / "model.safetensors", {"form": said})
    with pytest.raises(DataError):
        families.load_weights(module, tmp_path / "model.safetensors")


# -- Pruning -----------------------------------------------------------------------------------------------------------

TOY = toy_task()


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "hessian"])
@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_units_that_say_nothing_go_first(importance: methods.Importance, scope: methods.Scope) -> None:
    """A quarter of the channels and of the hidden units are dead, in every layer."""
    family = families.load("cnn", TOY.signature)
    module = family.build(8, seed=0)
    dead_channels(module, [1, 6])
    dead_hidden(module, list(range(3, 32, 4)))
    expected = answers(module, TOY.signature)
    scores = weight_scores(module, importance, Data.of(TOY), Recipe(), seed=0)
    keep = (family.params(6) + 1) / family.params(8)
    prune(module, Prune(keep, importance, scope), TOY.signature, scores)
    assert families.parameters(module) <= family.params(6)
    torch.testing.assert_close(answers(module, TOY.signature), expected, rtol=1e-4, atol=1e-5)


def test_chance_takes_what_says_something() -> None:
    """The baseline does not know better, or the others would have nothing to beat."""
    module = families.load("cnn", TOY.signature).build(8, seed=0)
    dead_channels(module, [1, 6])
    dead_hidden(module, list(range(3, 32, 4)))
    expected = answers(module, TOY.signature)
    prune(module, Prune(0.55, "random"), TOY.signature, weight_scores(module, "random", Data.of(TOY), Recipe(), 0))
    assert (answers(module, TOY.signature) - expected).abs().max() > 1e-3


@torch.no_grad()
def dead_channels(module: nn.Module, channels: list[int]) -> None:
    module.get_parameter("convolution.weight")[channels] = 0
    module.get_parameter("convolution.bias")[channels] = 0
    hidden = module.get_parameter("hidden.weight")
    pixels = hidden.shape[1] // len(module.get_parameter("convolution.weight"))
    for c in channels:
        hidden[:, c * pixels : (c + 1) * pixels] = 0


@torch.no_grad()
def dead_hidden(module: nn.Module, units: list[int]) -> None:
    module.get_parameter("hidden.weight")[units] = 0
    module.get_parameter("hidden.bias")[units] = 0
    module.get_parameter("head.weight")[:, units] = 0


def test_attention_loses_whole_heads() -> None:
    module = families.load("transformer", TEXT).build(48, seed=0)
    heads = [units for units in survey(module, TEXT) if "attention" in units.root]
    assert [(units.count, units.size) for units in heads] == [(3, 16)] * 2
    with torch.no_grad():  # the second head of the first layer is not listened to
        module.get_parameter("stack.blocks.0.attention.out.weight")[:, 16:32] = 0
        for name in ("query.weight", "query.bias"):
            module.get_parameter(f"stack.blocks.0.attention.{name}")[16:32] = 0
        for name in ("key_value.weight", "key_value.bias"):
            for start in (16, 64):
                module.get_parameter(f"stack.blocks.0.attention.{name}")[start : start + 16] = 0
    expected = answers(module, TEXT)
    prune(module, Prune(0.97), TEXT, squares(module))
    assert [block.attention.heads for block in module.get_submodule("stack.blocks")] == [2, 3]  # type: ignore[union-attr]
    assert module.get_parameter("stack.blocks.0.attention.key_value.weight").shape[0] == 2 * 2 * 16
    torch.testing.assert_close(answers(module, TEXT), expected, rtol=1e-4, atol=1e-5)


def test_recurrent_layers_lose_the_units_that_say_nothing() -> None:
    module = families.load("lstm", SERIES).build(8, seed=0)
    with torch.no_grad():
        for name, weight in module.get_submodule("layers.0.forth").named_parameters():
            weight.reshape(4, 8, -1)[:, [2, 5]] = 0
            if "_hh_" in name and weight.dim() == 2:
                weight[:, [2, 5]] = 0
        module.get_parameter("layers.1.forth.weight_ih_l0")[:, [2, 5]] = 0
    expected = answers(module, SERIES)
    prune(module, Prune(0.85), SERIES, squares(module))
    assert module.get_submodule("layers.0.forth").hidden_size == 6
    torch.testing.assert_close(answers(module, SERIES), expected, rtol=1e-4, atol=1e-5)


def test_uniform_pruning_takes_the_same_share_of_each_layer() -> None:
    module = families.load("cnn", TOY.signature).build(16, seed=0)
    prune(module, Prune(0.3, scope="uniform"), TOY.signature, squares(module))
    channels, hidden = module.get_parameter("convolution.weight").shape[0], module.get_parameter("head.weight").shape[1]
    assert channels / 16 == pytest.approx(hidden / 64, abs=0.08)


def test_no_layer_is_left_without_units() -> None:
    module = families.load("cnn", TOY.signature).build(4, seed=0)
    with pytest.raises(SizewiseError, match="stay whatever goes"):
        prune(module, Prune(0.001), TOY.signature, squares(module))


# -- Factorization -----------------------------------------------------------------------------------------------------


def test_a_layer_of_low_rank_loses_nothing() -> None:
    module = families.load("cnn", TOY.signature).build(8, seed=0)
    with torch.no_grad():
        weight = module.get_parameter("hidden.weight")
        rows, values, columns = torch.linalg.svd(weight, full_matrices=False)
        weight.copy_(rows[:, :3] * values[:3] @ columns[:3])
    expected = answers(module, TOY.signature)
    before = families.parameters(module)
    factorize(module, Factorize(0.99999), TOY.signature)
    product = module.get_submodule("hidden")
    assert isinstance(product, Product)
    assert product[0].out_features == 3
    assert families.parameters(module) == before - 32 * 72 + 3 * (32 + 72)
    torch.testing.assert_close(answers(module, TOY.signature), expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_becomes_a_thinner_one_and_a_pointwise_one() -> None:
    layer = nn.Sequential(nn.Conv2d(6, 16, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    task = Signature("classification", (6, 9, 9), 16)
    with torch.no_grad():
        rows, values, columns = torch.linalg.svd(layer[0].weight.flatten(1), full_matrices=False)
        layer[0].weight.copy_((rows[:, :4] * values[:4] @ columns[:4]).reshape(16, 6, 3, 3))
    expected = answers(layer, task)
    factorize(layer, Factorize(0.99999), task)
    assert layer[0][0].weight.shape == (4, 6, 3, 3)
    assert layer[0][1].weight.shape == (16, 4, 1, 1)
    torch.testing.assert_close(answers(layer, task), expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(st.floats(0.05, 0.95))
def test_what_is_lost_is_the_energy_that_was_given_up(energy: float) -> None:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(64, 48))
    torch.nn.init.normal_(layer[1].weight, generator=torch.Generator().manual_seed(3))
    weight = layer[1].weight.detach().clone()
    try:
        factorize(layer, Factorize(energy), Signature("classification", (1, 8, 8), 48))
    except SizewiseError:
        values = np.cumsum(np.square(np.linalg.svd(weight.numpy(), compute_uv=False)))
        assert int((values / values[-1] < energy).sum()) + 1 > (48 * 64 - 1) // (48 + 64)
        return
    made = (layer[1][1].weight @ layer[1][0].weight).detach()
    lost = float((made - weight).square().sum() / weight.square().sum())
    assert lost <= 1 - energy + 1e-4


def test_a_shared_layer_is_left_alone() -> None:
    module = families.load("transformer", NEXT).build(48, seed=0)
    factorize(module, Factorize(0.5), NEXT)
    assert isinstance(module.get_submodule("exit.head"), nn.Linear)
    assert module.get_parameter("exit.head.weight") is module.get_parameter("entry.layer.weight")


def test_scores_follow_the_data() -> None:
    """The Taylor score of a weight is |w·g|, and the second-order one w²·E[g²]/2."""
    module = families.load("cnn", TOY.signature).build(2, seed=0)
    data = Data.of(TOY)
    first = weight_scores(module, "taylor", data, Recipe(), 0)["head.bias"]
    second = weight_scores(module, "hessian", data, Recipe(), 0)["head.bias"]
    module.zero_grad()
    loss = nn.functional.cross_entropy(module.eval()(data.x), data.y)
    loss.backward()  # type: ignore[no-untyped-call]
    bias = module.get_parameter("head.bias")
    assert bias.grad is not None
    torch.testing.assert_close(first, (bias * bias.grad).abs().detach(), rtol=1e-3, atol=1e-6)
    assert (second >= 0).all()
    assert loop.validation_loss(module, Recipe(), data) > 0
