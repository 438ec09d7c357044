"""Every model in every runtime and precision, as folders that can be measured."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import families, runtimes
from sizewise.compress import chains, quantize
from sizewise.compress.blame import mixed
from sizewise.compress.trials import Sizes, targets
from sizewise.config import Compress, Study
from sizewise.errors import ConversionError, IntegrityError, MissingExtraError, StoreError
from sizewise.methods import Quantize, label, parse, written
from sizewise.paired import median_run
from sizewise.records import Candidate, Choice, Precision, Run, RuntimeName
from sizewise.runtimes import eager
from sizewise.runtimes.source import Source
from sizewise.store import Store, read_json, write_json
from sizewise.tasks import Task
from sizewise.tasks.problems.problem import prepared

FLOATING: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
"""Precisions that the runtimes convert to themselves, in the order in which they are made."""

WHOLE: dict[int, Precision] = {8: "int8", 4: "int4"}
"""Precisions of whole numbers, by the bits of a weight."""

Way = Precision | Quantize
"""What a model computes in: numbers with a floating point, or whole ones and how they are found."""

TRIED = (1, 64)
"""Samples of calls that every candidate answers when it is made: what this processor has no instructions for, and what
a converter got wrong for one batch, fails then, with its reason, and not while others are measured."""

BLAME = "blame.json"
"""File of a candidate's folder that says what each of its layers costs."""


def models(study: Study, sizes: Sizes, choice: Choice, compressed: Sequence[Run], store: Store) -> tuple[Run, ...]:
    """The trained weights that become candidates, the chosen one first: one run for each size and method.

    Besides the compressed ones these are the widths that they were compressed to, trained small, and the best width of
    the sweep, to show what the choice gave up. Each group of seeds is represented by its median run by validation loss:
    what a user would get who trains once.
    """
    beside = sorted({*targets(study, sizes, choice), choice.reference} - {choice.width}, reverse=True)
    trained = [store.run(choice.run), *(median_run(sizes[width]) for width in beside)]
    others = [median_run(group) for _, group in sorted(chains.groups(compressed, store).items(), reverse=True)]
    return tuple(trained + others)


