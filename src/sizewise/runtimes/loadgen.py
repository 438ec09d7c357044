"""MLPerf's load generator: one model, one scenario, in this process; the only file that knows `mlperf_loadgen`.

`python -m sizewise.runtimes.loadgen` reads one `Load` as JSON and prints what was found. It has a process of its own,
since the generator keeps its threads and its clock to itself.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import SizewiseError, extra
from sizewise.records import ScenarioName
from sizewise.tasks.problems import Session

STREAMS = 8
"""Samples of a multi-stream request."""

MOST_BATCH = 64
"""Samples a call where several wait: offline, and server."""

FEWEST = 64
"""Requests of a run at least."""


@dataclass(frozen=True)
class Load:
    """What one run is to do.

    Attributes:
        samples: an .npy file of real samples, as a session takes them.
        rate: requests a second of "server"; of "offline", what to expect.
        bound_ms: latency of "server".
    """

    folder: str
    samples: str
    kind: ScenarioName
    threads: int
    seconds: float
    rate: float
    bound_ms: float


def found(load: Load) -> dict[str, float]:
    """Run a load in a fresh process: the generator's results, as it calls them, such as `result_samples_per_second`.

    Raises:
        MissingExtraError: the load generator is not installed.
        SizewiseError: the model does not run under it.
    """
    command = [sys.executable, "-m", "sizewise.runtimes.loadgen"]
    with extra("loadgen", needed_for="a load by MLPerf's generator"):
        import mlperf_loadgen  # noqa: F401  # so that the lack of it is said here, not in the other process
    result = subprocess.run(command, input=json.dumps(asdict(load)), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SizewiseError(
            f"{load.folder} does not run under {load.kind} load: {result.stderr.strip().splitlines()[-1:]}",
            hint="measure it without --scenarios, to see whether it runs at all",
        )
    answers: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return answers


class _Served:
    """A session that the generator's requests are answered by: in the generator's own thread, or in one beside it."""

    def __init__(self, session: Session, samples: NDArray[Any], lg: Any) -> None:
        self._session, self._samples, self._lg = session, samples, lg

    def answer(self, requests: Sequence[Any]) -> None:
        for start in range(0, len(requests), MOST_BATCH):
            part = requests[start : start + MOST_BATCH]
            self._session(self._samples[[request.index for request in part]])
            self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(request.id, 0, 0) for request in part])


class _Queued(_Served):
    """Requests wait while the session is busy, and those that wait are answered together."""

    def __init__(self, session: Session, samples: NDArray[Any], lg: Any) -> None:
        super().__init__(session, samples, lg)
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def answer(self, requests: Sequence[Any]) -> None:
        for request in requests:
            self._waiting.put(request)

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < MOST_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get())
            super().answer(batch)


def _run(load: Load) -> dict[str, float]:
    import mlperf_loadgen as lg

    from sizewise import runtimes

    session, samples = runtimes.load(Path(load.folder), threads=load.threads), np.load(load.samples)
    for batch in (1, STREAMS, MOST_BATCH):
        session(np.resize(samples, (batch, *samples.shape[1:])))
    served = (_Queued if load.kind == "server" else _Served)(session, samples, lg)
    sut = lg.ConstructSUT(served.answer, lambda: None)
    library = lg.ConstructQSL(len(samples), len(samples), lambda indices: None, lambda indices: None)
    with tempfile.TemporaryDirectory() as folder:
        log = lg.LogSettings()
        log.log_output.outdir = folder
        log.enable_trace = False
        lg.StartTestWithLogSettings(sut, library, _settings(load, lg), log)
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)
        return _results(Path(folder) / "mlperf_log_detail.txt")


def _settings(load: Load, lg: Any) -> Any:
    settings = lg.TestSettings()
    settings.scenario = {
        "single-stream": lg.TestScenario.SingleStream,
        "multi-stream": lg.TestScenario.MultiStream,
        "offline": lg.TestScenario.Offline,
        "server": lg.TestScenario.Server,
    }[load.kind]
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1e3 * load.seconds)
    settings.min_query_count = FEWEST
    settings.multi_stream_samples_per_query = STREAMS
    # The generator prepares as many requests as fit into a run at these latencies, and ends when they are used up.
    settings.single_stream_expected_latency_ns, settings.multi_stream_expected_latency_ns = 10_000, 50_000
    settings.offline_expected_qps = settings.server_target_qps = load.rate
    settings.server_target_latency_ns = round(1e6 * load.bound_ms)
    settings.server_target_latency_percentile = 0.99
    return settings


def _results(path: Path) -> dict[str, float]:
    """The numbers among the generator's log lines, `:::MLLOG {"key": ..., "value": ...}`."""
    said = (line for line in path.read_text().splitlines() if line.startswith(":::MLLOG"))
    lines = [json.loads(line.partition(" ")[2]) for line in said]
    return {line["key"]: line["value"] for line in lines if isinstance(line["value"], int | float)}


if __name__ == "__main__":
    answers = _run(Load(**json.load(sys.stdin)))
    print("\n" + json.dumps(answers))
