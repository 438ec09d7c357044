"""`serve`, and its options."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.errors import UsageError

if TYPE_CHECKING:
    from sizewise.serve import Options as ServeOptions
    from sizewise.serve import Ready


def serve(options: argparse.Namespace) -> int:
    """Serve until stopped."""
    from sizewise import serve

    given = _serve_options(options)

    def on_ready(ready: Ready) -> None:
        serve.announce(ready)
        if options.json:
            print(json.dumps(vars(ready)), flush=True)

    folders = [Path(folder) for folder in options.folders]
    serve.serve(folders, given, on_ready)
    return 0


def _serve_options(options: argparse.Namespace) -> ServeOptions:
    from sizewise.serve import Limits, Options

    if bool(options.tls_certificate) != bool(options.tls_key) or (options.tls_client_ca and not options.tls_key):
        raise UsageError("TLS needs a certificate and its key", hint="give --tls-certificate and --tls-key together")
    return Options(
        host=options.host,
        port=options.port,
        grpc_port=options.grpc_port,
        threads=options.threads,
        limits=Limits(options.max_batch, options.max_delay, options.queue, options.timeout),
        max_body_bytes=options.max_body,
        token=_token(options.token_file),
        certificate=_path(options.tls_certificate),
        key=_path(options.tls_key),
        client_ca=_path(options.tls_client_ca),
        poll_seconds=options.poll,
        log_requests=options.log_requests,
    )


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None


def _token(file: str | None) -> str:
    """A secret is not given on the command line, which everyone on the machine can read."""
    if not file:
        return os.environ.get("SIZEWISE_TOKEN", "")
    try:
        token = Path(file).read_text().strip()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", hint="name a file with the token in it") from error
    if not token:
        raise UsageError(f"{file} holds no token", hint="write one line of random characters into it")
    return token
