"""A sentence from a sentence, as texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.records import Metric
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.problem import Array, Judged
from sizewise.tasks.problems.sequence import SequenceToSequence
from sizewise.tasks.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sizewise.tasks.task import Split


class Translation(SequenceToSequence):
    """Answers against sentences as they are, after sacreBLEU's own tokenizer.

    BLEU (Papineni et al. 2002) and chrF (Popović 2015) are those of sacreBLEU (Post 2018, arXiv:1804.08771) with its
    defaults, case counting, divided by 100.
    """

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("BLEU"),)

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
