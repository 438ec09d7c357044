"""Fewer layers: whole blocks leave a stack, one after the other, each time the one whose absence costs least.

What may leave is found by trial: a block is a part of a stack that has parts itself, and without it the model must
answer in its old shape, as where blocks add to a residual stream.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from sizewise.errors import SizewiseError
from sizewise.families.form import Stack, stay
from sizewise.families.graph import answer
from sizewise.methods import Shorten
from sizewise.records import Signature

Cost = Callable[[nn.Module], float]
"""What a model without a block is worth: the less the better."""

Block = tuple[str, int]
"""Name of a stack, and a place in it."""


def shorten(module: nn.Module, method: Shorten, task: Signature, cost: Cost) -> nn.Module:
    """A copy of the module without the blocks that cost least.

    Raises:
        SizewiseError: no block can leave, or not as many.
    """
    module = copy.deepcopy(module)
    total = len(tuple(_removable(module, task)))
    wanted = max(1, math.ceil(method.keep * total))
    if total <= wanted:
        raise SizewiseError(
            f"of {total} layers that could leave, {wanted} stay at a share of {method.keep:.3g}",
            hint="ask for a smaller share" if total > 1 else "prune channels instead: prune=0.5",
        )
    for _ in range(total - wanted):
        without = {block: _without(module, block) for block in _removable(module, task)}
        if not without:
            raise SizewiseError(
                f"the model holds together only with more than {wanted} of {total} layers",
                hint="ask for a larger share",
            )
        module = min(without.values(), key=cost)
    return module


def _removable(module: nn.Module, task: Signature) -> Iterator[Block]:
    """Blocks without which the module answers in its old shape."""
    wanted = _shape(module, task)
    for name, stack in module.named_modules():
        if isinstance(stack, Stack) and len(stack) > 1:
            for place, block in enumerate(stack):
                if any(block.children()) and _shape(_without(module, (name, place)), task) == wanted:
                    yield name, place


def _without(module: nn.Module, block: Block) -> nn.Module:
    name, place = block
    shorter = copy.deepcopy(module)
    stack = shorter.get_submodule(name)
    assert isinstance(stack, Stack)
    stay(stack, [other for other in range(len(stack)) if other != place])
    return shorter


def _shape(module: nn.Module, task: Signature) -> torch.Size | None:
    return answer(module.eval(), task)
