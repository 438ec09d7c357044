"""Methods that act while a model trains: zeros, rounding and features; and layers that leave. On the real digits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from sizewise import compress, families, loop, runtimes
from sizewise.compress import chains, sparsify
from sizewise.compress.qat import Rounding, rounded_loss
from sizewise.compress.shorten import shorten
from sizewise.compress.sparsify import Zeros
from sizewise.compress.start import prepare, trained
from sizewise.errors import DataError, SizewiseError
from sizewise.families import Form
from sizewise.loop import Constraint, Data, Start
from sizewise.loop.lessons import alignment_loss
from sizewise.methods import QAT, Distil, Shorten, Sparsify, Training, parse
from sizewise.records import Origin, Recipe, Run, Signature
from sizewise.runtimes import eager
from sizewise.store import Store
from sizewise.tasks.problems import Session
from tests.builders import Models, toy_task, train, trial, weights

TEXT = Signature("classification", (12,), 4, vocabulary=30, dynamic=True)


@pytest.fixture(scope="module")
def copy(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The trained models, in a folder that tests may add to."""
    root = tmp_path_factory.mktemp("methods") / "study"
    shutil.copytree(models.store.root, root)
    return replace(models, store=type(models.store)(root))


def done(copy: Models, method: Training, epochs: int = 6) -> Run:
    """What a method leaves of the wider model."""
    parent = copy.runs[0]
    step = chains.step(copy.study, parent, method, [parent.trial.key])
    step = replace(step, recipe=replace(step.recipe, epochs=epochs))
    return train(step, copy.task, copy.store.root, prepare(step, copy.store, Data.of(copy.task)))


# -- Zeros -------------------------------------------------------------------------------------------------------------


def test_a_sparse_model_has_the_zeros_that_were_asked_for(copy: Models) -> None:
    made = done(copy, Sparsify(0.3))
    for name, weight in weights(made, copy.store.root).items():
        share = float((weight != 0).float().mean())
        assert share == pytest.approx(0.3, abs=1 / weight.numel()) if weight.dim() > 1 else share > 0.5, name
    assert made.validation.score > copy.runs[0].validation.score - 0.05


def test_two_of_four_neighbours_stay(copy: Models) -> None:
    made = weights(done(copy, Sparsify(0.5, "2:4"), epochs=2), copy.store.root)
    dense = made["dense.weight"] if "dense.weight" in made else next(w for w in made.values() if w.dim() == 2)
    assert bool(((dense.view(len(dense), -1, 4) != 0).sum(2) == 2).all())
    first = next(weight for weight in made.values() if weight.dim() == 4)
    assert bool((first != 0).all())  # it reads one channel


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_falls_from_all_to_what_is_kept(keep: float, a: float, b: float) -> None:
    early, late = sorted((a, b))
    assert 1 >= sparsify.kept(keep, early) >= sparsify.kept(keep, late) >= keep
    assert sparsify.kept(keep, 0) == pytest.approx(1)
    assert sparsify.kept(keep, sparsify.SETTLED) == pytest.approx(keep)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.floats(0.01, 1), st.integers(0, 99))
