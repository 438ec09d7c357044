"""Pruned, distilled and quantized models are what they are said to be, and agree with the model they came from."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise import compress, families, loop, runtimes
from sizewise.compress import quantize
from sizewise.compress.candidates import calibration_samples, deployable
from sizewise.compress.narrow import narrow
from sizewise.compress.prune import prune
from sizewise.errors import SizewiseError
from sizewise.families import Family
from sizewise.families.weights import read_weights
from sizewise.loop import Data
from sizewise.loop.lessons import soft_loss
from sizewise.methods import Distil, Narrow, Prune
from sizewise.records import Candidate, Choice, Metric, Origin, Recipe, Run, Signature
from sizewise.runtimes import eager, onnxruntime, openvino
from sizewise.store import Store
from sizewise.tasks import Preprocessor
from tests.builders import Models, around, labels, publish, toy_task, train, trial, weights

MLP = "tests.own_family:build"
SHAPE = (1, 8, 8)
TASK = Signature("classification", SHAPE, 3)


def cnn(width: int, seed: int = 0) -> tuple[nn.Module, Family]:
    family = families.load("cnn", TASK)
    return family.build(width, seed=seed), family


@pytest.mark.parametrize("name", ["cnn", MLP])
@pytest.mark.parametrize(("parent", "width"), [(8, 5), (8, 1), (16, 8)])
def test_pruning_gives_exactly_the_shapes_of_the_family(name: str, parent: int, width: int) -> None:
    family = families.load(name, TASK)
    state = narrow(family.build(parent, seed=0), family, width)
    smaller = family.build(width)
    smaller.load_state_dict(state)
    assert families.parameters(smaller) == family.params(width)


def test_pruning_dead_channels_changes_nothing() -> None:
    """Two of six channels and eight of their 24 hidden units say nothing and are not listened to."""
    module, family = cnn(6)
    x = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(0))
    kill_channels(module, [1, 4])
    kill_hidden(module, [0, 3, 7, 8, 15, 16, 20, 23])
    expected = loop.predict(module, x, TASK)
    pruned = family.build(4)
    pruned.load_state_dict(narrow(module, family, 4))
    torch.testing.assert_close(loop.predict(pruned, x, TASK), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def kill_channels(module: nn.Module, channels: list[int]) -> None:
    module.get_parameter("convolution.weight")[channels] = 0
    module.get_parameter("convolution.bias")[channels] = 0
    hidden = module.get_parameter("hidden.weight")
    pixels = hidden.shape[1] // module.get_parameter("convolution.weight").shape[0]
    for c in channels:
        hidden[:, c * pixels : (c + 1) * pixels] = 0


@torch.no_grad()
def kill_hidden(module: nn.Module, units: list[int]) -> None:
    module.get_parameter("hidden.weight")[units] = 0
    module.get_parameter("hidden.bias")[units] = 0
    module.get_parameter("head.weight")[:, units] = 0


def test_pruning_keeps_the_units_with_the_largest_weights() -> None:
    family = families.load(MLP, TASK)
    module = family.build(6, seed=0)
    with torch.no_grad():
        scale = torch.tensor([1.0, 9.0, 2.0, 8.0, 7.0, 3.0])
        module.get_parameter("1.weight").copy_(scale[:, None].expand(6, 64))
        module.get_parameter("3.weight").copy_(scale[None, :].expand(3, 6))
    assert narrow(module, family, 3)["1.weight"][:, 0].tolist() == [9.0, 8.0, 7.0]


def deep(width: int, task: Signature) -> nn.Module:
    """A family that grows deeper, not wider."""
    pixels = int(np.prod(task.input_shape))
    layers = (nn.Linear(pixels, pixels) for _ in range(width))
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(pixels, task.outputs))


def test_a_family_that_cannot_be_pruned_says_so() -> None:
    family = Family("deep", deep, TASK)
    with pytest.raises(SizewiseError, match="width 2 has other layers") as error:
        narrow(family.build(4), family, 2)
    assert "--methods distil,int8" in error.value.hint


@pytest.mark.parametrize("name", ["lstm", "bilstm", "gru"])
def test_a_recurrent_model_is_cut_without_a_word(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    task = Signature("classification", (12,), 4, vocabulary=30, dynamic=True)
    family = families.load(name, task)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with suppress(SizewiseError):  # layers that share a width may have no smaller member of the family
            narrow(family.build(16, seed=0), family, 8)
        module = family.build(16, seed=0)
        prune(module, Prune(0.5), task, {name: p.detach() ** 2 for name, p in module.named_parameters()})
    assert [str(warning.message) for warning in said] == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """One that is far from certain, as hard labels would make it."""
    root = tmp_path_factory.mktemp("teacher")
    return train(trial(TOY, width=12, recipe=Recipe(lr=0.003, batch_size=32, epochs=1)), TOY, root), root


TOY = toy_task(noise=1.0)


def kl(parent: Tensor, student: Tensor) -> float:
    return float(F.kl_div(student.log_softmax(1), parent.log_softmax(1), reduction="batchmean", log_target=True))


def logits(run: Run, root: Path) -> Tensor:
    family = families.load(run.trial.family, TOY.signature)
    path = Store(root).trial_folder(run.trial.key) / "model.safetensors"
    return loop.predict(family.build(run.trial.width, weights=path), Data.of(TOY).x_validation, TOY.signature)


def test_a_student_comes_closer_to_its_teacher_than_one_without(teacher: tuple[Run, Path]) -> None:
    parent, root = teacher
    alone = trial(TOY, width=3, recipe=Recipe(lr=0.01, batch_size=32, epochs=20))
    taught = replace(alone, origin=Origin(Distil(temperature=1.0, weight=1.0), parent.trial.key))
    student = train(taught, TOY, root, compress.prepare(taught, Store(root), Data.of(TOY)))
    itself = train(alone, TOY, root)
    target = logits(parent, root)
    assert kl(target, logits(student, root)) < 0.3 * kl(target, logits(itself, root))


def test_a_weight_of_zero_ignores_the_teacher(teacher: tuple[Run, Path]) -> None:
    parent, root = teacher
    alone = trial(TOY, width=3, recipe=Recipe(lr=0.01, batch_size=32, epochs=2))
    taught = replace(alone, origin=Origin(Distil(weight=0.0), parent.trial.key))
    student = train(taught, TOY, root, compress.prepare(taught, Store(root), Data.of(TOY)))
    for name, tensor in weights(train(alone, TOY, root), root).items():
        torch.testing.assert_close(weights(student, root)[name], tensor)


def test_the_soft_loss_is_hintons() -> None:
    """T²·KL of the softened distributions, written out."""
    a, b, t = torch.randn(5, 4), torch.randn(5, 4), 3.0
    p, q = (a / t).softmax(1), (b / t).softmax(1)
    expected = t * t * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(soft_loss(b, a, t), expected)


def test_a_pruned_trial_starts_from_its_parents_weights(teacher: tuple[Run, Path]) -> None:
    parent, root = teacher
    made = replace(trial(TOY, width=6, recipe=Recipe(lr=1e-12, epochs=1)), origin=Origin(Narrow(), parent.trial.key))
    start = compress.prepare(made, Store(root), Data.of(TOY))
    assert start.weights is not None
    run = train(made, TOY, root, start)
    for name, tensor in weights(run, root).items():
        torch.testing.assert_close(tensor, start.weights[name], rtol=1e-4, atol=1e-6)
    rows = weights(parent, root)["convolution.weight"].flatten(1)
    kept = start.weights["convolution.weight"].flatten(1)
    assert all((rows == row).all(1).any() for row in kept)


def choice_of(width: int, run: Run, reference: int) -> Choice:
    metric, score = Metric("accuracy"), around(0.9)
    return Choice(
        width, run.params, "supported", "", metric, 0.005, score, None, reference, (), (), None, run.trial.key
    )


def test_each_method_is_trained_over_the_same_seeds_at_the_widths_below(models: Models, tmp_path: Path) -> None:
    y, store = labels(60), Store(tmp_path)
    sizes = {w: [publish(store, y, width=w, seed=s, wrong=20 - w) for s in range(4)] for w in (2, 4, 8, 16)}
    sizes[16] = sizes[16][1:]  # one seed of the teacher is missing
    study = replace(models.study, compress=replace(models.study.compress, steps=2, seeds=3))
    trials, skipped = compress.plan_trials(study, sizes, choice_of(8, sizes[8][0], 16), models.task)
    assert not skipped
    assert {t.seed for t in trials} == {1, 2, 3}
    assert len(trials) == 2 * 2 * 3
    for t in trials:
        assert t.origin is not None
        parent = store.run(t.origin.parent).trial
        assert t.width in (2, 4)
        assert (parent.seed, parent.width) == (t.seed, 8 if t.origin.method == Narrow() else 16)


def test_in_a_limited_time_every_method_has_one_seed_before_any_has_two(models: Models, tmp_path: Path) -> None:
    y, store = labels(60), Store(tmp_path)
    sizes = {w: [publish(store, y, width=w, seed=s, wrong=20 - w) for s in range(3)] for w in (2, 4, 8)}
    study = replace(models.study, compress=replace(models.study.compress, steps=2, seeds=3))
    trials, _ = compress.plan_trials(study, sizes, choice_of(8, sizes[8][0], 8), models.task)
    assert compress.within(trials, lambda trial: 1.0, 100.0) == (tuple(sorted(trials, key=lambda t: t.seed)), ())
    kept, left_out = compress.within(trials, lambda trial: 1.0, 5.5)
    assert [t.seed for t in kept] == [0] * 4 + [1]
    assert len({(t.width, t.origin) for t in kept[:4]}) == 4
    assert left_out[0].startswith(f"{len(trials) - 5} of {len(trials)} pruned and distilled models: no time")
    assert len(compress.within(trials, lambda trial: 1.0, 0.0)[0]) == 1


def test_the_smallest_size_can_be_pruned_to_from_the_largest(models: Models, tmp_path: Path) -> None:
    """When nothing lies below the chosen width, it is itself the target: prune to it, or train it small?"""
    y, store = labels(60), Store(tmp_path)
    sizes = {w: [publish(store, y, width=w, seed=s, wrong=20 - w) for s in range(2)] for w in (2, 4)}
    trials, _ = compress.plan_trials(models.study, sizes, choice_of(2, sizes[2][0], 4), models.task)
    assert {t.width for t in trials} == {2}
    assert {store.run(t.origin.parent).trial.width for t in trials if t.origin} == {4}


def session_of(models: Models, candidate: Candidate) -> runtimes.Session:
    return runtimes.load(models.folder(candidate))


def test_every_variant_of_every_model_is_made(models: Models) -> None:
    found = {(c.width, c.runtime, c.precision) for c in models.candidates}
    assert len(models.candidates) == len(found) == 10
    for candidate in models.candidates:
        assert session_of(models, candidate)(np.zeros((3, *SHAPE), np.float32)).shape == (3, 10)
        assert candidate.params in (run.params for run in models.runs)


def test_full_precision_is_the_same_function_in_every_runtime(models: Models) -> None:
    x = models.task.validation.x.astype(np.float32)
    for run in models.runs:
        with torch.inference_mode():
            expected = deployable(run, models.task, models.store).eval()(torch.from_numpy(x)).numpy()
        for c in models.candidates:
            if c.run == run.trial.key and c.precision == "fp32":
                np.testing.assert_allclose(session_of(models, c)(x), expected, atol=1e-4 * np.abs(expected).max())


def test_int8_costs_at_most_a_few_points_on_the_real_digits(models: Models) -> None:
    score = {c.name: accuracy(models, c) for c in models.candidates}
    for c in models.candidates:
        assert score[c.name] > score[c.name.replace("int8", "fp32")] - 0.03, c.name


def accuracy(models: Models, candidate: Candidate) -> float:
    found = models.task.problem.answers(session_of(models, candidate), models.task.validation)
    return models.task.problem.score(found, models.task.validation)


def test_a_second_build_touches_nothing(models: Models) -> None:
    before = {path: path.stat().st_mtime_ns for path in (models.store / "candidates").rglob("*")}
    again, _ = compress.build(models.study, models.runs, models.task, models.store)
    assert again == models.candidates
    assert before == {path: path.stat().st_mtime_ns for path in (models.store / "candidates").rglob("*")}


def test_a_candidate_of_the_same_name_from_another_run_is_made_anew(models: Models, tmp_path: Path) -> None:
    """The choice of the representative seed may change when seeds are added."""
    shutil.copytree(models.store.root, tmp_path / "copy")
    store = Store(tmp_path / "copy")
    other = train(replace(models.runs[1].trial, seed=5), models.task, store.root)
    study = replace(models.study, compress=replace(models.study.compress, methods=("prune",)))
    made, _ = compress.build(study, (other,), models.task, store)
    assert {c.precision for c in made} == {"fp32"}
    torch_folder = store / "candidates" / made[0].name
    kept = read_weights(torch_folder / "model.safetensors")
    assert torch.equal(kept["head.weight"], weights(other, store.root)["head.weight"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """The reference model, MNIST's shape at width 32, as ONNX files in fp32 and int8."""
    folder = tmp_path_factory.mktemp("large")
    task = toy_task(60, side=28)
    run = train(trial(task, width=32, recipe=Recipe(epochs=1)), task, folder)
    onnxruntime.export(deployable(run, task, Store(folder)), task.signature, folder)
    quantize.onnxruntime_int8(folder / "model.onnx", folder / "int8.onnx", task.train.x)
    return folder / "model.onnx", folder / "int8.onnx", task.train.x


