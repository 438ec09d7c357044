"""OpenVINO, and the conversion from ONNX."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.records import Precision
from sizewise.runtimes import Config, beam
from sizewise.runtimes.beam import Graph
from sizewise.runtimes.onnxruntime import layer_values
from sizewise.tasks.problems import Session

if TYPE_CHECKING:
    import openvino

    from sizewise.runtimes.source import Source

_NEEDED_FOR = "a model for OpenVINO"

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f32"}
"""What to compute in. CPUs with bf16 units would use them unasked; those without any compute in fp32 when asked."""


def read(path: Path) -> openvino.Model:
    """A model from an ONNX or .xml file.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    with extra("openvino", needed_for=_NEEDED_FOR):
        import openvino

    return openvino.Core().read_model(str(path))


def save(model: openvino.Model, path: Path, *, halved: bool = False) -> None:
    """Write a model as `path`, which ends in .xml, and the .bin beside it, with the weights as they are or, halved, in
    16 bits."""
    with extra("openvino", needed_for=_NEEDED_FOR):
        import openvino

    openvino.save_model(model, str(path), compress_to_fp16=halved)


def missing() -> str:
    """The line that installs OpenVINO, or nothing if it is installed."""
    return "" if importlib.util.find_spec("openvino") else "pip install 'sizewise[openvino]'"


def convert(source: Source, precision: Precision, folder: Path) -> None:
    """Convert a model's ONNX files to OpenVINO's .xml and .bin. bf16 is a way to run weights that stay in fp32, fp16
    one to store weights that run in fp32.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    for graph in source.graphs:
        save(read(graph), folder / f"{graph.stem}.xml", halved=precision == "fp16")


def convert_file(onnx_path: Path, xml_path: Path) -> None:
    """Convert one ONNX file to OpenVINO's .xml and the .bin beside it, weights as they are."""
    save(read(onnx_path), xml_path)


def load(folder: Path, config: Config, threads: int) -> Session:
    """Compile the folder's graphs for the CPU.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    names = [name for name in config.files if name.endswith(".xml")]
    return beam.session([open_graph(folder / name, config.precision, threads) for name in names], config.signature)


def open_file(path: Path, precision: Precision, threads: int) -> Session:
    """Compile one .xml file of one input, for its first output."""
    return beam.first(open_graph(path, precision, threads))


def open_graph(path: Path, precision: Precision, threads: int) -> Graph:
    """Compile one .xml file."""
    with extra("openvino", needed_for=_NEEDED_FOR):
        import openvino

    settings: dict[str, str | int] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision in _HINTS:
        settings["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
    request = openvino.compile_model(str(path), "CPU", settings).create_infer_request()

    def run(*inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        # The inputs are only read, so they need not be copied; the outputs belong to the request, so they must be.
        request.infer(list(inputs), share_inputs=True)
        return tuple(tensor.data.copy() for tensor in request.output_tensors)

    return run


def layers(folder: Path, config: Config, source: Source, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the layers say, where the conversion has kept the ONNX file's names for it; of a translator, its encoder."""
    import openvino

    model = read(folder / config.files[0])
    held = {name for node in model.get_ops() for output in node.outputs() for name in output.get_names()}
    kept = {layer: value for layer, value in layer_values(source).items() if value in held}
    answers = {name for output in model.outputs for name in output.get_names()}
    model.add_outputs([value for value in kept.values() if value not in answers])
    settings = {"INFERENCE_PRECISION_HINT": _HINTS["fp32"]}
    request = openvino.compile_model(model, "CPU", settings).create_infer_request()
    request.infer([x])
    return {layer: request.get_tensor(value).data.copy() for layer, value in kept.items()}
