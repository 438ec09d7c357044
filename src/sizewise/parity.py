"""Whether a model folder answers as the model it came from does; if not, which layer is the first that disagrees.

A full-precision model is compared with the trained PyTorch model. One in fewer bits differs from that on purpose: it
is compared with the candidate that was measured, and its distance to the trained one is what the measurement reports.
Either way the validation score must be the measured one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import runtimes
from sizewise.compress.candidates import deployable, weights_of
from sizewise.errors import ParityError
from sizewise.measure import inputs
from sizewise.records import Candidate, Export, Measurement
from sizewise.runtimes import eager
from sizewise.runtimes.source import Source
from sizewise.store import Store, sha256
from sizewise.tasks import Task
from sizewise.tasks.problems import Session

BATCHES = (1, 7)
"""Batch sizes at which the outputs are compared: one request, and an odd number that no kernel is tuned for."""

TOLERANCE = 1e-4
"""Largest difference of answers allowed, relative to their largest magnitude (at least 1)."""

SAME_SCORE = 1e-6
"""Largest difference of scores allowed, relative to the score: their sums may be taken in another order."""

_ELSEWHERE = "nothing was exported; another runtime may convert it faithfully, see measurements.json"


def check(folder: Path, measurement: Measurement, task: Task, store: Store) -> Export:
    """Compare a folder's answers to validation samples at several batch sizes and lengths, and its score on all.

    Raises:
        ParityError: naming the batch size, the difference and the first layer that disagrees, or the two scores.
    """
    candidate, session = measurement.candidate, runtimes.load(folder)
    reference = _reference(candidate, task, store)
    found, steps = [], set()
    for batch in BATCHES:
        differences = [0.0]
        for x in _lengths(inputs(task.validation, batch, task.signature), task):
            differences.append(_difference(session(x), reference(x), batch, candidate, task))
            if not differences[-1] <= _allowed(reference(x)):  # written so that NaN fails
                where = _first_layer(folder, candidate, task, store, x)
                raise ParityError(
                    f"{candidate.name} differs from its model by {differences[-1]:.3g} at batch {batch}; "
                    f"{_allowed(reference(x)):.3g} is allowed{where}",
                    hint=_ELSEWHERE,
                )
            steps.add(x.shape[1])
        found.append(max(differences))
    _check_score(session, measurement, task)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    lengths = tuple(sorted(steps)) if task.signature.dynamic else ()
    return Export(candidate.name, f"models/{candidate.name}", BATCHES, tuple(found), TOLERANCE, files, lengths)


def _lengths(x: NDArray[Any], task: Task) -> Iterator[NDArray[Any]]:
    """A batch as it is and, where samples may have any length, cut to half of its steps."""
    yield x
    if task.signature.dynamic and x.shape[1] >= 4:
        yield np.ascontiguousarray(x[:, : x.shape[1] // 2])


def _difference(ours: NDArray[Any], theirs: NDArray[Any], batch: int, candidate: Candidate, task: Task) -> float:
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{candidate.name} answers with shape {ours.shape} at batch {batch}, and its model with {theirs.shape}",
            hint=_ELSEWHERE,
        )
    return task.problem.distance(ours, theirs)


def _allowed(answers: NDArray[Any]) -> float:
    return TOLERANCE * max(1.0, float(np.abs(answers).max()))


def _check_score(session: Session, measurement: Measurement, task: Task) -> None:
    score = task.problem.score(task.problem.answers(session, task.validation), task.validation)
    measured = measurement.validation_score.value
    if not abs(score - measured) <= SAME_SCORE * max(1.0, abs(measured)):
        raise ParityError(
            f"{measurement.candidate.name} has a {task.metric.name} of {score:.6g} on validation, and {measured:.6g} "
            "was measured",
            hint="nothing was exported; measure again with `sizewise measure`",
        )


def _reference(candidate: Candidate, task: Task, store: Store) -> Session:
    if candidate.precision != "fp32":
        return runtimes.load(store / "candidates" / candidate.name)
    return eager.session(deployable(store.run(candidate.run), task, store), task.signature)


def _first_layer(folder: Path, candidate: Candidate, task: Task, store: Store, x: NDArray[Any]) -> str:
    """The first layer that says something else than the trained model's, in words to end a sentence with.

    Runtimes that fuse layers do not show all of them, and some show none.
    """
    if candidate.precision != "fp32":
        return ""
    run = store.run(candidate.run)
    with tempfile.TemporaryDirectory() as scratch:
        source = Source(deployable(run, task, store), task.signature, weights_of(run, store), Path(scratch))
        backend = runtimes.RUNTIMES[candidate.runtime].backend
        ours = backend.layers(folder, runtimes.Config.read(folder), source, x)
        theirs = eager.heard(source.module, task.signature, x)
    shown = [name for name, said in theirs.items() if name in ours and ours[name].shape == said.shape]
    for name in shown:
        by = float(np.abs(ours[name] - theirs[name]).max())
        if not by <= _allowed(theirs[name]):
            kind = type(source.module.get_submodule(name)).__name__
            return f". The first layer that disagrees is {name} ({kind}), by {by:.3g}"
    return f". None of the {len(shown)} layers that {candidate.runtime} shows disagrees" if shown else ""
