"""Real servers in processes of their own, and plain requests to them."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.serve import Options
from tests.test_runtimes import SHAPE

MOST = Options().max_body_bytes
MANY = 50_000
"""Images in a request that takes some tenths of a second."""


@dataclass
class Server:
    process: subprocess.Popen[str]
    ready: str

    @property
    def address(self) -> str:
        """Host and port of HTTP."""
        found = re.search(r"https?://([\d.]+:\d+)", self.ready)
        assert found, self.ready
        return found[1]

    @property
    def grpc(self) -> str:
        """Host and port of gRPC."""
        return self.ready.split("over gRPC at ")[1].split(";")[0]

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout and the rest of stderr."""
        stdout, stderr = self.process.communicate(timeout=10)
        return self.process.returncode, stdout, stderr

    def quiet_end(self) -> tuple[int, str]:
        """Exit code and stdout, when nothing was logged but that the server goes down."""
        code, stdout, stderr = self.end()
        assert [json.loads(line)["event"] for line in stderr.splitlines()] == ["going down"]
        return code, stdout


SERVE = """
import sys
from pathlib import Path
from sizewise.errors import SizewiseError
from sizewise.serve import Options, serve
try:
    serve([Path(name) for name in sys.argv[1:]], Options(port=0))
except SizewiseError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@contextmanager
def serving(*words: str | Path, code: str = "", **environment: str) -> Iterator[Server]:
    """A server on a free port, started by `sizewise serve WORDS` or by a script that is given the words."""
    start = ["-c", code] if code else ["-m", "sizewise.cli", "serve", "--port", "0"]
    command = [sys.executable, *start, *map(str, words)]
    environment = os.environ | environment
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stderr
    try:
        yield Server(process, process.stderr.readline())
    finally:
        process.kill()
        process.communicate()


def as_json(pixels: NDArray[Any], **members: Any) -> dict[str, Any]:
    image = {"name": "image", "shape": list(pixels.shape), "datatype": "FP32", "data": pixels.tolist()}
    return {"inputs": [image | members]}


def send(
    server: Server, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Status and JSON of the answer."""
    request = urllib.request.Request(f"http://{server.address}{path}", body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def infer(server: Server, body: Any, model: str = "onnxruntime-w8", **headers: str) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}
    return send(server, "POST", f"/v2/models/{model}/infer", content, renamed)


def long_request(server: Server) -> http.client.HTTPConnection:
    """A connection on which an inference has been asked for that takes a while."""
    image = {"name": "image", "shape": [MANY, *SHAPE], "datatype": "UINT8", "parameters": {}}
    pixels = np.zeros((MANY, *SHAPE), np.uint8).tobytes()
    image["parameters"] = {"binary_data_size": len(pixels)}
    head = json.dumps({"inputs": [image], "outputs": [{"name": "label", "parameters": {"binary_data": True}}]}).encode()
    connection = http.client.HTTPConnection(server.address, timeout=30)
    headers = {"Inference-Header-Content-Length": str(len(head))}
    connection.request("POST", "/v2/models/onnxruntime-w8/infer", head + pixels, headers)
    return connection
