"""Operations that are slow as they stand, or wrong, in a form that computes the same numbers faster, or right."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten
CONVOLUTION = aten.convolution.default

MOST_TAPS = 64
"""Numbers in one patch up to which a convolution as a matrix product is worth its copies: that of a first layer."""


def rewrite(forward: GraphModule) -> bool:
    """Rewrite a forward pass in place.

    Returns:
        whether there was something to rewrite.
    """
    changed = [pooled_convolutions(forward), strided_points(forward)]
    return any(changed)


def strided_points(forward: GraphModule) -> bool:
    """A 1×1 convolution that strides looks at some places only: those are taken first, and it then strides no more.

    A compiler lays channels last, and so oneDNN's gradient of such weights writes over memory that is not its own where
    there are fewer channels than a vector holds (uxlfoundation/oneDNN#6035). See `families.layout` for other steps.

    Returns:
        whether there was one.
    """
    found = [node for node in forward.graph.find_nodes(op="call_function", target=CONVOLUTION) if _point(node)]
    for convolution in found:
        x, weight, bias, stride, padding, *rest = convolution.args
        with forward.graph.inserting_before(convolution):
            for axis, step in enumerate(cast("list[int]", stride)):
                x = forward.graph.call_function(aten.slice.Tensor, (x, axis + 2, 0, sys.maxsize, step))
        convolution.args = (x, weight, bias, [1] * len(cast("list[int]", stride)), padding, *rest)
    forward.recompile()
    return bool(found)


def _point(convolution: Node) -> bool:
    """Whether a convolution's kernel is one place, and strides."""
    _, weight, _, stride, padding, _, transposed, *_ = cast("tuple[Any, ...]", convolution.args)
    one_place = set(weight.meta["val"].shape[2:]) == {1} and not any(padding) and not transposed
    return one_place and max(stride) > 1


def pooled_convolutions(forward: GraphModule) -> bool:
    """A first layer's convolution and the 2×2 maximum over it become one operation, see `convolve_and_pool`.

    Returns:
        whether there was one.
    """
    pairs = list(_pairs(forward))
    for convolution, pool, pooled in pairs:
        x, weight, bias, _, padding = convolution.args[:5]
        with forward.graph.inserting_after(pool):
            made = forward.graph.call_function(convolve_and_pool, (x, weight, bias, tuple(cast("list[int]", padding))))
        pooled.replace_all_uses_with(made)
        for node in (pooled, pool, convolution):
            forward.graph.erase_node(node)
    for view in forward.graph.find_nodes(op="call_function", target=aten.view.default):
        view.target = aten.reshape.default  # what is viewed may lie in memory otherwise than it did
    forward.recompile()
    return bool(pairs)


def convolve_and_pool(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """`max_pool2d(conv2d(x, weight, bias, padding=padding), 2)` as the maximum of four matrix products.

    The four places under one maximum see one patch of kernel size plus 1: it is copied once, and each place's weights
    are the kernel, moved within a patch of zeros. No array is larger than the result, which a core's cache holds.

    Shapes: x (batch, channels, height, width), weight (outputs, channels, rows, columns), bias (outputs,).
    """
    outputs, _, rows, columns = weight.shape
    if any(padding):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    patches = x.unfold(2, rows + 1, 2).unfold(3, columns + 1, 2).permute(0, 2, 3, 1, 4, 5)
    places = patches.shape[:3]
    flat = patches.reshape(places.numel(), -1)
    best: Tensor | None = None
    for down in (0, 1):
        for right in (0, 1):
            moved = F.pad(weight, (right, 1 - right, down, 1 - down)).reshape(outputs, -1)
            found = flat @ moved.t()
            # The first of equals wins, as in a maximum over a window, so that gradients are the same, too.
            best = found if best is None else torch.where(found > best, found, best)
    assert best is not None
    if bias is not None:
        best = best + bias
    return best.view(*places, outputs).permute(0, 3, 1, 2)


def _pairs(forward: GraphModule) -> Iterator[tuple[Node, Node, Node]]:
    """Convolution, pool, and the pool's values, wherever nothing else looks at what lies between them."""
    for pool in forward.graph.find_nodes(op="call_function", target=aten.max_pool2d_with_indices.default):
        convolution, users = pool.args[0], list(pool.users)
        if _halves(pool) and _first(convolution) and len(users) == 1 and users[0].args[1] == 0:
            yield convolution, pool, users[0]


def _halves(pool: Node) -> bool:
    """Whether a pool takes the maximum of 2×2 with no overlap, padding, or rounding up."""
    window, stride, *rest = (list(a) if isinstance(a, list | tuple) else a for a in pool.args[1:])
    return window == [2, 2] and stride in ([2, 2], []) and rest in ([], [[0, 0]])


def _first(node: object) -> bool:
    """Whether this is a plain convolution over few channels whose result has one user."""
    if not isinstance(node, Node) or node.target is not CONVOLUTION or len(node.users) > 1:
        return False
    _, weight, _, stride, _, dilation, transposed, _, groups = cast("tuple[Any, ...]", node.args)
    shape = weight.meta["val"].shape
    taps = shape[1] * (shape[2] + 1) * (shape[3] + 1) if len(shape) == 4 else MOST_TAPS + 1
    plain = (list(stride), list(dilation), transposed, groups) == ([1, 1], [1, 1], False, 1)
    return bool(plain and taps <= MOST_TAPS)
