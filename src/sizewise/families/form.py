"""How a compressed model differs in form from its family's model, so that it can be built again from its weights.

The file of its weights says its form itself, as safetensors metadata: numbers that the module's own code counts with,
such as heads, which layers of a stack are left, and which became products of two. Shapes are those of the tensors. So
whatever reads weights, from training to a server, reads models that no family makes, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from sizewise.errors import DataError
from sizewise.families.weights import complete, read_metadata, read_weights, tie, ties
from sizewise.records import from_json, to_json

KEY = "form"
"""Name of the metadata."""

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
Stack = nn.ModuleList | nn.Sequential

STAYED = "stayed"
"""Attribute of a stack that has lost layers: the places that those that are left had in the family's."""


@dataclass(frozen=True)
class Form:
    """What sets a module apart from the family's at its width.

    Attributes:
        factored: names of the layers that are a product of two.
        counts: numbers that differ, by module and attribute such as "blocks.0.attention.heads"; one that is a single
            number is a tuple of one.
        stayed: places in the family's stacks of the layers that are left, by the name of the stack.
    """

    factored: tuple[str, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stayed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module, family_module: nn.Module) -> Form:
        """The form of a module that was made from a model of its family.

        Args:
            family_module: such a model, unchanged; it may be without storage, and is changed.
        """
        stayed = {name: vars(layer)[STAYED] for name, layer in module.named_modules() if STAYED in vars(layer)}
        for name, places in stayed.items():
            stay(family_module.get_submodule(name), places)
        factored = tuple(name for name, layer in module.named_modules() if isinstance(layer, Product))
        for name in factored:
            factor(family_module, name, 1)
        counts = {}
        for name, layer in module.named_modules():
            other = vars(family_module.get_submodule(name))
            for key, value in vars(layer).items():
                if _counts(value) and value != other.get(key):
                    counts[f"{name}.{key}"] = value if isinstance(value, tuple) else (value,)
        return cls(factored, counts, stayed)

    @property
    def metadata(self) -> dict[str, str]:
        """As it stands in the file of the weights: nothing for a model of the family."""
        return {KEY: json.dumps(to_json(self), sort_keys=True)} if self != Form() else {}

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> Form:
        """The form that a file's metadata says.

        Raises:
            DataError: it cannot be read.
        """
        try:
            found = json.loads(metadata.get(KEY, "{}"))
            return from_json(Form, to_json(Form()) | found)
        except Exception as error:  # cattrs raises groups of whatever the fields raised
            raise DataError(
                f"the form of these weights cannot be read: {type(error).__name__}",
                hint="take an intact copy of the file, or export the model again",
            ) from error


def _counts(value: object) -> bool:
    """Whether an attribute is a whole number or several; truth values are not."""
    values = value if isinstance(value, tuple) else (value,)
    return bool(values) and all(type(v) is int for v in values)


def stay(stack: nn.Module, places: Sequence[int]) -> None:
    """Take all layers out of a stack but those at these places; the others move up.

    Raises:
        DataError: it is no stack, or has no such places.
    """
    if not isinstance(stack, Stack) or not set(places) <= set(range(len(stack))) or not places:
        raise DataError(f"there is no stack with layers {tuple(places)}", hint="the weights are another family's")
    known = vars(stack).get(STAYED, tuple(range(len(stack))))
    for place in reversed(range(len(stack))):
        if place not in places:
            del stack[place]
    setattr(stack, STAYED, tuple(known[place] for place in sorted(places)))


class Product(nn.Sequential):
    """A layer as a product of two: `0` maps to `rank` channels, `1` from there."""


def factor(module: nn.Module, name: str, rank: int) -> Product:
    """Put two layers in the place of one, the first with `rank` channels, both with random weights.

    Raises:
        DataError: the module has no layer of that name that can be factorized.
    """
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        layer = None
    if not name or not isinstance(layer, Layer):
        raise DataError(f"there is no layer {name!r} to factorize", hint="the weights belong to another family")
    device = layer.weight.device
    made = Product(*_pair(layer, rank)).to(device)
    module.set_submodule(name, made)
    return made


def _pair(layer: Layer, rank: int) -> tuple[nn.Module, nn.Module]:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=bias)
    kind = type(layer)
    first = kind(
        layer.in_channels,
        rank,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=False,
        padding_mode=layer.padding_mode,
    )
    return first, kind(rank, layer.out_channels, 1, bias=bias)


def fill(module: nn.Module, state: Mapping[str, Tensor], form: Form) -> None:
    """Give a family's module this form and these weights, in place.

    Raises:
        DataError: the form belongs to another module.
        RuntimeError: PyTorch's, when names or shapes of the weights do not fit.
    """
    if form != Form():
        _reshape(module, state, form)
    module.load_state_dict(complete(dict(state), module))


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a family's module from a safetensors file, in the form that the file says; names and shapes must match.

    Raises:
        DataError: the file cannot be read, or holds another model.
    """
    try:
        fill(module, read_weights(path), Form.read(read_metadata(path)))
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise DataError(
            f"{path} does not fit the model: {reasons[0]}",
            hint="the file must come from the same family at the same width, on samples of the same shape",
        ) from error


def _reshape(module: nn.Module, state: Mapping[str, Tensor], form: Form) -> None:
    for name in sorted(form.stayed):  # a stack comes before those inside it
        stay(_part(module, name), form.stayed[name])
    for name in form.factored:
        factor(module, name, 1)
    for path, value in form.counts.items():
        name, _, key = path.rpartition(".")
        holder = _part(module, name)
        setattr(holder, key, value if isinstance(getattr(holder, key, 0), tuple) else value[0])
    tied = ties(module)
    for name, tensor in state.items():
        _resize(module, name, tensor)
    tie(module, tied)


def _part(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        raise DataError(f"there is no part {name!r} in the model", hint="the weights are another family's") from error


def _resize(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Make room for a tensor where the module has one of another shape; a name that it lacks is told by loading."""
    holder_name, _, own = name.rpartition(".")
    try:
        holder = module.get_submodule(holder_name)
    except AttributeError:
        return
    known = holder._parameters.get(own)
    if known is not None and known.shape != tensor.shape:
        setattr(holder, own, nn.Parameter(torch.empty_like(tensor), requires_grad=known.requires_grad))
    elif (buffer := holder._buffers.get(own)) is not None and buffer.shape != tensor.shape:
        setattr(holder, own, torch.empty_like(tensor))


def largest_rank(layer: Layer) -> int:
    """The largest rank at which a product has fewer weights than the layer."""
    rows = layer.weight.shape[0]
    columns = math.prod(layer.weight.shape[1:])
    return (rows * columns - 1) // (rows + columns)
