"""Our frontier against each tool alone, used as its documentation recommends: the same parents, data and target.

    python benchmarks/compress.py                       four models, each with a search, then the tables
    python benchmarks/compress.py lstm --time 5m        one of them, with a search of five minutes
    python benchmarks/compress.py --prepare             train the sweeps only
    python benchmarks/compress.py --table               print what was measured

torchao and neural-compressor, with prettytable and py-cpuinfo, are no part of this project's environment: a tool that
is not installed is left out, and said.

Each model is the largest of a small sweep, whatever size the sweep would choose. A tool's candidates lie in the study's
folder beside ours and are measured with them, each in alternation with the parent in PyTorch. The hypervolume is that
of (validation score lost, latency, bytes) below the corner of 5 points lost at the parent's latency and bytes, as a
share of that box: 0 is no gain at all, 1 is everything for nothing.

The second table asks whether to train small or to compress: at the bytes of each width in int8, the trained models of
that width against the best compressed ones, by validation, that are as small; over seeds, in pairs.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn

from sizewise import config, families, measure, words
from sizewise.cli.values import duration
from sizewise.compress import chains
from sizewise.compress.candidates import calibration_samples, config_of, deployable
from sizewise.compress.quantize import CALIBRATION_SAMPLES
from sizewise.compress.start import trained
from sizewise.compress.trials import FINE_TUNING_RATE, shortened
from sizewise.families import Form
from sizewise.loop import Data, Start, train_one
from sizewise.methods import Prune, Quantize, said
from sizewise.paired import compare_runs, median_run
from sizewise.records import Candidate, Choice, Compression, Measurement, Run, RuntimeName
from sizewise.runtimes import onnxruntime, openvino
from sizewise.runtimes.parts import Part, whole
from sizewise.store import write_json
from sizewise.study import Workspace

OURS = "sizewise"
EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Parent:
    """What is compressed: the largest width of a sweep on an example study's data."""

    study: str
    family: str
    widths: tuple[int, ...]
    epochs: int


PARENTS = {
    "mnist_cnn": Parent("mnist", "cnn", (4, 8, 16, 32), 2),
    "residual_cnn": Parent("mnist", "resnet", (2, 4, 8), 2),
    "lstm": Parent("news", "lstm", (8, 16, 32, 64), 6),
    "transformer": Parent("news", "transformer", (8, 16, 32, 64), 6),
}
SEEDS = 3
CORNER = 0.05
"""Score lost at which nothing is gained any more."""

LOSABLE = 0.005
RECORD = "benchmark-compress.json"


# -- The tools, alone -------------------------------------------------------------------------------------------------


def onnxruntime_static(graph: Path, target: Path, samples: NDArray[Any]) -> None:
    """Preprocessing, then static quantization with the settings of the documentation's example."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.array_split(samples, max(1, len(samples) // 64)))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    import onnx

    name = onnx.load(str(graph)).graph.input[0].name
    prepared = target.with_suffix(".prepared")
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(target), Reader())
    prepared.unlink()


def nncf_post_training(graph: Path, target: Path, samples: NDArray[Any]) -> None:
    """`nncf.quantize` with nothing but the samples."""
    import nncf

    model = openvino.read(graph)
    openvino.save(nncf.quantize(model, nncf.Dataset(samples, lambda sample: sample[None])), target)


def nncf_accuracy_control(space: Workspace) -> Callable[[Path, Path, NDArray[Any]], None]:
    """Post-training quantization that gives layers back until no more than half a point is lost on validation."""

    def quantize(graph: Path, target: Path, samples: NDArray[Any]) -> None:
        import nncf

        task = space.task
        pairs = list(zip(measure.inputs(task.validation, len(task.validation), task.signature), task.validation.y))  # noqa: B905

        def score(model: Any, data: Iterable[Any]) -> tuple[float, None]:
            hits = [int(np.argmax(model(x[None])[model.output(0)])) == y for x, y in data]
            return float(np.mean(hits)), None

        found = nncf.quantize_with_accuracy_control(
            openvino.read(graph),
            calibration_dataset=nncf.Dataset(samples, lambda sample: sample[None]),
            validation_dataset=nncf.Dataset(pairs),
            validation_fn=score,
            max_drop=LOSABLE,
        )
        openvino.save(found, target)

    return quantize


def onnxruntime_dynamic(graph: Path, target: Path, samples: NDArray[Any]) -> None:
    """Dynamic quantization, which the documentation advises for recurrent models and Transformers."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(graph), str(target))


