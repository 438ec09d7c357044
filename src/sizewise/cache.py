"""The one folder of the user that all studies share."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` in `$SIZEWISE_CACHE`, `$XDG_CACHE_HOME/sizewise` or `~/.cache/sizewise`."""
    if own := os.environ.get("SIZEWISE_CACHE"):
        return Path(own) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sizewise" / name
