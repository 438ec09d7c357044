"""Weights from a hub: a local server that answers as one does, through the library that people use."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save

SERVED = save({"head.weight": torch.arange(6.0).reshape(2, 3)})
COMMIT = hashlib.sha1(SERVED).hexdigest()
ASK = """
import json, sys
from sizewise.errors import SizewiseError
from sizewise.starts import hub
for name in sys.argv[1:]:
    try:
        print(json.dumps({"path": str(hub.download(name))}))
    except SizewiseError as error:
        print(json.dumps({"kind": type(error).__name__, "message": error.message, "hint": error.hint}))
"""


class Hub(BaseHTTPRequestHandler):
    """One repository, `me/small`, that has weights and a tag `v1`; and `me/parts`, which has none in one file."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if self._answer():
            self.wfile.write(SERVED)

    def _answer(self) -> bool:
        self.asked.append(self.path)
        found = self.path in [f"/me/small/resolve/{r}/model.safetensors" for r in ("main", "v1", COMMIT)]
        self.send_response(200 if found else 404)
        if found:
            self.send_header("ETag", f'"{COMMIT}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(SERVED)))
        else:
            known = self.path.startswith("/me/parts/")
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()
        return found

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def ask(endpoint: str, cache: Path, *names: str, **settings: str) -> list[dict[str, str]]:
    """What another process is told: the library reads its endpoint when it is imported."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **settings}
    result = subprocess.run(
        [sys.executable, "-c", ASK, *names],
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_repository_is_downloaded_once_and_found_without_a_network(endpoint: str, tmp_path: Path) -> None:
    first, tagged, absent, parts, wrong = ask(
        endpoint, tmp_path, "me/small", "me/small@v1", "me/absent", "me/parts", "too/many/parts"
    )
    assert torch.equal(load_file(first["path"])["head.weight"], torch.arange(6.0).reshape(2, 3))
    assert "path" in tagged
    assert absent["kind"] == "DataError"
    assert "hf:me/absent cannot be downloaded" in absent["message"]
    assert parts["kind"] == "DataError"
    assert "one model.safetensors" in parts["hint"]
    assert wrong["kind"] == "UsageError"
    again, other = ask(endpoint, tmp_path, "me/small", "me/other", HF_HUB_OFFLINE="1")
    assert again == first
    assert other["kind"] == "DataError"
    assert "cannot be reached" in other["message"]


@pytest.mark.slow  # the library tries for 23 seconds
def test_without_a_network_there_is_one_clear_error(tmp_path: Path) -> None:
    (said,) = ask("http://127.0.0.1:9", tmp_path, "me/small")  # the discard port: nothing listens there
    assert said["kind"] == "DataError"
    assert said["message"].startswith("hf:me/small cannot be downloaded: the hub cannot be reached")
    assert ".safetensors" in said["hint"]


def test_a_plan_says_what_it_takes_of_a_repository(endpoint: str, tmp_path: Path) -> None:
    """Through the command line; the served tensor fits nothing, which is an error that names it."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "sizewise.cli", "plan", "digits", "--widths", "2,4", "--out", str(tmp_path / "s")]
    result = subprocess.run(
        [*command, "--start", "hf:me/small"], env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    assert "can take no weights" in result.stderr
    assert "hint:" in result.stderr
    assert not (tmp_path / "s").exists()
