"""What those who run a server rely on: swaps and ends without a dropped request, limits, access, metrics, logs."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sizewise import runtimes
from sizewise.errors import IntegrityError
from sizewise.runtimes import Runtime
from sizewise.serve import Limits
from sizewise.serve.batcher import Batcher
from sizewise.serve.refusals import Busy, Overdue
from tests.serving import Server, as_json, infer, send, serving
from tests.test_runtimes import images, write_folders

LOST = {"RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError", "IncompleteRead"}
"""What a client sees of a server that is no more."""

BODY = json.dumps(as_json(images(1)) | {"outputs": [{"name": "logits"}]}).encode()


@dataclass
class Load:
    """Clients that ask one after another, each on its own connection, which they keep as long as the server does."""

    server: Server
    model: str
    statuses: Counter[int] = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    patient: bool = False
    """Whether to come back when the connection is lost or refused."""
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(20)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self.server.address, timeout=20)
        not_there = (ConnectionRefusedError, *((ConnectionResetError,) if self.patient else ()))
        while not self.stop.is_set():
            try:
                connection.connect() if connection.sock is None else None
            except not_there:
                if not self.patient:
                    return  # it no longer listens: nothing was asked
                time.sleep(0.02)
                continue
            try:
                connection.request("POST", f"/v2/models/{self.model}/infer", BODY)
                response = connection.getresponse()
                answer = json.load(response)
            except (OSError, http.client.HTTPException) as error:
                self.dropped.append(repr(error))
                if not self.patient:
                    return
                connection.close()
                continue
            self.statuses[response.status] += 1
            self.answers.append(answer)


def versions(root: Path, *folders: Path) -> Path:
    for number, folder in enumerate(folders, 1):
        shutil.copytree(folder, root / str(number))
    return root


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model for the same task."""
    return write_folders(tmp_path_factory.mktemp("wider"), width=12)["onnxruntime"]


def until(reached: Callable[[], bool]) -> None:
    for _ in range(1000):
        if reached():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen within 20 s")


def test_a_new_version_takes_over_under_load(folders: dict[Runtime, Path], wider: Path, tmp_path: Path) -> None:
    root = versions(tmp_path / "bugs", folders["onnxruntime"])
    expected = {v: runtimes.load(f)(images(1))[0] for v, f in (("1", folders["onnxruntime"]), ("2", wider))}
    with serving(root, "--poll", "0.1s") as server, Load(server, "bugs") as load:
        until(lambda: sum(load.statuses.values()) > 50)
        shutil.copytree(wider, tmp_path / "coming")
        (tmp_path / "coming").rename(root / "2")
        until(lambda: load.answers[-1]["model_version"] == "2")
        assert send(server, "GET", "/v2/models/bugs")[1]["versions"] == ["1", "2"]
        shutil.rmtree(root / "1")
        until(lambda: send(server, "GET", "/v2/models/bugs")[1]["versions"] == ["2"])
        seen = len(load.answers)
        until(lambda: len(load.answers) > seen + 50)
        load.stop.set()
    assert load.dropped == []
    assert set(load.statuses) == {200}
    order = [answer["model_version"] for answer in load.answers]
    assert order.index("2") < len(order) - 50
    for answer in load.answers:
        logits = answer["outputs"][0]["data"]
        np.testing.assert_allclose(logits, expected[answer["model_version"]], rtol=1e-4, atol=1e-4)


