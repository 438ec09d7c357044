"""The weights that a study's trials start from: named by their hash, kept in the study's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from sizewise import families
from sizewise.errors import DataError, IntegrityError
from sizewise.families import Family
from sizewise.families.weights import read_weights
from sizewise.records import Signature, Trial, Weights
from sizewise.starts.take import Taken, take
from sizewise.store import Store, sha256, write_atomic

NAMED = 3
"""Tensors that a note names before it only counts them."""

ALIKE = (
    "all seeds start from the same weights: intervals over seeds are for these weights, and not for others like them"
)


@dataclass(frozen=True)
class File:
    """Trained weights on disk.

    Attributes:
        same_tokens: whether they were trained on the very tokens of the task.
    """

    path: Path
    sha256: str
    same_tokens: bool = False


@dataclass(frozen=True)
class Starts:
    """What the trials of a study start from.

    Attributes:
        name: as the study says it.
        cut: whether each width takes its part of a larger model's weights.
        file: the weights for a width and a seed.
    """

    name: str
    cut: bool
    file: Callable[[int, int], File]

    def weights(self, width: int, seed: int) -> Weights:
        """What a trial of this width and seed starts from."""
        found = self.file(width, seed)
        return Weights(found.sha256, self.cut, found.same_tokens)

    def begin(self, trials: Iterable[Trial]) -> tuple[Trial, ...]:
        """The trials, starting from these weights."""
        return tuple(replace(trial, start=self.weights(trial.width, trial.seed)) for trial in trials)

    def keep(self, trials: Iterable[Trial], store: Store) -> None:
        """Copy the weights that these trials start from into the study's folder, where they stay as they are now.

        Raises:
            IntegrityError: a file changed since it was looked at.
        """
        for trial in trials:
            found = self.file(trial.width, trial.seed)
            own = store.weights(found.sha256)
            if not own.exists():
                write_atomic(own, lambda copy, source=found.path: shutil.copyfile(source, copy))  # type: ignore[misc]
                _checked(own, found.sha256)

    def notes(self, family: Family, trials: Iterable[Trial]) -> tuple[str, ...]:
        """What the widths take of their weights, and what not, counted; each width is tried once.

        Raises:
            DataError: a width takes no weights at all.
        """
        trials = tuple(trials)
        tried = {trial.width: trial for trial in reversed(trials)}
        found: dict[tuple[int, tuple[str, ...], int], list[int]] = {}
        for width, trial in sorted(tried.items()):
            taken = _take(trial, family, self.weights(width, trial.seed), self.file(width, trial.seed).path)[1]
            if not taken.matrices:
                raise self._nothing(width, taken)
            left = tuple(f"{name} ({why})" for name, why in taken.left.items())
            found.setdefault((len(taken.names), left, taken.unused), []).append(width)
        said = tuple(f"started from {self.name}: {_said(*what, widths)}" for what, widths in found.items())
        seeds = {trial.seed for trial in trials}
        alike = len(seeds) > 1 and any(len({self.file(width, s).sha256 for s in seeds}) == 1 for width in tried)
        return (*said, ALIKE) if alike else said

    def _nothing(self, width: int, taken: Taken) -> DataError:
        missing = next(f"{name} ({why})" for name, why in taken.left.items())
        hint = f"the weights must be of the same family; select:{self.name} cuts a larger model's for smaller widths"
        if self.cut:
            hint = "the weights must be of the same family, at this width or a larger one"
        return DataError(f"width {width} can take no weights of {self.name}: {missing}", hint=hint)


def initial(trial: Trial, store: Store, signature: Signature) -> dict[str, Tensor] | None:
    """The first weights of a trial, as a state dict of its module; None where they are random.

    Raises:
        IntegrityError: the study's copy of the weights is missing or damaged.
    """
    if trial.start is None:
        return None
    path = store.weights(trial.start.sha256)
    _checked(path, trial.start.sha256)
    return _take(trial, families.load(trial.family, signature), trial.start, path)[0]


def kept(trials: Iterable[Trial], store: Store) -> bool:
    """Whether a study has all the weights that these trials start from."""
    return all(store.weights(trial.start.sha256).is_file() for trial in trials if trial.start)


def _take(trial: Trial, family: Family, weights: Weights, path: Path) -> tuple[dict[str, Tensor], Taken]:
    module = family.build(trial.width, seed=trial.seed)
    taken = take(module, read_weights(path), family, trial.width, weights)
    return module.state_dict(), taken


def _checked(path: Path, digest: str) -> None:
    if not path.is_file() or sha256(path) != digest:
        state = "damaged" if path.is_file() else "missing"
        path.unlink(missing_ok=True)
        raise IntegrityError(
            f"{path}, which trials start from, is {state}",
            hint="run the same command again with the same weights: they are copied anew",
        )


def _said(taken: int, left: tuple[str, ...], unused: int, widths: list[int]) -> str:
    at = f"at width {', '.join(map(str, widths))}"
    words = f"{taken} of {taken + len(left)} tensors {at}"
    if left:
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        words += f"; not taken: {', '.join(left[:NAMED])}{more}"
    return f"{words}; {unused} of the file's have no place in the model" if unused else words