def test_the_largest_stay(columns: int, rows: int, share: float, seed: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    mask = sparsify.largest(weight, share)
    assert mask.sum() == max(1, round(share * weight.numel()))
    gone = weight.abs()[mask == 0]
    assert not len(gone) or float(gone.max()) <= float(weight.abs()[mask == 1].min())


class StoppedError(Exception):
    """Raised where a run is cut off."""


@pytest.mark.parametrize("constraint", [lambda: Zeros(Sparsify(0.4)), Rounding], ids=["zeros", "rounding"])
def test_a_run_that_was_stopped_goes_on_as_if_it_were_not(
    constraint: Callable[[], Constraint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy_task()
    made = trial(task, 4, recipe=Recipe(batch_size=8, epochs=4))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = weights(train(made, task, whole, Start(constraint=constraint())), whole)

    def stop(share: float) -> None:
        if share >= 0.75:
            raise StoppedError

    monkeypatch.setattr(loop.run, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(StoppedError):
        loop.train_one(made, Data.of(task), Store(stopped), Start(constraint=constraint()), stop)
    assert (Store(stopped).trial_folder(made.key) / "checkpoint.safetensors").exists()
    run = train(made, task, stopped, Start(constraint=constraint()))
    for name, weight in weights(run, stopped).items():
        assert torch.equal(weight, expected[name]), name


# -- Rounding ----------------------------------------------------------------------------------------------------------


def test_what_was_trained_for_int8_lies_on_its_grid(copy: Models) -> None:
    made = weights(done(copy, QAT()), copy.store.root)
    for name, weight in made.items():
        if weight.dim() > 1:
            rows = weight.flatten(1)
            levels = 127 * rows / rows.abs().amax(1, keepdim=True)
            torch.testing.assert_close(levels, levels.round(), rtol=0, atol=2e-3, msg=name)


def test_rounding_costs_less_after_it_was_trained_for(copy: Models) -> None:
    data, parent = Data.of(copy.task), copy.runs[0]
    made = done(copy, QAT())

    def cost(run: Run) -> float:
        module = trained(run.trial, copy.store, copy.task.signature)
        before = loop.validation_loss(module, run.trial.recipe, data)
        return rounded_loss(module, run.trial.recipe, data) - before

    assert abs(cost(made)) < 0.02
    assert made.validation.score > parent.validation.score - 0.03


def test_a_model_is_as_before_when_rounding_ends() -> None:
    module = families.load("cnn", Signature("classification", (1, 8, 8), 3)).build(4, seed=0)
    names, x = set(module.state_dict()), torch.randn(5, 1, 8, 8)
    rounding = Rounding()
    rounding.begin(module)
    assert set(module.state_dict()) != names
    rounded = module(x)
    rounding.end(module)
    assert set(module.state_dict()) == names
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    torch.testing.assert_close(module(x), rounded, rtol=0.1, atol=0.1)
    with pytest.raises(SizewiseError, match="no dense layer"):
        Rounding().begin(nn.ReLU())


# -- Features ----------------------------------------------------------------------------------------------------------


def test_a_student_of_features_comes_closer_to_the_teachers(copy: Models) -> None:
    """The same student with and without the lesson, from the same random weights."""
    data, teacher = Data.of(copy.task), copy.runs[0]
    alone = copy.runs[1]
    method = Distil(lesson="features", weight=0.8)
    taught_trial = replace(alone.trial, origin=Origin(method, teacher.trial.key))
    taught = train(taught_trial, copy.task, copy.store.root, prepare(taught_trial, copy.store, data))
    signature = copy.task.signature

    def distance(run: Run) -> float:
        modules = (trained(r.trial, copy.store, signature) for r in (run, teacher))
        mine, theirs = (
            loop.features(families.arrange_module(m, signature), data.x_validation, signature) for m in modules
        )
        return float(alignment_loss(mine, theirs))

    assert distance(taught) < 0.7 * distance(alone)


@settings(deadline=None)
@given(st.integers(2, 20), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_alignment_is_between_none_and_all_and_blind_to_turns_and_scale(n: int, a: int, b: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, a, generator=generator), torch.randn(n, b, generator=generator)
    assert -1e-5 <= float(alignment_loss(x, y)) <= 1 + 1e-5
    turned = 3 * x @ torch.linalg.qr(torch.randn(a, a, generator=generator))[0] + 1
    torch.testing.assert_close(alignment_loss(x, turned), torch.zeros(()), rtol=0, atol=1e-4)


def test_features_of_a_sequence_at_each_step_are_refused() -> None:
    task = Signature("language modelling", (12,), 30, vocabulary=30)
    module = families.load("transformer", task).build(16, seed=0)
    with pytest.raises(SizewiseError, match="not one vector"):
        loop.features(module, torch.ones(2, 12, dtype=torch.long), task)


# -- Layers ------------------------------------------------------------------------------------------------------------


def test_a_shortened_model_is_built_again_from_its_file(tmp_path: Path) -> None:
    kind = families.load("transformer", TEXT)
    module = kind.build(96, seed=0)
    shorter = shorten(module, Shorten(0.6), TEXT, lambda m: 0.0)
    shortest = shorten(shorter, Shorten(0.5), TEXT, lambda m: 0.0)  # places are the family's all the same
    for left, layers in ((shorter, 2), (shortest, 1)):
        with torch.device("meta"):
            form = Form.of(left, kind.build(96))
        assert [len(places) for places in form.stayed.values()] == [layers]
        families.save_weights(left.state_dict(), tmp_path / "model.safetensors", form.metadata)
        again = kind.build(96, weights=tmp_path / "model.safetensors")
        x = families.example(TEXT, 3)
        torch.testing.assert_close(again.eval()(*x), left.eval()(*x), rtol=0, atol=0)


def test_the_layer_leaves_whose_absence_costs_least() -> None:
    module = families.load("transformer", TEXT).build(96, seed=0)
    blocks = next(m for m in module.modules() if isinstance(m, nn.ModuleList))
    dead = blocks[1]
    with torch.no_grad():
        for name in ("attention.out", "out"):
            layer = dead.get_submodule(name)
            layer.weight.zero_()
            layer.bias.zero_()
    x = (torch.randint(1, 30, (6, 12), generator=torch.Generator().manual_seed(0)),)
    wanted = module.eval()(*x)

    def cost(shorter: nn.Module) -> float:
        return float((shorter.eval()(*x) - wanted).detach().abs().max())

    left = shorten(module, Shorten(0.6), TEXT, cost)
    torch.testing.assert_close(left.eval()(*x), wanted, rtol=0, atol=0)


def test_a_model_without_such_layers_says_so() -> None:
    task = Signature("classification", (1, 8, 8), 3)
    module = families.load("cnn", task).build(4, seed=0)
    with pytest.raises(SizewiseError, match="of 0 layers"):
        shorten(module, Shorten(0.5), task, lambda m: 0.0)
    with pytest.raises(DataError, match="no stack"):
        families.fill(module, module.state_dict(), Form(stayed={"head": (0,)}))


# -- Whole chains ------------------------------------------------------------------------------------------------------


def test_chains_of_these_methods_become_candidates_that_run(copy: Models) -> None:
    options = replace(copy.study.compress, methods=("fp16",), chains=("qat+int8", "int8:weights", "int4:gptq"))
    study = replace(copy.study, compress=options)
    made, skipped = compress.build(study, (done(copy, QAT()),), copy.task, copy.store)
    assert len(skipped) == 1, skipped
    assert "8-bit weights alone are for OpenVINO" in skipped[0]
    by_name = {c.name.removeprefix("width8-qat-"): copy.store / "candidates" / c.name for c in made}
    wanted = "openvino-fp32 openvino-fp16 openvino-int8 openvino-int8-weights openvino-int4-gptq onnxruntime-int8"
    assert set(wanted.split()) <= set(by_name)
    session = runtimes.load(by_name["openvino-fp32"])
    expected = copy.task.problem.answers(session, copy.task.validation)
    for name in wanted.split()[1:]:
        answers = copy.task.problem.answers(runtimes.load(by_name[name]), copy.task.validation)
        assert np.mean(answers.argmax(1) == expected.argmax(1)) > 0.93, name
    bytes_of = {name: (by_name[name] / "model.bin").stat().st_size for name in by_name if name.startswith("openvino")}
    assert bytes_of["openvino-fp16"] < 0.6 * bytes_of["openvino-fp32"]
    assert bytes_of["openvino-int8-weights"] < 0.4 * bytes_of["openvino-fp32"]


def test_what_this_processor_cannot_run_is_left_out_with_the_reason(
    copy: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As PyTorch says of a recurrent layer in bf16 on processors without such units."""
    load = eager.load

    def refusing(folder: Path, config: runtimes.Config, threads: int) -> Session:
        if config.precision == "fp32":
            return load(folder, config, threads)

        def run(x: NDArray[Any]) -> NDArray[Any]:
            raise RuntimeError("could not create a primitive descriptor")

        return run

    monkeypatch.setattr(eager, "load", refusing)
    shutil.copytree(copy.store.root, tmp_path / "study", ignore=shutil.ignore_patterns("candidates"))
    options = replace(copy.study.compress, methods=("bf16",), runtimes=("torch",))
    study = replace(copy.study, compress=options)
    made, skipped = compress.build(study, copy.runs[:1], copy.task, Store(tmp_path / "study"))
    assert [c.precision for c in made] == ["fp32"]
    assert skipped == ("width8-trained-torch-bf16: RuntimeError: could not create a primitive descriptor",)
    assert not (tmp_path / "study" / "candidates" / "width8-trained-torch-bf16").exists()


def test_a_chain_of_all_of_them_is_read(copy: Models) -> None:
    chain = parse("shorten=0.5+prune=0.5+distil:features+qat+int8")
    assert "no" not in chains.cannot(chain[1], copy.runs[0], copy.task, copy.store)
    assert "of 0 layers" in chains.cannot(chain[0], copy.runs[0], copy.task, copy.store)
    for method in (chain[2], chain[3], Sparsify(0.5), Sparsify(0.5, "2:4")):
        assert not chains.cannot(method, copy.runs[0], copy.task, copy.store), method
