"""Classes of the `transformers` library in sizes, by configuration: `transformers:BertForSequenceClassification`.

One dial: at width w the residual stream is 8·w wide (of several stages, the first one's). The class's own default
configuration says the proportions: the hidden layer, later stages, depth and heads are scaled as the stream is, depth
to at least 2 layers, heads to the nearest smaller number that divides the stream. So BERT has width 96, and width 12
has 1.5 layers of it, rounded up to 2. Weights start as the library starts them, unless the study starts from trained
ones. Pretrained weights are of one size, that of their own configuration: at other widths they do not fit, but smaller
models may take their part of them (`select:`).

Token 0 is padding and is masked. Images are given as pixel values; their patches are the configuration's, or smaller,
so that at least eight lie along the shorter side.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from sizewise.errors import UsageError, extra
from sizewise.families.family import Builder, refuse
from sizewise.records import Signature

UNIT = 8
"""Of the residual stream, for one step of the dial."""

FEWEST_LAYERS = 2
PATCHES = 8

LAST_PARTS = {
    "ForSequenceClassification": (("tokens",), ("classification", "regression")),
    "ForTokenClassification": (("tokens",), ("tagging",)),
    "ForImageClassification": (("image",), ("classification", "regression")),
    "ForCausalLM": (("tokens",), ("language modelling",)),
    "LMHeadModel": (("tokens",), ("language modelling",)),
}
"""What a class is for, by the end of its name: layouts and problems."""


class Wrapped(nn.Module):
    """A model of the library that takes one batch (token ids or pixel values) and answers with logits."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model, self.signature = model, signature

    def forward(self, x: Tensor) -> Tensor:
        if self.signature.layout == "image":
            logits: Tensor = self.model(pixel_values=x).logits
        elif self.signature.problem == "language modelling":
            # What comes after a text does not reach back into it, so padding needs no mask.
            logits = self.model(input_ids=x, use_cache=False).logits
        else:
            logits = self.model(input_ids=x, attention_mask=_there(x)).logits
        return logits


def _there(x_BT: Tensor) -> Tensor:
    """Steps that there are, and the first, lest an empty text have nothing to look at."""
    first = torch.arange(x_BT.shape[1], device=x_BT.device) == 0
    return ((x_BT != 0) | first).long()


def builder(name: str) -> Builder:
    """The family of a class of `transformers`.

    Raises:
        UsageError: there is no such class, or it is for other samples or answers.
    """
    kind = _kind(name)

    def build(width: int, task: Signature) -> nn.Module:
        layouts, problems = next(fits for end, fits in LAST_PARTS.items() if name.endswith(end))
        if task.layout not in layouts or task.problem not in problems:
            raise refuse(f"transformers:{name}", task, f"{' or '.join(problems)} of {' or '.join(layouts)}")
        model = kind(configuration(kind.config_class, width, task))
        return Wrapped(model, task)

    return build


def _kind(name: str) -> Any:
    with extra("transformers", needed_for=f"the family transformers:{name}"):
        import transformers
    known = [n for n in dir(transformers) if any(n.endswith(end) for end in LAST_PARTS) and not n.startswith("Auto")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        ends = ", ".join(f"...{end}" for end in LAST_PARTS)
        raise UsageError(
            f"transformers has no class {name!r} that comes in sizes",
            hint=(f"did you mean transformers:{near[0]}? " if near else "") + f"it must be one of {ends}",
        )
    return getattr(transformers, name)


def configuration(kind: Any, width: int, task: Signature) -> Any:
    """The class's default configuration at a width, for a task."""
    try:
        default = kind()
        sizes = _sizes(default, UNIT * width, UNIT * width / _stream(default))
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{kind.__name__} is not wide in one number, or says so in a way of its own: {error}",
            hint="write a function build(width, task) that makes the model",
        ) from error
    wanted = sizes | _ends(default, task)
    return kind(**{_own_name(default, name): value for name, value in wanted.items()})


def _stream(default: Any) -> int:
    stages = getattr(default, "hidden_sizes", None) or getattr(default, "embed_dims", None)
    return int(stages[0] if stages else default.hidden_size)


def _sizes(default: Any, stream: int, scale: float) -> dict[str, Any]:
    """What follows the dial, at `scale` of the default."""
    sizes: dict[str, Any] = {}
    if hasattr(default, "hidden_sizes"):
        sizes["hidden_sizes"] = [max(UNIT, UNIT * round(n * scale / UNIT)) for n in default.hidden_sizes]
        if hasattr(default, "depths"):
            sizes["depths"] = [max(1, round(n * scale)) for n in default.depths]
    if hasattr(default, "embedding_size") and isinstance(default.embedding_size, int):
        sizes["embedding_size"] = max(UNIT, UNIT * round(default.embedding_size * scale / UNIT))
    if "hidden_sizes" in sizes:
        return sizes
    sizes["hidden_size"] = stream
    sizes["num_hidden_layers"] = max(
        min(FEWEST_LAYERS, default.num_hidden_layers), round(default.num_hidden_layers * scale)
    )
    sizes["num_attention_heads"] = heads = _dividing(stream, default.num_attention_heads * scale)
    if isinstance(getattr(default, "num_key_value_heads", None), int):
        share = default.num_attention_heads // default.num_key_value_heads
        sizes["num_key_value_heads"] = _dividing(heads, heads / share)
    if isinstance(getattr(default, "head_dim", None), int):
        sizes["head_dim"] = stream // heads
    for name in ("intermediate_size", "hidden_dim", "ffn_dim", "n_inner"):
        if isinstance(getattr(default, name, None), int):
            sizes[name] = max(1, round(getattr(default, name) * scale))
    return sizes


def _dividing(whole: int, wanted: float) -> int:
    """The largest number of at most `wanted`, rounded, and at least 1, that divides a whole."""
    return next(n for n in range(max(1, round(wanted)), 0, -1) if whole % n == 0)


def _ends(default: Any, task: Signature) -> dict[str, Any]:
    """What the task decides."""
    ends: dict[str, Any] = {"num_labels": task.outputs}
    if task.layout == "image":
        channels, height, breadth = task.input_shape
        ends["num_channels"] = channels
        if hasattr(default, "image_size"):
            ends["image_size"] = height if height == breadth else (height, breadth)
        if isinstance(getattr(default, "patch_size", None), int):
            ends["patch_size"] = max(1, min(default.patch_size, height // PATCHES, breadth // PATCHES))
        return ends
    ends |= {"vocab_size": task.vocabulary, "pad_token_id": 0}
    ends |= {n: None for n in vars(default) if n.endswith("_token_id") and n != "pad_token_id"}
    if hasattr(default, "max_position_embeddings"):
        ends["max_position_embeddings"] = task.input_shape[0] + 2  # RoBERTa's count from 2
    return ends


def _own_name(default: Any, name: str) -> str:
    """A setting's name in this class, which may call it otherwise in its constructor."""
    own: str = default.attribute_map.get(name, name)
    return own if own in inspect.signature(type(default)).parameters else name
