"""Int8 from an ONNX file: static by ONNX Runtime (QDQ, per channel) and by NNCF for OpenVINO, dynamic for sequences."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.methods import Quantize, Rule
from sizewise.runtimes import onnxruntime, openvino

CALIBRATION_SAMPLES = 512


DENSE = ("Gemm", "MatMul")
CONVOLUTIONAL = (*DENSE, "Conv", "MaxPool", "Relu", "Flatten", "Reshape")
"""Operators that become int8: everything, or the dense layers alone."""

TIMED_BATCH, TIMED_ROUNDS = 64, 15


def onnxruntime_int8(source: Path, target: Path, samples: NDArray[np.float32], rule: Rule = "minmax") -> None:
    """Quantize an ONNX file to int8 weights (per channel, symmetric) and activations (per tensor).

    Int8 convolutions with few channels are slower than fp32 ones on many processors, while nearly all weights sit in
    dense layers. So the model is quantized both ways, whole and in its dense layers alone, and the faster one is kept.
    Where products of 8 bits are summed in 16 bits, as by AVX2, sums overflow, and 7 bits of a weight are better than 8:
    the outputs tell.

    Args:
        samples: raw training samples (n, ...) that calibrate the activation ranges.
        rule: how: by their smallest and largest values, by the range that keeps most of their information, or without
            the outermost 0.1 %.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph = prepared(source, Path(folder))
        whole, dense, reduced = (Path(folder) / f"{name}.onnx" for name in ("whole", "dense", "reduced"))
        _quantize(graph, whole, CONVOLUTIONAL, samples, rule)
        _quantize(graph, dense, DENSE, samples, rule)
        faster = _faster(whole, dense, np.resize(samples, (TIMED_BATCH, *samples.shape[1:])))
        _quantize(graph, reduced, DENSE if faster == dense else CONVOLUTIONAL, samples, rule, reduced=True)
        shutil.copyfile(_closer(graph, faster, reduced, samples), target)


def onnxruntime_dynamic(source: Path, target: Path) -> None:
    """Quantize the weights of dense layers to int8, and their inputs at run time: what ONNX Runtime advises for
    recurrent layers and Transformers, whose activations change too much from sample to sample for fixed ranges."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        graph = prepared(source, Path(folder))
        quantize_dynamic(str(graph), str(target), weight_type=QuantType.QInt8, per_channel=True)


def prepared(source: Path, folder: Path) -> Path:
    """An ONNX file as ONNX Runtime wants it before it quantizes: shapes known, what is constant computed."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = folder / "prepared.onnx"
    with _quiet():
        quant_pre_process(str(source), str(path), skip_symbolic_shape=True)
    return path


def layers(graph: Path) -> dict[str, str]:
    """Names of the layers with weights by the names of their nodes, in the order of the graph."""
    import onnx

    model = onnx.load(str(graph))
    weights = {tensor.name for tensor in model.graph.initializer}
    with_weights = [n for n in model.graph.node if n.op_type in ("Conv", *DENSE) and n.input[1] in weights]
    return {node.name: node.input[1].removesuffix(".weight") for node in with_weights}


def nodes_to_int8(graph: Path, target: Path, nodes: Sequence[str], samples: NDArray[np.float32]) -> None:
    """Quantize these nodes of a prepared ONNX file, as `onnxruntime_int8` would, and leave all others as they are."""
    _quantize(graph, target, CONVOLUTIONAL, samples, "minmax", nodes)


def _quantize(
    source: Path,
    target: Path,
    operators: tuple[str, ...],
    samples: NDArray[np.float32],
    rule: Rule,
    nodes: Sequence[str] = (),
    *,
    reduced: bool = False,
) -> None:
    """`reduced` leaves a weight 7 bits."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _quiet():
        quantize_static(
            str(source),
            str(target),
            _Reader(_input_name(source), samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            nodes_to_quantize=list(nodes),
            per_channel=True,
            reduce_range=reduced,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[_ONNXRUNTIME_RULES[rule]],
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True} | _PERCENTILE[rule],
        )


_ONNXRUNTIME_RULES: dict[Rule, str] = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
OUTERMOST = 0.001
"""Share of an activation's values that its range may leave out, by the rule of percentiles."""

_PERCENTILE: dict[Rule, dict[str, float]] = {
    "minmax": {},
    "entropy": {},
    "percentile": {"CalibPercentile": 100 * (1 - OUTERMOST)},
}


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


def _closer(full: Path, quantized: Path, reduced: Path, samples: NDArray[np.float32]) -> Path:
    """The quantized file, or the one with 7 bits where that is closer to the outputs at full precision."""
    expected, *found = (onnxruntime.open_file(path, threads=1)(samples) for path in (full, quantized, reduced))
    errors = [float(np.square(outputs - expected).mean()) for outputs in found]
    return reduced if errors[1] < errors[0] else quantized


def openvino_int8(source: Path, target: Path, samples: NDArray[Any]) -> None:
    """Quantize an ONNX file with NNCF's post-training quantization and save it as OpenVINO's .xml and .bin.

    Ranges are the means of the samples' extremes, and biases are corrected by what quantization shifts on the samples
    (Nagel et al. 2019, arXiv:1906.04721): NNCF's own choice.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
    """
    with _quiet(), extra("openvino", needed_for="int8 for OpenVINO"):
        import nncf

        model = openvino.read(source)
        calibration = nncf.Dataset(samples, lambda sample: sample[None])
        infinite = nncf.IgnoredScope(names=_attended(model))
        openvino.save(nncf.quantize(model, calibration, subset_size=len(samples), ignored_scope=infinite), target)


def openvino_weights(source: Path, target: Path, method: Quantize, samples: NDArray[Any]) -> None:
    """Write an ONNX file's weights with 8 bits each, by output, or those of matrix products with 4, in blocks of
    `BLOCK` inputs where the layer has as many, and compute with them at full precision.

    Args:
        samples: raw training samples (n, ...), which rounding that makes up for its errors looks at.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
    """
    with _quiet(), extra("openvino", needed_for=f"int{method.bits} weights for OpenVINO"):
        import nncf

        model = openvino.read(source)
        if method.bits == 8:
            made = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        else:
            settings = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
            errors = method.rounding == "gptq"
            made = nncf.compress_weights(
                model,
                mode=nncf.CompressWeightsMode.INT4_SYM,
                group_size=BLOCK,
                all_layers=True,
                gptq=errors,
                dataset=nncf.Dataset(samples, lambda sample: sample[None]) if errors else None,
                subset_size=len(samples),
                advanced_parameters=settings,
            )
        openvino.save(made, target)


BLOCK = 64
"""Weights that share a scale where only weights are quantized."""


def _attended(model: Any) -> list[str]:
    """Names of the operations whose results attention turns into shares. They are minus infinity where nothing may be
    attended to: a range that held that would hold nothing else."""
    shares = [node for node in model.get_ops() if node.get_type_name() == "Softmax"]
    return [node.input_value(0).get_node().get_friendly_name() for node in shares]


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
