"""A sentence from a sentence. Outputs are logits (n, target steps - 1, tokens) of each next token of the target.

Targets are a first token, ids and a last one, padded with 0. In training a model is given the target's beginning
(teacher forcing, Williams & Zipser 1989); its answers are ids without first and last token, found by beam search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.padding import lengths, trim
from sizewise.records import Metric, Recipe
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.problem import Array, Judged, Problem, Session
from sizewise.tasks.problems.tagging import token_losses
from sizewise.tasks.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from sizewise.tasks.task import Split


class Translation(Problem):
    """Logits against the ids one step ahead; answers against sentences as they are, after sacreBLEU's own tokenizer.

    BLEU (Papineni et al. 2002) and chrF (Popović 2015) are those of sacreBLEU (Post 2018, arXiv:1804.08771) with its
    defaults, case counting, divided by 100.
    """

    quick = False

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("BLEU"),)

    def forward(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        outputs: Tensor = module(x, trim(y)[:, :-1])
        return outputs

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        return token_losses(outputs, y[:, 1:], recipe)

    def answers(self, session: Session, split: Split) -> NDArray[Any]:
        """Ids (n, target steps). Sentences of one length are translated together, since padding costs time."""
        order = np.argsort(lengths(split.x), kind="stable")
        return super().answers(session, split.take(order))[np.argsort(order)]

    def read(self, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Ids padded to one length for all batches and models."""
        return np.pad(outputs, [(0, 0), (0, self.signature.target_steps - outputs.shape[1])])

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        with extra("text", needed_for="BLEU and chrF"):
            from sacrebleu.metrics import CHRF

        tokens = Tokens.read(self.files["target.json"])
        said, meant = [tokens.text(row) for row in answers], [str(sentence) for sentence in split.references]
        bleu = bleu_of_each(said, meant)
        chrf = CHRF().corpus_score(said, [meant]).score / 100
        return Judged({"BLEU": float(bleu.mean()), "chrF": float(chrf)}, {"BLEU": bleu})


def bleu_of_each(said: Sequence[str], meant: Sequence[str]) -> Array:
    """Influence values of corpus BLEU in [0, 1], shape (n,), by leaving out one sentence at a time."""
    with extra("text", needed_for="BLEU"):
        from sacrebleu.metrics import BLEU

    metric = BLEU(effective_order=True)  # which changes the sentence's own score, and not its counts
    found = [metric.sentence_score(a, [b]) for a, b in zip(said, meant, strict=True)]
    counts = np.array([[f.sys_len, f.ref_len, *f.counts, *f.totals] for f in found])

    def of(chosen: NDArray[np.intp]) -> float:
        system, reference, *rest = map(int, counts[chosen].sum(axis=0))
        half = len(rest) // 2
        return float(BLEU.compute_bleu(rest[:half], rest[half:], system, reference).score) / 100

    return influence.jackknife(of, len(counts), groups=len(counts))
