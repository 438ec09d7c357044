"""PyTorch, as it is: the reference that every other runtime must agree with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sizewise import families
from sizewise.padding import mask
from sizewise.records import Precision, Signature
from sizewise.runtimes import Config, beam
from sizewise.runtimes.beam import Graph
from sizewise.tasks import Preprocessor
from sizewise.tasks.problems import Session

if TYPE_CHECKING:
    from sizewise.runtimes.source import Source


class Deployable(nn.Module):
    """A model with its preprocessing in front and its answer in the user's terms behind.

    Args:
        net: takes standardised samples.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, preprocessor: Preprocessor, signature: Signature) -> None:
        super().__init__()
        self.net, self.padded = net, preprocessor.padded
        shape = (-1,) if signature.layout == "series" else (-1, *(1,) * (len(signature.input_shape) - 1))
        self.register_buffer("mean", torch.tensor(preprocessor.mean).reshape(shape))
        self.register_buffer("std", torch.tensor(preprocessor.std).reshape(shape))
        self.answer = _answer(preprocessor, signature)
        self.decoded = _decoded(signature)

    def standardised(self, x: Tensor) -> Tensor:
        """Samples as the net takes them; tokens are what they are."""
        if not self.mean.numel():
            return x
        scaled = (x - self.mean) / self.std
        return scaled * mask(x)[..., None] if self.padded else scaled

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        answers: Tensor = self.answer(self.net(self.standardised(x)))
        return answers if self.decoded is None else (answers, self.decoded(answers))


class _Scaled(nn.Module):
    """Standardised numbers in the user's unit."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessor.target_mean))
        self.register_buffer("std", torch.tensor(preprocessor.target_std))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.std + self.mean


def _answer(preprocessor: Preprocessor, signature: Signature) -> nn.Module:
    if signature.problem == "detection":
        from sizewise.runtimes.boxes import Boxes

        return Boxes(signature)
    if signature.problem == "regression":
        return _Scaled(preprocessor)
    return nn.Identity()


def _decoded(signature: Signature) -> nn.Module | None:
    """What says once more, in labels, what the answers mean, for clients that only have the graph; None where a look
    for the largest does."""
    if signature.problem == "transcription":
        from sizewise.runtimes.labels import Labels

        return Labels()
    return None


class _Encoder(nn.Module):
    def __init__(self, whole: Deployable) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, source: Tensor) -> Tensor:
        memory: Tensor = self.whole.net.encode(self.whole.standardised(source))  # type: ignore[operator]
        return memory


class _Decoder(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, token: Tensor, memory: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.net.step(token, memory, past)  # type: ignore[operator]
        return found


def parts(module: Deployable) -> tuple[nn.Module, nn.Module]:
    """The two halves of what answers token by token, which are exported apart: source to memory, and (token, memory,
    past) to the logits of the next token and the longer past. Shapes are in `beam`."""
    return _Encoder(module), _Decoder(module.net)


def session(module: Deployable, signature: Signature, precision: Precision = "fp32") -> Session:
    """Run a module on arrays, in evaluation mode.

    Args:
        precision: in bf16 dense layers and convolutions compute in it, the rest in fp32, as PyTorch's autocast has it.
    """
    module.eval()
    halves = parts(module) if signature.autoregressive else (module,)
    return beam.session([graph(half, signature, precision) for half in halves], signature)


def missing() -> str:
    """Empty: PyTorch is always there."""
    return ""


def convert(source: Source, precision: Precision, folder: Path) -> None:
    """Copy the weights, which are kept in fp32 whatever is computed in."""
    shutil.copyfile(source.weights, folder / "model.safetensors")


def load(folder: Path, config: Config, threads: int) -> Session:
    """Build the family's model and fill it from `model.safetensors`; names and shapes must match exactly."""
    torch.set_num_threads(threads)
    return session(_module(folder, config), config.signature, config.precision)


def layers(folder: Path, config: Config, source: Source, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the layers of the folder's model say, by name, in the order in which they are last called."""
    return heard(_module(folder, config), config.signature, x)


def heard(module: Deployable, signature: Signature, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What each layer, a module without modules inside, says with `x` on its way; of several calls, in the last one."""
    said: dict[str, NDArray[Any]] = {}
    with _listening(module, said):
        session(module, signature)(x)
    return said


@contextmanager
def _listening(module: nn.Module, said: dict[str, NDArray[Any]]) -> Iterator[None]:
    def hear(name: str, layer: nn.Module, inputs: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output  # of a recurrent layer, what it says at each step
        if isinstance(first, Tensor):
            said.pop(name, None)
            said[name] = first.numpy().copy()  # the next layer may write over it

    leaves = [(name, layer) for name, layer in module.named_modules() if not any(layer.children())]
    handles = [layer.register_forward_hook(partial(hear, name)) for name, layer in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module(folder: Path, config: Config) -> Deployable:
    net = families.load(config.family, config.signature).build(config.width)
    families.load_weights(net, folder / "model.safetensors")
    module = Deployable(net, config.preprocessor, config.signature)
    families.arrange_module(module, config.signature)
    return module


def graph(module: nn.Module, signature: Signature, precision: Precision = "fp32") -> Graph:
    """A module on arrays."""

    def run(*inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = module(*(families.arrange(torch.from_numpy(np.ascontiguousarray(x)), signature) for x in inputs))
            return tuple(tensor.float().numpy() for tensor in (found if isinstance(found, tuple) else (found,)))

    return run
