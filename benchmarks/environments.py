"""Peers' own environments, so that none of them touches the dependencies of sizewise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ENVIRONMENTS = Path(__file__).resolve().parent / ".venvs"


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of a peer's environment, made with its pinned versions when it is missing or outdated.

    Raises:
        RuntimeError: it cannot be made; the message has the end of what pip said.
    """
    home = ENVIRONMENTS / name
    python, stamp = home / "bin" / "python", home / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if not (stamp.exists() and stamp.read_text() == wanted):
        _quietly(sys.executable, "-m", "venv", "--clear", str(home))
        _quietly(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
        stamp.write_text(wanted)
    return python


def _quietly(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:4])} failed: {(done.stderr or done.stdout).strip()[-500:]}")
