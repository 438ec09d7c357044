"""What every problem says: its loss, what its answers are, and how good they are."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sizewise import padding
from sizewise.errors import UsageError
from sizewise.records import Metric, Recipe, Scores, Signature
from sizewise.tasks.problems.augment import moved

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from sizewise.tasks.task import Split

Array = NDArray[np.float64]

Session = Callable[[NDArray[Any]], NDArray[Any]]
"""A model that is run: raw samples in, the first output out. One batch a call."""

SCORE_BATCH = 256

MOST_NUMBERS = 1 << 25
"""Outputs that are held at a time: 128 MB. A language model has one for every token of its vocabulary at every step."""


@dataclass(frozen=True)
class Judged:
    """How good answers are.

    Attributes:
        values: every metric by name.
        examples: of each metric that sizes can be chosen by, what each example contributes, shape (n,). The mean is the
            metric; its scatter is that of the metric over samples of examples, so that metrics of a whole split, such
            as BLEU, can be compared pairwise too (influence values, see `influence`).
        confusion: counts of classes, rows are truth; empty where there are none.
        loss: mean loss per sample or token; NaN where answers do not tell.
    """

    values: Mapping[str, float]
    examples: Mapping[str, Array]
    confusion: tuple[tuple[int, ...], ...] = ()
    loss: float = float("nan")

    def scores(self, metric: Metric, loss: float | None = None) -> Scores:
        """The record of these answers."""
        kept = self.loss if loss is None else loss
        return Scores(metric, kept, self.values[metric.name], dict(self.values), self.confusion)


class Problem(ABC):
    """One kind of problem, for one task.

    Args:
        classes: name of each class or token.
        target_std: of each number that is predicted, in regression.
        files: what belongs to the model besides its weights, by name, for example the target's tokenizer.
        metric: name of the metric that sizes are chosen by; "" is the first.

    Attributes:
        quick: whether the loss's own outputs tell the score, so that it is known at every epoch.
        distils: whether a student can learn from a teacher's logits, one vector a sample.
        losses_known: what `recipe.loss` may be besides "cross_entropy", which stands for the problem's own.
    """

    quick: ClassVar[bool] = True
    distils: ClassVar[bool] = False
    losses_known: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        signature: Signature,
        classes: tuple[str, ...],
        target_std: tuple[float, ...],
        files: Mapping[str, bytes],
        metric: str,
    ) -> None:
        self.signature, self.classes, self.target_std, self.files = signature, classes, target_std, files
        self.metric = self._named(metric)

    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """What sizes can be chosen by; the first unless the user says otherwise."""

    def check(self, recipe: Recipe) -> None:
        """Refuse a loss that would be ignored, and augmentation that there is none of.

        Raises:
            UsageError: this problem has no such loss, or its samples cannot be changed at random.
        """
        if recipe.augment and self.signature.layout not in ("image", "volume"):
            raise UsageError(
                f"{self.signature.layout} of {self.signature.problem} cannot be augmented, only images and volumes",
                hint="leave recipe.augment out",
            )
        if recipe.loss not in ("cross_entropy", *self.losses_known):
            others = f", or give one of {', '.join(self.losses_known)}" if self.losses_known else ""
            raise UsageError(
                f"{self.signature.problem} has no loss {recipe.loss!r}",
                hint=f"leave --loss out for its own{others}",
            )

    @abstractmethod
    def losses(self, outputs: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Sum of the loss over each sample's targets, and how many those are, both of shape (batch,).

        The loss of a batch or a split is the ratio of their sums: per sample, or per token where targets have steps.
        """

    @abstractmethod
    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        """Score the answers (n, ...) to a split."""

    def score(self, answers: NDArray[Any], split: Split) -> float:
        """The metric that sizes are chosen by, alone."""
        return self.judge(answers, split).values[self.metric.name]

    def forward(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Outputs of a training pass."""
        outputs: Tensor = module(x)
        return outputs

    def augment(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """A batch of standardised samples and their targets, changed at random in ways that do not matter.

        Raises:
            MissingExtraError: kornia is not installed.
        """
        return moved(x, generator), y

    def read(self, outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """What is kept of a batch's outputs to be judged."""
        return outputs

    def distance(self, a: NDArray[Any], b: NDArray[Any]) -> float:
        """How far two answers to the same samples are apart: the largest absolute difference."""
        return float(np.abs(a - b).max())

    def same(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether two models give one answer, for each example."""
        if a.ndim > 1 and a.shape != b.shape:  # the longest answers of two models need not be equally long
            a, b = (_widened(answers, max(a.shape[1], b.shape[1])) for answers in (a, b))
        return np.asarray((a == b).reshape(len(a), -1).all(axis=1))

    def batch(self, most: int) -> int:
        """Samples to evaluate at a time: `most`, or as many as have `MOST_NUMBERS` outputs."""
        signature = self.signature
        steps = signature.target_steps or (1 if len(signature.input_shape) > 2 else signature.input_shape[0])
        return max(1, min(most, MOST_NUMBERS // (steps * signature.outputs)))

    def answers(self, session: Session, split: Split, parts: int = 1) -> NDArray[Any]:
        """A model's answers to a split, shape (n, ...); shorter answers are padded with 0.

        Args:
            parts: so many times fewer samples at a time, where memory is short.
        """
        answers = []
        size = self.batch(-(-SCORE_BATCH // parts))
        for start in range(0, len(split.x), size):
            x, y = (array[start : start + size] for array in (split.x, split.y))
            answers.append(self.read(session(prepared(x, self.signature)), y))
        return self.joined(answers)

    def joined(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The answers of several batches as those of one."""
        if len({part.shape[1:] for part in parts}) == 1:
            return np.concatenate(parts)
        longest = max(part.shape[1] for part in parts)
        return np.concatenate([_widened(part, longest) for part in parts])

    def _named(self, name: str) -> Metric:
        known = {metric.name: metric for metric in self.metrics()}
        if not name:
            return self.metrics()[0]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"{self.signature.problem} has no metric {name!r}",
                hint=(f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}",
            )
        return known[name]


def prepared(x: NDArray[Any], signature: Signature) -> NDArray[Any]:
    """Samples as a session takes them: float32 numbers or int64 tokens, without steps that none of them has."""
    if signature.dynamic:
        x = padding.trim(x)
    return np.ascontiguousarray(x, np.int64 if signature.vocabulary else np.float32)


def _widened(part: NDArray[Any], steps: int) -> NDArray[Any]:
    return np.pad(part, [(0, 0), (0, steps - part.shape[1]), *[(0, 0)] * (part.ndim - 2)])


__all__ = ["Array", "Judged", "Problem", "Session", "prepared"]
