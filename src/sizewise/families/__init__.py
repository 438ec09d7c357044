"""Models that come in sizes: one dial, `width`, and the functions that count what a width costs.

Of built-in families with layers of one kind a depth may be asked for, too: `lstm:3`, `transformer:4`, `resnet:2`.
A family is any function `build(width, task) -> torch.nn.Module` whose parameter count grows with `width`; `task` is the
`Signature` of what goes in and comes out. Built-in ones have a name; a user's own is written `package.module:function`.
Models that did not come in sizes are named by their kind: `thin:package.module:function` is any module, made thinner,
`transformers:Class` a class of that library, `keras:package.module:model` a Keras model.
"""

from __future__ import annotations

from sizewise.families.count import (
    activation_bytes,
    example,
    flops,
    non_embedding,
    parameters,
    training_bytes,
    training_flops,
)
from sizewise.families.family import (
    NAMES,
    Family,
    check_output,
    first_line,
    ladder_of,
    load,
    output_shape,
    recipe_of,
    refuse,
    shapes,
    suited,
    widest,
)
from sizewise.families.form import Form, fill, load_weights
from sizewise.families.layout import arrange, arrange_module
from sizewise.families.weights import complete, distinct, read_weights, save_weights, ties

__all__ = [
    "NAMES",
    "Family",
    "Form",
    "activation_bytes",
    "arrange",
    "arrange_module",
    "check_output",
    "complete",
    "distinct",
    "example",
    "fill",
    "first_line",
    "flops",
    "ladder_of",
    "load",
    "load_weights",
    "non_embedding",
    "output_shape",
    "parameters",
    "read_weights",
    "recipe_of",
    "refuse",
    "save_weights",
    "shapes",
    "suited",
    "ties",
    "training_bytes",
    "training_flops",
    "widest",
]
