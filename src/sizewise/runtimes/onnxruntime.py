"""ONNX Runtime, and the export to ONNX."""

from __future__ import annotations

import ast
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sizewise.records import Precision, Signature
from sizewise.runtimes import Config, beam
from sizewise.runtimes.beam import Graph
from sizewise.tasks.problems import Session

if TYPE_CHECKING:
    import onnx

    from sizewise.runtimes import eager
    from sizewise.runtimes.parts import Part
    from sizewise.runtimes.source import Source

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes, for each node, the modules that it lies in, outermost first."""


def export(module: eager.Deployable, signature: Signature, folder: Path, *, noted: bool = False) -> None:
    """Write a model as `model.onnx`, or as `encoder.onnx` and `decoder.onnx` what answers token by token.

    Batches have any size, and samples and targets any length.

    Args:
        module: raw samples to answers; it is put into evaluation mode.
        noted: keep the exporter's notes of where each node stems from.
    """
    from sizewise.runtimes.parts import parts

    for part in parts(module, signature):
        _export(part, folder / f"{part.stem}.onnx", noted)


def _export(part: Part, path: Path, noted: bool) -> None:
    import torch

    from sizewise.runtimes.parts import forget_recurrent_kernels

    forget_recurrent_kernels()
    with _quiet():
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        program = torch.onnx.export(
            part.module.eval(),
            part.inputs,
            dynamo=True,
            input_names=part.names,
            output_names=part.outputs,
            dynamic_shapes=part.sizes,
            verbose=False,
        )
        assert program is not None  # None is what the older exporter returns
        if not noted:  # the notes name source files, with the paths of the machine that they are on
            ClearMetadataAndDocStringPass()(program.model)
        program.save(path, external_data=False)


def missing() -> str:
    """Empty: ONNX Runtime comes with sizewise."""
    return ""


def convert(source: Source, precision: Precision, folder: Path) -> None:
    """Copy the model's ONNX files."""
    for graph in source.graphs:
        shutil.copyfile(graph, folder / graph.name)


def load(folder: Path, config: Config, threads: int) -> Session:
    """Open the folder's graphs on the CPU."""
    return beam.session([open_graph(folder / name, threads) for name in config.files], config.signature)


def open_file(path: Path, threads: int) -> Session:
    """Open an ONNX file of one input, for its first output."""
    return beam.first(open_graph(path, threads))


def open_graph(path: Path, threads: int) -> Graph:
    """Open an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    if threads == 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in graph.get_inputs()]

    def run(*inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return tuple(graph.run(None, dict(zip(names, inputs, strict=True))))

    return run


def layers(folder: Path, config: Config, source: Source, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the layers say; of a translator, its encoder."""
    import onnx
    import onnxruntime

    model = onnx.load(folder / config.files[0])
    held = {name for node in model.graph.node for name in node.output}
    kept = {layer: value for layer, value in layer_values(source).items() if value in held}
    answers = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in kept.values() if value not in answers)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    graph = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(kept, graph.run(list(kept.values()), {graph.get_inputs()[0].name: x}), strict=True))


def layer_values(source: Source) -> dict[str, str]:
    """For each layer of a model, the name of what it says in the ONNX file: exports of a model have the same names."""
    import onnx

    with tempfile.TemporaryDirectory() as scratch:
        export(source.module, source.signature, Path(scratch), noted=True)
        first = "encoder.onnx" if source.signature.autoregressive else "model.onnx"
        graph = onnx.load(Path(scratch) / first).graph
    leaves = {name for name, layer in source.module.named_modules() if not any(layer.children())}
    # Of the nodes of a layer, the last one says what leaves it.
    return {scope: node.output[0] for node in graph.node if (scope := _scope(node)) in leaves}


def _scope(node: onnx.NodeProto) -> str:
    """The innermost module that a node lies in."""
    notes = {note.key: note.value for note in node.metadata_props}
    scopes = ast.literal_eval(notes.get(_SCOPES, "[]"))
    return str(scopes[-2]) if len(scopes) > 1 else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's advice, written for its developers, out of the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