def build(
    study: Study, runs: Sequence[Run], task: Task, store: Store, on_built: Callable[[float], None] = lambda share: None
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Convert each run for each runtime and precision; what exists already is kept.

    Returns:
        the candidates and, for each that could not be made, one sentence why.
    """
    candidates: list[Candidate] = []
    skipped = [f"{written(way)}: no runtime that was asked for has it" for way in _without_runtime(study.compress)]
    calibration = calibration_samples(task, quantize.CALIBRATION_SAMPLES)
    for number, run in enumerate(runs):
        with tempfile.TemporaryDirectory() as scratch:
            source = Source(deployable(run, task, store), task.signature, weights_of(run, store), Path(scratch))
            for runtime, way in (*variants(study.compress), *(_blamed(study) if number == 0 else ())):
                candidate = _candidate(run, runtime, way, store)
                try:
                    _make(candidate, run, task, store, source, calibration)
                    candidates.append(candidate)
                except MissingExtraError as error:
                    skipped.append(f"{candidate.name}: {error.message}; {error.hint}")
                except StoreError:
                    raise
                except Exception as error:  # converters fail in their own ways; the model in PyTorch is always there
                    if (runtime, way) == ("torch", "fp32"):
                        raise
                    skipped.append(f"{candidate.name}: {_first_line(error)}")
        on_built((number + 1) / len(runs))
    return tuple(candidates), tuple(skipped)


def variants(options: Compress) -> tuple[tuple[RuntimeName, Way], ...]:
    """The runtimes that a study asks for, each with what it has of what is asked for: every model at full precision
    first, then in bf16, then quantized in each way. PyTorch, which all are compared with, is always one."""
    floating = [precision for precision in FLOATING if precision in ("fp32", *options.methods)]
    return tuple(
        (name, way)
        for way in (*floating, *_quantizations(options))
        for name, runtime in runtimes.RUNTIMES.items()
        if _precision(way) in runtime.precisions and name in ("torch", *options.runtimes)
    )


def _blamed(study: Study) -> tuple[tuple[RuntimeName, Way], ...]:
    """Mixed precision, for which layers are measured one by one, of the chosen model where a search has the time."""
    options, way = study.compress, Quantize(layers="mixed")
    wanted = options.time_seconds > 0 and "int8" in options.methods and "onnxruntime" in options.runtimes
    return (("onnxruntime", way),) if wanted and ("onnxruntime", way) not in variants(options) else ()


def _quantizations(options: Compress) -> tuple[Quantize, ...]:
    """Every way to quantize that the methods and chains of a study name."""
    usual = [Quantize()] if "int8" in options.methods else []
    asked = [chains.quantization(parse(text)) for text in options.chains]
    return tuple(dict.fromkeys([*usual, *(way for way in asked if way is not None)]))


def _without_runtime(options: Compress) -> list[Quantize]:
    made = {way for _, way in variants(options)}
    return [way for way in _quantizations(options) if way not in made]


def _precision(way: Way) -> Precision:
    return WHOLE[way.bits] if isinstance(way, Quantize) else way


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def calibration_samples(task: Task, count: int) -> NDArray[Any]:
    """At most `count` raw training samples, spread over the whole split, since it may be sorted by class."""
    spread = np.linspace(0, len(task.train) - 1, min(count, len(task.train)), dtype=int)
    return prepared(task.train.x[spread], task.signature)


def _make(candidate: Candidate, run: Run, task: Task, store: Store, source: Source, calibration: NDArray[Any]) -> None:
    """Write the folder of one candidate, whole or not at all."""
    folder = store / "candidates" / candidate.name
    if _is_this(folder, candidate):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        _convert(candidate, source, task, temporary, calibration)
        for name, content in task.files.items():
            (temporary / name).write_bytes(content)
        config_of(candidate, run, task).write(temporary)
        write_json(temporary / "candidate.json", candidate)
        session = runtimes.load(temporary)
        for batch in TRIED:
            session(calibration[:batch])
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


def _convert(candidate: Candidate, source: Source, task: Task, folder: Path, calibration: NDArray[Any]) -> None:
    """Write the candidate's files: what is quantized is made of the ONNX files, all else by the runtime itself."""
    way = chains.quantization(candidate.chain)
    if way is None:
        runtimes.RUNTIMES[candidate.runtime].backend.convert(source, candidate.precision, folder)
        return
    for graph in source.graphs:
        if candidate.runtime == "onnxruntime":
            _for_onnxruntime(way, task, graph, folder / graph.name, calibration)
        else:
            _for_openvino(way, task, graph, folder / f"{graph.stem}.xml", calibration)


def _for_onnxruntime(way: Quantize, task: Task, graph: Path, target: Path, calibration: NDArray[Any]) -> None:
    match way:
        case Quantize(parts="weights"):
            raise ConversionError("8-bit weights alone are for OpenVINO", hint="ask for int8")
        case Quantize() if task.signature.layout in ("tokens", "series"):
            if way != Quantize():
                raise ConversionError(
                    "sequences are quantized as they come, all layers and by no rule", hint="ask for int8 alone"
                )
            quantize.onnxruntime_dynamic(graph, target)
        case Quantize(layers="mixed"):
            write_json(target.with_name(BLAME), mixed(graph, target, calibration, task.problem.same))
        case Quantize(rule=rule):
            quantize.onnxruntime_int8(graph, target, calibration, rule)


def _for_openvino(way: Quantize, task: Task, graph: Path, target: Path, calibration: NDArray[Any]) -> None:
    match way:
        case Quantize(rounding="gptq") if task.signature.autoregressive:
            raise ConversionError("no samples are at hand for the graphs of a model of two", hint="ask for int4 alone")
        case Quantize(4) | Quantize(parts="weights"):
            quantize.openvino_weights(graph, target, way, calibration)
        case Quantize() if task.signature.autoregressive:
            raise ConversionError(
                "int8 of a model of two graphs is made by ONNX Runtime only",
                hint="leave it out, or ship another runtime",
            )
        case Quantize() if way != Quantize():
            raise ConversionError(
                "rules and mixed precision are for ONNX Runtime; NNCF has its own rule", hint="ask for int8 alone"
            )
        case Quantize():
            quantize.openvino_int8(graph, target, calibration)


def weights_of(run: Run, store: Store) -> Path:
    """The file that holds a run's trained weights."""
    return store.trial_folder(run.trial.key) / "model.safetensors"


def deployable(run: Run, task: Task, store: Store) -> eager.Deployable:
    """A run's model with its preprocessing in front: raw samples in, answers out."""
    family = families.load(run.trial.family, task.signature)
    module = family.build(run.trial.width, weights=weights_of(run, store))
    return eager.Deployable(module, task.preprocessor, task.signature)


def _candidate(run: Run, runtime: RuntimeName, way: Way, store: Store) -> Candidate:
    made = chains.of(run, store)
    return Candidate(
        name="-".join(
            [f"width{run.trial.width}", chains.name(made), runtime, label(way) if isinstance(way, Quantize) else way]
        ),
        run=run.trial.key,
        chain=(*made, way) if isinstance(way, Quantize) else made,
        width=run.trial.width,
        params=run.params,
        runtime=runtime,
        precision=_precision(way),
        train_seconds=_lineage_seconds(run, store),
    )


def _lineage_seconds(run: Run, store: Store) -> float:
    """Training time of a run and of everything that it came from."""
    origin = run.trial.origin
    return run.seconds + (_lineage_seconds(store.run(origin.parent), store) if origin else 0.0)


def config_of(candidate: Candidate, run: Run, task: Task) -> runtimes.Config:
    """What a candidate's folder says of itself."""
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