def torchao_x86(part: Part, samples: NDArray[Any]) -> Any:
    """Post-training quantization of the exported program for x86: torchao's tutorial for this kind of processor."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    observed = prepare_pt2e(part.program().module(), quantizer)
    calibrate(observed, samples)
    return convert_pt2e(observed)


def neural_compressor(part: Part, samples: NDArray[Any]) -> Any:
    """Intel's static quantization for PyTorch with its default settings."""
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

    exported = export(part.module.eval(), part.inputs, dynamic_shapes=part.sizes)
    observed = prepare(exported, StaticQuantConfig())
    calibrate(observed, samples)
    return convert(observed)


def calibrate(observed: Any, samples: NDArray[Any]) -> None:
    """Show a program the samples."""
    for batch in np.array_split(samples, max(1, len(samples) // 64)):
        observed(torch.from_numpy(batch))


def compiled(space: Workspace, parent: Run, tool: str, quantize: Callable[[Part], Any]) -> Candidate:
    """A quantized program by PyTorch's compiler ahead of time, as the documentation of both tools goes on."""
    module, task = deployable(parent, space.task, space.store), space.task
    part = whole(module, task.signature)
    quantized = quantize(part)
    candidate = _candidate(tool, parent, "aotinductor", "int8")
    folder = _fresh(space, candidate)
    with torch._inductor.config.patch(freezing=True):
        program = torch.export.export(quantized, part.inputs, dynamic_shapes=part.sizes)
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))
    config_of(candidate, parent, task).write(folder)
    return candidate


def torch_pruning(space: Workspace, parent: Run, ratio: float) -> Run:
    """Group magnitude pruning of all layers but the last by one ratio of channels, then the fine-tuning ours gets."""
    task = space.task
    module = trained(parent.trial, space.store, task.signature)
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        module,
        families.example(task.signature, 2),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[last],
    )
    pruner.step()
    with torch.device("meta"):
        original = families.load(parent.trial.family, task.signature).build(parent.trial.width)
    recipe = replace(shortened(space.study), lr=parent.trial.recipe.lr * FINE_TUNING_RATE)
    trial = replace(parent.trial, task=f"{task.name}, Torch-Pruning alone at {ratio}", recipe=recipe)
    known = space.store.find_run(trial)
    start = Start(module.state_dict(), form=Form.of(module, original))
    return known or train_one(trial, Data.of(task), space.store, start)


# -- Candidates -------------------------------------------------------------------------------------------------------


def alone(space: Workspace, parent: Run) -> dict[str, list[Candidate]]:
    """What each tool makes of the chosen model; one that fails is said and left out."""
    samples = calibration_samples(space.task, CALIBRATION_SAMPLES)
    tools: dict[str, tuple[RuntimeName, Callable[[Path, Path, NDArray[Any]], None]]] = {
        "ONNX Runtime static": ("onnxruntime", onnxruntime_static),
        "ONNX Runtime dynamic": ("onnxruntime", onnxruntime_dynamic),
        "NNCF": ("openvino", nncf_post_training),
        "NNCF accuracy control": ("openvino", nncf_accuracy_control(space)),
    }
    found: dict[str, list[Candidate]] = {}
    for tool, (runtime, quantize) in tools.items():
        candidate = _candidate(tool, parent, runtime, "int8")
        try:
            _write(space, candidate, parent, lambda graph, target, do=quantize: do(graph, target, samples))  # type: ignore[misc]
            found[tool] = [candidate]
        except Exception as error:  # whatever another tool fails with
            print(f"note: {tool}: {str(error).splitlines()[0]}", file=sys.stderr)
    programs = {"torchao": torchao_x86, "Neural Compressor": neural_compressor}
    for tool, program in programs.items():
        try:
            found[tool] = [compiled(space, parent, tool, lambda part, do=program: do(part, samples))]  # type: ignore[misc]
        except Exception as error:
            print(f"note: {tool}: {str(error).splitlines()[0]}", file=sys.stderr)
    try:
        pruned = [torch_pruning(space, parent, ratio) for ratio in (0.3, 0.5, 0.7)]
    except Exception as error:
        print(f"note: Torch-Pruning: {str(error).splitlines()[0]}", file=sys.stderr)
        return found
    found["Torch-Pruning"] = []
    for number, run in enumerate(pruned):
        candidate = _candidate(f"Torch-Pruning {number}", run, "onnxruntime", "fp32")
        _write(space, candidate, run, lambda graph, target: shutil.copyfile(graph, target) and None)
        found["Torch-Pruning"].append(candidate)
    return found


