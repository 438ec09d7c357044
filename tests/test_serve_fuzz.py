"""Whatever a client sends, it gets an answer of the protocol or a refusal that says why: never a failure."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from sizewise.runtimes import Runtime
from sizewise.serve import app
from sizewise.serve.refusals import Invalid
from sizewise.serve.wire import parse
from tests.serving import as_json, serving
from tests.test_runtimes import SHAPE, images

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
GOOD = as_json(images(1)) | {
    "id": "one",
    "parameters": {"binary_data_output": True},
    "outputs": [{"name": "logits", "parameters": {"binary_data": False}}],
}
PLACES: list[tuple[str | int, ...]] = [
    (),
    ("id",),
    ("inputs",),
    ("inputs", 0),
    ("inputs", 0, "name"),
    ("inputs", 0, "shape"),
    ("inputs", 0, "shape", 0),
    ("inputs", 0, "datatype"),
    ("inputs", 0, "data"),
    ("inputs", 0, "data", 0, 1),
    ("inputs", 0, "parameters"),
    ("outputs",),
    ("outputs", 0),
    ("outputs", 0, "name"),
    ("outputs", 0, "parameters"),
    ("outputs", 0, "parameters", "binary_data"),
    ("parameters",),
]


@pytest.fixture(scope="module")
def client(folders: dict[Runtime, Path]) -> Iterator[TestClient]:
    with TestClient(app([folders["onnxruntime"]])) as connected:
        yield connected


def ask(client: TestClient, body: bytes, **headers: str) -> None:
    """Send a body, and look at the answer's form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = client.post("/v2/models/onnxruntime-w8/infer", content=body, headers=named)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert set(response.json()) == {"error"}
        assert response.json()["error"]


def changed(value: Any, place: tuple[str | int, ...], put: Any) -> Any:
    """A request with one place of it replaced."""
    if not place:
        return put
    whole = inside = copy.deepcopy(value)
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = put
    return whole


@FAST
@given(st.sampled_from(PLACES), JSON)
def test_anything_anywhere_in_a_request(client: TestClient, place: tuple[str | int, ...], put: Any) -> None:
    ask(client, json.dumps(changed(GOOD, place, put)).encode())


@FAST
@given(st.binary(max_size=200))
def test_any_bytes(client: TestClient, body: bytes) -> None:
    ask(client, body)


@FAST
@given(
    st.sampled_from(["FP16", "FP32", "FP64", "UINT8", "INT64", "BYTES", "BOOL", "X"]),
    st.lists(st.integers(-1, 13), max_size=5) | st.just([1, *SHAPE]),
    st.binary(max_size=400) | st.just(images(1).tobytes()),
    st.integers(-3, 3),
)
def test_binary_tensors_of_any_type_shape_and_size(
    client: TestClient, datatype: str, shape: list[int], raw: bytes, off: int
) -> None:
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    ask(client, head + raw, Inference_Header_Content_Length=str(len(head) + off))


@settings(deadline=None)
@given(st.binary(max_size=100), st.none() | st.text(max_size=30))
def test_the_parser_refuses_or_understands(body: bytes, length: str | None) -> None:
    with suppress(Invalid):
        parse(body, length)


@FAST
@given(st.text(max_size=30))
def test_any_name_and_version(client: TestClient, name: str) -> None:
    from urllib.parse import quote

    for path in (f"/v2/models/{quote(name, safe='')}", f"/v2/models/onnxruntime-w8/versions/{quote(name, safe='')}"):
        response = client.get(path)
        assert response.status_code == 404 or name in ("", "1", ".", "..", "onnxruntime-w8"), (path, response.text)


@pytest.mark.slow
def test_what_the_openapi_document_promises_is_kept(folders: dict[Runtime, Path]) -> None:
    """Schemathesis asks for everything that the document describes, and for what it rules out.

    That a request which fits the schema may be refused is not checked: a schema cannot say that the values of a tensor
    must be as many as its shape says, or that a header gives the length of what comes first in the body.
    """
    with serving(folders["onnxruntime"]) as server:
        command = [Path(sys.executable).with_name("schemathesis"), "run", f"http://{server.address}/openapi.json"]
        options = ["--max-examples", "25", "--seed", "1", "--exclude-checks", "positive_data_acceptance", "--no-color"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert "Operations:       11 selected / 11 total" in done.stdout
        assert server.process.poll() is None
