"""Chains on trained models of the real digits: from a step's trial to a folder that a server can take."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from sizewise import compress, config, families, measure, methods, runtimes
from sizewise.compress import blame as blaming
from sizewise.compress import chains, quantize
from sizewise.compress.blame import blame
from sizewise.compress.candidates import calibration_samples, variants
from sizewise.compress.start import prepare, trained
from sizewise.config import Compress, Study
from sizewise.errors import UsageError
from sizewise.export import export
from sizewise.families.form import Product
from sizewise.families.weights import read_metadata
from sizewise.loop import Data, predict
from sizewise.methods import Distil, Factorize, Prune, Quantize
from sizewise.records import Blame, Candidate, Measurement, Origin, Run, Target
from sizewise.runtimes import onnxruntime
from tests.builders import Models, around, train

CHAINS = ("prune=0.4+int4", "int8:mixed", "int8:entropy", "int8:percentile")
CHAIN = methods.parse("prune=0.4:taylor+factorize=0.8+distil+int8")


@pytest.fixture(scope="module")
def copy(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The trained models, in a folder that tests may add to."""
    root = tmp_path_factory.mktemp("chains") / "study"
    shutil.copytree(models.store.root, root)
    options = replace(models.study.compress, methods=("int8",), chains=CHAINS)
    study = replace(models.study, compress=options)
    return replace(models, study=study, store=type(models.store)(root))


@pytest.fixture(scope="module")
def run(copy: Models) -> Run:
    """What the chain leaves of width 8."""
    made = copy.runs[0]
    for method in chains.steps(CHAIN):
        trial = chains.step(copy.study, made, method, [copy.runs[0].trial.key])
        start = prepare(trial, copy.store, Data.of(copy.task))
        made = train(trial, copy.task, copy.store.root, start)
    return made


@pytest.fixture(scope="module")
def candidates(copy: Models, run: Run) -> tuple[Candidate, ...]:
    made, skipped = compress.build(copy.study, (copy.runs[0], run), copy.task, copy.store)
    # Which layers gain by int8 is this machine's to say; all else is skipped for reasons that do not change.
    sure = [reason for reason in skipped if "no layer is faster" not in reason]
    assert len(sure) == 2 * 3, skipped  # mixed and two rules on OpenVINO, of two models
    assert all("NNCF has its own rule" in reason for reason in sure), sure
    return made


@pytest.fixture(scope="module")
def measured(copy: Models, candidates: Sequence[Candidate]) -> dict[str, Measurement]:
    chosen = [c for c in candidates if c.run == copy.runs[0].trial.key][:1]
    ours = [c for c in candidates if c.run != copy.runs[0].trial.key]
    found = measure.measure([*chosen, *ours], chosen[0], copy.task, copy.store, Target())
    return {m.candidate.name: m for m in found}


def test_a_run_knows_what_was_done_to_it(copy: Models, run: Run) -> None:
    kinds = [method.kind for method in chains.of(run, copy.store)]
    assert kinds == ["prune", "factorize", "distil"]
    assert chains.of(copy.runs[0], copy.store) == ()
    assert run.params < 0.4 * copy.runs[0].params
    assert run.trial.width == copy.runs[0].trial.width


def test_little_is_lost_on_the_real_digits(copy: Models, run: Run) -> None:
    assert run.validation.score > copy.runs[0].validation.score - 0.03


def test_every_detail_of_a_method_makes_another_trial(copy: Models) -> None:
    steps = [Prune(0.4), Prune(0.5), Prune(0.4, "taylor"), Prune(0.4, scope="uniform"), Factorize(0.4), Distil()]
    keys = {chains.step(copy.study, copy.runs[0], method, ["a"]).key for method in steps}
    keys |= {chains.step(copy.study, copy.runs[0], Distil(), ["a", "b"]).key}
    assert len(keys) == 7


