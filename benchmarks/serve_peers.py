"""Other servers of the same ONNX model, as their documentation says to write one: peers of `benchmarks/serve.py`.

    python benchmarks/serve_peers.py {litserve|mlserver} MODEL.onnx PORT BATCH WORKERS

LitServe: a `LitAPI` that decodes JSON, one worker process, batches of up to `BATCH` that it waits 2 ms for.
MLServer: an `MLModel` of the same protocol as ours, adaptive batching alike; `WORKERS` of 0 runs the model in the
server's process, 1 in one of its own, which is the default.

Each runs in its own environment, with pinned versions, made under `benchmarks/.venvs/` when it is first asked for.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

REQUIREMENTS = {
    "litserve": ("litserve==0.2.19", "numpy==2.4.6", "onnxruntime==1.32.0"),
    "mlserver": ("mlserver==1.7.1", "onnxruntime==1.32.0", "uvloop==0.21.0"),  # its workers fail with later ones
}
WAIT = 0.002
"""Seconds that a batch waits for company."""


def session(model: str) -> Any:
    """The model on one thread, as ours runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def litserve(model: str, port: int, batch: int, workers: int) -> None:
    import litserve as ls
    from litserve_model import Digits

    api = Digits(model, max_batch_size=batch, batch_timeout=WAIT if batch > 1 else 0.0)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def mlserver(model: str, port: int, batch: int, workers: int) -> None:
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    settings = {"host": "127.0.0.1", "parallel_workers": workers, "debug": False, **ports}
    adaptive = {"max_batch_size": batch, "max_batch_time": WAIT} if batch > 1 else {}
    of_model = {"name": "digits", "implementation": "mlserver_model.Digits", "parameters": {"uri": model}, **adaptive}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "settings.json").write_text(json.dumps(settings))
        (Path(place) / "model-settings.json").write_text(json.dumps(of_model))
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
        os.chdir(place)
        command = Path(sys.executable).with_name("mlserver")
        os.execv(command, [str(command), "start", place])


def main() -> None:
    peer, model, port, batch, workers = sys.argv[1:]
    {"litserve": litserve, "mlserver": mlserver}[peer](model, int(port), int(batch), int(workers))


if __name__ == "__main__":
    main()
