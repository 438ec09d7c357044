"""Peak memory of one model in a process of its own: `python -m sizewise.runtimes.footprint FOLDER THREADS BATCH`."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from sizewise.errors import SizewiseError


def peak_memory_bytes(folder: Path, *, threads: int, batch: int) -> int:
    """Peak resident memory of a fresh process that loads the folder and answers a few requests of `batch` samples."""
    command = [sys.executable, "-m", "sizewise.runtimes.footprint", str(folder), str(threads), str(batch)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SizewiseError(
            f"{folder} does not run in a process of its own: {result.stderr.strip().splitlines()[-1:]}",
            hint="the runtime may be damaged; reinstall it",
        )
    return int(result.stdout.split()[-1])


def _main(folder: Path, threads: int, batch: int) -> None:
    import numpy as np

    from sizewise import runtimes

    session = runtimes.load(folder, threads=threads)
    signature = runtimes.Config.read(folder).signature
    kind = np.int64 if signature.vocabulary else np.float32
    for _ in range(3):
        session(np.ones((batch, *signature.input_shape), kind))  # ones, since zeros are padding
    print(_peak_of_this_process())


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
