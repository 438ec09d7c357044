"""Loss and gradients of a batch, faster than the loop over layers, and equal to it.

    graph.py      the step's loss and gradients, traced into one straight line of tensor operations
    rewrite.py    operations that are slow as they stand, in a form that computes the same numbers faster
    compiler.py   the straight line as machine code

A small model's step is spent between its operations, in layers, hooks and the recording of gradients: a straight line
has none of them. A larger one's is spent moving activations: compiled, the operations between two matrix products are
one pass over memory. What neither changes is what is computed. Which of them trains a size is decided in `loop`.
"""

from sizewise.engine.compiler import compiled
from sizewise.engine.errors import UnavailableError, explained
from sizewise.engine.graph import Gradients, Loss, traced

__all__ = ["Gradients", "Loss", "UnavailableError", "compiled", "explained", "traced"]
