"""What a run starts from: trained weights, in place of random ones.

A study names them once (`start`). `find` turns that name into files, `Starts.begin` writes their hashes into the
trials, `Starts.keep` copies them into the study's folder, and `initial` gives a trial its first weights from there.
"""

from __future__ import annotations

from sizewise.starts.sources import find
from sizewise.starts.starts import Starts, initial, kept

__all__ = ["Starts", "find", "initial", "kept"]
