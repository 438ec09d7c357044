"""What is learned: one file for each problem, with its loss, its answers and its metrics."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from sizewise.records import Signature
from sizewise.tasks.problems.problem import Judged, Problem, Session

__all__ = ["Judged", "Problem", "Session", "make"]

_HOMES = {
    "classification": "classification:Classification",
    "regression": "regression:Regression",
    "tagging": "tagging:Tagging",
    "language modelling": "language:LanguageModelling",
    "transcription": "transcription:Transcription",
    "translation": "translation:Translation",
    "dictation": "dictation:Dictation",
    "detection": "detection:Detection",
}


def make(
    signature: Signature,
    classes: Sequence[str],
    *,
    target_std: Sequence[float] = (),
    files: Mapping[str, bytes] | None = None,
    metric: str = "",
) -> Problem:
    """The problem of a signature; its libraries are imported when they are first needed.

    Raises:
        UsageError: the problem has no metric of this name.
    """
    module, _, name = _HOMES[signature.problem].partition(":")
    kind = getattr(importlib.import_module(f"sizewise.tasks.problems.{module}"), name)
    problem: Problem = kind(signature, tuple(classes), tuple(target_std), files or {}, metric)
    return problem
