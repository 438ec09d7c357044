"""The smallest size that does the job, decided by paired comparisons on the validation split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sizewise import laws, stats, words
from sizewise.errors import BudgetError, UsageError
from sizewise.paired import compare_runs, median_run
from sizewise.records import Budget, Choice, Comparison, Estimate, Law, Metric, NextRun, Run
from sizewise.store import Store

Sizes = Mapping[int, Sequence[Run]]
Status = Literal["supported", "extrapolated", "undetermined"]

MOST_SEEDS = 20
"""More seeds than this are not suggested at once."""


@dataclass(frozen=True)
class Walk:
    """How far down the ladder the evidence goes.

    Attributes:
        passed: widths shown to be within the margin of every larger one, largest first; the first has nothing to show.
        stop: the comparison at which it ended, None at the end of the ladder.
        open: whether it ended for want of evidence, and not because that width is worse.
    """

    passed: tuple[int, ...]
    stop: Comparison | None = None
    open: bool = False


def choose(
    sizes: Sizes,
    store: Store,
    *,
    margin: float = 0.005,
    budget: Budget | None = None,
    error_law: Law | None = None,
    looks: int = 0,
) -> Choice:
    """Choose the smallest width that is not worse than any larger one by more than `margin`.

    The walk goes from the largest width down and stops at the first that is not shown to be within the margin of every
    larger one. Each step keeps its interval's level although it makes several comparisons, since all of them must hold
    (Berger 1982), and so does the whole walk, since its order is fixed (Westfall & Krishen 2001). Starting from the
    width with the best mean instead would not: a small one that is best by luck would never be compared.

    Args:
        sizes: runs of the sweep by width; same recipe, whole training split, same seeds.
        margin: score that may be given up, in the metric's unit.
        budget: `max_params` and `max_train_seconds` exclude widths; `min_score` must be reached.
        looks: seeds that each size could have had, where the runs decided which to train next; see `compare_runs`. A
            walk whose every step keeps its level over all looks keeps it, too (Glimm, Maurer & Bretz 2010).

    Raises:
        BudgetError: no width fits the budget.
        UsageError: the sizes share fewer than two seeds, so that nothing can be decided.
    """
    _check_seeds(sizes)
    widths = sorted(sizes)
    allowed = affordable(sizes, budget)
    if not allowed:
        raise BudgetError(_unaffordable(sizes, budget), hint="raise the budget, or add smaller widths to the sweep")
    comparisons = {w: _hardest(sizes, store, w, allowed, margin, looks) for w in reversed(allowed[:-1])}
    walk = _walk(allowed[-1], comparisons, margin)
    metric = sizes[widths[0]][0].validation.metric
    scores = {w: stats.mean(np.array([run.validation.score for run in sizes[w]]), within=metric.range) for w in widths}
    enough = {w: _reaches(scores[w], metric, budget) for w in widths}
    chosen = min([w for w in walk.passed if enough[w]] or walk.passed)
    best, reference = (max(group, key=lambda w: (_merit(scores[w], metric), w)) for group in (widths, allowed))
    status, params = _status(walk, widths[-1]), sizes[chosen][0].params
    name = f"Width {chosen} ({params:,} parameters, {words.validated(scores[chosen].value, metric)})"
    return Choice(
        width=chosen,
        params=params,
        status=status,
        sentence=_sentence(name, status, comparisons.get(chosen), walk, words.amount(margin, metric)),
        metric=metric,
        margin=margin,
        score=scores[chosen],
        predicted=_predicted(error_law, params),
        reference=reference,
        comparisons=tuple(comparisons.values()),
        reasons=(
            *_boundary(walk, margin),
            *_unseen(comparisons.get(chosen), margin),
            *_excluded([w for w in widths if w not in allowed]),
            *(() if best in allowed else _forgone(compare(sizes, store, best, chosen, looks))),
            *_too_low(scores, [w for w in walk.passed if w <= chosen and not enough[w]], metric, budget),
        ),
        next_run=_next_run(walk.stop, sizes, margin) if walk.stop and walk.open else None,
        run=median_run(sizes[chosen]).trial.key,
    )


def meets_min_score(choice: Choice, budget: Budget | None) -> bool:
    """Whether the chosen width's mean validation score is as good as the budget asks."""
    return _reaches(choice.score, choice.metric, budget)


def _merit(score: Estimate, metric: Metric) -> float:
    """How good a score is; that of a run that diverged may be no number."""
    return -math.inf if math.isnan(score.value) else metric.gain(score.value, 0)


def _reaches(score: Estimate, metric: Metric, budget: Budget | None) -> bool:
    return budget is None or budget.min_score is None or metric.gain(score.value, budget.min_score) >= 0


def _check_seeds(sizes: Sizes) -> None:
    shared = set.intersection(*({run.trial.seed for run in runs} for runs in sizes.values())) if sizes else set()
    if len(shared) < 2:
        raise UsageError(
            f"a choice needs at least two seeds that all sizes share; these {len(sizes)} sizes share {len(shared)}",
            hint="train with --seeds 5",
        )


def _predicted(law: Law | None, params: int) -> Estimate | None:
    if law is None or law.status != "supported":
        return None
    return laws.predict(law, [{"params": params}])[0]


def _label(width: int) -> str:
    return f"width {width}"


def compare(sizes: Sizes, store: Store, a: int, b: int, looks: int = 0) -> Comparison:
    """How much better width a is than width b."""
    return compare_runs(store, (_label(a), sizes[a]), (_label(b), sizes[b]), looks=looks)


