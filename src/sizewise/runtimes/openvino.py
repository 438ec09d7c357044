"""OpenVINO, and the conversion from ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.runtimes import Config, beam
from sizewise.tasks.problems import Session

if TYPE_CHECKING:
    import openvino

_NEEDED_FOR = "a model for OpenVINO"


def read(path: Path) -> openvino.Model:
    """A model from an ONNX or .xml file.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    with extra("openvino", needed_for=_NEEDED_FOR):
        import openvino

    return openvino.Core().read_model(str(path))


def save(model: openvino.Model, path: Path) -> None:
    """Write a model as `path`, which ends in .xml, and the .bin beside it, with the weights as they are."""
    with extra("openvino", needed_for=_NEEDED_FOR):
        import openvino

    openvino.save_model(model, str(path), compress_to_fp16=False)


def convert(onnx_path: Path, xml_path: Path) -> None:
    """Convert an ONNX file to OpenVINO's .xml and .bin, in the same precision.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    save(read(onnx_path), xml_path)


def load(folder: Path, config: Config, threads: int) -> Session:
    """Compile the folder's graphs for the CPU.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    graphs = [open_file(folder / name, config.precision, threads) for name in config.files if name.endswith(".xml")]
    return beam.session(graphs[0], graphs[1], config.signature) if len(graphs) == 2 else graphs[0]


def open_file(path: Path, precision: str, threads: int) -> Callable[..., NDArray[Any]]:
    """Compile one .xml file: its inputs in their order to its first output."""
    with extra("openvino", needed_for=_NEEDED_FOR):
        import openvino

    settings: dict[str, str | int] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision == "fp32":  # CPUs with bf16 units would use them unasked
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.compile_model(str(path), "CPU", settings).create_infer_request()

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        # The inputs are only read, so they need not be copied; the output belongs to the request, so it must be.
        request.infer(list(inputs), share_inputs=True)
        output: NDArray[Any] = request.get_output_tensor(0).data.copy()
        return output

    return run
