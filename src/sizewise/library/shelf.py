"""The file of precedents: `studies.json` in `$SIZEWISE_LIBRARY`, or in the cache of all studies.

Other people's files are read too when they lie beside it. A file holds numbers and names of tasks, and no data.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sizewise.cache import cache_folder
from sizewise.errors import IntegrityError
from sizewise.records import Precedent
from sizewise.store import one_at_a_time, read_json, writable, write_json

OWN = "studies.json"


def folder() -> Path:
    """Where the library lies."""
    return Path(os.environ.get("SIZEWISE_LIBRARY") or cache_folder("library"))


def precedents() -> tuple[Precedent, ...]:
    """All that are known, one a study; a damaged file is named on stderr and left alone."""
    found: dict[str, Precedent] = {}
    for path in sorted(folder().glob("*.json"), key=lambda path: path.name == OWN):
        try:
            found |= {one.key: one for one in read_json(path, tuple[Precedent, ...])}
        except (IntegrityError, OSError) as error:
            print(f"note: {str(error).splitlines()[0]}; it is not used", file=sys.stderr)
    return tuple(found.values())


def add(precedent: Precedent) -> Path:
    """Put a study into the file, in the place of what it said before; the file.

    Raises:
        StoreError: the folder cannot be written.
        IntegrityError: the file is damaged; it is left as it is.
    """
    path = folder() / OWN
    with writable(path), one_at_a_time(path):
        known = read_json(path, tuple[Precedent, ...]) if path.exists() else ()
        write_json(path, (*(one for one in known if one.key != precedent.key), precedent))
    return path
