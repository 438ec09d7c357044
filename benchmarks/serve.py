"""A server with and without batching, and what a user would write instead, on one model and one machine.

    python benchmarks/serve.py --out serve.json

Servers run in processes of their own, and so do the clients, which ask one after another over connections that they
keep. All servers get the same bytes of ONNX and answer one image a request with its logits; they take turns, round by
round, so that what else the machine does meets all of them. Figures are medians over rounds, with the range of rounds.

The baseline is Starlette on uvicorn with httptools and uvloop, as ours: a handler that reads the body's bytes, asks
ONNX Runtime in a thread and returns bytes. It checks nothing, so it is about the least that HTTP in Python costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

WIDTHS = {"small": 8, "reference": 32}
"""Of the MNIST CNN: 43,706 and 693,962 parameters."""

PLAIN = """
import sys
import anyio, numpy as np, onnxruntime, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name

async def infer(request):
    x = np.frombuffer(await request.body(), np.float32).reshape(-1, 1, 28, 28)
    logits = await anyio.to_thread.run_sync(lambda: session.run(None, {name: x})[0])
    return Response(logits.tobytes(), media_type="application/octet-stream")

app = Starlette(routes=[Route("/infer", infer, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False, http="httptools", loop="uvloop")
"""

PLAIN_JSON = """
import sys
import anyio, numpy as np, onnxruntime, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name

async def infer(request):
    x = np.array((await request.json())["data"], np.float32).reshape(-1, 1, 28, 28)
    logits = await anyio.to_thread.run_sync(lambda: session.run(None, {name: x})[0])
    return JSONResponse({"logits": logits.tolist()})

app = Starlette(routes=[Route("/infer", infer, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False, http="httptools", loop="uvloop")
"""


@dataclass(frozen=True)
class Contender:
    """A server, and the request that it is asked."""

    name: str
    command: tuple[str, ...]
    path: str
    body: bytes
    headers: str = ""


@dataclass(frozen=True)
class Round:
    """What the clients of one server saw, requests a second and milliseconds, and its CPU time for a request."""

    server: str
    model: str
    connections: int
    throughput: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float


def folder(root: Path, width: int) -> Path:
    """An exported folder of the untrained CNN."""
    # Imported here: the clients' processes need none of it, and are started often.
    from sizewise import families
    from sizewise.records import Signature
    from sizewise.runtimes import Config, Manifest, eager, onnxruntime
    from sizewise.store import sha256, write_json
    from sizewise.tasks import Preprocessor

    image, preprocessor = Signature("classification", (1, 28, 28), 10), Preprocessor((33.3,), (78.6,))
    net = families.load("cnn", image).build(width, seed=0)
    config = Config(1, "digits", "onnxruntime", "fp32", "cnn", width, image, tuple("0123456789"), preprocessor)
    config.write(root)
    onnxruntime.export(eager.Deployable(net, preprocessor, image), image, root)
    write_json(root / "manifest.json", Manifest(1, {path.name: sha256(path) for path in root.iterdir()}))
    return root


def contenders(model: Path, names: Sequence[str]) -> list[Contender]:
    """All servers of one model folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 1, 28, 28)).astype(np.float32)
    image = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32"}
    binary = {"name": "logits", "parameters": {"binary_data": True}}
    head = {"inputs": [image | {"parameters": {"binary_data_size": pixels.nbytes}}], "outputs": [binary]}
    header = json.dumps(head).encode()
    length = f"Inference-Header-Content-Length: {len(header)}\r\n"
    ours = (sys.executable, "-m", "sizewise.cli", "serve", str(model), "--port", "PORT")
    path, body = "/v2/models/digits/infer", header + pixels.tobytes()
    as_json = json.dumps({"inputs": [image | {"data": pixels.ravel().tolist()}], "outputs": [{"name": "logits"}]})
    onnx = str(model / "model.onnx")
    plain = (sys.executable, "-c", PLAIN, onnx, "PORT")
    plain_json = (sys.executable, "-c", PLAIN_JSON, onnx, "PORT")
    everyone = [
        Contender("batching", ours, path, body, length),
        Contender("no batching", (*ours, "--max-batch", "1"), path, body, length),
        Contender("batching, waits 2 ms", (*ours, "--max-delay", "2"), path, body, length),
        Contender("batching, JSON", ours, path, as_json.encode()),
        Contender("Starlette, bytes", plain, "/infer", pixels.tobytes()),
        Contender("Starlette, JSON", plain_json, "/infer", json.dumps({"data": pixels.ravel().tolist()}).encode()),
    ]
    return [contender for contender in everyone if not names or contender.name in names]


@contextmanager
def running(contender: Contender) -> Iterator[tuple[int, int]]:
    """The port and process of a server that answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(port) if word == "PORT" else word for word in contender.command]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait(process, port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


def wait(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit(f"a server ended with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("a server did not start")


async def client(port: int, request: bytes, end: float, latencies: list[float], failed: list[int]) -> None:
    """Ask again and again on one connection. Of an answer only the length is read: that costs the client little."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (began := time.perf_counter()) < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        latencies.append(time.perf_counter() - began)
        failed[0] += not head.startswith(b"HTTP/1.1 200")
    writer.close()


async def clients(port: int, request: bytes, connections: int, seconds: float) -> tuple[list[float], int, float]:
    latencies: list[float] = []
    failed, began = [0], time.perf_counter()
    await asyncio.gather(*(client(port, request, began + seconds, latencies, failed) for _ in range(connections)))
    return latencies, failed[0], time.perf_counter() - began


def load() -> None:
    """The clients' process: port, connections and seconds as arguments, the request on stdin, numbers on stdout."""
    import uvloop

    port, connections, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    request = sys.stdin.buffer.read()
    latencies, failed, took = uvloop.run(clients(port, request, connections, seconds))
    p50, p99 = (1000 * float(np.percentile(latencies, q)) for q in (50, 99))
    print(json.dumps([len(latencies) / took, p50, p99, failed, len(latencies)]))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in user and kernel mode (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(contender: Contender, model: str, where: tuple[int, int], connections: int, seconds: float) -> Round:
    port, pid = where
    head = f"POST {contender.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(contender.body)}\r\n{contender.headers}"
    request = head.encode() + b"\r\n" + contender.body
    command = [sys.executable, __file__, "load", str(port), str(connections), str(seconds)]
    before = cpu_seconds(pid)
    done = subprocess.run(command, input=request, capture_output=True, check=True)
    throughput, p50, p99, failed, answered = json.loads(done.stdout)
    spent = 1e6 * (cpu_seconds(pid) - before) / max(answered, 1)
    return Round(contender.name, model, connections, throughput, p50, p99, failed, spent)


def in_process(model: Path, batch: int, seconds: float) -> float:
    """Images a second of the runtime alone, on one thread."""
    from sizewise.runtimes import onnxruntime

    session = onnxruntime.open_file(model / "model.onnx", 1)
    x = np.random.default_rng(0).integers(0, 256, (batch, 1, 28, 28)).astype(np.float32)
    session(x)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        session(x)
        calls += 1
    return calls * batch / (time.perf_counter() - began)


def table(rounds: Sequence[Round], model: str) -> str:
    """Markdown, one row a server and number of connections; ratios are to the baseline's in the same round."""
    lines = ["| connections | server | requests/s | of the baseline's | p50 ms | p99 ms | CPU µs |", "|---" * 7 + "|"]
    for connections in sorted({r.connections for r in rounds}):
        group = [r for r in rounds if r.model == model and r.connections == connections]
        base = [r.throughput for r in group if r.server == "Starlette, bytes"]
        for server in dict.fromkeys(r.server for r in group):
            own = [r for r in group if r.server == server]
            ratios = [r.throughput / b for r, b in zip(own, base, strict=False)]
            cells = [f"{statistics.median(r.throughput for r in own):,.0f}", span(ratios) if ratios else ""]
            cells += [span([r.p50_ms for r in own]), span([r.p99_ms for r in own])]
            cells.append(f"{statistics.median(r.cpu_us for r in own):.0f}")
            lines.append(f"| {connections} | {server} | {' | '.join(cells)} |")
    return "\n".join(lines)


def span(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where every round goes, as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one server in one round")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--models", nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--servers", nargs="+", default=[], help="only these")
    options = parser.parse_args()
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as place:
        for model in options.models:
            exported = folder(Path(place) / model, WIDTHS[model])
            alone = {batch: in_process(exported, batch, 2.0) for batch in (1, 8, 64)}
            print(f"{model}: in the process, images/s by batch:", {b: round(v) for b, v in alone.items()}, flush=True)
            with ExitStack() as stack:
                ports = {c: stack.enter_context(running(c)) for c in contenders(exported, options.servers)}
                for number in range(options.rounds):
                    for connections in options.connections:
                        order = list(ports) if number % 2 == 0 else list(reversed(ports))
                        rounds += [measure(c, model, ports[c], connections, options.seconds) for c in order]
                    print(f"{model}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            print(table(rounds, model), flush=True)
    if options.out:
        options.out.write_text(json.dumps([asdict(r) for r in rounds], indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load() if sys.argv[1:2] == ["load"] else main()
