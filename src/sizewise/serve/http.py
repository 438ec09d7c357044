"""The HTTP server below the application: uvicorn, with bounds on a request's head and with signals left to others."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sizewise.errors import UsageError, extra
from sizewise.serve.service import Options

with extra("serve", needed_for="serving a model"):
    import uvicorn
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
HEAD_SECONDS = 10
"""How large the first line and headers of a request may be, and how long they may take to come."""

CONNECTIONS = 1000
"""Connections at a time; a request on one more is refused with 503."""

ACCEPT_SECONDS = 0.1
"""How long connections that were made already may wait to be accepted."""

GRACE_SECONDS = 10
"""How long requests that are being answered may take to finish when the server goes down."""

_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER of Linux, which the socket module does not name."""


class _Bounded(HttpToolsProtocol):
    """Neither slow nor endless headers hold a connection or memory."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._head_timer is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._forget_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _grow(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            # The parser turns it into the answer 400 and closes the connection.
            raise ValueError(f"the head of a request has more than {MAX_HEAD_BYTES} bytes")

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _refuse(listener: socket.socket) -> None:
    """Let the kernel drop requests for new connections, so that closing the socket resets none that it has made.

    A filter of five instructions (McCanne & Jacobson 1993) looks at the flags of TCP and drops what has SYN alone; the
    client tries again later, and then nobody listens. Where there are no such filters nothing is lost but this.
    """
    load, mask, test, drop, keep = (0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (6, 0, 0, 0), (6, 0, 0, ~0)
    program = b"".join(struct.pack("HBBI", *code[:3], code[3] & 0xFFFFFFFF) for code in (load, mask, test, drop, keep))
    buffer = ctypes.create_string_buffer(program)
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", 5, ctypes.addressof(buffer)))


class Server(uvicorn.Server):
    """A uvicorn that does not listen to signals, since it is not alone in its process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen to none."""
        yield

    async def started_listening(self) -> None:
        """Wait until requests are taken."""
        while not self.started:
            await asyncio.sleep(0.005)

    async def stop_listening(self) -> None:
        """Take no new connections; those that there are stay, and so do those that wait to be accepted."""
        for server in self.servers:
            for listener in server.sockets:
                _refuse(listener)
        await asyncio.sleep(ACCEPT_SECONDS)
        for server in self.servers:
            server.close()

    async def idle(self, seconds: float) -> None:
        """Wait until no connection is open, but not longer than this."""
        end = time.monotonic() + seconds
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.01)


def make_server(app: ASGIApp, options: Options) -> Server:
    """The server of an application, not yet running.

    Raises:
        UsageError: certificate and key cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=_Bounded,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
        ssl_ca_certs=str(options.client_ca) if options.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if options.client_ca else ssl.CERT_NONE,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"TLS with certificate {options.certificate} and key {options.key} is not possible: {error}",
            hint="give two PEM files that belong together",
        ) from error
    return Server(config)
