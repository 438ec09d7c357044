"""MNIST's files from public mirrors, checked against their known hashes."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import urllib.request
import zlib
from pathlib import Path

from sizewise.cache import cache_folder
from sizewise.errors import DataError
from sizewise.store import write_atomic

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

FILES = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""sha256 of each file's content; mirrors compress it differently."""

TIMEOUT_SECONDS = 30
BLOCK = 1 << 16


def mnist(*, download: bool = True) -> Path:
    """The folder that holds MNIST's four files, downloading those that are missing unless `download` is off.

    The folder is `mnist` in that of `cache.cache_folder`. `$SIZEWISE_MNIST_MIRROR` names a mirror of
    your own.

    Raises:
        DataError: no mirror answers, a file is not the original one, or one is missing and `download` is off.
    """
    cache = cache_folder("mnist")
    own = os.environ.get("SIZEWISE_MNIST_MIRROR")
    for name, expected in FILES.items():
        if (cache / name).is_file():
            continue
        if not download:
            raise DataError(
                f"{cache} has no {name}, and downloading is off", hint="name a folder that has it: --data DIR"
            )
        write_atomic(cache / name, _fetch(name, expected, (own,) if own else MIRRORS))
    return cache


def _fetch(name: str, expected: str, mirrors: tuple[str, ...]) -> bytes:
    """A file from the first mirror that has it whole."""
    problems = []
    for mirror in mirrors:
        try:
            data = _download(mirror.rstrip("/") + "/" + name, name)
            found = hashlib.sha256(gzip.decompress(data)).hexdigest()
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
            problems.append(f"{mirror}: {error}")
            continue
        if found == expected:
            return data
        problems.append(f"{mirror}: sha256 is {found[:12]}…, the original's {expected[:12]}…")
    raise DataError(
        f"cannot download {name}: {'; '.join(problems)}", hint="get the four MNIST files yourself and give --data DIR"
    )


def _download(url: str, name: str) -> bytes:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), DownloadColumn(), TimeRemainingColumn())
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        total = response.headers.get("Content-Length")
        bar = progress.add_task(name, total=int(total) if total else None)
        blocks = []
        while block := response.read(BLOCK):
            blocks.append(block)
            progress.advance(bar, len(block))
    return b"".join(blocks)