def _candidate(tool: str, run: Run, runtime: RuntimeName, precision: Any) -> Candidate:
    chain = (Quantize(),) if precision == "int8" else (Prune(0.5),)
    name = f"alone-{tool.lower().replace(' ', '-')}"
    return Candidate(name, run.trial.key, chain, run.trial.width, run.params, runtime, precision, run.seconds)


def _fresh(space: Workspace, candidate: Candidate) -> Path:
    folder = space.store / "candidates" / candidate.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write(space: Workspace, candidate: Candidate, run: Run, convert: Callable[[Path, Path], None]) -> None:
    folder, task = _fresh(space, candidate), space.task
    onnxruntime.export(deployable(run, task, space.store), task.signature, folder)
    graph = (folder / "model.onnx").rename(folder / "source.onnx")
    with redirect_stdout(io.StringIO()):
        convert(graph, folder / ("model.onnx" if candidate.runtime == "onnxruntime" else "model.xml"))
    graph.unlink()
    config_of(candidate, run, task).write(folder)


# -- What is compared -------------------------------------------------------------------------------------------------


def gains(measurements: Sequence[Measurement], parent: Measurement) -> NDArray[np.float64]:
    """Rows of (score lost, latency, bytes), as shares of the corner of the box; those outside gain nothing."""
    rows = [
        (
            max(m.validation_drop.value, 0.0) / CORNER,
            1 / m.speedup.value,
            m.size_bytes / parent.size_bytes,
        )
        for m in measurements
    ]
    table = np.array(rows).reshape(-1, 3)
    return table[(table < 1).all(axis=1)]


def hypervolume(points: NDArray[np.float64]) -> float:
    """Share of the unit cube that some point is below or equal to in every coordinate, exactly."""
    edges = [np.unique([*points[:, axis], 1.0]) for axis in range(3)]
    corners = np.stack(np.meshgrid(*(edge[:-1] for edge in edges), indexing="ij"), -1)
    sizes = np.einsum("i,j,k->ijk", *(np.diff(edge) for edge in edges))
    covered = (points[:, None, None, None] <= corners + 1e-12).all(-1).any(0)
    return float(sizes[covered].sum())


def table(measurements: dict[str, list[Measurement]], parent: Measurement) -> str:
    """One row a tool: hypervolume, and its fastest candidate that loses at most half a point on validation."""
    lines = [
        "| tool | candidates | hypervolume | best at ≤ 0.5 points lost | lost | speed-up at batch 1 | kB |",
        "|---|---|---|---|---|---|---|",
    ]
    for tool, made in measurements.items():
        volume = hypervolume(gains(made, parent))
        kept = [m for m in made if m.validation_drop.value <= LOSABLE]
        best = max(kept, key=lambda m: m.speedup.value, default=None)
        what = (
            f"{said(best.candidate.chain)}, {best.candidate.runtime} | {100 * best.validation_drop.value:.2f} | "
            f"{best.speedup.value:.2f} [{best.speedup.low:.2f}, {best.speedup.high:.2f}] | {best.size_bytes / 1e3:.1f}"
            if best
            else "none | | |"
        )
        lines.append(f"| {tool} | {len(made)} | {volume:.3f} | {what} |")
    return "\n".join(lines)


