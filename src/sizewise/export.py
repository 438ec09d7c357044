"""A model folder that refuses to exist if it disagrees with the model it came from."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sizewise import parity, runtimes, words
from sizewise.methods import said
from sizewise.records import Estimate, Export, Measurement, Signature, to_json
from sizewise.store import Store, sha256, writable, write_atomic, write_json
from sizewise.tasks import Task


def export(measurement: Measurement, task: Task, store: Store) -> Export:
    """Write `models/<name>`: a Hub-style folder with weights, configuration, measurements, model card and manifest.

    The folder must answer as the model it came from does, see `parity`.

    Raises:
        IntegrityError: the candidate's folder is missing or damaged.
        ParityError: the folder's own answers differ; nothing is left behind.
        StoreError: the folder cannot be written.
    """
    candidate = measurement.candidate
    target = store / "models" / candidate.name
    if target.exists() and _is_this(target, measurement):
        return parity.check(target, measurement, task, store)
    runtimes.files(store / "candidates" / candidate.name)
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
        try:
            _fill(temporary, measurement, task, store)
            export = parity.check(temporary, measurement, task, store)
            temporary.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return export


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

A `{run.trial.family}` of width {c.width} ({c.params:,} parameters) for the task `{task.name}`, {said(c.chain)}, in
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
values; preprocessing is inside the model.{_NATIVE if runtimes.RUNTIMES[c.runtime].native else ""}
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


_NATIVE = """
The file holds machine code for the kind of processor that it was made on. Load it only if you trust where it comes
from: it may do whatever you may do.
"""

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
    ("dictation", "series"): "automatic-speech-recognition",
    ("detection", "image"): "object-detection",
}