def test_int8_weights_are_int8_and_a_quarter_of_the_bytes(large: tuple[Path, Path, np.ndarray]) -> None:
    import onnx

    full, small, _ = large
    assert full.stat().st_size > 3 * small.stat().st_size
    values = dict.fromkeys((onnx.TensorProto.INT8, onnx.TensorProto.FLOAT), 0)
    for tensor in onnx.load(small).graph.initializer:
        values[tensor.data_type] = values.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    assert values[onnx.TensorProto.INT8] > 0.99 * 692_000
    assert values[onnx.TensorProto.FLOAT] < 7_000


def test_quantizing_prints_nothing(
    large: tuple[Path, Path, np.ndarray], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stdout belongs to the user's data, and the quantizers' progress bars and advice would land in it."""
    full, _, x = large
    quantize.onnxruntime_int8(full, tmp_path / "model.onnx", x)
    quantize.openvino_int8(full, tmp_path / "model.xml", x)
    out, _ = capfd.readouterr()
    assert out == ""


def test_padding_does_not_spoil_the_ranges_of_attention(tmp_path: Path) -> None:
    """What may not be attended to is minus infinity, which is no value to calibrate on."""
    text = Signature("classification", (12,), 4, vocabulary=30, dynamic=True)
    model = eager.Deployable(families.load("transformer", text).build(32, seed=1), Preprocessor(), text)
    tokens = np.random.default_rng(0).integers(1, 30, (64, 12))
    tokens[np.arange(12) >= np.random.default_rng(1).integers(3, 13, (64, 1))] = 0
    onnxruntime.export(model, text, tmp_path)
    quantize.openvino_int8(tmp_path / "model.onnx", tmp_path / "int8.xml", tokens)
    expected = onnxruntime.open_file(tmp_path / "model.onnx", threads=1)(tokens)
    found = openvino.open_file(tmp_path / "int8.xml", "int8", threads=1)(tokens)
    # What sets samples apart: 0.90 of it here, and 0.17 where infinities were calibrated on.
    apart = [(answers - answers.mean(0)).ravel() for answers in (found, expected)]
    assert np.corrcoef(*apart)[0, 1] > 0.6


def test_calibration_sees_every_class_of_a_sorted_split() -> None:
    order = np.argsort(TOY.train.y, kind="stable")
    task = replace(TOY, train=replace(TOY.train, x=TOY.train.x[order], y=TOY.train.y[order]))
    images = calibration_samples(task, 30)
    assert images.shape == (30, *SHAPE)
    places = [int(np.flatnonzero((task.train.x == image).all(axis=(1, 2, 3)))[0]) for image in images]
    assert np.bincount(task.train.y[places]).tolist() == [10, 10, 10]
    assert len(calibration_samples(task, 10_000)) == len(task.train.x)
