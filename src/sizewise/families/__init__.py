"""Models that come in sizes: one dial, `width`, and the functions that count what a width costs.

A family is any function `build(width, task) -> torch.nn.Module` whose parameter count grows with `width`; `task` is the
`Signature` of what goes in and comes out. Built-in ones have a name; a user's own is written `package.module:function`.
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
from sizewise.families.family import NAMES, Family, ladder_of, load, refuse, suited
from sizewise.families.layout import arrange, arrange_module
from sizewise.families.weights import complete, distinct, load_weights, save_weights

__all__ = [
    "NAMES",
    "Family",
    "activation_bytes",
    "arrange",
    "arrange_module",
    "complete",
    "distinct",
    "example",
    "flops",
    "ladder_of",
    "load",
    "load_weights",
    "non_embedding",
    "parameters",
    "refuse",
    "save_weights",
    "suited",
    "training_bytes",
    "training_flops",
]
