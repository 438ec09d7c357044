"""Weights to and from safetensors files. No pickle is ever read or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sizewise.errors import DataError
from sizewise.store import write_atomic


def save_weights(state: dict[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict, atomically, and what the file is to say of it besides."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().contiguous() for name, tensor in distinct(state).items()}
    write_atomic(path, save(tensors, dict(metadata) if metadata else None))


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


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of its tensors.

    Raises:
        DataError: the file is missing or is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read weights from {path}: {error}", hint="give a .safetensors file") from error


def ties(module: nn.Module) -> list[list[str]]:
    """Names of the parameters that are one."""
    by_id: dict[int, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(p), []).append(name)
    return [names for names in by_id.values() if len(names) > 1]


def tie(module: nn.Module, names: list[list[str]]) -> None:
    """Make the parameters of each list of names one again, the first."""
    for first, *others in names:
        for name in others:
            holder, _, own = name.rpartition(".")
            module.get_submodule(holder)._parameters[own] = module.get_parameter(first)
