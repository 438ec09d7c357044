"""A served model answers, over the Open Inference Protocol, exactly what its runtime answers."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray

from sizewise import runtimes
from sizewise.errors import UsageError
from sizewise.runtimes import Config, Runtime
from sizewise.serve import Options, app, serve
from tests.serving import MANY, MOST, SERVE, Server, as_json, infer, long_request, send, serving
from tests.test_runtimes import CLASSES, SHAPE, images, write_manifest

SERVED: tuple[Runtime, ...] = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def server(folders: dict[Runtime, Path]) -> Iterator[Server]:
    with serving(*(folders[runtime] for runtime in SERVED)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as connected:
        yield connected


def tensor(pixels: NDArray[Any], datatype: str = "FP32", *, binary: bool = True) -> triton.InferInput:
    image = triton.InferInput("image", list(pixels.shape), datatype)
    image.set_data_from_numpy(pixels, binary_data=binary)
    return image


def test_ready_line_names_models_and_a_command_that_works(server: Server) -> None:
    assert "onnxruntime-w8, openvino-w8" in server.ready
    url = server.ready.split("curl ")[1].strip()
    with urllib.request.urlopen(url) as response:
        assert json.load(response)["name"] == "onnxruntime-w8"


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("openvino-w8")
    assert client.is_model_ready("openvino-w8", "1")
    assert not client.is_model_ready("openvino-w8", "2")
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("sizewise", ["binary_tensor_data"])
    assert client.get_model_metadata("onnxruntime-w8") == {
        "name": "onnxruntime-w8",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, *SHAPE]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, len(CLASSES)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1, 1]},
        ],
    }
    assert client.get_model_metadata("onnxruntime-w8", "1") == client.get_model_metadata("onnxruntime-w8")


@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("runtime", SERVED)
def test_answers_are_the_runtimes_own(
    client: triton.InferenceServerClient,
    folders: dict[Runtime, Path],
    runtime: Runtime,
    binary_input: bool,
    binary_output: bool,
) -> None:
    x = images(5)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_output) for name in ("label", "logits")]

    answer = client.infer(f"{runtime}-w8", [tensor(x, binary=binary_input)], outputs=outputs, request_id="seven")

    expected = runtimes.load(folders[runtime])(x)
    labels = [[CLASSES[best]] for best in expected.argmax(1)]
    assert np.array_equal(answer.as_numpy("logits"), expected)
    assert [[text.decode() if binary_output else text for text in row] for row in answer.as_numpy("label")] == labels
    response = answer.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (f"{runtime}-w8", "1", "seven")
    assert [output["name"] for output in response["outputs"]] == ["label", "logits"]


def test_binary_outputs_by_default_or_for_one_output_only(
    client: triton.InferenceServerClient, folders: dict[Runtime, Path]
) -> None:
    x = images(2)
    expected = runtimes.load(folders["onnxruntime"])(x)
    everything = client.infer("onnxruntime-w8", [tensor(x)])  # the client sends binary_data_output
    assert all("data" not in output for output in everything.get_response()["outputs"])
    assert np.array_equal(everything.as_numpy("logits"), expected)
    wanted = [triton.InferRequestedOutput(name, binary_data=name == "logits") for name in ("label", "logits")]
    mixed = client.infer("onnxruntime-w8", [tensor(x)], outputs=wanted)
    assert mixed.get_output("label")["data"] == [CLASSES[best] for best in expected.argmax(1)]
    assert "data" not in mixed.get_output("logits")
    assert np.array_equal(mixed.as_numpy("logits"), expected)


@pytest.mark.parametrize("datatype", ["UINT8", "INT16", "UINT32", "INT64", "FP16", "FP64"])
@pytest.mark.parametrize("binary", [True, False])
def test_pixels_of_any_numeric_type_give_the_same_answer(
    client: triton.InferenceServerClient, folders: dict[Runtime, Path], datatype: str, binary: bool
) -> None:
    if datatype == "FP16" and not binary:
        pytest.skip("the client has no JSON form of FP16")
    x = images(3)
    pixels = x.astype(triton.triton_to_np_dtype(datatype))
    answer = client.infer("onnxruntime-w8", [tensor(pixels, datatype, binary=binary)])
    assert np.array_equal(answer.as_numpy("logits"), runtimes.load(folders["onnxruntime"])(x))


def test_plain_json(server: Server, folders: dict[Runtime, Path]) -> None:
    x = images(2)
    expected = runtimes.load(folders["onnxruntime"])(x)
    for data in (x.tolist(), x.ravel().tolist()):  # nested as the shape, and flat
        status, answer = infer(server, as_json(x, data=data), "onnxruntime-w8/versions/1")
        assert status == 200
        assert set(answer) == {"model_name", "model_version", "outputs"}
        logits, label = answer["outputs"]
        assert (logits["name"], logits["datatype"], logits["shape"]) == ("logits", "FP32", [2, len(CLASSES)])
        assert np.array_equal(np.float32(logits["data"]), expected.ravel())
        assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [2, 1])
        assert label["data"] == [CLASSES[best] for best in expected.argmax(1)]


def test_only_the_outputs_asked_for_are_sent(server: Server) -> None:
    _, answer = infer(server, as_json(images(1)) | {"outputs": [{"name": "label"}]})
    assert [output["name"] for output in answer["outputs"]] == ["label"]


def test_logits_that_are_not_finite_are_null_in_json_and_exact_in_binary(
    server: Server, client: triton.InferenceServerClient
) -> None:
    x = np.full((1, *SHAPE), np.nan, np.float32)
    _, answer = infer(server, as_json(x))
    assert answer["outputs"][0]["data"] == [None] * len(CLASSES)
    assert np.isnan(client.infer("onnxruntime-w8", [tensor(x)]).as_numpy("logits")).all()


ONE = images(1)
BAD: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{", "not JSON"),
    "not UTF-8": (b"\xff\xfe\xfd", "not JSON"),
    "too deep": (b"[" * 100_000, "not JSON"),
    "not an object": ([1], "a JSON array; expected an object"),
    "no inputs": ({}, "'inputs' is missing; expected a JSON array"),
    "inputs not an array": ({"inputs": 3}, "'inputs' is 3; expected a JSON array"),
    "input not an object": ({"inputs": ["image"]}, "should be an object with the member 'name'"),
    "two inputs": ({"inputs": as_json(ONE)["inputs"] * 2}, "['image', 'image']; expected ['image']"),
    "other input": (as_json(ONE, name="pixels"), "['pixels']; expected ['image']"),
    "text": (as_json(ONE, datatype="BYTES"), "datatype 'BYTES'; expected one of UINT8"),
    "datatype not a string": (as_json(ONE, datatype=None), "'datatype' is None; expected a JSON string"),
    "no batch dimension": (as_json(ONE[0]), "shape [3, 12, 10]; expected [n, 3, 12, 10]"),
    "channels last": (as_json(ONE.transpose(0, 2, 3, 1)), "shape [1, 12, 10, 3]; expected [n, 3, 12, 10]"),
    "empty batch": (as_json(ONE[:0]), "shape [0, 3, 12, 10]; expected [n, 3, 12, 10] with n of at least 1"),
    "shape not of whole numbers": (as_json(ONE, shape=[1.0, *SHAPE]), "shape [1.0, 3, 12, 10]"),
    "astronomic shape": (as_json(ONE, shape=[10**30, *SHAPE]), "expected [n, 3, 12, 10]"),
    "too few values": (as_json(ONE, data=[1, 2]), "has 2 values; its shape [1, 3, 12, 10] holds 360"),
    "ragged": (as_json(ONE, data=[[1, 2], [3]]), "ragged"),
    "null": (as_json(ONE, data=[None] * 360), "something other than numbers"),
    "strings": (as_json(ONE, data=["1"] * 360), "something other than numbers"),
    "huge integer": (as_json(ONE, datatype="INT64", data=[10**40] * 360), "numbers that are not INT64"),
    "out of range": (as_json(ONE, datatype="UINT8", data=[256] * 360), "numbers that are not UINT8"),
    "fractions": (as_json(ONE, datatype="INT64", data=[0.5] * 360), "numbers that are not INT64"),
    "no data": ({"inputs": [{"name": "image", "shape": [1, *SHAPE], "datatype": "FP32"}]}, "'data' is missing"),
    "bytes that are not there": (as_json(ONE, parameters={"binary_data_size": 1440}), "0 bytes follow the JSON"),
    "unknown output": (as_json(ONE) | {"outputs": [{"name": "boxes"}]}, "['boxes']; expected ['logits', 'label']"),
    "binary_data not boolean": (
        as_json(ONE) | {"outputs": [{"name": "label", "parameters": {"binary_data": 1}}]},
        "'binary_data' is 1; expected a JSON boolean",
    ),
    "id not a string": (as_json(ONE) | {"id": 7}, "'id' is 7; expected a JSON string"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_say_what_was_got_and_what_is_expected(server: Server, case: str) -> None:
    body, expected = BAD[case]
    status, answer = infer(server, body)
    assert (status, set(answer)) == (400, {"error"})
    assert expected in answer["error"]


@pytest.mark.parametrize("length", ["-1", "ten", "999999", "²"])
def test_a_wrong_header_length_is_refused(server: Server, length: str) -> None:
    status, answer = infer(server, as_json(ONE), Inference_Header_Content_Length=length)
    assert status == 400
    assert f"Inference-Header-Content-Length is {length!r}; expected 0 to" in answer["error"]


@pytest.mark.parametrize(
    ("datatype", "size", "named"),
    [
        ("FP32", 1436, "has 359 values; its shape [1, 3, 12, 10] holds 360"),
        ("FP32", 1439, "is 1439 bytes of FP32"),
        ("FP64", 1440, "has 180 values"),
    ],
)
def test_binary_data_of_a_wrong_size_is_refused(server: Server, datatype: str, size: int, named: str) -> None:
    image = {"name": "image", "shape": [1, *SHAPE], "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [image]}).encode()
    status, answer = infer(server, head + bytes(size), Inference_Header_Content_Length=str(len(head)))
    assert status == 400
    assert named in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "named"),
    [
        ("GET", "/v2/models/nobody", 404, "unknown model 'nobody'; served: onnxruntime-w8, openvino-w8"),
        ("POST", "/v2/models/nobody/infer", 404, "unknown model 'nobody'"),
        ("GET", "/v2/models/onnxruntime-w8/versions/3/ready", 404, "no version '3'; it has '1'"),
        ("GET", "/v1", 404, "Not Found"),
        ("GET", "/v2/models/onnxruntime-w8/infer", 405, "Method Not Allowed"),
    ],
)
def test_unknown_addresses(server: Server, method: str, path: str, status: int, named: str) -> None:
    found, answer = send(server, method, path)
    assert found == status
    assert named in answer["error"]


def test_a_body_beyond_the_limit_is_refused_and_the_server_lives_on(server: Server) -> None:
    status, answer = infer(server, bytes(MOST + 1))
    assert status == 413
    assert f"{MOST + 1} bytes; at most {MOST}" in answer["error"]
    assert infer(server, as_json(ONE))[0] == 200


def test_a_model_that_cannot_answer_is_not_served(folders: dict[Runtime, Path], tmp_path: Path) -> None:
    config = Config.read(folders["onnxruntime"])
    config = replace(config, signature=replace(config.signature, input_shape=(3, 5, 5)))  # the graph takes 12×10
    (tmp_path / "model.onnx").write_bytes((folders["onnxruntime"] / "model.onnx").read_bytes())
    config.write(tmp_path)
    write_manifest(tmp_path)
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    ends = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ends.returncode, ends.stdout) == (1, "")
    assert f"the model in {tmp_path} does not answer" in ends.stderr


def test_a_model_that_fails_is_an_error_in_json_and_in_the_log(folders: dict[Runtime, Path], tmp_path: Path) -> None:
    graph = onnx.load(folders["onnxruntime"] / "model.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1  # no batch is possible any more
    onnx.save(graph, tmp_path / "model.onnx")
    Config.read(folders["onnxruntime"]).write(tmp_path)
    write_manifest(tmp_path)
    with serving(tmp_path) as server:
        assert infer(server, as_json(ONE))[0] == 200
        status, answer = infer(server, as_json(images(2)))
        assert status == 500
        assert "the server failed" in answer["error"]
        assert infer(server, as_json(ONE))[0] == 200
        server.process.terminate()
        events = [json.loads(line) for line in server.end()[2].splitlines()]
    assert [event["event"] for event in events] == ["request failed", "going down"]
    assert "Traceback" in events[0]["exception"]


def test_requests_at_the_same_time_get_their_own_answers(server: Server, folders: dict[Runtime, Path]) -> None:
    session = runtimes.load(folders["openvino"])
    batches = [images(1 + seed % 3, seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda x: infer(server, as_json(x), "openvino-w8")[1], batches)
        for x, answer in zip(batches, answers, strict=True):
            np.testing.assert_allclose(answer["outputs"][0]["data"], session(x).ravel(), rtol=1e-5, atol=1e-5)


def test_health_is_answered_during_an_inference(server: Server) -> None:
    connection = long_request(server)
    began = time.perf_counter()
    took: list[float] = []

    def wait() -> None:
        assert connection.getresponse().status == 200
        took.append(time.perf_counter() - began)

    waiting = threading.Thread(target=wait)
    waiting.start()
    checks = []
    while waiting.is_alive():
        asked = time.perf_counter()
        assert send(server, "GET", "/v2/health/live") == (200, {"live": True})
        checks.append(time.perf_counter() - asked)
    assert max(checks) < took[0] / 2, "the inference blocked the event loop"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_request_that_has_begun(
    folders: dict[Runtime, Path], number: signal.Signals
) -> None:
    with serving(folders["onnxruntime"]) as server:
        idle = http.client.HTTPConnection(server.address)
        idle.request("GET", "/v2/health/live")
        idle.getresponse().read()
        connection = long_request(server)
        time.sleep(0.1)
        server.process.send_signal(number)
        response = connection.getresponse()
        assert response.status == 200
        assert len(response.read()) > MANY
        assert server.quiet_end() == (0, "")


def test_a_client_that_goes_away_leaves_no_trace(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"]) as server:
        host, _, port = server.address.partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v2/models/onnxruntime-w8/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
            )
            time.sleep(0.1)
        time.sleep(0.1)
        server.process.terminate()
        assert server.quiet_end() == (0, "")


def test_a_folder_with_one_flipped_byte_is_not_served(folders: dict[Runtime, Path], tmp_path: Path) -> None:
    for path in folders["onnxruntime"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = bytearray((tmp_path / "model.onnx").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "model.onnx").write_bytes(damaged)
    # An intact folder beside it does not help: nothing is served.
    command = [sys.executable, "-c", SERVE, str(folders["openvino"]), str(tmp_path)]
    ends = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ends.returncode, ends.stdout) == (1, "")
    assert f"{tmp_path / 'model.onnx'} was changed" in ends.stderr
    assert "hint:" in ends.stderr


def test_an_occupied_port_is_named(folders: dict[Runtime, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}: .*in use"):
            serve([folders["onnxruntime"]], Options(port=port))


def test_models_must_be_given_and_have_different_names(folders: dict[Runtime, Path]) -> None:
    with pytest.raises(UsageError, match=r"onnxruntime-w8.*onnxruntime-w8"):
        app([folders["onnxruntime"]] * 2)
    with pytest.raises(UsageError, match="at least one"):
        app([])


def test_serving_an_onnx_model_needs_no_torch(folders: dict[Runtime, Path]) -> None:
    code = f"{SERVE}\nprint(sorted({{'torch', 'openvino', 'sklearn', 'scipy', 'onnxruntime'}} & set(sys.modules)))"
    with serving(folders["onnxruntime"], code=code) as server:
        assert infer(server, as_json(ONE))[0] == 200
        server.process.terminate()
        assert server.quiet_end() == (0, "['onnxruntime']\n")


def test_without_the_serve_extra_the_pip_line_is_given() -> None:
    code = (
        "import sys\nfrom sizewise.errors import MissingExtraError\nsys.modules['uvicorn'] = None\n"
        "try:\n    import sizewise.serve\nexcept MissingExtraError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'sizewise[serve]'" in result.stdout
