"""Int8 from an ONNX file: static by ONNX Runtime (QDQ, per channel) and by NNCF for OpenVINO, dynamic for sequences."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.runtimes import onnxruntime, openvino

CALIBRATION_SAMPLES = 512


DENSE = ("Gemm", "MatMul")
CONVOLUTIONAL = (*DENSE, "Conv", "MaxPool", "Relu", "Flatten", "Reshape")
"""Operators that become int8: everything, or the dense layers alone."""

TIMED_BATCH, TIMED_ROUNDS = 64, 15


def onnxruntime_int8(source: Path, target: Path, samples: NDArray[np.float32]) -> None:
    """Quantize an ONNX file to int8 weights (per channel, symmetric) and activations (per tensor).

    Int8 convolutions with few channels are slower than fp32 ones on many processors, while nearly all weights sit in
    dense layers. So the model is quantized both ways, whole and in its dense layers alone, and the faster one is kept.

    Args:
        samples: raw training samples (n, ...) that calibrate the activation ranges.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        whole, dense = Path(folder) / "whole.onnx", Path(folder) / "dense.onnx"
        _quantize(prepared, whole, CONVOLUTIONAL, samples)
        _quantize(prepared, dense, DENSE, samples)
        shutil.copyfile(_faster(whole, dense, np.resize(samples, (TIMED_BATCH, *samples.shape[1:]))), target)


def onnxruntime_dynamic(source: Path, target: Path) -> None:
    """Quantize the weights of dense layers to int8, and their inputs at run time: what ONNX Runtime advises for
    recurrent layers and Transformers, whose activations change too much from sample to sample for fixed ranges."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(target), weight_type=QuantType.QInt8, per_channel=True)


def _quantize(source: Path, target: Path, operators: tuple[str, ...], samples: NDArray[np.float32]) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        str(source),
        str(target),
        _Reader(_input_name(source), samples),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(operators),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )


def _faster(a: Path, b: Path, x: NDArray[np.float32]) -> Path:
    """The file whose median batch takes less time, the two timed in alternation."""
    sessions = {path: onnxruntime.open_file(path, threads=1) for path in (a, b)}
    times: dict[Path, list[float]] = {a: [], b: []}
    for _ in range(TIMED_ROUNDS):
        for path, session in sessions.items():
            began = time.perf_counter()
            session(x)
            times[path].append(time.perf_counter() - began)
    return min(times, key=lambda path: float(np.median(times[path])))


def openvino_int8(source: Path, target: Path, samples: NDArray[Any]) -> None:
    """Quantize an ONNX file with NNCF's post-training quantization and save it as OpenVINO's .xml and .bin.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
    """
    with _quiet(), extra("openvino", needed_for="int8 for OpenVINO"):
        import nncf

        model = openvino.read(source)
        calibration = nncf.Dataset(samples, lambda sample: sample[None])
        openvino.save(nncf.quantize(model, calibration, subset_size=len(samples)), target)


def _input_name(path: Path) -> str:
    import onnx

    name: str = onnx.load(str(path), load_external_data=False).graph.input[0].name
    return name


class _Reader:
    """Feeds calibration batches the way ONNX Runtime asks for them."""

    def __init__(self, name: str, samples: NDArray[np.float32], batch: int = 64) -> None:
        self._name = name
        self._batches = iter(np.array_split(samples, max(1, len(samples) // batch)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizers' advice, written for their developers, out of the user's terminal."""
    from onnxruntime import set_default_logger_severity

    set_default_logger_severity(3)  # errors; they are raised as well
    names = ("", "nncf", "onnxruntime")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):  # NNCF draws progress bars where our data goes
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
