"""A trained model on its way to the runtimes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sizewise.records import Signature
from sizewise.runtimes.eager import Deployable


@dataclass(frozen=True)
class Source:
    """What every runtime converts from.

    Attributes:
        module: the model, raw samples in, answers out.
        weights: its `model.safetensors`.
        scratch: an empty folder for what several runtimes share.
    """

    module: Deployable
    signature: Signature
    weights: Path
    scratch: Path

    @cached_property
    def graphs(self) -> tuple[Path, ...]:
        """Its ONNX files, `model.onnx` or `encoder.onnx` and `decoder.onnx`, written when first asked for."""
        from sizewise.runtimes import onnxruntime

        onnxruntime.export(self.module, self.signature, self.scratch)
        return tuple(sorted(self.scratch.glob("*.onnx")))