def small_or_compressed(space: Workspace, measurements: Sequence[Measurement]) -> str:
    """At the bytes of each width in int8: trained so, or the best compressed model that is no larger."""
    made = space.store.load("compression.json", Compression)
    size = {m.candidate.run: m.size_bytes for m in measurements if _plain_int8(m.candidate)}
    groups = chains.groups([run for run in space.store.runs() if run.trial.origin], space.store).values()
    kept = [group for group in groups if len(group) > 1 and any(run.trial.key in size for run in group)]
    lines = [
        "| bytes in int8 | trained at width | compressed | seeds | compressed better by | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for runs in space.sizes().values():
        limit = next((size[run.trial.key] for run in runs if run.trial.key in size), None)
        fitting = [g for g in kept if limit and min(size[r.trial.key] for r in g if r.trial.key in size) <= limit]
        if not limit or not fitting:
            continue
        best = max(fitting, key=lambda group: float(np.mean([run.validation.score for run in group])))
        what = said(chains.of(best[0], space.store))
        c = compare_runs(space.store, (what, best), (f"width {runs[0].trial.width}", runs))
        cells = (
            f"{limit:,}",
            str(runs[0].trial.width),
            what,
            str(c.difference.n),
            words.interval(c.difference, c.metric),
            {"a is better": "compress", "b is better": "train small"}.get(c.verdict, c.verdict),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n{len(kept)} chains over several seeds; {len(made.candidates)} candidates."


def _of_parent(candidate: Candidate, parent: Candidate) -> bool:
    """Whether a candidate is the parent in another form, or was compressed; else it was trained small."""
    return candidate.run == parent.run or any(not isinstance(method, Quantize) for method in candidate.chain)


def _plain_int8(candidate: Candidate) -> bool:
    return candidate.runtime == "onnxruntime" and candidate.chain[-1:] == (Quantize(),)


# -- One model --------------------------------------------------------------------------------------------------------


def prepared(name: str, root: Path, workers: int) -> Workspace:
    """The sweep, trained, with its largest width chosen: it is the model that users have."""
    parent = PARENTS[name]
    study = config.read(EXAMPLES / parent.study / "study.toml")
    study = replace(
        study,
        family=parent.family,
        recipe=replace(study.recipe, epochs=parent.epochs),
        sweep=replace(study.sweep, widths=parent.widths, seeds=SEEDS, probes=False, workers=workers),
        compress=replace(study.compress, steps=len(parent.widths) - 1, seeds=SEEDS),
    )
    space = Workspace.create(study, root / name)
    with space.store.lock():
        space.train(space.plan())
        choice, largest = space.choose(), max(parent.widths)
        run = median_run(space.sizes()[largest])
        space.store.save("choice.json", replace(choice, width=largest, params=run.params, run=run.trial.key))
    return space


def compressed(space: Workspace, seconds: float) -> None:
    """Ours, within its time, and the tools alone, without a limit; each candidate in alternation with the parent."""
    space.study = replace(space.study, compress=replace(space.study.compress, time_seconds=seconds))
    with space.store.lock():
        parent, began = space.store.run(space.store.load("choice.json", Choice).run), time.monotonic()
        first = space.compress().candidates[0]
        ours = space.measure()[0]
        print(f"{OURS}: {time.monotonic() - began:.0f} s of {seconds:.0f} s asked for", flush=True)
        tools = alone(space, parent)
        every = [first, *(c for group in tools.values() for c in group)]
        found = measure.measure(every, first, space.task, space.store, space.study.target)
        by_name = {m.candidate.name: m for m in found}
        groups = {OURS: list(ours)} | {tool: [by_name[c.name] for c in group] for tool, group in tools.items()}
        write_json(space.store / RECORD, groups)


def show(folder: Path) -> None:
    """The tables of what was measured."""
    space = Workspace.open(folder)
    groups = space.store.load(RECORD, dict[str, list[Measurement]])
    name = space.store.load("compression.json", Compression).parent
    parent = next(m for m in groups[OURS] if m.candidate.name == name)
    compressed_only = [m for m in groups[OURS] if _of_parent(m.candidate, parent.candidate)]
    print(f"\n## {folder.name}\n")
    print(table({OURS: groups[OURS], f"{OURS}, nothing trained small": compressed_only} | groups, parent))
    print(f"\n{small_or_compressed(space, groups[OURS])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(PARENTS)}")
    parser.add_argument("--time", type=duration, default=600.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/compress"))
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    for name in options.models or PARENTS:
        if not options.table:
            space = prepared(name, options.out, options.workers)
            if options.prepare:
                continue
            compressed(space, options.time)
        show(options.out / name)


if __name__ == "__main__":
    main()
