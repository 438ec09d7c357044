"""What one model costs a fresh process: its peak memory, and the time until it has answered.

`python -m sizewise.runtimes.footprint FOLDER THREADS BATCH`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sizewise.errors import SizewiseError


@dataclass(frozen=True)
class Footprint:
    """Of one fresh process.

    Attributes:
        peak_memory_bytes: peak resident memory of loading a folder and answering a few requests.
        cold_start_ms: from starting the process to its first answer, Python's start and imports included.
    """

    peak_memory_bytes: int
    cold_start_ms: float


def footprint(folder: Path, *, threads: int, batch: int) -> Footprint:
    """Load a folder in a fresh process and let it answer a few requests of `batch` samples.

    Raises:
        SizewiseError: it does not run there.
    """
    command = [sys.executable, "-m", "sizewise.runtimes.footprint", str(folder), str(threads), str(batch)]
    began = time.time()  # the one clock that two processes share on every system
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SizewiseError(
            f"{folder} does not run in a process of its own: {result.stderr.strip().splitlines()[-1:]}",
            hint="the runtime may be damaged; reinstall it",
        )
    peak, answered = result.stdout.split()[-2:]
    return Footprint(int(peak), 1e3 * (float(answered) - began))


def _main(folder: Path, threads: int, batch: int) -> None:
    import numpy as np

    from sizewise import runtimes

    session = runtimes.load(folder, threads=threads)
    signature = runtimes.Config.read(folder).signature
    kind = np.int64 if signature.vocabulary else np.float32
    x = np.ones((batch, *signature.input_shape), kind)  # ones, since zeros are padding
    session(x)
    answered = time.time()
    for _ in range(2):
        session(x)
    print(_peak_of_this_process(), answered)


def _peak_of_this_process() -> int:
    """Bytes. On Linux from the kernel's own high-water mark: getrusage's also counts the process this one was forked
    from, before it became itself."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
