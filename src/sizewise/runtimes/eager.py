"""PyTorch, as it is: the reference that every other runtime must agree with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sizewise import families
from sizewise.padding import lengths, mask
from sizewise.records import Signature
from sizewise.runtimes import Config, beam
from sizewise.tasks import Preprocessor
from sizewise.tasks.problems import Session


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

    def standardised(self, x: Tensor) -> Tensor:
        """Samples as the net takes them; tokens are what they are."""
        if not self.mean.numel():
            return x
        scaled = (x - self.mean) / self.std
        return scaled * mask(x)[..., None] if self.padded else scaled

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.answer(self.net(self.standardised(x)))
        return answers


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


class _Encoder(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, source: Tensor) -> Tensor:
        memory: Tensor = self.net.encode(source)  # type: ignore[operator]
        return memory


class _Decoder(nn.Module):
    """The next token alone: logits of all the others would cost more than the rest of a small model."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, memory: Tensor, source: Tensor, target: Tensor) -> Tensor:
        hidden = self.net.decode(memory, source, target)  # type: ignore[operator]
        last = (lengths(target) - 1)[:, None, None].expand(-1, 1, hidden.shape[2])
        logits: Tensor = self.net.head(hidden.gather(1, last)[:, 0])  # type: ignore[operator]
        return logits


def parts(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A translator's two halves, which are exported apart: source to memory, and (memory, source, target) to the
    logits of the next token."""
    net = module.net
    assert isinstance(net, nn.Module)
    return _Encoder(net), _Decoder(net)


def session(module: Deployable, signature: Signature) -> Session:
    """Run a module on arrays, in evaluation mode."""
    module.eval()
    if signature.problem == "translation":
        encoder, decoder = parts(module)
        return beam.session(_run(encoder, signature), _run(decoder, signature), signature)
    return _run(module, signature)


def load(folder: Path, config: Config, threads: int) -> Session:
    """Build the family's model and fill it from `model.safetensors`; names and shapes must match exactly."""
    torch.set_num_threads(threads)
    net = families.load(config.family, config.signature).build(config.width)
    families.load_weights(net, folder / "model.safetensors")
    module = Deployable(net, config.preprocessor, config.signature)
    families.arrange_module(module, config.signature)
    return session(module, config.signature)


def _run(module: nn.Module, signature: Signature) -> Session:
    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            tensors = [families.arrange(torch.from_numpy(np.ascontiguousarray(x)), signature) for x in inputs]
            answers: NDArray[Any] = module(*tensors).numpy()
            return answers

    return run
