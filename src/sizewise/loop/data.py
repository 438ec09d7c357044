"""What a run trains on: tensors in the order in which its batches take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sizewise import families, padding, room
from sizewise import recipe as recipes
from sizewise.records import Recipe, Signature
from sizewise.tasks import Split, Task

POOL = 50
"""Batches that are sorted by length together."""


@dataclass(frozen=True)
class Streamed:
    """Samples that are too many for memory: raw ones, wherever they lie, preprocessed as they are taken.

    Attributes:
        raw: shape (n, ...), as in `Split`.
        rows: those that these are.
    """

    raw: NDArray[Any]
    rows: NDArray[np.int64]
    task: Task

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """The chosen samples, as a tensor like that of `Data`."""
        rows = self.rows[chosen.numpy() if isinstance(chosen, Tensor) else chosen]
        order = np.argsort(rows)  # a disk is read in one direction
        found = np.empty((len(rows), *self.raw.shape[1:]), self.raw.dtype)
        found[order] = self.raw[rows[order]]
        return _tensor(self.task, found)

    def take(self, chosen: Tensor) -> Streamed:
        """The same of the chosen samples only; none is read."""
        return replace(self, rows=self.rows[chosen.numpy()])

    def expect(self, chosen: Tensor) -> None:
        """Have the chosen samples read while something else is done."""
        room.expect(self.raw, self.rows[chosen.numpy()])


Samples = Tensor | Streamed


@dataclass(frozen=True)
class Data:
    """A task on the device: preprocessed samples (n, ...), images with their channels last, and targets (n, ...)."""

    x: Samples
    y: Tensor
    x_validation: Samples
    y_validation: Tensor
    task: Task

    @classmethod
    def of(cls, task: Task) -> Data:
        """Preprocess the training and validation splits; the test split is not touched."""
        parts = (task.train, task.validation)
        (x, y), (x_validation, y_validation) = ((_samples(task, split), _targets(task, split)) for split in parts)
        return cls(x, y, x_validation, y_validation, task)

    def subset(self, fraction: float) -> Data:
        """The first `fraction` of a fixed random order of the training split: smaller subsets nest in larger ones."""
        chosen, rest = _parted(len(self.x), fraction)
        if not len(rest):
            return self
        x = self.x.take(chosen) if isinstance(self.x, Streamed) else self.x[chosen]
        return replace(self, x=x, y=self.y[chosen])


class Constraint(Protocol):
    """What a method asks of weights while they are trained. All three change a module in place."""

    def begin(self, module: nn.Module) -> None:
        """Before anything holds the module's parameters."""

    def follow(self, module: nn.Module, share: float, number: int) -> None:
        """After each optimizer step: the share of the run that is done, and the number of the step in its epoch."""

    def end(self, module: nn.Module) -> None:
        """Leave weights that keep to the constraint, in a module as it was before."""


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        weights: None is random ones.
        teacher: to distil, its logits or features for the whole training split (samples, outputs).
        form: of the weights.
        constraint: what they have to keep to.
    """

    weights: dict[str, Tensor] | None = None
    teacher: Tensor | None = None
    form: families.Form = field(default_factory=families.Form)
    constraint: Constraint | None = None


def batches(data: Data, recipe: Recipe, generator: torch.Generator) -> Sequence[Tensor]:
    """The samples of each step of an epoch, in random order.

    Where lengths differ, a batch holds samples of similar ones, since padding costs as much as what it pads: `POOL`
    batches at a time are sorted by length, and their order is drawn again.
    """
    order = torch.randperm(len(data.x), generator=generator)
    size, signature = recipes.batch_of(recipe, len(order)), data.task.signature
    if not signature.dynamic:
        return torch.split(order, size)
    assert isinstance(data.x, Tensor), "samples of different lengths are in memory"
    steps = padding.lengths(data.x)
    if signature.target_steps:
        steps += padding.lengths(data.y) * len(data.x[0])  # targets first: each of their steps costs more
    pools = torch.split(order, POOL * size)
    found = torch.split(torch.cat([pool[torch.argsort(steps[pool], stable=True)] for pool in pools]), size)
    return [found[i] for i in torch.randperm(len(found), generator=generator)]


def ahead(data: Data, found: Sequence[Tensor]) -> Iterator[Tensor]:
    """Batches in turn; the samples of the next one are read meanwhile, where they are not in memory."""
    for number, batch in enumerate(found, 1):
        if isinstance(data.x, Streamed) and number < len(found):
            data.x.expect(found[number])
        yield batch


def trimmed(x: Tensor, signature: Signature) -> Tensor:
    """Samples without the steps that none of them has."""
    return padding.trim(x) if signature.dynamic else x


def unused(task: Task, fraction: float) -> Split:
    """The training samples that a trial of this fraction does not learn from, whatever its seed."""
    return task.train.take(_parted(len(task.train), fraction)[1].numpy())


def _parted(count: int, fraction: float) -> tuple[Tensor, Tensor]:
    """Places of the samples that are learned from, and of the others."""
    order, size = torch.randperm(count, generator=generator(0, 0)), max(1, round(fraction * count))
    return order[:size], order[size:]


def take(data: Data, teacher: Tensor | None, fraction: float) -> tuple[Data, Tensor | None]:
    """A share of the training split, and what the teacher says of the same samples."""
    if teacher is None:
        return data.subset(fraction), None
    labelled = replace(data, y=torch.arange(len(data.y))).subset(fraction)
    return data.subset(fraction), teacher[labelled.y]


def _samples(task: Task, split: Split) -> Samples:
    """In memory and preprocessed, if 4 bytes a number fit there."""
    if not task.signature.dynamic and 4 * split.x.size > room.limit():
        return Streamed(split.x, np.arange(len(split)), task)
    return _tensor(task, split.x)


def _tensor(task: Task, raw: NDArray[Any]) -> Tensor:
    return families.arrange(torch.from_numpy(task.preprocessor(raw)), task.signature)


def _targets(task: Task, split: Split) -> Tensor:
    return torch.from_numpy(task.preprocessor.targets(split.y))


def generator(*numbers: int) -> torch.Generator:
    """A generator for one seed and epoch, or a batch of it. SeedSequence spreads neighbouring pairs far apart."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]) & (2**63 - 1))
