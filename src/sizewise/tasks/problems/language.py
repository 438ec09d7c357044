"""The next token. Outputs are logits (n, steps, tokens); what is kept of them is each text's surprise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import mask
from sizewise.records import Metric, Recipe
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.problem import Judged, Problem
from sizewise.tasks.problems.tagging import token_losses

if TYPE_CHECKING:
    from torch import Tensor

    from sizewise.tasks.task import Split


class LanguageModelling(Problem):
    """Logits (n, steps, tokens) against the tokens one step ahead (n, steps).

    A split's references are the bytes that each row of targets stands for, so that models of different tokenizers are
    comparable.
    """

    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("bits per byte", higher=False, share=False, margin=0.02),
            Metric("perplexity", higher=False, share=False, margin=0.2),
        )

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        return token_losses(outputs, y, recipe)

    def read(self, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Nats of each row's targets, shape (n,)."""
        import torch

        nats, _ = token_losses(torch.from_numpy(outputs), torch.from_numpy(y), Recipe())
        kept: NDArray[Any] = nats.double().numpy()
        return kept

    def same(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        """Nats within a thousandth."""
        return np.asarray(np.isclose(a, b, rtol=1e-3))

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        tokens, size = mask(split.y).sum(axis=1).astype(float), np.asarray(split.references, float)
        nats = influence.ratio(answers, tokens)
        bits, loss = influence.ratio(answers / math.log(2), size), float(nats.mean())
        perplexity = math.exp(min(loss, 700.0))
        examples = {"bits per byte": bits, "perplexity": perplexity * (1 + nats - loss)}
        values = {"bits per byte": float(bits.mean()), "perplexity": perplexity}
        return Judged(values, examples, loss=loss)