def test_the_weights_say_their_form_and_nothing_else_is_needed(copy: Models, run: Run) -> None:
    path = copy.store.trial_folder(run.trial.key) / "model.safetensors"
    assert "form" in read_metadata(path)
    module = families.load("cnn", copy.task.signature).build(8, weights=path)
    assert families.parameters(module) == run.params
    assert any(isinstance(layer, Product) for layer in module.modules())


def test_runtimes_are_given_what_they_have_of_what_is_asked_for() -> None:
    chained = ("prune=0.5+int4", "factorize=0.8+int8:entropy", "distil")
    options = Compress(methods=("bf16", "int8"), chains=chained, runtimes=("onnxruntime",))
    assert variants(options) == (
        ("torch", "fp32"), ("onnxruntime", "fp32"), ("torch", "bf16"),
        ("onnxruntime", Quantize()), ("onnxruntime", Quantize(8, "entropy")),
    )  # fmt: skip
    everywhere = variants(replace(options, runtimes=("onnxruntime", "openvino")))
    assert {("openvino", "bf16"), ("openvino", Quantize(4))} <= {*everywhere}


def test_a_chain_that_no_runtime_can_end_is_said(copy: Models) -> None:
    options = Compress(methods=("bf16",), chains=("int4",), runtimes=("onnxruntime",))
    made, skipped = compress.build(replace(copy.study, compress=options), copy.runs[:1], copy.task, copy.store)
    assert [(c.runtime, c.precision, c.chain) for c in made] == [
        ("torch", "fp32", ()), ("onnxruntime", "fp32", ()), ("torch", "bf16", ()),
    ]  # fmt: skip
    assert skipped == ("int4: no runtime that was asked for has it",)


def test_names_tell_candidates_apart(candidates: Sequence[Candidate]) -> None:
    assert len({c.name for c in candidates}) == len(candidates)
    assert {c.precision for c in candidates} == {"fp32", "int8", "int4"}
    assert any(c.name == "width8-prune0.4-taylor-factorize0.8-distilled-onnxruntime-int8" for c in candidates)
    assert all(isinstance(c.chain[-1], Quantize) == (c.precision != "fp32") for c in candidates if c.chain)


def test_every_runtime_gives_the_answers_of_the_model(copy: Models, run: Run, candidates: Sequence[Candidate]) -> None:
    x = copy.task.validation.x.astype(np.float32)
    with torch.inference_mode():
        expected = compress.candidates.deployable(run, copy.task, copy.store).eval()(torch.from_numpy(x)).numpy()
    ours = [c for c in candidates if c.run == run.trial.key]
    assert {(c.runtime, c.precision) for c in ours} >= {
        ("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32"),
        ("onnxruntime", "int8"), ("openvino", "int8"), ("openvino", "int4"),
    }  # fmt: skip
    for c in ours:
        found = runtimes.load(copy.folder(c))(x)
        if c.precision == "fp32":
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), err_msg=c.name)
        else:
            assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9, c.name


def test_it_is_measured_as_smaller_and_exported_as_it_is(
    copy: Models, run: Run, measured: dict[str, Measurement]
) -> None:
    parent = next(m for m in measured.values() if m.candidate.run == copy.runs[0].trial.key)
    for runtime in ("torch", "onnxruntime"):
        name = f"width8-prune0.4-taylor-factorize0.8-distilled-{runtime}-fp32"
        assert measured[name].size_bytes < parent.size_bytes
        made = export(measured[name], copy.task, copy.store)
        folder = copy.store.root / made.path
        x = copy.task.test.x[:9].astype(np.float32)
        answers = runtimes.load(folder)(x)
        np.testing.assert_allclose(answers, runtimes.load(copy.store / "candidates" / name)(x), rtol=1e-5, atol=1e-5)
        assert runtimes.verify(folder).width == 8
        assert "pruned to 40 % of the parameters" in (folder / "README.md").read_text()
        moved = copy.store.root.parent / f"moved-{runtime}"
        shutil.copytree(folder, moved)  # without the study, as a server has it
        np.testing.assert_array_equal(runtimes.load(moved)(x), answers)