def test_another_export_in_the_same_place_takes_over(folders: dict[Runtime, Path], wider: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(folders["onnxruntime"], place)
    with serving(place, "--poll", "0.1s") as server, Load(server, "onnxruntime-w8") as load:
        until(lambda: sum(load.statuses.values()) > 20)
        shutil.copytree(wider, tmp_path / "coming")
        place.rename(tmp_path / "old")
        (tmp_path / "coming").rename(place)
        until(lambda: send(server, "GET", "/about/onnxruntime-w8")[1]["width"] == 12)
    assert load.dropped == []
    assert set(load.statuses) == {200}


def test_a_damaged_version_is_logged_and_the_old_one_stays(
    folders: dict[Runtime, Path], wider: Path, tmp_path: Path
) -> None:
    root = versions(tmp_path / "bugs", folders["onnxruntime"])
    with serving(root, "--poll", "0.1s") as server:
        shutil.copytree(wider, tmp_path / "coming")
        (tmp_path / "coming" / "model.onnx").write_bytes(b"no graph")
        (tmp_path / "coming").rename(root / "2")
        until(lambda: 'outcome="failed"} 1.0' in metrics(server))
        status, answer = infer(server, as_json(images(1)), "bugs")
        assert (status, answer["model_version"]) == (200, "1")
        server.process.terminate()
        first, *_ = server.end()[2].splitlines()
    event = json.loads(first)
    assert (event["event"], event["level"], event["version"]) == ("version not loaded", "error", "2")
    assert "model.onnx was changed" in event["reason"]


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hostname", "sub/model.onnx"])
def test_paths_in_a_manifest_cannot_leave_the_folder(folders: dict[Runtime, Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(folders["onnxruntime"], tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="which is no name of a file in it"):
        runtimes.verify(tmp_path / "model")


def test_a_link_out_of_the_folder_is_not_followed(folders: dict[Runtime, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["onnxruntime"], tmp_path / "model")
    (tmp_path / "model" / "model.onnx").unlink()
    (tmp_path / "model" / "model.onnx").symlink_to(folders["onnxruntime"] / "model.onnx")
    with pytest.raises(IntegrityError, match="leads out of the folder"):
        runtimes.verify(tmp_path / "model")


def test_sigterm_under_load_drops_no_request(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"]) as server, Load(server, "onnxruntime-w8") as load:
        until(lambda: sum(load.statuses.values()) > 100)
        server.process.terminate()
        assert server.quiet_end() == (0, "")
    assert load.dropped == []
    assert set(load.statuses) == {200}


def test_a_server_that_was_killed_is_back_when_it_is_started_again(folders: dict[Runtime, Path]) -> None:
    expected = runtimes.load(folders["onnxruntime"])(images(1))[0]
    with serving(folders["onnxruntime"]) as first, Load(first, "onnxruntime-w8", patient=True) as load:
        until(lambda: sum(load.statuses.values()) > 100)
        first.process.kill()
        first.process.wait()
        port = first.address.rpartition(":")[2]
        before = sum(load.statuses.values())
        with serving(folders["onnxruntime"], "--port", port):
            until(lambda: sum(load.statuses.values()) > before + 100)
            load.stop.set()
            for thread in load.threads:
                thread.join(20)
    assert set(load.statuses) == {200}
    assert load.dropped
    assert {error.partition("(")[0] for error in load.dropped} <= LOST
    for answer in load.answers:
        np.testing.assert_allclose(answer["outputs"][0]["data"], expected, rtol=1e-4, atol=1e-4)


def test_a_server_that_goes_down_is_not_ready(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"]) as server:
        idle = socket.create_connection(server.address.split(":"))  # keeps it from ending at once
        assert send(server, "GET", "/v2/health/ready") == (200, {"ready": True})
        server.process.terminate()
        until(lambda: send(server, "GET", "/v2/health/ready") == (503, {"ready": False}))
        assert send(server, "GET", "/v2/health/live") == (200, {"live": True})
        idle.close()
        assert server.quiet_end() == (0, "")


def metrics(server: Server) -> str:
    with urllib.request.urlopen(f"http://{server.address}/metrics") as response:
        return str(response.read().decode())


def test_metrics_count_what_happened(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"]) as server:
        for _ in range(3):
            infer(server, as_json(images(2)))
        infer(server, b"{")
        text = metrics(server)
    model = '{model="onnxruntime-w8",version="1"}'
    assert 'sizewise_requests_total{code="200",protocol="http"} 3.0' in text
    assert 'sizewise_requests_total{code="400",protocol="http"} 1.0' in text
    assert f"sizewise_batch_samples_sum{model} 6.0" in text
    assert f"sizewise_request_seconds_count{model} 3.0" in text
    assert f"sizewise_queue_requests{model} 0.0" in text
    assert "sizewise_ready 1.0" in text


def test_requests_are_logged_when_that_is_asked_for(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"], "--log-requests") as server:
        infer(server, as_json(images(1)))
        server.process.terminate()
        first, *_ = server.end()[2].splitlines()
    event = json.loads(first)
    assert (event["event"], event["method"], event["status"]) == ("request", "POST", 200)
    assert event["path"] == "/v2/models/onnxruntime-w8/infer"
    assert 0 < event["ms"] < 10_000


def test_without_the_token_only_probes_and_the_page_are_open(folders: dict[Runtime, Path], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame\n")
    with serving(folders["onnxruntime"], "--token-file", tmp_path / "token") as server:
        assert send(server, "GET", "/v2/health/ready")[0] == 200
        for path in ("/v2", "/metrics", "/openapi.json", "/v2/models/onnxruntime-w8", "/about/onnxruntime-w8"):
            status, answer = send(server, "GET", path)
            assert (status, set(answer)) == (401, {"error"})
        for token in ("", "Bearer", "Bearer sesam", "sesame", "Bearer sésame"):
            assert infer(server, as_json(images(1)), Authorization=token)[0] == 401
        assert infer(server, as_json(images(1)), Authorization="Bearer sesame")[0] == 200
        with urllib.request.urlopen(f"http://{server.address}/") as page:
            assert page.status == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cert.pem`, which signs itself, and its `key.pem`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def test_tls(folders: dict[Runtime, Path], certificate: Path) -> None:
    import tritonclient.grpc as triton

    flags = ("--tls-certificate", certificate / "cert.pem", "--tls-key", certificate / "key.pem", "--grpc-port", "0")
    with serving(folders["onnxruntime"], *flags) as server:
        assert "https://" in server.ready
        trusted = ssl.create_default_context(cafile=certificate / "cert.pem")
        url = f"https://{server.address}/v2/health/ready"
        with urllib.request.urlopen(url, context=trusted) as response:
            assert json.load(response) == {"ready": True}
        secured = {"ssl": True, "root_certificates": str(certificate / "cert.pem")}
        with triton.InferenceServerClient(server.grpc, **secured) as client:
            assert client.is_model_ready("onnxruntime-w8")


def test_a_slow_body_is_refused_in_time(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"], "--timeout", "0.5s") as server:
        connection = http.client.HTTPConnection(server.address, timeout=20)
        connection.putrequest("POST", "/v2/models/onnxruntime-w8/infer")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"{")
        response = connection.getresponse()
        assert response.status == 408
        assert "1 bytes of the body came within 0.5 s" in json.load(response)["error"]


def test_an_endless_head_is_refused(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"]) as server:
        connection = http.client.HTTPConnection(server.address, timeout=20)
        connection.putrequest("GET", "/v2")
        for number in range(90):
            connection.putheader(f"X-{number}", "x" * 1000)
        connection.endheaders()
        assert connection.getresponse().status == 400
        assert send(server, "GET", "/v2/health/live")[0] == 200


def test_a_body_announced_as_too_large_is_refused_before_it_is_sent(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"], "--max-body", "1MB") as server:
        connection = http.client.HTTPConnection(server.address, timeout=20)
        headers = {"Content-Length": "2000000", "Expect": "100-continue"}
        connection.request("POST", "/v2/models/onnxruntime-w8/infer", headers=headers)
        assert connection.getresponse().status == 413


# The queue itself, on a session whose speed is known.


def doubled(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    time.sleep(0.05)
    return {"twice": 2 * x}


def shape(x: NDArray[Any]) -> object:
    return x.shape[1:]


async def ask(batcher: Batcher, *values: NDArray[Any]) -> list[Any]:
    return await asyncio.gather(*(batcher(value) for value in values), return_exceptions=True)


def row(value: float, width: int = 2, n: int = 1) -> NDArray[np.float64]:
    return np.full((n, width), float(value))


def test_who_waits_while_the_model_works_is_answered_together() -> None:
    calls: list[int] = []
    batcher = Batcher(doubled, shape, Limits(batch=8), lambda samples, seconds: calls.append(samples))
    answers = asyncio.run(ask(batcher, *(row(i) for i in range(20))))
    assert [float(outputs["twice"][0, 0]) for outputs, _ in answers] == [2 * i for i in range(20)]
    assert sum(calls) == 20
    assert max(calls) == 8
    assert len(calls) <= 4


def test_samples_of_different_shapes_are_run_apart_and_in_order() -> None:
    batcher = Batcher(doubled, shape, Limits(batch=8))
    answers = asyncio.run(ask(batcher, *(row(i, width=2 + i % 2) for i in range(6))))
    assert [outputs["twice"].shape for outputs, _ in answers] == [(1, 2 + i % 2) for i in range(6)]
    assert [float(outputs["twice"][0, 0]) for outputs, _ in answers] == [2 * i for i in range(6)]


def test_a_request_larger_than_a_batch_is_answered_in_parts() -> None:
    sizes: list[int] = []

    def run(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        sizes.append(len(x))
        return {"twice": 2 * x}

    ((outputs, _),) = asyncio.run(ask(Batcher(run, shape, Limits(batch=8)), np.arange(20.0)[:, None]))
    assert sizes == [8, 8, 4]
    assert outputs["twice"].ravel().tolist() == [2.0 * i for i in range(20)]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    batcher = Batcher(doubled, shape, Limits(batch=1, queue=3))
    answers = asyncio.run(ask(batcher, *(row(i) for i in range(10))))
    refused = [answer for answer in answers if isinstance(answer, Busy)]
    assert len(refused) == 7
    assert all(busy.retry_seconds >= 1 for busy in refused)
    assert len([answer for answer in answers if isinstance(answer, tuple)]) == 3


def test_an_overdue_request_is_told_so_and_not_run() -> None:
    ran: list[int] = []
    batcher = Batcher(doubled, shape, Limits(batch=1, timeout_seconds=0.12), lambda samples, _: ran.append(samples))

    async def main() -> list[Any]:
        answers = await ask(batcher, *(row(i) for i in range(10)))
        await batcher.close()
        return answers

    answers = asyncio.run(main())
    late = [answer for answer in answers if isinstance(answer, Overdue)]
    assert 6 <= len(late) < 10
    assert len(ran) <= 10 - len(late) + 1, "what nobody waits for was run"


def test_a_delay_gathers_requests_that_come_one_by_one() -> None:
    calls: list[int] = []
    batcher = Batcher(doubled, shape, Limits(batch=4, delay_ms=500), lambda samples, _: calls.append(samples))

    async def main() -> float:
        began = time.perf_counter()
        tasks = []
        for i in range(4):
            tasks.append(asyncio.create_task(batcher(row(i))))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        return time.perf_counter() - began

    took = asyncio.run(main())
    assert calls == [4]
    assert took < 0.5, "a full batch must not wait"


def test_one_that_fails_fails_alone() -> None:
    def run(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if x.shape[1] == 3:
            raise ValueError("three")
        return doubled(x)

    first, second = asyncio.run(ask(Batcher(run, shape, Limits()), row(1, width=3), row(2)))
    assert isinstance(first, ValueError)
    assert float(second[0]["twice"][0, 0]) == 4


def test_many_clients_share_calls_of_a_real_model(folders: dict[Runtime, Path]) -> None:
    with serving(folders["onnxruntime"], "--max-delay", "20") as server, Load(server, "onnxruntime-w8") as load:
        until(lambda: sum(load.statuses.values()) > 60)
        load.stop.set()
        for thread in load.threads:
            thread.join(20)
        found = dict(re.findall(r"sizewise_(\w+)_(?:samples|seconds)_count\{.*?\} ([\d.]+)", metrics(server)))
    assert float(found["inference"]) < 0.6 * float(found["request"])
    assert set(load.statuses) == {200}


def test_a_full_server_says_503_and_when_to_come_back(folders: dict[Runtime, Path]) -> None:
    flags = ("--queue", "1", "--max-batch", "2", "--max-delay", "200")
    with serving(folders["onnxruntime"], *flags) as server:
        connections = [http.client.HTTPConnection(server.address, timeout=20) for _ in range(6)]
        for connection in connections:
            connection.request("POST", "/v2/models/onnxruntime-w8/infer", BODY)
        responses = [connection.getresponse() for connection in connections]
        bodies = [json.load(response) for response in responses]
    refused = [i for i, response in enumerate(responses) if response.status == 503]
    assert {response.status for response in responses} == {200, 503}
    assert all(int(responses[i].headers["Retry-After"]) >= 1 for i in refused)
    assert all("no more may" in bodies[i]["error"] for i in refused)