def _hardest(sizes: Sizes, store: Store, width: int, allowed: Sequence[int], margin: float, looks: int) -> Comparison:
    """The comparison with a larger width that decides: one that shows it to be worse, or else the least favourable."""
    found = (compare(sizes, store, width, larger, looks) for larger in allowed if larger > width)
    return min(found, key=lambda c: (c.difference.high >= -margin, c.difference.low))


def _walk(largest: int, comparisons: Mapping[int, Comparison], margin: float) -> Walk:
    passed = [largest]
    for width, comparison in comparisons.items():
        interval = comparison.difference
        if not interval.low > -margin:  # written so that an interval that does not exist shows nothing
            return Walk(tuple(passed), comparison, open=not interval.high < -margin)
        passed.append(width)
    return Walk(tuple(passed))


def _status(walk: Walk, largest: int) -> Status:
    """`largest` of all that were trained: when every smaller one is worse, a larger one may be better again."""
    if len(walk.passed) > 1 or walk.stop is None:
        return "supported"
    if walk.open:
        return "undetermined"
    return "extrapolated" if walk.passed[0] == largest else "supported"


def _sentence(name: str, status: Status, hardest: Comparison | None, walk: Walk, margin: str) -> str:
    if hardest is not None:
        d = hardest.difference
        return (
            f"{name} is not worse than any larger size by more than {margin}: against the strongest, "
            f"{hardest.b} ({hardest.b_params:,} parameters), the difference is {_interval(hardest)} over {d.n} seeds."
        )
    if walk.stop is None or len(walk.passed) > 1:
        return f"{name} is the only size that meets the budget."
    if status == "undetermined":
        return f"Undetermined: {name} is the largest, and whether {walk.stop.a} is within {margin} of it is open."
    if status == "extrapolated":
        return f"{name} is the largest trained, and still better than the one before: a larger one may be better."
    return f"{name} is the smallest that does the job: the next, {walk.stop.a}, loses more than {margin}."


def _boundary(walk: Walk, margin: float) -> Iterator[str]:
    """Why the walk ended where it did."""
    if walk.stop is None:
        yield "no smaller size was trained; one might do the job as well"
    elif walk.open:
        yield (
            f"{walk.stop.a} is neither shown to be within {_amount(margin, walk.stop)} of {walk.stop.b} nor shown to "
            f"be worse: {_interval(walk.stop)}"
        )
    else:
        yield (
            f"{walk.stop.a} is worse than {walk.stop.b} by more than {_amount(margin, walk.stop)}: "
            f"{_interval(walk.stop)}"
        )


def _unseen(comparison: Comparison | None, margin: float) -> Iterator[str]:
    if comparison is not None:
        p = comparison.population
        doubt = f": this validation split alone cannot rule out a loss above {_amount(margin, comparison)}"
        yield (
            "for unseen examples too, not only for new training runs, the difference is "
            f"{words.difference(p, comparison.metric)}{'' if p.low > -margin else doubt}"
        )


def _excluded(widths: Sequence[int]) -> Iterator[str]:
    if widths:
        yield f"the budget excludes widths {', '.join(map(str, widths))}"


def _forgone(comparison: Comparison) -> Iterator[str]:
    yield f"without the budget, {comparison.a} would gain {_interval(comparison)}"


def _too_low(
    scores: Mapping[int, Estimate], widths: Sequence[int], metric: Metric, budget: Budget | None
) -> Iterator[str]:
    """Widths that are good enough for the margin and not for the minimum score."""
    for width in widths:
        assert budget is not None
        assert budget.min_score is not None
        yield (
            f"{_label(width)} has a validation {metric.name} of {words.score(scores[width].value, metric)}, worse than "
            f"the {words.score(budget.min_score, metric)} asked for"
        )


def _interval(c: Comparison) -> str:
    return words.difference(c.difference, c.metric)


def _amount(margin: float, c: Comparison) -> str:
    return words.amount(margin, c.metric)


def _next_run(question: Comparison, sizes: Sizes, margin: float) -> NextRun:
    """More seeds of both widths of an open question: as many as their scatter needs to clear the margin."""
    d = question.difference
    distance = max(abs(d.value + margin), margin / 10)
    wanted = d.n * ((d.high - d.value) / distance) ** 2
    needed = math.ceil(wanted) if math.isfinite(wanted) else 2 * d.n  # a run that diverged says nothing of scatter
    more = min(max(needed - d.n, 1), MOST_SEEDS)
    by_label = {_label(width): (width, runs) for width, runs in sizes.items()}
    (width, runs), (rival, rivals) = by_label[question.a], by_label[question.b]
    seconds = more * sum(float(np.mean([run.seconds for run in group])) for group in (runs, rivals))
    why = f"whether {question.a} is within {_amount(margin, question)} of {question.b} is open"
    return NextRun((width, rival), more, seconds, why)


def affordable(sizes: Sizes, budget: Budget | None) -> list[int]:
    """The widths that a budget allows, smallest first."""
    return [width for width in sorted(sizes) if _affordable(sizes[width], budget)]


def _affordable(runs: Sequence[Run], budget: Budget | None) -> bool:
    if budget is None:
        return True
    seconds = float(np.mean([run.seconds for run in runs]))
    fits_params = budget.max_params is None or runs[0].params <= budget.max_params
    return fits_params and (budget.max_train_seconds is None or seconds <= budget.max_train_seconds)


def _unaffordable(sizes: Sizes, budget: Budget | None) -> str:
    smallest = sizes[min(sizes)]
    seconds = float(np.mean([run.seconds for run in smallest]))
    limits = "" if budget is None else f"max_params={budget.max_params}, max_train_seconds={budget.max_train_seconds}"
    return (
        f"the smallest size has {smallest[0].params:,} parameters and trains in {seconds:.1f} s; the budget is {limits}"
    )
