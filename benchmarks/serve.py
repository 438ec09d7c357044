"""Our server beside LitServe, MLServer and a bare handler, on one model and one machine.

    python benchmarks/serve.py --out serve.json
    python benchmarks/serve.py --models small --soak 300    five minutes at the limit: statuses, p99 and memory

Servers run in processes of their own, and so do the clients, which ask one after another over connections that they
keep. All servers get the same bytes of ONNX and answer with logits, one image a request unless said; they take turns,
round by round, so that what else the machine does meets all of them. Figures are medians over rounds, with the range.

The peers are in `serve_peers.py`, with and without batching; their requests are JSON, as ours are where it says so.
The bare handler is Starlette on uvicorn with httptools and uvloop, as ours: it reads the body's bytes, asks ONNX
Runtime in a thread and returns bytes. It checks nothing, so it is about the least that HTTP in Python costs.
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
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from environments import environment
from numpy.typing import NDArray
from serve_peers import REQUIREMENTS

HERE = Path(__file__).resolve().parent
PATH = "/v2/models/digits/infer"
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


@dataclass(frozen=True)
class Contender:
    """A server, and the request that it is asked."""

    name: str
    command: tuple[str, ...]
    path: str
    body: bytes
    headers: str = ""
    images: int = 1

    @property
    def request(self) -> bytes:
        """What is sent, head and body."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{self.headers}"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass(frozen=True)
class Round:
    """What the clients of one server saw, images a second and milliseconds, and its CPU time for an image."""

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
    """All servers of one model folder, or those whose names begin with one of `names`."""
    onnx, ours = (
        str(model / "model.onnx"),
        (sys.executable, "-m", "sizewise.cli", "serve", str(model), "--port", "PORT"),
    )
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28)).astype(np.float32)
    one, many = _binary(pixels[:1]), _binary(pixels)
    v2 = json.dumps({"inputs": [_image(1) | {"data": pixels[0].ravel().tolist()}], "outputs": [{"name": "logits"}]})
    plain = (sys.executable, "-c", PLAIN, onnx, "PORT")
    everyone = [
        Contender("ours", ours, PATH, *one),
        Contender("ours, waits 2 ms", (*ours, "--max-delay", "2"), PATH, *one),
        Contender("ours, no batching", (*ours, "--max-batch", "1"), PATH, *one),
        Contender("ours, JSON", ours, PATH, v2.encode()),
        Contender("ours, JSON, waits 2 ms", (*ours, "--max-delay", "2"), PATH, v2.encode()),
        Contender("ours, 64 images a request", ours, PATH, *many, images=64),
        Contender("Starlette", plain, "/infer", pixels[:1].tobytes()),
    ]
    data = json.dumps({"data": pixels[0].ravel().tolist()}).encode()
    for batch in (1, 64):
        batching = "batching" if batch > 1 else "no batching"
        everyone.append(Contender(f"LitServe, {batching}", _peer("litserve", onnx, batch, 1), "/predict", data))
        everyone += [
            Contender(f"MLServer, {batching}, {where}", _peer("mlserver", onnx, batch, workers), PATH, v2.encode())
            for workers, where in enumerate(("in the server", "one worker"))
        ]
    return [one for one in everyone if not names or one.name.startswith(tuple(names))]


def _image(images: int) -> dict[str, Any]:
    return {"name": "image", "shape": [images, 1, 28, 28], "datatype": "FP32"}


def _binary(pixels: NDArray[np.float32]) -> tuple[bytes, str]:
    """A request's body and header, in the protocol's binary tensors."""
    size, binary = {"binary_data_size": pixels.nbytes}, {"name": "logits", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [_image(len(pixels)) | {"parameters": size}], "outputs": [binary]}).encode()
    return header + pixels.tobytes(), f"Inference-Header-Content-Length: {len(header)}\r\n"


def _peer(name: str, onnx: str, batch: int, workers: int) -> tuple[str, ...]:
    python = environment(name, REQUIREMENTS[name])
    return (str(python), str(HERE / "serve_peers.py"), name, onnx, "PORT", str(batch), str(workers))


@contextmanager
def running(contender: Contender) -> Iterator[tuple[int, int]]:
    """The port and process of a server that answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(port) if word == "PORT" else word for word in contender.command]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(process, port, contender.request)
        suspend(process.pid)
        yield port, process.pid
    finally:
        resume(process.pid)
        family = tree(process.pid)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for one in family:  # what a server leaves behind
            with suppress(psutil.NoSuchProcess):
                one.kill()


def tree(pid: int) -> list[psutil.Process]:
    """A server's process and those that it started."""
    own = psutil.Process(pid)
    return [own, *own.children(recursive=True)]


def suspend(pid: int) -> None:
    """Some servers use a tenth of a core while nobody asks them: only the one that is asked runs."""
    for process in tree(pid):
        process.suspend()


def resume(pid: int) -> None:
    for process in tree(pid):
        process.resume()


