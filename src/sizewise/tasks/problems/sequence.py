"""A sequence from a sequence, token by token. Outputs are logits (n, target steps - 1, tokens) of each next token.

Targets are a first token, ids and a last one, padded with 0. In training a model is given the target's beginning
(teacher forcing, Williams & Zipser 1989); its answers are ids without first and last token, found by beam search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import lengths, trim
from sizewise.records import Recipe
from sizewise.tasks.problems.problem import Problem, Session
from sizewise.tasks.problems.tagging import token_losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sizewise.tasks.task import Split


class SequenceToSequence(Problem):
    """Logits against the ids one step ahead; what the answers are worth is said by the kind of target."""

    quick = False

    def forward(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        outputs: Tensor = module(x, trim(y)[:, :-1])
        return outputs

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        return token_losses(outputs, y[:, 1:], recipe)

    def answers(self, session: Session, split: Split, parts: int = 1) -> NDArray[Any]:
        """Ids (n, target steps). Samples of one length are answered together, since padding costs time."""
        order = np.argsort(lengths(split.x), kind="stable")
        return super().answers(session, split.take(order), parts)[np.argsort(order)]

    def read(self, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Ids padded to one length for all batches and models."""
        return np.pad(outputs, [(0, 0), (0, self.signature.target_steps - outputs.shape[1])])
