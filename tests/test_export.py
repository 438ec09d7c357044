"""A model folder is complete, verifiable, and refuses to exist when it disagrees with the model it came from."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sizewise import runtimes
from sizewise.errors import IntegrityError, ParityError, StoreError, UsageError
from sizewise.export import export
from sizewise.parity import BATCHES
from sizewise.records import Candidate, Measurement, from_json
from sizewise.store import Store
from sizewise.study import Listener, Workspace
from tests.builders import Models, around, measurement

HUB = {"config.json", "preprocessor.json", "measurements.json", "README.md", "manifest.json", "model.safetensors"}


@pytest.fixture
def copy(models: Models, tmp_path: Path) -> Models:
    """The models in a folder of their own, to be damaged."""
    shutil.copytree(models.store.root, tmp_path / "study")
    return replace(models, store=Store(tmp_path / "study"))


def measured(models: Models, candidate: Candidate) -> Measurement:
    session = runtimes.load(models.folder(candidate))
    split, problem = models.task.validation, models.task.problem
    score = problem.score(problem.answers(session, split), split)
    return measurement(candidate, validation_score=around(score, 0.01))


def left(models: Models) -> list[Path]:
    """Whatever lies under models/."""
    return list((models.store / "models").glob("*"))


@pytest.mark.parametrize("number", range(5))
def test_an_exported_folder_is_whole_and_answers_like_the_candidate(copy: Models, number: int) -> None:
    candidate = copy.candidates[number]
    made = export(measured(copy, candidate), copy.task, copy.store)
    folder = copy.store / made.path
    needed = runtimes.RUNTIMES[candidate.runtime].files()
    assert {path.name for path in folder.iterdir()} == HUB | {*needed}
    assert runtimes.verify(folder).classes == copy.task.classes
    assert made.batches == BATCHES
    assert len(made.max_difference) == len(BATCHES)
    x = copy.task.validation.x[:50].astype(np.float32)
    np.testing.assert_allclose(runtimes.load(folder)(x), runtimes.load(copy.folder(candidate))(x), atol=1e-5)
    assert [path.name for path in left(copy)] == [candidate.name]


def test_the_manifest_covers_every_file_but_itself(copy: Models) -> None:
    made = export(measured(copy, copy.candidates[1]), copy.task, copy.store)
    folder = copy.store / made.path
    manifest = json.loads((folder / "manifest.json").read_text())["files"]
    assert manifest.keys() == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, digest in manifest.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert made.files == manifest | {"manifest.json": made.files["manifest.json"]}


def test_the_model_card_says_what_was_measured_and_not_where(copy: Models) -> None:
    m = measured(copy, copy.candidates[1])
    made = export(m, copy.task, copy.store)
    card = (copy.store / made.path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: sizewise\n")
    for said in (m.candidate.name, "`digits`", f"{m.size_bytes:,} bytes", "97.00% [96.00%, 98.00%]"):
        assert said in card
    for path in (copy.store / made.path).iterdir():
        for place in (str(copy.store.root), str(Path.home()), str(Path(__file__).parents[1])):
            assert place.encode() not in path.read_bytes(), path.name


def test_the_measurement_travels_with_the_model(copy: Models) -> None:
    m = measured(copy, copy.candidates[1])
    made = export(m, copy.task, copy.store)
    assert from_json(Measurement, json.loads((copy.store / made.path / "measurements.json").read_text())) == m


def tamper(path: Path, change: float) -> None:
    """Change one number of the last layer of an ONNX file."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    (tensor,) = [t for t in model.graph.initializer if "head.bias" in t.name]
    changed = numpy_helper.to_array(tensor).copy()
    changed[0] += change
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save(model, path)


@pytest.mark.parametrize(("change", "said"), [(0.01, r"0\.01"), (float("nan"), "nan")])
def test_a_tampered_weight_is_not_exported(copy: Models, change: float, said: str) -> None:
    m = measured(copy, copy.candidates[1])
    tamper(copy.folder(m.candidate) / "model.onnx", change)
    with pytest.raises(ParityError, match=f"differs from its model by {said} at batch 1") as error:
        export(m, copy.task, copy.store)
    assert "The first layer that disagrees is net.head (Linear), by" in error.value.message
    assert left(copy) == []


@pytest.mark.parametrize("number", [1, 3])
def test_another_score_than_the_measured_one_is_not_exported(copy: Models, number: int) -> None:
    m = measured(copy, copy.candidates[number])
    lied = replace(m, validation_score=around(m.validation_score.value - 1 / 360))
    with pytest.raises(ParityError, match="was measured"):
        export(lied, copy.task, copy.store)
    assert left(copy) == []


def test_exporting_again_changes_nothing(copy: Models) -> None:
    m = measured(copy, copy.candidates[1])
    first = export(m, copy.task, copy.store)
    before = {path: path.stat().st_mtime_ns for path in (copy.store / first.path).iterdir()}
    assert export(m, copy.task, copy.store) == first
    assert before == {path: path.stat().st_mtime_ns for path in (copy.store / first.path).iterdir()}


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "README.md", "manifest.json"])
def test_a_damaged_folder_is_replaced(copy: Models, name: str) -> None:
    m = measured(copy, copy.candidates[1])
    first = export(m, copy.task, copy.store)
    (copy.store / first.path / name).write_bytes(b"damaged")
    assert export(m, copy.task, copy.store).files == first.files
    runtimes.verify(copy.store / first.path)


def test_a_new_measurement_replaces_the_old_folder(copy: Models) -> None:
    m = measured(copy, copy.candidates[1])
    export(m, copy.task, copy.store)
    made = export(replace(m, latency_p50_ms=around(0.123)), copy.task, copy.store)
    assert "0.123" in (copy.store / made.path / "README.md").read_text()


def test_a_missing_candidate_is_named(copy: Models) -> None:
    m = measured(copy, copy.candidates[1])
    shutil.rmtree(copy.folder(m.candidate))
    with pytest.raises(IntegrityError, match=m.candidate.name):
        export(m, copy.task, copy.store)
    assert left(copy) == []


def test_a_place_that_cannot_be_written_is_named(copy: Models) -> None:
    (copy.store / "models").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"cannot write .*models"):
        export(measured(copy, copy.candidates[1]), copy.task, copy.store)


def test_an_unknown_name_is_answered_with_the_known_ones(copy: Models) -> None:
    made = tuple(measured(copy, candidate) for candidate in copy.candidates[:2])
    copy.store.save("measurements.json", made)
    space = Workspace(copy.study, copy.task, copy.store, "request", Listener())
    with pytest.raises(UsageError, match="no candidate is called 'nothing'") as error:
        space.export(["nothing"])
    assert copy.candidates[1].name in error.value.hint
    assert left(copy) == []


def test_a_study_exports_what_is_asked_for(copy: Models) -> None:
    made = tuple(measured(copy, candidate) for candidate in copy.candidates[:2])
    copy.store.save("measurements.json", made)
    space = Workspace(copy.study, copy.task, copy.store, "request", Listener())
    (found,) = space.export([copy.candidates[1].name])
    assert found.name == copy.candidates[1].name
    assert left(copy) == [copy.store / found.path]
