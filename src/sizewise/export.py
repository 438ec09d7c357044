"""A model folder that refuses to exist if it disagrees with the model it came from."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sizewise import runtimes, words
from sizewise.compress.candidates import deployable
from sizewise.errors import ParityError
from sizewise.measure import inputs
from sizewise.records import Estimate, Export, Measurement, Signature, to_json
from sizewise.runtimes import eager
from sizewise.store import Store, sha256, writable, write_atomic, write_json
from sizewise.tasks import Task
from sizewise.tasks.problems import Session

BATCHES = (1, 7)
"""Batch sizes at which the outputs are compared: one request, and an odd number that no kernel is tuned for."""

TOLERANCE = 1e-4
"""Largest difference of answers allowed, relative to their largest magnitude (at least 1)."""

SAME_SCORE = 1e-6
"""Largest difference of scores allowed, relative to the score: their sums may be taken in another order."""

_ELSEWHERE = "nothing was exported; another runtime may convert it faithfully, see measurements.json"


def export(measurement: Measurement, task: Task, store: Store) -> Export:
    """Write `models/<name>`: a Hub-style folder with weights, configuration, measurements, model card and manifest.

    A full-precision model is compared with the trained PyTorch model; an int8 one, which differs from it on purpose,
    with the int8 candidate that was measured, and its distance to the trained one is what `measurement` reports. Either
    way the validation accuracy must be the measured one.

    Raises:
        IntegrityError: the candidate's folder is missing or damaged.
        ParityError: the folder's own answers differ; nothing is left behind.
        StoreError: the folder cannot be written.
    """
    candidate = measurement.candidate
    target = store / "models" / candidate.name
    if target.exists() and _is_this(target, measurement):
        return check_parity(target, measurement, task, store)
    runtimes.files(store / "candidates" / candidate.name)
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
        try:
            _fill(temporary, measurement, task, store)
            export = check_parity(temporary, measurement, task, store)
            temporary.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return export


def check_parity(folder: Path, measurement: Measurement, task: Task, store: Store) -> Export:
    """Compare a folder's answers with the model it came from, in numbers at two batch sizes and in score.

    Raises:
        ParityError: naming the batch size and the difference, or the two scores.
    """
    session = runtimes.load(folder)
    reference = _reference(measurement, task, store)
    found = []
    for batch in BATCHES:
        x = inputs(task.validation, batch, task.signature)
        ours, theirs = session(x), reference(x)
        if ours.shape != theirs.shape:
            raise ParityError(
                f"{measurement.candidate.name} answers with shape {ours.shape} at batch {batch}, and its model with "
                f"{theirs.shape}",
                hint=_ELSEWHERE,
            )
        limit = TOLERANCE * max(1.0, float(np.abs(theirs).max()))
        found.append(task.problem.distance(ours, theirs))
        if not found[-1] <= limit:  # written so that NaN fails
            raise ParityError(
                f"{measurement.candidate.name} differs from its model by {found[-1]:.3g} at batch {batch}; "
                f"{limit:.3g} is allowed",
                hint=_ELSEWHERE,
            )
    score = task.problem.score(task.problem.answers(session, task.validation), task.validation)
    measured = measurement.validation_score.value
    if not abs(score - measured) <= SAME_SCORE * max(1.0, abs(measured)):
        raise ParityError(
            f"{measurement.candidate.name} has a {task.metric.name} of {score:.6g} on validation, and {measured:.6g} "
            "was measured",
            hint="nothing was exported; measure again with `sizewise measure`",
        )
    name = measurement.candidate.name
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    return Export(name, f"models/{name}", BATCHES, tuple(found), TOLERANCE, files)


def _reference(measurement: Measurement, task: Task, store: Store) -> Session:
    candidate = measurement.candidate
    if candidate.precision != "fp32":
        return runtimes.load(store / "candidates" / candidate.name)
    return eager.session(deployable(store.run(candidate.run), task, store), task.signature)


def _fill(folder: Path, measurement: Measurement, task: Task, store: Store) -> None:
    candidate = measurement.candidate
    source = store / "candidates" / candidate.name
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("candidate.json"))
    weights = folder / "model.safetensors"
    if not weights.exists():
        shutil.copyfile(store.trial_folder(candidate.run) / "model.safetensors", weights)
    write_json(
        folder / "preprocessor.json", {"input": f"{task.signature.layout}, raw values"} | to_json(task.preprocessor)
    )
    write_json(folder / "measurements.json", measurement)
    write_atomic(folder / "README.md", model_card(measurement, task, store).encode())
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    write_json(folder / "manifest.json", runtimes.Manifest(runtimes.FORMAT, files))


def _is_this(folder: Path, measurement: Measurement) -> bool:
    """Whether the folder was exported from exactly this measurement and is intact."""
    try:
        runtimes.verify(folder)
        return bool(json.loads((folder / "measurements.json").read_text()) == to_json(measurement))
    except Exception:  # whatever is wrong with it, it is exported anew
        return False


def model_card(m: Measurement, task: Task, store: Store) -> str:
    """The README.md of an exported folder, with a Hub's metadata block in front."""
    c, t = m.candidate, m.target
    run = store.run(c.run)
    metric, signature = task.metric, task.signature
    score = " ".join(
        (words.score(m.test_score.value, metric),
         f"[{words.score(m.test_score.low, metric)}, {words.score(m.test_score.high, metric)}]")
    )  # fmt: skip
    drop = words.difference(m.test_drop, metric)
    tag = _TAGS.get((signature.problem, signature.layout), "other")
    return f"""---
library_name: sizewise
pipeline_tag: {tag}
tags: [sizewise, {c.runtime}, {c.precision}]
metrics: [{metric.name}]
---
# {c.name}

A `{run.trial.family}` of width {c.width} ({c.params:,} parameters) for the task `{task.name}`, {_METHODS[c.method]}, in
{c.precision} for {c.runtime}.

| measured on {t.device}, {t.threads} thread(s) | value [{m.test_score.level:.0%} interval] |
|---|---|
| test {metric.name} ({m.test_score.n:,} examples, read once) | {score} |
| lost against the chosen model | {drop} |
| latency at batch {t.batch}, p50 | {_plain(m.latency_p50_ms, 3)} ms |
| latency at batch {t.batch}, p99 | {_plain(m.latency_p99_ms, 3)} ms |
| throughput at batch {m.throughput_batch} | {_plain(m.throughput, 0)} samples/s |
| size on disk | {m.size_bytes:,} bytes |
| peak memory of a process | {m.peak_memory_bytes / 1e6:,.0f} MB |

Input `{signature.layout}`: {"int64" if signature.vocabulary else "float32"} (batch, {", ".join(_axes(signature))}), raw
values; preprocessing is inside the model.
Output `{runtimes.OUTPUTS[signature.problem]}`. Classes: {_listed(task.classes)}.

Serve it: `sizewise serve {c.name}`. Every file's sha256 is in `manifest.json`.
Trained with seed {run.trial.seed} on data of fingerprint `{run.trial.fingerprint}`; full record in `measurements.json`.
"""


def _axes(signature: Signature) -> list[str]:
    first, *rest = signature.input_shape
    return [f"up to {first}" if signature.dynamic else str(first), *map(str, rest)]


def _listed(classes: Sequence[str]) -> str:
    more = f", and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else ""
    return ", ".join(classes[:MOST_CLASSES]) + more


def _plain(e: Estimate, digits: int) -> str:
    return f"{e.value:,.{digits}f} [{e.low:,.{digits}f}, {e.high:,.{digits}f}]"


MOST_CLASSES = 100
"""Classes that a model card lists."""

_TAGS = {
    ("classification", "image"): "image-classification",
    ("classification", "volume"): "image-classification",
    ("classification", "tokens"): "text-classification",
    ("classification", "series"): "audio-classification",
    ("tagging", "tokens"): "token-classification",
    ("language modelling", "tokens"): "text-generation",
    ("translation", "tokens"): "translation",
    ("transcription", "series"): "automatic-speech-recognition",
    ("detection", "image"): "object-detection",
}

_METHODS = {
    "trained": "trained from random weights",
    "prune": "pruned from a larger model and fine-tuned",
    "distil": "distilled from a larger model",
}
