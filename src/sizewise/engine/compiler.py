"""The straight line as machine code, by PyTorch's own compiler, which needs a C++ compiler and some ten seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx.graph import CodeGen

from sizewise.cache import cache_folder
from sizewise.engine.errors import UnavailableError, explained
from sizewise.engine.graph import Gradients

OPTIONS = {
    "fallback_random": True,  # dropout draws what it would have drawn
    "compile_threads": 1,
}

MOST_OPERATIONS = 1000
"""Of a step that is compiled: a recurrent layer has some for every step of its sequence, and minutes would not do."""


def compiled(gradients: Gradients, batch: Sequence[Tensor]) -> Gradients:
    """The same gradients, compiled for the threads that this process has.

    What was compiled once is kept in the user's cache folder, for all seeds, processes and studies.

    Raises:
        UnavailableError: there is no C++ compiler, or it cannot compile this.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder("compiled")))
    inputs = [tensor.detach() for tensor in (*gradients.weights, *gradients.others, *batch)]
    count = len(gradients.graph.graph.nodes)
    if count > MOST_OPERATIONS:
        raise UnavailableError(f"{count:,} operations take too long to compile")
    with explained(), torch.no_grad():
        return replace(gradients, line=_compile(gradients, inputs))


def _compile(gradients: Gradients, inputs: list[Any]) -> Callable[..., Any]:
    from torch import _inductor  # imported here, since it takes a second

    graph = gradients.graph
    graph.graph.set_codegen(CodeGen())  # as it was traced, arguments come one by one
    graph.recompile()
    line: Callable[..., Any] = _inductor.compile(graph, inputs, options=OPTIONS)
    return line
