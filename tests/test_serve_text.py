"""A served model of texts takes the texts themselves, and answers as it does to their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from starlette.testclient import TestClient

from sizewise import families, runtimes, tasks
from sizewise.records import Reading
from sizewise.runtimes import Config, Manifest, eager, onnxruntime
from sizewise.serve import app
from sizewise.store import sha256, write_json
from sizewise.tasks import Task

FILMS = ["a good film", "A BAD film", "so-so, naïve and long " * 40]


def folder(root: Path, task: Task, family: str) -> Path:
    """An exported folder of an untrained model, for ONNX Runtime."""
    path = root / family
    path.mkdir()
    net = families.load(family, task.signature).build(8, seed=0)
    onnxruntime.export(eager.Deployable(net, task.preprocessor, task.signature), task.signature, path)
    for name, content in task.files.items():
        (path / name).write_bytes(content)
    Config(1, family, "onnxruntime", "fp32", family, 8, task.signature, task.classes, task.preprocessor).write(path)
    write_json(path / "manifest.json", Manifest(1, {file.name: sha256(file) for file in path.iterdir()}))
    return path


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = tmp_path_factory.mktemp("texts") / "films.csv"
    path.write_text("text,label\n" + "".join(f"{'good' if i % 2 else 'bad'} film {i},{i % 2}\n" for i in range(40)))
    return tasks.load("text", path, Reading(steps=20, vocabulary=300))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Path:
    return folder(tmp_path_factory.mktemp("models"), task, "bag")


@pytest.fixture(scope="module")
def client(bag: Path) -> TestClient:
    return TestClient(app([bag]))


def ask(client: TestClient, texts: list[Any], model: str = "bag", **changed: Any) -> Any:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts} | changed
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})


def logits(response: Any) -> NDArray[np.float64]:
    assert response.status_code == 200, response.text
    output = response.json()["outputs"][0]
    return np.array(output["data"]).reshape(output["shape"])


def expected(bag: Path, task: Task, texts: list[str]) -> NDArray[Any]:
    """What the runtime answers to each text alone, made into tokens as the task did."""
    from sizewise.tasks.tokens import Tokens

    session, tokens = runtimes.load(bag), Tokens.read(task.files["tokenizer.json"])
    return np.concatenate([session(ids[None, :20]) for ids in tokens.ids(texts)])


def test_texts_are_answered_as_their_tokens(client: TestClient, bag: Path, task: Task) -> None:
    found = logits(ask(client, FILMS))
    np.testing.assert_allclose(found, expected(bag, task, FILMS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits(ask(client, [[text] for text in FILMS], shape=[3, 1])), found, rtol=1e-6)
    alone = np.concatenate([logits(ask(client, [text])) for text in FILMS])
    np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-5)


def test_a_triton_client_sends_texts_as_bytes(client: TestClient, bag: Path, task: Task) -> None:
    tensor = triton.InferInput("text", [3, 1], "BYTES")
    tensor.set_data_from_numpy(np.array(FILMS, dtype=object).reshape(3, 1))
    body, length = triton.InferenceServerClient.generate_request_body([tensor])
    response = client.post(
        "/v2/models/bag/infer", content=body, headers={"Inference-Header-Content-Length": str(length)}
    )
    assert response.status_code == 200, response.text
    answer = triton.InferenceServerClient.parse_response_body(
        response.content, header_length=int(response.headers["Inference-Header-Content-Length"])
    )
    np.testing.assert_allclose(answer.as_numpy("logits"), expected(bag, task, FILMS), rtol=1e-4, atol=1e-5)
    assert answer.as_numpy("label")[0, 0].decode() in task.classes


def test_the_metadata_list_both_inputs(client: TestClient) -> None:
    inputs = client.get("/v2/models/bag").json()["inputs"]
    assert inputs == [
        {"name": "tokens", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "text", "datatype": "BYTES", "shape": [-1, 1]},
    ]


@pytest.mark.parametrize(
    ("texts", "changed"),
    [
        (["good", " "], {}),
        ([], {}),
        (["good"], {"shape": [2]}),
        (["good"], {"shape": [1, 2]}),
        (["good"], {"shape": ["1"]}),
        (["good"], {"datatype": "INT64"}),
        ([3], {}),
        ([["good"], ["bad", "worse"]], {}),
    ],
)
def test_what_is_no_text(client: TestClient, texts: list[Any], changed: dict[str, Any]) -> None:
    response = ask(client, texts, **changed)
    assert response.status_code == 400
    assert "input 'text'" in response.json()["error"]


def test_bytes_that_are_no_texts(client: TestClient) -> None:
    for raw in (b"\x09\0\0\0good", b"\x01\0\0\0\xff", b"\x01\0"):
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [tensor]})
        response = client.post(
            "/v2/models/bag/infer",
            content=head.encode() + raw,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        assert response.status_code == 400, response.text


def test_a_language_model_reads_the_end_of_a_long_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be\n" * 60)
    task = tasks.load("language", tmp_path / "a.txt", Reading(steps=8, vocabulary=260))
    client = TestClient(app([folder(tmp_path, task, "lstm")]))
    short, long = (logits(ask(client, [text], "lstm")) for text in ("t", "to be or not to be"))
    assert short.shape[1:] == (2, 260)
    np.testing.assert_allclose(logits(ask(client, ["whether to be or not to be"], "lstm")), long, rtol=1e-4, atol=1e-5)


def test_a_tagger_answers_with_a_tag_for_each_word(tmp_path: Path) -> None:
    path = tmp_path / "words.conll"
    path.write_text("".join(f"the DT\nhouse{i} NN\n\n" for i in range(40)))
    task = tasks.load("tagged", path, Reading(vocabulary=300))
    with TestClient(app([folder(tmp_path, task, "bigru")])) as client:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["the  house7 in", "house"]}
        answer = client.post("/v2/models/bigru/infer", json={"inputs": [tensor]}).json()
        (tags,) = (output["data"] for output in answer["outputs"] if output["name"] == "tags")
        assert [len(one.split()) for one in tags] == [3, 1]
        assert {tag for one in tags for tag in one.split()} <= {"DT", "NN"}
        (numbers,) = (output for output in answer["outputs"] if output["name"] == "logits")
        assert numbers["shape"][2] == 3
