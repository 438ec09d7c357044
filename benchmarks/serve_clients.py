"""KServe's own client, REST and gRPC, against our server: that it is answered, and the same as any other way.

    python benchmarks/serve_clients.py

The client is in an environment of its own; `tests/` has tritonclient, curl's requests and schemathesis.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REQUIREMENTS = ("kserve==0.21.0",)


async def ask(http: str, grpc: str) -> None:
    """Inside the client's environment: health, metadata and inference by REST as JSON and binary, and by gRPC."""
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28)).astype(np.float32)

    def request(*, binary: bool) -> InferRequest:
        image = InferInput("image", list(pixels.shape), "FP32")
        image.set_data_from_numpy(pixels, binary_data=binary)
        return InferRequest("digits", [image], "seven")

    rest, rpc = InferenceRESTClient(RESTConfig(protocol="v2", timeout=10)), InferenceGRPCClient(grpc)
    assert await rest.is_server_live(http)
    assert await rest.is_server_ready(http)
    assert await rest.is_model_ready(http, "digits")
    assert await rpc.is_server_ready()
    assert await rpc.is_model_ready("digits")
    responses = [
        await rest.infer(http, request(binary=False), model_name="digits"),
        await rest.infer(http, request(binary=True), model_name="digits"),
        await rpc.infer(request(binary=True)),
    ]
    said = [next(o for o in response.outputs if o.name == "logits").as_numpy() for response in responses]
    assert all(response.id == "seven" and response.model_name == "digits" for response in responses)
    for way, logits in zip(("REST, JSON", "REST, binary", "gRPC"), said, strict=True):
        print(f"{way}: {logits.shape}, {np.abs(logits - said[0]).max():g} from the first")
    assert all(np.array_equal(logits, said[0]) for logits in said)


def main() -> None:
    from environments import environment
    from serve import folder

    python = environment("kserve", REQUIREMENTS)
    with tempfile.TemporaryDirectory() as place:
        model = folder(Path(place), 8)
        command = [sys.executable, "-m", "sizewise.cli", "serve", str(model), "--port", "0", "--grpc-port", "0"]
        server = subprocess.Popen(command, text=True, stderr=subprocess.PIPE)
        assert server.stderr
        try:
            ready = server.stderr.readline()
            http, grpc = ready.split(" at ")[1].split(" and ")[0], ready.split("over gRPC at ")[1].split(";")[0]
            subprocess.run([str(python), __file__, http, grpc], check=True)
        finally:
            server.terminate()
            server.wait(20)


if __name__ == "__main__":
    asyncio.run(ask(*sys.argv[1:])) if sys.argv[1:] else main()
