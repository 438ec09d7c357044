"""The contracts of a family and of a task, as checks that users run on their own.

Each returns what was checked, with the reason where a check does not apply, and raises at the first broken promise.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sizewise import families, padding
from sizewise import recipe as recipes
from sizewise.compress.narrow import narrow
from sizewise.errors import DataError, MissingExtraError, SizewiseError, UsageError
from sizewise.families import Family
from sizewise.families.family import Builder
from sizewise.padding import BEGIN, END
from sizewise.records import Recipe, Signature
from sizewise.runtimes import beam, eager, onnxruntime
from sizewise.tasks import Preprocessor, Split, Task, make_task
from sizewise.tasks.problems import Problem
from sizewise.tasks.problems import make as make_problem

SAMPLES, STEPS = 48, 60
"""Of the toy problem: samples, all in every step, and steps."""

LEARNED = 0.95
"""What the loss must fall to, as a share of the loss before training."""

TOLERANCE = 1e-4
"""Largest difference between answers that must be equal, relative to their largest magnitude (at least 1)."""

SHARED = 0.01
"""Share of a split's samples that may also be in another: real data has some duplicates, a leak has many."""


@dataclass(frozen=True)
class Check:
    """One promise.

    Attributes:
        name: the promise, in a word or two.
        passed: whether it was checked and kept; False where it does not apply, never where it is broken.
        detail: what was found, or why it was skipped.
    """

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.passed else 'skipped'}  {self.name}: {self.detail}"


# -- Families ---------------------------------------------------------------------------------------------------------


def check_family(
    family: str | Builder, signature: Signature, *, widths: Sequence[int] = (), seed: int = 0
) -> tuple[Check, ...]:
    """Check that a model comes in sizes as `sizewise` needs it.

    Args:
        family: a built-in name, `package.module:function` or another form that a study takes, or the function
            `build(width, task) -> torch.nn.Module` itself.
        signature: what goes into its models and what comes out.
        widths: at least two; none is four that are spread over those of a quick study.

    Returns:
        one check each: sizes, seeds, answers, learning, padding, ONNX, pruning.

    Raises:
        UsageError: a broken promise: the family cannot be built, its parameters do not grow with its width, one seed
            gives two models, its answers have another shape than the problem's, it does not learn, its answers depend
            on padding, or ONNX Runtime gives other answers.
    """
    made = _family(family, signature)
    smallest, largest = families.ladder_of(made.name)
    chosen = tuple(sorted(widths)) or made.ladder(made.params(smallest), made.params(largest), 4)
    with _one_thread():
        return (
            _sizes(made, chosen),
            _seeds(made, chosen[0], seed),
            _answers(made, chosen),
            _learning(made, chosen[0], seed),
            _padding(made, chosen[0], seed),
            _onnx(made, chosen[0], seed),
            _pruning(made, chosen, seed),
        )


def _family(family: str | Builder, signature: Signature) -> Family:
    if isinstance(family, str):
        return families.load(family, signature)
    name = f"{getattr(family, '__module__', '?')}:{getattr(family, '__qualname__', type(family).__name__)}"
    return Family(name, family, signature)


class _one_thread:  # noqa: N801, used like a function
    """So that sums are taken in one order, and the same seed gives the same loss."""

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.threads)


def _sizes(family: Family, widths: Sequence[int]) -> Check:
    params = [family.params(width) for width in widths]
    for (a, smaller), (b, larger) in pairwise(zip(widths, params, strict=True)):
        if larger <= smaller:
            raise UsageError(
                f"{family.name} has {smaller:,} parameters at width {a} and {larger:,} at width {b}",
                hint="parameters must grow with the width: let layers have a multiple of it",
            )
    built = families.parameters(family.build(widths[0], seed=0))
    if built != params[0]:
        raise UsageError(
            f"{family.name} at width {widths[0]} counts {params[0]:,} parameters without storage and {built:,} with it",
            hint="build must make the same layers under torch.device('meta')",
        )
    return Check("sizes", True, f"{params[0]:,} to {params[-1]:,} parameters at widths {', '.join(map(str, widths))}")


def _seeds(family: Family, width: int, seed: int) -> Check:
    one, two, other = (family.build(width, seed=s).eval() for s in (seed, seed, seed + 1))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        if not torch.equal(a, b):
            raise UsageError(
                f"{family.name} at width {width} gives {name} other values the second time with seed {seed}",
                hint="draw initial weights from PyTorch's global generator, which sizewise seeds, and no other",
            )
    if all(map(torch.equal, one.state_dict().values(), other.state_dict().values())):
        return Check(
            "seeds", False, "other seeds give the same weights: their runs differ in the order of samples only"
        )
    return Check("seeds", True, "one seed gives one model, another seed another")


