"""Times of the calls to a model, in this process or in one that keeps its own number of threads.

PyTorch knows one number of threads a process. So each number that is compared has a process of its own, and these take
turns: only one of them works at a time, and whatever slows the machine down slows them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import SizewiseError
from sizewise.tasks.problems import Session
from sizewise.tasks.problems.problem import prepared

TURN_SECONDS = 0.1
"""No call of a turn begins when it has taken this long: of slow models fewer calls are timed."""

CALLS, WARM_UP = 20, 5


def timed(session: Session, x: NDArray[Any], calls: int) -> list[float]:
    """Seconds of each call. The first one pays for the caches that another model left cold, which is not this one's
    doing: it is left out, unless it takes a whole turn, in which caches do not show."""
    times: list[float] = []
    turn = time.perf_counter() + TURN_SECONDS
    while len(times) <= calls and time.perf_counter() < turn:
        began = time.perf_counter()
        session(x)
        times.append(time.perf_counter() - began)
    return times[1:] or times


class Timer:
    """A process that times models with its own number of threads, and waits in between. A context manager.

    Args:
        samples: an .npy file of real samples, as a session takes them; batches are its first rows.
    """

    def __init__(self, threads: int, samples: Path) -> None:
        self.threads = threads
        self._command = [sys.executable, "-m", "sizewise.runtimes.timing", str(threads), str(samples)]

    def __enter__(self) -> Timer:
        self._said = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would stop the process when it is full
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def times(self, folder: Path, batches: tuple[int, ...]) -> dict[int, list[float]]:
        """Load a folder afresh and time it: seconds of each call, by batch.

        Raises:
            SizewiseError: the folder does not run there.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([str(folder), batches]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._said.seek(0)
            raise SizewiseError(
                f"{folder} does not run with {self.threads} threads: {self._said.read().strip().splitlines()[-1:]}",
                hint="the runtime may be damaged; reinstall it, or leave it out with --runtimes",
            )
        return {int(batch): seconds for batch, seconds in json.loads(answer).items()}


def _answer(folder: Path, batches: list[int], threads: int, samples: NDArray[Any]) -> dict[int, list[float]]:
    from sizewise import runtimes

    session, found = runtimes.load(folder, threads=threads), {}
    signature = runtimes.Config.read(folder).signature
    for batch in batches:
        x = prepared(samples[:batch], signature)  # of sequences, no longer than its own longest
        timed(session, x, WARM_UP)
        found[batch] = timed(session, x, CALLS)
    return found


def _main(threads: int, samples: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    held = np.load(samples)
    for line in sys.stdin:
        folder, batches = json.loads(line)
        print(json.dumps(_answer(Path(folder), batches, threads, held)), file=answers, flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]))
