"""What a model takes of the tensors in a file: those that agree in name and shape, or its own part of larger ones.

The part is chosen by weight selection (Xu et al. 2024, arXiv:2311.18823): of every dimension that follows the width,
evenly spaced elements; of several like layers the first ones, since layers are numbered from the input on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sizewise.families import Family, widest
from sizewise.records import Signature, Weights

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Taken:
    """What became of a file's tensors.

    Attributes:
        names: the model's tensors that were taken.
        left: the model's tensors that stay as they were, and why.
        unused: how many of the file's tensors the model has no place for.
        matrices: how many tensors of two or more dimensions were taken: without one, nothing was learned from the file.
    """

    names: tuple[str, ...]
    left: dict[str, str]
    unused: int
    matrices: int


def take(module: nn.Module, file: Mapping[str, Tensor], family: Family, width: int, weights: Weights) -> Taken:
    """Fill a model of `family` at `width` in place from a file's tensors, as far as they fit."""
    file, own = _named_as(file, module), module.state_dict()
    bends = dict(zip(own, _following(family, width), strict=True)) if weights.cut else {}
    tables = set() if weights.same_tokens else _token_tables(module, family.signature)
    flattened = _flattened(module)
    left: dict[str, str] = {}
    for name, goal in own.items():
        if name not in file:
            left[name] = "not in the file"
        elif name in tables:
            left[name] = "vectors of other tokens"
        elif not _fits(file[name].shape, goal.shape, bends.get(name, (False,) * goal.ndim)):
            left[name] = f"{_shown(file[name].shape)} and not {_shown(goal.shape)}"
        elif name in flattened and _places(file, name, flattened[name]) != _places(own, name, flattened[name]):
            left[name] = "behind images of another size"
        else:
            together = _places(own, name, flattened[name]) if name in flattened else 1
            goal.copy_(select(file[name], goal.shape, int(together)))
    taken = tuple(name for name in own if name not in left)
    for name in _aliases(own, taken) & left.keys():
        del left[name]
    return Taken(taken, left, len(file.keys() - own.keys()), sum(own[name].ndim > 1 for name in taken))


def select(tensor: Tensor, shape: Sequence[int], together: int = 1) -> Tensor:
    """Evenly spaced elements of a tensor, `shape[d]` along each dimension d (Xu et al. 2024, section 3).

    Args:
        shape: at most the tensor's own along every dimension.
        together: neighbours along dimension 1 that are kept or dropped as one, such as what one channel has become
            after it was flattened.
    """
    for dimension, size in enumerate(shape):
        have, block = tensor.shape[dimension], together if dimension == 1 else 1
        chosen = torch.arange(size // block) * (have // block) // (size // block)
        tensor = tensor.index_select(dimension, (chosen[:, None] * block + torch.arange(block)).flatten())
    return tensor


def _named_as(file: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The file's tensors under the module's names: a wrapped model's begin with the names of what wraps it."""
    own = module.state_dict().keys()
    parts = [name.split(".") for name in own]
    wrappers = {"", *(".".join(p[:depth]) + "." for p in parts for depth in (1, 2) if len(p) > depth)}
    # The shortest of the best, so that names that agree as they are stay as they are.
    best = min(wrappers, key=lambda wrapper: (-sum(wrapper + name in own for name in file), len(wrapper), wrapper))
    return {best + name: tensor for name, tensor in file.items()}


def _following(family: Family, width: int) -> list[tuple[bool, ...]]:
    """Which dimensions of each tensor, in order, follow the width: those that are others at another width."""
    with torch.device("meta"):
        own, other = (family.build(w).state_dict() for w in (width, min(2 * width, widest(family.name))))
    # By place and not by name, since Keras calls tensors otherwise when a model is built again.
    shapes = [(tensor.shape, other.get(name, tensor).shape) for name, tensor in own.items()]
    return [tuple(a != b for a, b in zip(*pair, strict=True)) for pair in shapes]


def _fits(have: torch.Size, want: torch.Size, bends: tuple[bool, ...]) -> bool:
    return len(have) == len(want) and all(h == w or (b and h > w) for h, w, b in zip(have, want, bends, strict=True))


def _flattened(module: nn.Module) -> dict[str, str]:
    """Weights of dense layers that read the convolution before them flattened, and the weights of that one."""
    found, before, channels = {}, "", 0
    for name, layer in module.named_modules():
        if isinstance(layer, CONVOLUTIONS):
            before, channels = f"{name}.weight", layer.out_channels
        elif isinstance(layer, nn.Linear):
            if channels and layer.in_features % channels == 0:
                found[f"{name}.weight"] = before
            channels = 0
    return found


def _places(tensors: Mapping[str, Tensor], dense: str, convolution: str) -> float:
    """Inputs of a dense layer for each channel of the convolution that it reads."""
    channels = tensors[convolution].shape[0] if convolution in tensors else 0
    return tensors[dense].shape[1] / channels if channels else 0.0


def _token_tables(module: nn.Module, signature: Signature) -> set[str]:
    """Weights with a row for each token, going in or out; those of another tokenizer's tokens mean nothing here."""
    if not signature.vocabulary:
        return set()
    spoken = signature.problem in ("language modelling", "translation")
    rows = {signature.vocabulary, signature.outputs} if spoken else {signature.vocabulary}
    kinds = nn.Embedding | nn.Linear if spoken else nn.Embedding
    layers = ((name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds))
    return {f"{name}.weight" for name, layer in layers if layer.weight.shape[0] in rows}


def _aliases(own: Mapping[str, Tensor], taken: Sequence[str]) -> set[str]:
    """Other names of tensors that were taken, such as token vectors that are the output layer too."""
    filled = {own[name].data_ptr() for name in taken if own[name].numel()}
    return {name for name, tensor in own.items() if tensor.data_ptr() in filled}


def _shown(shape: torch.Size) -> str:
    return " × ".join(map(str, shape)) or "one number"
