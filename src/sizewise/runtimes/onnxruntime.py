"""ONNX Runtime, and the export to ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sizewise.records import Signature
from sizewise.runtimes import OUTPUTS, Config, beam
from sizewise.tasks.problems import Session

if TYPE_CHECKING:
    from torch import Tensor, nn


def export(module: nn.Module, signature: Signature, folder: Path) -> None:
    """Write a model as `model.onnx`, or a translator as `encoder.onnx` and `decoder.onnx`, for any batch size.

    Args:
        module: raw samples to answers, as `eager.Deployable`; it is put into evaluation mode.
    """
    import torch

    from sizewise.families import example
    from sizewise.runtimes import eager

    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps", min=2)
    x = example(signature, 2)[0]  # a batch of 1 would be taken for a constant
    shape = {0: batch} | ({1: steps} if signature.dynamic else {})
    if signature.problem != "translation":
        _export(module, (x,), [signature.layout], [OUTPUTS[signature.problem]], (shape,), folder / "model.onnx")
        return
    encoder, decoder = eager.parts(module)
    with torch.no_grad():
        memory = encoder(x)
    _export(encoder, (x,), ["tokens"], ["memory"], (shape,), folder / "encoder.onnx")
    target, grown = example(signature, 2)[1], {0: batch, 1: torch.export.Dim("target_steps", min=2)}
    inputs, names = (memory, x, target), ["memory", "tokens", "target"]
    _export(decoder, inputs, names, ["logits"], (shape, shape, grown), folder / "decoder.onnx")


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: list[str],
    output_names: list[str],
    shapes: tuple[dict[int, Any], ...],
    path: Path,
) -> None:
    import torch

    _forget_recurrent_kernels()
    with _quiet():
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=shapes,
            verbose=False,
        )
        assert program is not None  # None is what the older exporter returns
        # The exporter notes the source line of every node, with the paths of the machine it ran on.
        ClearMetadataAndDocStringPass()(program.model)
        program.save(path, external_data=False)


def _forget_recurrent_kernels() -> None:
    """Each export lends recurrent layers a loop for sequences of any length, and PyTorch 2.13 remembers the kernels of
    the first: without this every later recurrent model would be exported for one length only."""
    import torch

    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()


def load(folder: Path, config: Config, threads: int) -> Session:
    """Open the folder's graphs on the CPU."""
    graphs = [open_file(folder / name, threads) for name in config.files]
    return beam.session(graphs[0], graphs[1], config.signature) if len(graphs) == 2 else graphs[0]


def open_file(path: Path, threads: int) -> Callable[..., NDArray[Any]]:
    """Open an ONNX file: its inputs in their order to its first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    if threads == 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names, output = [node.name for node in graph.get_inputs()], [graph.get_outputs()[0].name]

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = graph.run(output, dict(zip(names, inputs, strict=True)))[0]
        return found

    return run


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
