"""Weights to and from safetensors files. No pickle is ever read or written."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sizewise.errors import DataError
from sizewise.store import write_atomic


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict, atomically."""
    from safetensors.torch import save

    write_atomic(path, save({name: tensor.detach().contiguous() for name, tensor in distinct(state).items()}))


def distinct(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the later names of a tensor that has several, such as token vectors that are the output layer too."""
    seen: dict[tuple[int, torch.Size], str] = {}
    return {n: t for n, t in state.items() if seen.setdefault((t.data_ptr(), t.shape), n) == n or not t.numel()}


def complete(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """With those names again, as the module's own tensors have them."""
    own = module.state_dict()
    first = {(t.data_ptr(), t.shape): n for n, t in reversed(own.items()) if n in state}
    for name, tensor in own.items():
        if name not in state and (known := first.get((tensor.data_ptr(), tensor.shape))):
            state = state | {name: state[known]}
    return state


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Raises:
        DataError: the file is missing or is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read weights from {path}: {error}", hint="give a .safetensors file") from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file; names and shapes must match exactly.

    Raises:
        DataError: the file cannot be read, or holds another model.
    """
    try:
        module.load_state_dict(complete(read_weights(path), module))
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise DataError(
            f"{path} does not fit the model: {reasons[0]}",
            hint="the file must come from the same family at the same width, on samples of the same shape",
        ) from error
