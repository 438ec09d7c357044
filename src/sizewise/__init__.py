"""Find the smallest model that does the job, and prove it.

The pipeline, in order; each stage is a function from records to records, a method of `Workspace` and a verb of the
command line:

    plan      which models to train, and what that will cost
    train     train them, resumable, each on one thread
    fit       the law from parameters to loss and error
    diagnose  what limits them, in plain words
    choose    the smallest size that does the job
    compress  prune, distil, quantize; next to models trained small
    measure   score, latency, throughput, size and memory on the real runtime
    export    a folder that refuses to exist if it disagrees with its model
    serve     that folder over the Open Inference Protocol
    report    all of it in one offline page
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Recipe", "Signature", "Study", "Workspace", "check_family", "check_task", "compare"]

_HOMES = {
    "Recipe": "records",
    "Signature": "records",
    "Study": "config",
    "Workspace": "study",
    "check_family": "check",
    "check_task": "check",
    "compare": "arms",
}

if TYPE_CHECKING:
    from sizewise.arms import compare
    from sizewise.check import check_family, check_task
    from sizewise.config import Study
    from sizewise.records import Recipe, Signature
    from sizewise.study import Workspace


def __getattr__(name: str) -> Any:
    """Import on first use, so that `sizewise --help` need not wait for PyTorch."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(f"sizewise.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sizewise' has no attribute {name!r}")
