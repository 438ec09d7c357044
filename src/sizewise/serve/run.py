"""From folders to a running server, and from a signal to its end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewise.errors import UsageError, extra
from sizewise.serve import logs
from sizewise.serve.http import GRACE_SECONDS, Server, make_server
from sizewise.serve.logs import log
from sizewise.serve.rest import application
from sizewise.serve.service import Options, Service

with extra("serve", needed_for="serving a model"):
    import uvloop
    from starlette.types import ASGIApp

NOTICE_SECONDS = 0.5
"""How long a server that goes down still takes connections, so that whoever sends requests here can hear of it."""


SWITCH_SECONDS = 0.0002
"""How long Python lets one thread go on while another waits. With the 5 ms that are usual a model's answer, computed in
a thread, waits that long for the event loop to let go of it: at 8 clients a fifth of all requests a second."""


@dataclass(frozen=True)
class Ready:
    """Where models are served.

    Attributes:
        grpc: address of gRPC, `host:port`; None where it is not served.
    """

    models: tuple[str, ...]
    url: str
    grpc: str | None


OnReady = Callable[[Ready], None]


def announce(ready: Ready) -> None:
    """Say on stderr where the models are served, and how to try one."""
    where = f"{ready.url} and over gRPC at {ready.grpc}" if ready.grpc else ready.url
    try_it = f"curl {ready.url}/v2/models/{ready.models[0]}"
    print(f"serving {', '.join(ready.models)} at {where}; try: {try_it}", file=sys.stderr, flush=True)


def app(folders: Sequence[Path], options: Options = Options()) -> ASGIApp:  # noqa: B008
    """The ASGI application that `serve` runs, for another server of such. Every folder is verified first.

    New versions are looked for as long as the server runs the application's lifespan.

    Raises:
        IntegrityError: a folder is not what its manifest says.
        UsageError: there is no folder, or two hold a model of the same name.
    """
    return application(Service.load(folders, options))


def serve(folders: Sequence[Path], options: Options = Options(), on_ready: OnReady = announce) -> None:  # noqa: B008
    """Answer requests until SIGTERM or Ctrl+C, then finish those that have begun. Call it from the main thread.

    Args:
        folders: exported folders, or folders of a model's versions, see `repository`.
        on_ready: told once requests are taken.

    Raises:
        IntegrityError: a folder is not what its manifest says; nothing is served.
        UsageError: the address cannot be listened on, or two folders hold a model of the same name.
    """
    logs.configure()
    sys.setswitchinterval(SWITCH_SECONDS)
    service = Service.load(folders, options)
    server = make_server(application(service), options)
    with (
        closing(_listen(options.host, options.port)) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_run(service, server, listener, on_ready))


async def _run(service: Service, server: Server, listener: socket.socket, on_ready: OnReady) -> None:
    stop = _signals(server)
    rpc, address = await _start_rpc(service)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await server.started_listening()
    secure = service.options.certificate is not None
    on_ready(Ready(service.names, _url(listener, secure=secure), address))
    await stop.wait()
    log("going down", open_connections=len(server.server_state.connections))
    service.draining = True
    await _leave(server, running, *([rpc.stop(GRACE_SECONDS)] if rpc else []))
    await service.repository.close()


def _signals(server: Server) -> asyncio.Event:
    """An event that SIGTERM or Ctrl+C sets; the second signal does not wait for anybody any more."""
    stop = asyncio.Event()

    def on_signal() -> None:
        server.force_exit = stop.is_set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


async def _start_rpc(service: Service) -> tuple[Any, str | None]:
    """The gRPC server, running, and its address, where one is asked for."""
    if service.options.grpc_port is None:
        return None, None
    from sizewise.serve import rpc

    server, address = rpc.make_server(service)
    await server.start()
    return server, address


async def _leave(server: Server, running: asyncio.Task[None], *others: Awaitable[Any]) -> None:
    """Answer whoever is here: first with a notice that this connection will close, then on open connections only."""
    await server.idle(NOTICE_SECONDS)
    await server.stop_listening()
    await server.idle(NOTICE_SECONDS)  # requests may still be on their way on connections that were accepted last
    server.should_exit = True
    await asyncio.gather(running, *others)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}, port {port}: {error}", hint="choose another port; port 0 picks a free one"
        ) from error


def _url(listener: socket.socket, *, secure: bool) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
