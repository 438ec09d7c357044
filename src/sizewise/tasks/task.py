"""What a model learns from: three splits, what goes in and comes out, and the preprocessing fitted on the first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import padding, room
from sizewise.errors import DataError
from sizewise.records import Exclusion, Metric, Signature
from sizewise.tasks.problems import Problem
from sizewise.tasks.problems import make as make_problem

CHUNK = 4096
"""Samples that are standardised at a time, so that preprocessing does not need the memory of the whole split twice."""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples as they enter a deployed model.

    Attributes:
        x: raw values, shape (n, *input_shape): uint8 or float32 numbers, or int64 tokens.
        y: targets, int64 or float32. Shape (n,) of classes; (n, numbers) in regression; (n, steps) of ids from 1,
            padded with 0, where targets have steps; (n, most boxes, 5) in detection, see `tasks.detection`.
        references: what the metric compares answers with where that is not y, one an example: a sentence, or the bytes
            that a sequence of tokens stands for.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    references: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: NDArray[Any]) -> Split:
        """Some of the examples, in the order of `indices`."""
        kept = tuple(self.references[i] for i in indices) if len(self.references) else ()
        return Split(room.taken(self.x, indices), self.y[indices], kept)


@dataclass(frozen=True)
class Preprocessor:
    """Standardisation, (x - mean) / std of each channel in raw units, and of each number that is predicted.

    Tokens are left as they are: then nothing is here.

    Attributes:
        padded: samples are series whose last channel says where there is a step; they stay 0 where there is none.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    padded: bool = False
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()

    @classmethod
    def fit(cls, train: Split, signature: Signature) -> Preprocessor:
        """Fit each channel and each target of the training split; a constant one gets std 1."""
        mean, std = _moments(train.x, signature)
        padded = signature.layout == "series" and signature.dynamic
        targets = _columns(train.y.astype(np.float64)) if signature.problem == "regression" else ((), ())
        return cls(mean, std, padded, *targets)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The same shape, standardised, as float32; tokens as int64."""
        if not self.mean:
            return x.astype(np.int64)
        shape = (-1,) if x.ndim == 3 else (-1, *(1,) * (x.ndim - 2))
        mean, std = (np.array(values, np.float32).reshape(shape) for values in (self.mean, self.std))
        out = np.empty(x.shape, np.float32)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            np.divide(x[part].astype(np.float32) - mean, std, out=out[part])
            if self.padded:
                out[part] *= out[part][..., -1:]
        return out

    def targets(self, y: NDArray[Any]) -> NDArray[Any]:
        """Targets as a model learns them: numbers standardised, all others as they are."""
        if not self.target_mean:
            return y
        scaled = (y - np.array(self.target_mean)) / np.array(self.target_std)
        return np.asarray(scaled, np.float32)


@dataclass(frozen=True, eq=False)
class Task:
    """Data to learn from.

    Attributes:
        name: short name, used in file names and reports.
        source: path that the data came from, or "".
        signature: what goes into a model and what comes out.
        classes: name of each class, by index; token or number that it stands for where there are no classes.
        metric_name: the metric that sizes are chosen by; "" is the problem's first.
        skipped: what was left out of the data, counted.
        files: what belongs to an exported model besides its weights, by name, for example a tokenizer.
        fingerprint: 16 hex digits, a hash of everything a model learns from.
    """

    name: str
    source: str
    signature: Signature
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    preprocessor: Preprocessor
    fingerprint: str
    metric_name: str = ""
    skipped: tuple[Exclusion, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def problem(self) -> Problem:
        """How answers are learned and scored."""
        return make_problem(
            self.signature,
            self.classes,
            target_std=self.preprocessor.target_std,
            files=self.files,
            metric=self.metric_name,
        )

    @property
    def metric(self) -> Metric:
        """The metric that sizes are chosen by."""
        return self.problem.metric

    def scored_by(self, metric: str) -> Task:
        """The same data, sizes chosen by another metric; "" leaves the task's own.

        Raises:
            UsageError: the problem has no such metric.
        """
        task = replace(self, metric_name=metric or self.metric_name)
        _ = task.metric
        return task


def make_task(
    name: str,
    source: str,
    classes: tuple[str, ...],
    train: Split,
    validation: Split,
    test: Split,
    *,
    signature: Signature | None = None,
    metric: str = "",
    skipped: Sequence[Exclusion] = (),
    files: Mapping[str, bytes] | None = None,
) -> Task:
    """Check the splits, fit the preprocessing on the training split and take the fingerprint.

    Args:
        signature: None is classification of samples of the training split's shape.

    Raises:
        DataError: an empty split, one class, a split that lacks a class, labels out of range, shapes that differ, or
            values that are not finite.
    """
    signature = signature or Signature("classification", tuple(train.x.shape[1:]), len(classes))
    splits = {"the training split": train, "the validation split": validation, "the test split": test}
    for where, split in splits.items():
        check_examples(where, split.x, split.y)
        if signature.problem == "classification":
            check_classes(where, split.y, classes)
        if split.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{where} has samples of shape {split.x.shape[1:]}, the training split of {train.x.shape[1:]}",
                hint="bring all samples to one size and number of channels",
            )
    preprocessor = Preprocessor.fit(train, signature)
    fingerprint = _fingerprint(signature, classes, preprocessor, *splits.values())
    return Task(
        name, source, signature, classes, train, validation, test, preprocessor, fingerprint, metric, tuple(skipped),
        files or {},
    )  # fmt: skip


def check_examples(where: str, x: NDArray[Any], y: NDArray[Any]) -> None:
    """Refuse samples x (n, ...) and targets y (n, ...) that no model could learn from; `where` says whose they are.

    Raises:
        DataError: counts that differ, no examples, samples without values, or values that are not finite.
    """
    if len(x) != len(y):
        raise DataError(
            f"{where}: {len(x):,} samples and {len(y):,} labels",
            hint="give each sample one label, from the same data set",
        )
    if not x.size:
        raise DataError(f"{where}: empty, samples of shape {x.shape}", hint="give some examples of every class")
    for what, values in (("sample", x), ("target", y)):
        if values.dtype.kind != "f":
            continue
        rows = [part.start + np.argwhere(~np.isfinite(values[part]))[:, 0] for part in room.pieces(values)]
        bad = np.concatenate(rows)
        if len(bad):
            raise DataError(
                f"{where}: {len(bad):,} values are NaN or infinite, the first in {what} {int(bad[0])}",
                hint=f"remove or repair these {what}s; the first {what} is number 0",
            )


def check_classes(where: str, y: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    """Refuse labels y (n,) that are not indices of `classes`, or that leave one of them out.

    Raises:
        DataError: fewer than two classes, a label out of range, or a class without an example.
    """
    if len(classes) < 2:
        raise DataError(f"{where} has one class only: {', '.join(classes)!r}", hint="a classifier needs at least two")
    outside = np.flatnonzero((y < 0) | (y >= len(classes)))
    if len(outside):
        raise DataError(
            f"{where} has the label {y[outside[0]]}, out of range 0 to {len(classes) - 1}, at position {outside[0]}",
            hint="number the classes from 0 without gaps",
        )
    absent = np.flatnonzero(np.bincount(y, minlength=len(classes)) == 0)
    if len(absent):
        raise DataError(
            f"{where} has no example of class {absent[0]} ({classes[absent[0]]!r}) of its {len(classes)} classes",
            hint="give every split at least one example of every class, or leave the class out",
        )


def _moments(x: NDArray[Any], signature: Signature) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; the channel that marks the steps of a series is left alone."""
    if signature.layout == "tokens":
        return (), ()
    if signature.layout == "series":
        if not signature.dynamic:
            return _columns(x.reshape(-1, x.shape[-1]))
        mean, std = _columns(x[padding.mask(x)][:, :-1])
        return (*mean, 0.0), (*std, 1.0)
    return _of_channels(x)


def _of_channels(x: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Those of images or volumes, looked at in pieces: deviations of all values take eight bytes each."""
    axes, count = (0, *range(2, x.ndim)), x[:, 0].size
    mean = sum(x[part].sum(axis=axes, dtype=np.float64) for part in room.pieces(x)) / count
    shaped = mean.reshape(-1, *(1,) * (x.ndim - 2))
    variance = sum(np.square(x[part] - shaped).sum(axis=axes) for part in room.pieces(x)) / count
    return tuple(map(float, mean)), tuple(float(value) or 1.0 for value in np.sqrt(variance))


def _columns(x: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return tuple(map(float, mean)), tuple(float(value) or 1.0 for value in std)


def _fingerprint(signature: Signature, classes: tuple[str, ...], preprocessor: Preprocessor, *splits: Split) -> str:
    digest = hashlib.sha256(repr((signature, classes, preprocessor)).encode())
    for split in splits:
        for array in (split.x, split.y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(repr(tuple(split.references)).encode())
    return digest.hexdigest()[:16]
