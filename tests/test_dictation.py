"""Dictation: spoken digits are written down one by one, by a decoder, in every runtime and by the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import sizewise
from sizewise import families, runtimes, serve, tasks
from sizewise.compress.candidates import build
from sizewise.config import Study
from sizewise.errors import UsageError
from sizewise.loop import Data, Start, train_one
from sizewise.padding import BEGIN, END, PAD, lengths
from sizewise.records import Reading, Recipe, Run, Trial
from sizewise.runtimes.worded import worded
from sizewise.store import Store, sha256, write_json
from sizewise.tasks import Task, utterances
from tests.sounds import takes


@dataclass(frozen=True)
class Trained:
    """A small model of spoken digits, and its candidates' folders by runtime and precision."""

    task: Task
    run: Run
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def trained(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of one or two digits, each recording used once: so little is learned in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utterances, "USES", 1)
        patch.setattr(utterances, "WORDS", (1, 2))
        task = tasks.load("dictation", shared_data / "fsdd" / "recordings.zip")
    store, recipe = (
        Store(tmp_path_factory.mktemp("study")),
        Recipe(lr=6e-3, epochs=6, batch_size=32, warmup=0.1, clip=1.0),
    )
    trial = Trial(task.name, task.fingerprint, "translator", 32, 1.0, recipe, 0)
    run = train_one(trial, Data.of(task), store, Start())
    candidates, skipped = build(Study("dictation"), [run], task, store)
    assert [reason.partition(": ")[0] for reason in skipped] == ["width32-trained-openvino-int8"]
    return Trained(task, run, {f"{c.runtime} {c.precision}": store / "candidates" / c.name for c in candidates})


def test_spoken_digits_are_learned(trained: Trained) -> None:
    """One digit of ten at random would be wrong nine times in ten."""
    assert trained.run.validation.metric.name == "word error rate"
    assert trained.run.validation.score < 0.6
    assert trained.run.curve[-1].validation_loss < 0.8 * trained.run.curve[0].validation_loss


@pytest.mark.parametrize("name", ["onnxruntime fp32", "openvino fp32"])
@pytest.mark.parametrize("batch", [1, 7])
def test_runtimes_write_the_same_words(trained: Trained, name: str, batch: int) -> None:
    x = trained.task.test.x[:batch]
    reference, other = (runtimes.load(trained.folders[kind]) for kind in ("torch fp32", name))
    said = reference(x)
    np.testing.assert_array_equal(other(x), said)
    assert batch == 1 or len(np.unique(said, axis=0)) > 1, "the comparison must be able to fail"


def test_int8_writes_words_too(trained: Trained) -> None:
    task = trained.task
    full, small = (runtimes.load(trained.folders[f"onnxruntime {kind}"]) for kind in ("fp32", "int8"))
    rates = [task.problem.score(task.problem.answers(session, task.test), task.test) for session in (full, small)]
    assert rates[1] < rates[0] + 0.1


def test_silence_behind_an_utterance_changes_no_word(trained: Trained) -> None:
    x, session = trained.task.test.x[:12], runtimes.load(trained.folders["torch fp32"])
    together = session(x)
    for i, row in enumerate(together):
        alone = session(x[i : i + 1, : lengths(x)[i]])[0]
        np.testing.assert_array_equal(row[row != PAD], alone[alone != PAD])


def test_a_served_model_says_words(trained: Trained) -> None:
    folder, x = trained.folders["onnxruntime fp32"], trained.task.test.x[:2]
    config = runtimes.Config.read(folder)
    digests = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
    write_json(folder / "manifest.json", runtimes.Manifest(runtimes.FORMAT, digests))
    tensor = {"name": "series", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    with TestClient(serve.app([folder])) as client:
        told = client.get(f"/v2/models/{config.name}").json()
        answer = client.post(f"/v2/models/{config.name}/infer", json={"inputs": [tensor]}).json()
    assert [(o["name"], o["datatype"]) for o in told["outputs"]] == [("tokens", "INT64"), ("text", "BYTES")]
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    expected = worded(config, folder)(runtimes.load(folder)(x), x).ravel().tolist()
    assert outputs["text"] == expected
    assert all(set(text.split()) <= set("0123456789") for text in expected)


def test_dictation_has_the_words_of_utterances(tmp_path: Path) -> None:
    found, dictated = (tasks.load(name, takes(tmp_path)) for name in ("utterances", "dictation"))
    assert dictated.signature.target_steps == found.train.y.shape[1] + 2
    assert dictated.signature.outputs == found.signature.outputs + 2
    for split, other in zip((found.train, found.test), (dictated.train, dictated.test), strict=True):
        np.testing.assert_array_equal(split.x, other.x)
        for row, target in zip(split.y, other.y, strict=True):
            ids = target[target != PAD]
            assert (ids[0], ids[-1]) == (BEGIN, END)
            assert [dictated.classes[i] for i in ids[1:-1]] == [found.classes[i] for i in row if i]


def test_right_words_are_right_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    task = tasks.load("dictation", takes(tmp_path))
    assert all(check.passed for check in sizewise.check_task(task))
    right = task.test.y[:, 1:] * (task.test.y[:, 1:] != END)
    short = np.where(np.arange(right.shape[1]) == 0, PAD, right)
    judged = task.problem.judge(short, task.test)
    words = lengths(right).sum()
    assert judged.values["word error rate"] == pytest.approx(len(right) / words)
    assert judged.values["sentence accuracy"] == 0


def test_who_takes_which_is_said(tmp_path: Path) -> None:
    found, dictated = (tasks.load(name, takes(tmp_path), Reading()) for name in ("utterances", "dictation"))
    assert families.suited(found.signature) == "cnn1d"
    assert families.suited(dictated.signature) == "translator"
    with pytest.raises(UsageError, match="translator family cannot do transcription") as caught:
        families.load("translator", found.signature)
    assert "`dictation`" in caught.value.hint