def test_each_layer_is_blamed_for_what_it_alone_costs(copy: Models, tmp_path: Path) -> None:
    run, task = copy.runs[0], copy.task
    onnxruntime.export(compress.candidates.deployable(run, task, copy.store), task.signature, tmp_path)
    samples = calibration_samples(task, 256)
    found = blame(tmp_path / "model.onnx", samples, task.problem.same)
    assert [b.layer for b in found] == sorted((b.layer for b in found), key=lambda name: -changed(found, name))
    assert {b.layer.rpartition(".")[2] for b in found} == {"convolution", "hidden", "head"}
    for b in found:
        assert b.changed.n == 256
        assert 0 <= b.changed.value < 0.05  # digits stand int8 well, layer by layer
        assert 0 < b.speedup.low <= b.speedup.value <= b.speedup.high


def changed(found: Sequence[Blame], layer: str) -> float:
    return next(b.changed.value for b in found if b.layer == layer)


def test_mixed_precision_leaves_out_what_changes_answers(
    copy: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer is blamed for everything: it stays at full precision, and the others do not."""
    run, task = copy.runs[0], copy.task
    onnxruntime.export(compress.candidates.deployable(run, task, copy.store), task.signature, tmp_path)
    samples = calibration_samples(task, 256)
    graph = quantize.prepared(tmp_path / "model.onnx", tmp_path)
    names = {layer.rpartition(".")[2]: node for node, layer in quantize.layers(graph).items()}
    blamed = tuple(
        Blame(layer, names[layer], around(bad), around(2.0)) for layer, bad in (("head", 0.5), ("hidden", 0.0))
    )
    monkeypatch.setattr(blaming, "blame", lambda *_: blamed)
    calls: list[NDArray[np.bool_]] = [np.zeros(256, bool)]  # all layers together change every answer

    def same(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
        return calls.pop() if calls else task.problem.same(a, b)

    assert blaming.mixed(tmp_path / "model.onnx", tmp_path / "mixed.onnx", samples, same) == blamed
    kinds = {t.name: t.data_type for t in onnx.load(str(tmp_path / "mixed.onnx")).graph.initializer if len(t.dims) == 2}
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) == 1
    assert sum(kind == onnx.TensorProto.FLOAT for kind in kinds.values()) == 1


def test_an_ensemble_teaches_the_mean_of_what_it_would_say(copy: Models) -> None:
    keys = [run.trial.key for run in copy.runs]
    data, t = Data.of(copy.task), 3.0
    origin = Origin(Distil(t, start="parent", teachers=tuple(keys)), keys[0])
    start = prepare(replace(copy.runs[0].trial, origin=origin), copy.store, data)
    assert start.teacher is not None
    each = []
    for r in copy.runs:
        module = families.arrange_module(trained(r.trial, copy.store, copy.task.signature), copy.task.signature)
        each.append(torch.softmax(predict(module, data.x, copy.task.signature) / t, 1))
    torch.testing.assert_close(torch.softmax(start.teacher / t, 1), sum(each) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(start.weights["head.bias"], weights_of(copy, copy.runs[0])["head.bias"])  # type: ignore[index]


def weights_of(models: Models, run: Run) -> dict[str, torch.Tensor]:
    return families.read_weights(models.store.trial_folder(run.trial.key) / "model.safetensors")


def test_what_cannot_be_done_is_said_before_anything_is_trained(copy: Models) -> None:
    assert not chains.cannot(Prune(0.5), copy.runs[0], copy.task, copy.store)
    assert "stay whatever goes" in chains.cannot(Prune(0.001), copy.runs[0], copy.task, copy.store)
    assert "no layer" in chains.cannot(Factorize(0.99999), copy.runs[1], copy.task, copy.store)


def test_a_study_refuses_a_chain_that_cannot_be_read(copy: Models) -> None:
    study = Study("digits", compress=config.Compress(chains=("prune=2",)))
    with pytest.raises(UsageError, match=r"cannot read 'prune=2'"):
        config.check(config.resolve(study, copy.task))
