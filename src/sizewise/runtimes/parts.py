"""The graphs that a model is exported as, with the sizes that may differ from call to call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim

from sizewise.errors import ConversionError
from sizewise.families import example
from sizewise.records import Signature
from sizewise.runtimes import OUTPUTS, beam, eager

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Sizes = dict[int, Dim]


@dataclass(frozen=True)
class Part:
    """One graph: a whole model, or the encoder or decoder of what answers token by token.

    Attributes:
        stem: of the files that hold it.
        inputs: an example of each input, with the name of each in `names`; `outputs` are the outputs' names.
        sizes: for each input, which of its dimensions may have any size.
    """

    stem: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: tuple[Sizes, ...]

    def program(self) -> ExportedProgram:
        """The graph in PyTorch's own form, which compilers start from."""
        forget_recurrent_kernels()
        with torch.no_grad():
            return torch.export.export(self.module.eval(), self.inputs, dynamic_shapes=self.sizes)


def parts(module: eager.Deployable, signature: Signature) -> tuple[Part, ...]:
    """A model's graphs: the encoder and the decoder of what answers token by token, one of any other."""
    x, sizes = example(signature, 2)[0], _sizes(signature)
    if not signature.autoregressive:
        outputs = (OUTPUTS[signature.problem], *(("labels",) if module.decoded is not None else ()))
        return (Part("model", module, (x,), (signature.layout,), outputs, (sizes,)),)
    encoder, decoder = eager.parts(module)
    with torch.no_grad():
        memory = encoder(x)
    token = torch.ones(2, beam.BEAMS, dtype=torch.long)
    past = torch.zeros(2, beam.BEAMS, 2, memory.shape[2] - 1)
    hypotheses, read, said = (Dim(name, min=2) for name in ("hypotheses", "memory_steps", "past_steps"))
    grown: tuple[Sizes, ...] = (
        {0: sizes[0], 1: hypotheses},
        {0: sizes[0], 1: read},
        {0: sizes[0], 1: hypotheses, 2: said},
    )
    inputs, names = (token, memory, past), ("token", "memory", "past")
    return (
        Part("encoder", encoder, (x,), (signature.layout,), ("memory",), (sizes,)),
        Part("decoder", decoder, inputs, names, ("logits", "longer_past"), grown),
    )


def whole(module: eager.Deployable, signature: Signature, most: int | None = None) -> Part:
    """The one graph of a model that does not answer token by token.

    Args:
        most: samples of the largest batch, for runtimes that plan their memory; None is any number.

    Raises:
        ConversionError: it does: its decoder begins with no past at all, a size that compilers rule out.
    """
    if signature.autoregressive:
        raise ConversionError("what answers token by token is not compiled", hint="leave this runtime out")
    (part,) = parts(module, signature)
    return replace(part, sizes=(_sizes(signature, most, longest=signature.input_shape[0]),))


def _sizes(signature: Signature, most: int | None = None, longest: int | None = None) -> Sizes:
    """Which dimensions of a batch may have any size. The example's batch is 2: 1 would be taken for a constant."""
    sizes: Sizes = {0: Dim("batch", max=most)}
    if signature.dynamic:
        sizes[1] = Dim("steps", min=2, max=longest)
    return sizes


def forget_recurrent_kernels() -> None:
    """Each export lends recurrent layers a loop for sequences of any length, and PyTorch 2.13 remembers the kernels of
    the first: without this every later recurrent model would be exported for one length only."""
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()
