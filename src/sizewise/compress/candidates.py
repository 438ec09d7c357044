"""Every model in every runtime and precision, as folders that can be measured."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sizewise import families, runtimes
from sizewise.compress import quantize
from sizewise.compress.trials import Sizes, pruned_and_distilled, targets
from sizewise.config import Study
from sizewise.errors import IntegrityError, MissingExtraError, StoreError
from sizewise.paired import median_run
from sizewise.records import Candidate, Choice, Run, Signature
from sizewise.runtimes import eager, onnxruntime, openvino
from sizewise.store import Store, read_json, write_json
from sizewise.tasks import Task
from sizewise.tasks.problems.problem import prepared

Runtime = Literal["torch", "onnxruntime", "openvino"]
Precision = Literal["fp32", "int8"]
VARIANTS: tuple[tuple[Runtime, Precision], ...] = (
    ("torch", "fp32"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "int8"),
)


def models(study: Study, sizes: Sizes, choice: Choice, compressed: Sequence[Run], store: Store) -> tuple[Run, ...]:
    """The trained weights that become candidates, the chosen one first: one run for each size and method.

    Besides the compressed ones these are the widths that they were compressed to, trained small, and the best width of
    the sweep, to show what the choice gave up. Each group of seeds is represented by its median run by validation loss:
    what a user would get who trains once.
    """
    beside = sorted({*targets(study, sizes, choice), choice.reference} - {choice.width}, reverse=True)
    trained = [store.run(choice.run), *(median_run(sizes[width]) for width in beside)]
    others = [median_run(group) for _, group in sorted(pruned_and_distilled(compressed).items(), reverse=True)]
    return tuple(trained + others)


def build(
    study: Study, runs: Sequence[Run], task: Task, store: Store, on_built: Callable[[float], None] = lambda share: None
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Convert each run for each runtime and precision; what exists already is kept.

    Returns:
        the candidates and, for each that could not be made, one sentence why.
    """
    candidates: list[Candidate] = []
    skipped: list[str] = []
    variants = [v for v in VARIANTS if v[1] != "int8" or "int8" in study.compress.methods]
    calibration = calibration_samples(task, quantize.CALIBRATION_SAMPLES)
    for number, run in enumerate(runs):
        with tempfile.TemporaryDirectory() as scratch:
            for runtime, precision in variants:
                candidate = _candidate(run, runtime, precision, store)
                try:
                    _make(candidate, run, task, store, Path(scratch), calibration)
                    candidates.append(candidate)
                except MissingExtraError as error:
                    skipped.append(f"{candidate.name}: {error.message}; {error.hint}")
                except StoreError:
                    raise
                except Exception as error:  # converters fail in their own ways; the model in PyTorch is always there
                    if runtime == "torch":
                        raise
                    skipped.append(f"{candidate.name}: {_first_line(error)}")
        on_built((number + 1) / len(runs))
    return tuple(candidates), tuple(skipped)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def calibration_samples(task: Task, count: int) -> NDArray[Any]:
    """At most `count` raw training samples, spread over the whole split, since it may be sorted by class."""
    spread = np.linspace(0, len(task.train) - 1, min(count, len(task.train)), dtype=int)
    return prepared(task.train.x[spread], task.signature)


def _make(candidate: Candidate, run: Run, task: Task, store: Store, graphs: Path, calibration: NDArray[Any]) -> None:
    """Write the folder of one candidate, whole or not at all. `graphs` is the folder of the run's ONNX files."""
    folder = store / "candidates" / candidate.name
    if _is_this(folder, candidate):
        return
    weights = store.trial_folder(run.trial.key) / "model.safetensors"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        if candidate.runtime == "torch":
            shutil.copyfile(weights, temporary / "model.safetensors")
        else:
            if not any(graphs.glob("*.onnx")):
                onnxruntime.export(deployable(run, task, store), task.signature, graphs)
            for graph in sorted(graphs.glob("*.onnx")):
                _convert(candidate, task.signature, graph, temporary, calibration)
        for name, content in task.files.items():
            (temporary / name).write_bytes(content)
        _config(candidate, run, task).write(temporary)
        write_json(temporary / "candidate.json", candidate)
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_this(folder: Path, candidate: Candidate) -> bool:
    """Whether the folder holds exactly this candidate; one of the same name may stem from an earlier choice."""
    try:
        return read_json(folder / "candidate.json", Candidate) == candidate
    except (FileNotFoundError, IntegrityError):
        return False


def _convert(candidate: Candidate, signature: Signature, graph: Path, folder: Path, calibration: NDArray[Any]) -> None:
    """Convert one ONNX file to the candidate's runtime and precision, under its own name."""
    if candidate.precision == "int8" and signature.problem == "translation" and candidate.runtime == "openvino":
        raise ConversionError("int8 of a model of two graphs is made by ONNX Runtime only")
    match candidate.runtime, candidate.precision:
        case "onnxruntime", "fp32":
            shutil.copyfile(graph, folder / graph.name)
        case "onnxruntime", "int8" if signature.layout in ("tokens", "series"):
            quantize.onnxruntime_dynamic(graph, folder / graph.name)
        case "onnxruntime", "int8":
            quantize.onnxruntime_int8(graph, folder / graph.name, calibration)
        case "openvino", "fp32":
            openvino.convert(graph, folder / f"{graph.stem}.xml")
        case "openvino", "int8":
            quantize.openvino_int8(graph, folder / f"{graph.stem}.xml", calibration)


class ConversionError(Exception):
    """A model that a runtime does not take in this precision."""


def deployable(run: Run, task: Task, store: Store) -> eager.Deployable:
    """A run's model with its preprocessing in front: raw samples in, answers out."""
    family = families.load(run.trial.family, task.signature)
    module = family.build(run.trial.width, weights=store.trial_folder(run.trial.key) / "model.safetensors")
    return eager.Deployable(module, task.preprocessor, task.signature)


_DONE = {"trained": "trained", "prune": "pruned", "distil": "distilled"}


def _candidate(run: Run, runtime: Runtime, precision: Precision, store: Store) -> Candidate:
    method = run.trial.origin.method if run.trial.origin else "trained"
    return Candidate(
        name=f"width{run.trial.width}-{_DONE[method]}-{runtime}-{precision}",
        run=run.trial.key,
        method=method,
        width=run.trial.width,
        params=run.params,
        runtime=runtime,
        precision=precision,
        train_seconds=_lineage_seconds(run, store),
    )


def _lineage_seconds(run: Run, store: Store) -> float:
    """Training time of a run and of everything that it came from."""
    origin = run.trial.origin
    return run.seconds + (_lineage_seconds(store.run(origin.parent), store) if origin else 0.0)


def _config(candidate: Candidate, run: Run, task: Task) -> runtimes.Config:
    return runtimes.Config(
        format=runtimes.FORMAT,
        name=candidate.name,
        runtime=candidate.runtime,
        precision=candidate.precision,
        family=run.trial.family,
        width=candidate.width,
        signature=task.signature,
        classes=task.classes,
        preprocessor=task.preprocessor,
    )