def wait(process: subprocess.Popen[bytes], port: int, request: bytes) -> None:
    """Until a server has answered its request as it should."""
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit(f"a server ended with code {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.settimeout(10)
                connection.sendall(request)
                if connection.recv(12) == b"HTTP/1.1 200":
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("a server did not start")


@dataclass
class Seen:
    """What clients saw: seconds that each answer took, how many had which status, and seconds in all."""

    latencies: list[float]
    statuses: Counter[int]
    seconds: float = 0.0


async def client(port: int, request: bytes, end: float, seen: Seen) -> None:
    """Ask again and again on one connection. Of an answer only the length is read: that costs the client little."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (began := time.perf_counter()) < end:
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):  # the server closed it: counted, and opened again
            seen.statuses[0] += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        length = int(head.lower().split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seen.latencies.append(time.perf_counter() - began)
        seen.statuses[int(head[9:12])] += 1
    writer.close()


async def clients(port: int, request: bytes, connections: int, seconds: float) -> Seen:
    seen, began = Seen([], Counter()), time.perf_counter()
    await asyncio.gather(*(client(port, request, began + seconds, seen) for _ in range(connections)))
    seen.seconds = time.perf_counter() - began
    return seen


def load() -> None:
    """The clients' process: port, connections and seconds as arguments, the request on stdin, numbers on stdout."""
    import uvloop

    port, connections, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    seen = uvloop.run(clients(port, sys.stdin.buffer.read(), connections, seconds))
    p50, p99 = (1000 * float(np.percentile(seen.latencies, q)) for q in (50, 99))
    print(json.dumps([len(seen.latencies) / seen.seconds, p50, p99, seen.statuses]))


def loaded(port: int, connections: int, seconds: float) -> list[str]:
    """The command of the clients' process."""
    return [sys.executable, __file__, "load", str(port), str(connections), str(seconds)]


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and those that it started have used, in user and kernel mode."""
    return sum(sum(process.cpu_times()[:2]) for process in tree(pid))


def measure(contender: Contender, model: str, where: tuple[int, int], connections: int, seconds: float) -> Round:
    port, pid = where
    resume(pid)
    before = cpu_seconds(pid)
    done = subprocess.run(loaded(port, connections, seconds), input=contender.request, stdout=-1, check=True)
    throughput, p50, p99, statuses = json.loads(done.stdout)
    images, answered = contender.images, sum(statuses.values())
    spent = 1e6 * (cpu_seconds(pid) - before) / max(answered * images, 1)
    suspend(pid)
    failed = answered - statuses.get("200", 0)
    return Round(contender.name, model, connections, throughput * images, p50, p99, failed, spent)


def soak(model: Path, seconds: float, connections: int = 128, queue: int = 32) -> dict[str, Any]:
    """What more clients see than the queue takes, for minutes, and what memory the server holds meanwhile.

    Returns:
        Requests a second, p50 and p99 in milliseconds, answers by status, and megabytes every twentieth of the time.
    """
    ours = next(one for one in contenders(model, ["ours"]) if one.name == "ours")
    limited = replace(ours, command=(*ours.command, "--queue", str(queue)))
    with running(limited) as (port, pid):
        resume(pid)
        asked = subprocess.Popen(loaded(port, connections, seconds), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert asked.stdin
        assert asked.stdout
        asked.stdin.write(limited.request)
        asked.stdin.close()
        held = []
        while asked.poll() is None:
            held.append(psutil.Process(pid).memory_info().rss / 1e6)
            time.sleep(seconds / 20)
        throughput, p50, p99, statuses = json.loads(asked.stdout.read())
    return {"requests/s": throughput, "p50 ms": p50, "p99 ms": p99, "statuses": statuses, "MB": held}


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
    """Markdown, one row a server and number of connections; ratios are to the bare handler's in the same round."""
    lines = ["| connections | server | images/s | of the bare handler's | p50 ms | p99 ms | CPU µs an image | failed |"]
    lines.append("|---" * 8 + "|")
    for connections in sorted({r.connections for r in rounds}):
        group = [r for r in rounds if r.model == model and r.connections == connections]
        base = [r.throughput for r in group if r.server == "Starlette"]
        for server in dict.fromkeys(r.server for r in group):
            own = [r for r in group if r.server == server]
            ratios = [r.throughput / b for r, b in zip(own, base, strict=False)]
            cells = [f"{statistics.median(r.throughput for r in own):,.0f}", span(ratios) if ratios else ""]
            cells += [span([r.p50_ms for r in own]), span([r.p99_ms for r in own])]
            cells += [f"{statistics.median(r.cpu_us for r in own):.0f}", str(sum(r.failed for r in own))]
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
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="ours alone, with more clients than it takes")
    parser.add_argument("--servers", nargs="+", default=[], help="only these, by how their names begin")
    options = parser.parse_args()
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as place:
        for model in options.models:
            exported = folder(Path(place) / model, WIDTHS[model])
            if options.soak:
                print(json.dumps({"model": model} | soak(exported, options.soak)), flush=True)
                continue
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
