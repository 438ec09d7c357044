"""The protocol over gRPC answers what it answers over HTTP, to a client that nobody here wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as published

from sizewise import runtimes
from sizewise.runtimes import Runtime
from sizewise.serve.messages import MESSAGES, METHODS
from tests.serving import Server, serving
from tests.test_runtimes import CLASSES, SHAPE, images

NAME = "onnxruntime-w8"


@pytest.fixture(scope="module")
def server(folders: dict[Runtime, Path]) -> Iterator[Server]:
    with serving(folders["onnxruntime"], "--grpc-port", "0", SIZEWISE_TOKEN="sesame") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as connected:
        yield connected


OPEN = {"headers": {"authorization": "Bearer sesame"}}


def tensor(pixels: NDArray[Any], datatype: str = "FP32") -> triton.InferInput:
    made = triton.InferInput("image", list(pixels.shape), datatype)
    made.set_data_from_numpy(pixels)
    return made


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME, **OPEN)
    assert client.get_server_metadata(**OPEN, as_json=True)["name"] == "sizewise"
    metadata = client.get_model_metadata(NAME, **OPEN)
    assert (metadata.name, list(metadata.versions), metadata.platform) == (NAME, ["1"], "onnxruntime_onnx")
    assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs] == [
        ("logits", "FP32", [-1, len(CLASSES)]),
        ("label", "BYTES", [-1, 1]),
    ]
    assert list(metadata.inputs[0].shape) == [-1, *SHAPE]


@pytest.mark.parametrize("datatype", ["FP32", "UINT8", "FP16", "INT64"])
def test_answers_are_the_runtimes_own(
    client: triton.InferenceServerClient, folders: dict[Runtime, Path], datatype: str
) -> None:
    x = images(5)
    pixels = x.astype(np.dtype({"FP32": "f4", "UINT8": "u1", "FP16": "f2", "INT64": "i8"}[datatype]))
    answer = client.infer(NAME, [tensor(pixels, datatype)], request_id="seven", **OPEN)
    expected = runtimes.load(folders["onnxruntime"])(x)
    assert np.array_equal(answer.as_numpy("logits"), expected)
    assert [[text.decode() for text in row] for row in answer.as_numpy("label")] == [
        [CLASSES[best]] for best in expected.argmax(1)
    ]
    assert (answer.get_response().id, answer.get_response().model_version) == ("seven", "1")


def test_contents_that_are_not_raw_are_answered_in_kind(server: Server, folders: dict[Runtime, Path]) -> None:
    x = images(2)
    request = published.ModelInferRequest(model_name=NAME)
    request.inputs.add(name="image", datatype="FP32", shape=x.shape).contents.fp32_contents.extend(x.ravel().tolist())
    request.outputs.add(name="logits")
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=published.ModelInferRequest.SerializeToString,
            response_deserializer=published.ModelInferResponse.FromString,
        )
        response = infer(request, metadata=(("authorization", "Bearer sesame"),), timeout=30)
    assert [output.name for output in response.outputs] == ["logits"]
    expected = runtimes.load(folders["onnxruntime"])(x)
    assert np.array_equal(np.float32(response.outputs[0].contents.fp32_contents).reshape(2, -1), expected)


def test_outputs_can_be_chosen(client: triton.InferenceServerClient) -> None:
    answer = client.infer(NAME, [tensor(images(1))], outputs=[triton.InferRequestedOutput("label")], **OPEN)
    assert [output.name for output in answer.get_response().outputs] == ["label"]


@pytest.mark.parametrize(
    ("model", "pixels", "headers", "status", "named"),
    [
        (NAME, images(1), {}, "UNAUTHENTICATED", "token"),
        (NAME, images(1), {"authorization": "Bearer open"}, "UNAUTHENTICATED", "token"),
        ("nobody", images(1), OPEN["headers"], "NOT_FOUND", "unknown model 'nobody'"),
        (NAME, images(1)[:, :2], OPEN["headers"], "INVALID_ARGUMENT", "shape [1, 2, 12, 10]; expected [n, 3, 12, 10]"),
        (NAME, np.zeros((60_000, *SHAPE), np.float32), OPEN["headers"], "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_refusals_have_their_status(
    client: triton.InferenceServerClient,
    model: str,
    pixels: NDArray[Any],
    headers: dict[str, str],
    status: str,
    named: str,
) -> None:
    with pytest.raises(triton.InferenceServerException, match="StatusCode") as refused:
        client.infer(model, [tensor(pixels)], headers=headers)
    assert refused.value.status() == f"StatusCode.{status}"
    assert named in refused.value.message()


def test_the_messages_are_those_that_are_published() -> None:
    """Every field has the number, type and label that it has in the client's generated code."""
    nested = {"TensorMetadata": "ModelMetadataResponse", "InferInputTensor": "ModelInferRequest"}
    nested |= {"InferRequestedOutputTensor": "ModelInferRequest", "InferOutputTensor": "ModelInferResponse"}
    for name, ours in MESSAGES.items():
        home = getattr(published, nested[name]) if name in nested else published
        theirs = getattr(home, name).DESCRIPTOR
        for field in ours.DESCRIPTOR.fields:
            other = theirs.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), field
    methods = published.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(METHODS) <= set(methods)
