"""What the server does, whichever protocol asks: HTTP and gRPC only translate to and from this."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.serve.batcher import Limits, Timing
from sizewise.serve.logs import log
from sizewise.serve.metrics import Metrics
from sizewise.serve.refusals import Unauthorized
from sizewise.serve.repository import Repository, Served
from sizewise.serve.tensors import DATATYPES, Tensor
from sizewise.serve.wire import Answer, Inference

EXTENSIONS = ("binary_tensor_data",)

SMALL_BYTES = 1 << 17
"""JSON, texts and sounds that are larger are decoded in a thread, so that other requests are not held up by them."""

COPIED_BYTES = 1 << 22
"""Numbers as bytes that are more are copied in a thread; fewer are copied faster than a thread takes over."""


@dataclass(frozen=True)
class Options:
    """How the server runs.

    Attributes:
        host, port: address of HTTP; port 0 picks a free one.
        grpc_port: port of gRPC on the same host, 0 for any free one; None leaves gRPC out.
        threads: how many threads one inference may use.
        limits: of the queue and batches of each model.
        max_body_bytes: largest request.
        token: what clients must show as `Authorization: Bearer`; "" lets everyone in.
        certificate, key: PEM files, for TLS; both or none.
        client_ca: PEM file of who signs the certificates that clients must show.
        poll_seconds: how often to look for new versions.
        log_requests: whether to log every request, not only events.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    max_body_bytes: int = 64 << 20
    token: str = ""
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    poll_seconds: float = 1.0
    log_requests: bool = False


@dataclass
class Service:
    """The models, and whether they may be asked.

    Attributes:
        draining: the server is going down; it answers those who are here and wants no new ones.
    """

    repository: Repository
    metrics: Metrics
    options: Options
    draining: bool = False

    def __post_init__(self) -> None:
        self.metrics.ready.set_function(lambda: float(self.ready))

    @classmethod
    def load(cls, folders: Sequence[Path], options: Options) -> Service:
        """Verify, load and warm up every model.

        Raises:
            IntegrityError: a folder is not what its manifest says.
            UsageError: there is no folder, or two hold a model of the same name.
        """
        metrics = Metrics()
        return cls(Repository(folders, options.limits, metrics, threads=options.threads), metrics, options)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all models."""
        return self.repository.names

    @property
    def ready(self) -> bool:
        """Whether every model has answered once and new requests are welcome: no model is served before it has."""
        return not self.draining

    def authorize(self, header: str | None) -> None:
        """Check the value of a request's `Authorization`.

        Raises:
            Unauthorized: the token is missing or another one.
        """
        expected = f"Bearer {self.options.token}".encode()
        # Compared in constant time, so that answers do not tell how much of a guess is right.
        if self.options.token and not hmac.compare_digest((header or "").encode(), expected):
            raise Unauthorized("the token is missing or wrong; send it as `Authorization: Bearer TOKEN`")

    def server_metadata(self) -> dict[str, Any]:
        """What the protocol tells clients about the server."""
        return {"name": "sizewise", "version": version("sizewise"), "extensions": list(EXTENSIONS)}

    def model_metadata(self, name: str, asked: str = "") -> dict[str, Any]:
        """What the protocol tells clients about a model.

        Raises:
            NotFound: there is no such model or version.
        """
        return self.repository.find(name, asked).model.metadata(self.repository.versions(name))

    async def infer(self, name: str, asked: str, request: Inference) -> tuple[Answer, Timing]:
        """Ask a model.

        Raises:
            Refusal: it cannot be asked this, or not now.
        """
        began = time.perf_counter()
        served = self.repository.find(name, asked)
        with served.in_use():
            outputs = request.requested(served.model.outputs)
            samples = await _samples(served, request)
            values, timing = await served.batcher(samples)
        served.metrics.answered(timing.queue, time.perf_counter() - began)
        answer = Answer(name, served.model.version, request.id, outputs, values)
        return answer, timing

    async def watch(self) -> None:
        """Swap new versions in as they appear, until this is cancelled."""
        while True:
            await asyncio.sleep(self.options.poll_seconds)
            try:
                await self.repository.refresh()
            except Exception as error:  # whatever is wrong with a folder, the models that are loaded go on
                log("looking for new versions failed", logging.ERROR, error=error)


async def _samples(served: Served, request: Inference) -> NDArray[Any]:
    if all(map(_is_quick, request.inputs)):
        return served.model.samples(request.inputs)
    return await asyncio.to_thread(served.model.samples, request.inputs)


def _is_quick(tensor: Tensor) -> bool:
    """Whether a tensor is read in less time than others would notice."""
    if tensor.raw is not None and tensor.datatype in DATATYPES:
        return len(tensor.raw) <= COPIED_BYTES
    return len(tensor.raw or ()) + 8 * _length(tensor.data) <= SMALL_BYTES


def _length(data: Sequence[Any] | None) -> int:
    """About how many values a nested list holds, going by its first ones."""
    count = 1
    while isinstance(data, list | tuple) and data:
        count, data = count * len(data), data[0]
    return count if count > 1 else 0


def is_large(values: dict[str, NDArray[Any]]) -> bool:
    """Whether answers are so large that rendering them would hold others up."""
    return sum(np.size(array) for array in values.values()) * 8 > SMALL_BYTES