def _answers(family: Family, widths: Sequence[int]) -> Check:
    for width in (widths[0], widths[-1]):
        families.check_output(family, width)
    shape = families.output_shape(family.signature, 2)
    shown = " × ".join("any" if n is None else str(n) for n in shape) if shape else "its own"
    return Check("answers", True, f"shape {shown} of two samples")


def _learning(family: Family, width: int, seed: int) -> Check:
    if family.signature.problem == "detection":
        return Check("learning", False, "boxes are not made up here: train on your data")
    problem, split = toy(family.signature)
    first, last = (_trained(family, width, seed, problem, split) for _ in range(2))
    if first != last:
        raise UsageError(
            f"{family.name} at width {width} ends with a loss of {first[-1]} and, with the same seed, of {last[-1]}",
            hint="draw at random from PyTorch's global generator only",
        )
    before, after = first[0], float(np.mean(first[-5:]))
    if not after < LEARNED * before:  # written so that NaN fails
        raise UsageError(
            f"{family.name} at width {width} does not learn {SAMPLES} samples by heart: its loss goes from "
            f"{before:.4g} to {after:.4g} in {STEPS} steps",
            hint="return logits, not probabilities, and let gradients reach all layers",
        )
    return Check("learning", True, f"loss from {before:.3g} to {after:.3g} in {STEPS} steps, twice the same")


def _trained(family: Family, width: int, seed: int, problem: Problem, split: Split) -> list[float]:
    """Loss at each step of training on all the samples."""
    module = family.build(width, seed=seed).train()
    recipe = recipes.at_width(Recipe(lr=3e-3), width)
    optimizer = recipes.optimizer(recipe, module)
    x, y, losses = torch.from_numpy(split.x), torch.from_numpy(split.y), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(STEPS):
            optimizer.zero_grad()
            sums, counts = problem.losses(problem.forward(module, x, y), y, recipe)
            loss = sums.sum() / counts.sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def _padding(family: Family, width: int, seed: int) -> Check:
    if not family.signature.dynamic:
        return Check("padding", False, "all samples have one length")
    problem, split = toy(family.signature)
    module = family.build(width, seed=seed).eval()
    x, y = torch.from_numpy(split.x[:8]), torch.from_numpy(split.y[:8])
    with torch.no_grad():
        batch = problem.forward(module, x, y)
        for row in range(len(x)):
            alone = problem.forward(module, padding.trim(x[row : row + 1]), y[row : row + 1])[0]
            together = batch[row] if alone.dim() == 1 else batch[row][: len(alone)]
            off = float((alone - together[: len(alone)]).abs().max())
            if not off <= TOLERANCE * max(1.0, float(alone.abs().max())):
                raise UsageError(
                    f"{family.name} answers a sample of {int(padding.lengths(x)[row])} steps differently, by "
                    f"{off:.3g}, when it is padded to {x.shape[1]}",
                    hint="leave padding out of every mean, attention and reversed direction: sizewise.padding.mask(x)",
                )
    return Check("padding", True, "a padded batch gives the answers of single samples")


def _onnx(family: Family, width: int, seed: int) -> Check:
    signature, module = family.signature, _deployable(family, width, seed)
    with tempfile.TemporaryDirectory() as folder:
        try:
            onnxruntime.export(module, signature, Path(folder))
            graphs = [onnxruntime.open_graph(path, 1) for path in sorted(Path(folder).glob("*.onnx"), reverse=True)]
        except Exception as error:  # exporters fail in their own ways, and a model need not be exported
            return Check("ONNX", False, f"cannot be exported: {families.first_line(error)}")
        session, reference, worst = beam.session(graphs, signature), eager.session(module, signature), 0.0
        for x in _batches(signature):
            ours, theirs = session(x), reference(x)
            off = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else math.inf
            if not off <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
                raise UsageError(
                    f"{family.name} at width {width} in ONNX Runtime answers samples of shape {x.shape} with "
                    f"{ours.shape}, PyTorch with {theirs.shape}; the largest difference is {off:.3g}",
                    hint="let no Python number in forward depend on the batch or the length of its samples",
                )
            worst = max(worst, off)
    lengths = " and lengths" if signature.dynamic else ""
    return Check("ONNX", True, f"the same answers at two batch sizes{lengths}, within {max(worst, 1e-9):.1g}")


def _deployable(family: Family, width: int, seed: int) -> eager.Deployable:
    signature = family.signature
    numbers = 0 if signature.vocabulary else signature.channels
    outputs = signature.outputs if signature.problem == "regression" else 0
    series = signature.layout == "series" and signature.dynamic
    same = Preprocessor((0.0,) * numbers, (1.0,) * numbers, series, (0.0,) * outputs, (1.0,) * outputs)
    return eager.Deployable(family.build(width, seed=seed), same, signature)


