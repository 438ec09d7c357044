"""A class at each step. Outputs are logits (n, steps, classes); targets are ids from 1, 0 where nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.padding import PAD, mask
from sizewise.records import Metric, Recipe
from sizewise.tasks.problems import influence
from sizewise.tasks.problems.classification import macro_f1
from sizewise.tasks.problems.problem import Array, Judged, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from sizewise.tasks.task import Split

BEGINS, INSIDE = "B-", "I-"
"""What a tag of an entity's first and of its other words begins with; its kind follows (Ramshaw & Marcus 1995)."""

Entity = tuple[int, int, str]
"""Its first step, the one after its last, and its kind."""


class Tagging(Problem):
    """Logits (n, steps, classes + 1) against classes (n, steps) from 1; output 0 is never right.

    Accuracy is of steps, F1 the mean over classes. Where classes are called B-KIND and I-KIND, entities are scored too:
    one is found when its first step, its last and its kind are right (Tjong Kim Sang & De Meulder 2003, cs/0306050).
    """

    def metrics(self) -> tuple[Metric, ...]:
        spans = any(name.startswith(BEGINS) for name in self.classes)
        return Metric("accuracy"), Metric("F1"), *([Metric("entity F1")] if spans else [])

    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        return token_losses(outputs, y, recipe)

    def read(self, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        said = outputs[..., 1:].argmax(axis=-1) + 1
        return np.pad(said, [(0, 0), (0, y.shape[1] - said.shape[1])])

    def score(self, answers: NDArray[Any], split: Split) -> float:
        if self.metric.name == "accuracy":  # at every epoch of every run, and cheaper than all the rest
            return float((answers == split.y)[mask(split.y)].mean())
        return super().score(answers, split)

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        asked = mask(split.y)
        hits = ((answers == split.y) & asked).sum(axis=1)
        examples = {"accuracy": influence.ratio(hits.astype(float), asked.sum(axis=1).astype(float))}
        examples["F1"] = self._f1(answers, split.y)
        if len(self.metrics()) > 2:
            examples["entity F1"] = self._entity_f1(answers, split.y)
        return Judged({name: float(values.mean()) for name, values in examples.items()}, examples)

    def _f1(self, answers: NDArray[Any], y: NDArray[Any]) -> Array:
        """Influence of each sequence on the mean F1 over the classes that occur."""
        row, step = np.nonzero(mask(y))
        size = self.signature.outputs
        cells, present = size * y[row, step] + answers[row, step], np.unique(y[row, step])

        def f1(kept: NDArray[np.intp]) -> float:
            there = np.isin(np.arange(len(y)), kept)
            counts = np.bincount(cells[there[row]], minlength=size * size).reshape(size, size)
            return macro_f1(counts, present)

        return influence.jackknife(f1, len(y))

    def _entity_f1(self, answers: NDArray[Any], y: NDArray[Any]) -> Array:
        """Influence of each sequence on 2 · found / (said + there are)."""
        found, either = np.zeros(len(y)), np.zeros(len(y))
        for i, (said, true) in enumerate(zip(answers, y, strict=True)):
            ours, theirs = (set(entities([self.classes[c] for c in tags[true != PAD]])) for tags in (said, true))
            found[i], either[i] = len(ours & theirs), len(ours) + len(theirs)
        return influence.ratio(2 * found, either) if either.any() else np.ones(len(y))


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """The entities that tags say, as the CoNLL-2000 scorer reads them: one that begins with I-KIND counts, too."""
    start, kind = 0, ""
    for at, tag in enumerate((*tags, "")):
        now = tag[len(BEGINS) :] if tag.startswith((BEGINS, INSIDE)) else ""
        if kind and (now != kind or tag.startswith(BEGINS)):
            yield start, at, kind
            kind = ""
        if now and not kind:
            start, kind = at, now


def token_losses(outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of logits (n, steps, outputs) against ids (n, at least as many steps), padding left out."""
    import torch.nn.functional as F

    y = y[:, : outputs.shape[1]]
    losses = F.cross_entropy(
        outputs.flatten(0, 1), y.flatten(), reduction="none", ignore_index=PAD, label_smoothing=recipe.label_smoothing
    )
    return losses.view(y.shape).sum(dim=1), mask(y).sum(dim=1)