def _batches(signature: Signature) -> Iterator[NDArray[Any]]:
    """One sample and seven, of two lengths where samples have one."""
    x = toy(signature)[1].x if signature.problem != "detection" else _samples(signature, np.zeros(SAMPLES, np.int64))
    yield x[:1]
    yield x[1:8, : max(2, x.shape[1] // 2)] if signature.dynamic else x[1:8]


def _pruning(family: Family, widths: Sequence[int], seed: int) -> Check:
    large, small = widths[-1], widths[0]
    try:
        narrow(family.build(large, seed=seed), family, small)
    except SizewiseError as error:
        return Check("pruning", False, error.message)
    return Check("pruning", True, f"width {large} cut to width {small} is a model of the family")


def toy(signature: Signature) -> tuple[Problem, Split]:
    """A made problem that can be learned by heart, half of its samples being shorter where they may be."""
    rng, outputs = np.random.default_rng(0), signature.outputs
    y: NDArray[Any] = np.arange(SAMPLES, dtype=np.int64) % max(outputs, 2)
    x = _samples(signature, y)
    steps = x.shape[1]
    match signature.problem:
        case "regression":
            y = np.stack([np.sin(y + k) for k in range(outputs)], axis=1).astype(np.float32)
        case "tagging" | "language modelling":
            first = 1 if outputs > 1 else 0
            y = first + (y[:, None] + np.arange(steps)) % (outputs - first)
            y = y * padding.mask(x) if signature.dynamic else y
        case "transcription":
            y = 1 + (y[:, None] % (outputs - 1)) * np.ones((1, 1), np.int64)
        case "translation" | "dictation":
            inner = rng.integers(min(3, outputs - 1), outputs, (SAMPLES, max(signature.target_steps - 2, 1)))
            y = np.concatenate([np.full((SAMPLES, 1), BEGIN), inner, np.full((SAMPLES, 1), END)], axis=1)
    names = tuple(map(str, range(outputs)))
    return make_problem(signature, names, target_std=(1.0,) * outputs), Split(x, y)


def _samples(signature: Signature, y: NDArray[np.int64]) -> NDArray[Any]:
    """Random samples with a pattern that tells the class."""
    rng, shape = np.random.default_rng(1), (len(y), *signature.input_shape)
    x: NDArray[Any]
    if signature.vocabulary:
        x = rng.integers(min(3, signature.vocabulary - 1), signature.vocabulary, shape)
        x[:, ::2] = (1 + y % (signature.vocabulary - 1))[:, None]
    else:
        x = rng.normal(size=shape).astype(np.float32)
        x += rng.normal(size=(y.max() + 1, *signature.input_shape)).astype(np.float32)[y]
    if signature.dynamic:
        gone = np.arange(shape[1]) >= np.where(np.arange(len(y)) % 2, shape[1], max(2, shape[1] // 2))[:, None]
        if x.ndim == 3:
            x[..., -1] = 1
        x[gone] = 0
    return x


# -- Tasks ------------------------------------------------------------------------------------------------------------


def check_task(task: Task) -> tuple[Check, ...]:
    """Check that a task's numbers can be trusted.

    Returns:
        one check each: splits, preprocessing, fingerprint, loss, perfect answers, examples.

    Raises:
        DataError: a broken promise: splits share samples, preprocessing is not the training split's, equal data has
            two fingerprints, a constant model has a loss that is no number, perfect answers are not judged so, or what
            examples contribute to a metric does not average to it.
    """
    return (
        _disjoint(task),
        _fitted_on_train(task),
        _fingerprinted(task),
        _finite_loss(task),
        _perfect(task),
        _averages(task),
    )


def _disjoint(task: Task) -> Check:
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    rows = {name: [np.ascontiguousarray(row).tobytes() for row in split.x] for name, split in splits.items()}
    most = 0
    for a, b in combinations(splits, 2):
        known = set(rows[a])
        shared = sum(row in known for row in rows[b])
        if shared > SHARED * len(rows[b]):
            raise DataError(
                f"{shared:,} of the {len(rows[b]):,} samples of {b} are also in {a}",
                hint="remove duplicates, or keep them in one split, before splitting",
            )
        most = max(most, shared)
    return Check("splits", True, f"disjoint, but for {most:,} duplicates" if most else "disjoint")


def _fitted_on_train(task: Task) -> Check:
    if Preprocessor.fit(task.train, task.signature) != task.preprocessor:
        raise DataError(
            f"the preprocessing of {task.name} is not what its training split gives",
            hint="fit it with Preprocessor.fit(train, signature), on nothing else: make_task does",
        )
    return Check("preprocessing", True, "what the training split alone gives")


def _fingerprinted(task: Task) -> Check:
    again, other = _remade(task, task.validation), _remade(task, _shuffled(task.validation))
    if again.fingerprint != task.fingerprint:
        raise DataError(
            f"{task.name} has the fingerprint {task.fingerprint}, and made again {again.fingerprint}",
            hint="make tasks with make_task, from data that is read the same way each time",
        )
    if other.fingerprint == task.fingerprint or other.preprocessor != task.preprocessor:
        raise DataError(
            f"{task.name} with another validation split has fingerprint {other.fingerprint} and other preprocessing: "
            f"{other.preprocessor != task.preprocessor}",
            hint="make tasks with make_task",
        )
    return Check("fingerprint", True, f"{task.fingerprint} each time, and another for other data")


def _remade(task: Task, validation: Split) -> Task:
    return make_task(
        task.name, task.source, task.classes, task.train, validation, task.test, signature=task.signature,
        files=task.files,
    )  # fmt: skip


def _shuffled(split: Split) -> Split:
    return split.take(np.roll(np.arange(len(split)), 1)) if len(split) > 1 else replace(split, y=split.y * 0)


class _Constant(nn.Module):
    """Answers 0 whatever it is asked."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.signature = signature

    def forward(self, *inputs: Tensor) -> Tensor:
        batch, outputs = len(inputs[0]), self.signature.outputs
        if self.signature.problem in ("classification", "regression"):
            return torch.zeros(batch, outputs)
        return torch.zeros(batch, inputs[-1].shape[1], outputs)


def _finite_loss(task: Task) -> Check:
    if task.signature.problem == "detection":
        return Check("loss", False, "answers of a detector have a shape of its own")
    some = task.validation.take(np.arange(min(len(task.validation), 256)))
    x, y = torch.from_numpy(task.preprocessor(some.x)), torch.from_numpy(task.preprocessor.targets(some.y))
    sums, counts = task.problem.losses(task.problem.forward(_Constant(task.signature), x, y), y, Recipe())
    loss = float(sums.sum() / counts.sum())
    if not math.isfinite(loss):
        raise DataError(f"a constant model has a loss of {loss} on {task.name}", hint="targets may be out of range")
    return Check("loss", True, f"{loss:.4g} of a model that always answers 0")


_PERFECT: dict[str, Callable[[Task, Split], NDArray[Any]]] = {
    "classification": lambda task, split: 20.0 * np.eye(task.signature.outputs)[split.y],
    "regression": lambda task, split: split.y,
    "tagging": lambda task, split: split.y,
    "transcription": lambda task, split: split.y,
    "translation": lambda task, split: split.y[:, 1:] * (split.y[:, 1:] != END),
    "dictation": lambda task, split: split.y[:, 1:] * (split.y[:, 1:] != END),
}


def _perfect(task: Task) -> Check:
    if task.signature.problem not in _PERFECT:
        return Check("perfect answers", False, f"{task.signature.problem} has none that could be written down")
    try:
        judged = task.problem.judge(_PERFECT[task.signature.problem](task, task.validation), task.validation)
    except MissingExtraError as error:
        return Check("perfect answers", False, f"{error.message}; {error.hint}")
    for metric in task.problem.metrics():
        best, value = (1.0 if metric.higher else 0.0), judged.values[metric.name]
        if not abs(value - best) < 1e-6:
            raise DataError(
                f"perfect answers to {task.name} have a {metric.name} of {value:.6g}, not {best:g}",
                hint="the metric compares with other targets than the split's y, or counts padding",
            )
    return Check("perfect answers", True, f"are judged so by {', '.join(m.name for m in task.problem.metrics())}")


def _averages(task: Task) -> Check:
    """On answers that are right for some and wrong for others."""
    split = task.validation
    if task.signature.problem not in _PERFECT:
        return Check("examples", False, f"no answers to {task.signature.problem} are made up here")
    right = _PERFECT[task.signature.problem](task, split)
    wrong = right[np.random.default_rng(0).permutation(len(right))]
    mixed = np.where((np.arange(len(right)) % 3 == 0).reshape(-1, *(1,) * (right.ndim - 1)), wrong, right)
    try:
        judged = task.problem.judge(mixed, split)
    except MissingExtraError as error:
        return Check("examples", False, f"{error.message}; {error.hint}")
    for name, values in judged.examples.items():
        mean, whole = float(np.mean(values)), judged.values[name]
        if not abs(mean - whole) <= 1e-6 * max(1.0, abs(whole)):
            raise DataError(
                f"what the examples contribute to {name} averages to {mean:.6g}, and it is {whole:.6g}",
                hint="influence values must have the metric as their mean: see sizewise.tasks.problems.influence",
            )
    return Check("examples", True, f"average to the metric: {', '.join(judged.examples)}")


__all__ = ["Check", "check_family", "check_task", "toy"]
