"""Which runs to train next, where a sweep is spent batch by batch and not as a whole grid.

The choice walks from the largest width down, and ends at the first that is not shown to be within the margin of every
larger one. So only one question is open at a time: that width against some larger one. It is asked with as many more
seeds as promise most to answer it for their time; nothing is trained below the width where the walk ends, nor once
more seeds could hardly change where that is. What promises to answer is predicted from the paired differences so far
(predictive power; Spiegelhalter, Freedman & Blackburn 1986) and, where there is one to rely on, from the law.

Predictions decide what is trained and never what is claimed: that is done by repeated intervals, see `sequential`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sizewise import laws, sequential, stats
from sizewise.choose import Sizes, affordable, compare
from sizewise.laws import Evidence
from sizewise.plan import FEWEST_SEEDS
from sizewise.records import AdaptiveSweep, Budget, Comparison, Estimate, Law, Run
from sizewise.store import Store

FUTILE = 0.1
"""Chance below which an answer is not waited for."""

SHARE = 2
"""Of the seeds that are left one in so many is asked for at once, at most: the others may be saved."""

MANY = 1000
"""Runs whose mean is what a law says of a size, and not of one more run."""


@dataclass(frozen=True)
class Step:
    """What to train next.

    Attributes:
        widths: that are to have `seeds` seeds each; none where it ends.
        why: the question, or what ended it.
    """

    widths: tuple[int, ...]
    seeds: int
    why: str


@dataclass(frozen=True)
class Question:
    """Whether a width is within the margin of a larger one.

    Attributes:
        n: paired seeds so far; `most` is how many there can be.
        gap: mean difference above minus the margin, in the metric's unit: above 0 it is within.
        scatter: standard deviation of a paired difference.
        expected, doubt: mean and standard deviation of what the gap of many more seeds is thought to be.
        seconds: of one run of each of the two; `had` is how many seeds they have.
    """

    width: int
    rival: int
    n: int
    most: int
    gap: float
    scatter: float
    expected: float
    doubt: float
    seconds: tuple[float, float]
    had: tuple[int, int]

    def chances(self, seeds: int) -> tuple[float, float]:
        """That over so many seeds it is shown to be within the margin, and that it is shown to be outside."""
        from scipy.stats import t

        left = seeds - self.n
        if left <= 0 or not math.isfinite(self.scatter):
            return 0.0, 0.0
        mean = (self.n * self.gap + left * self.expected) / seeds
        spread = math.hypot(left * self.doubt, math.sqrt(left) * self.scatter) / seeds
        half = sequential.critical(seeds, self.most, stats.LEVEL) * self.scatter / math.sqrt(seeds)
        if spread == 0:
            return float(mean > half), float(mean < -half)
        within, beyond = (float(t.sf((half - side * mean) / spread, self.n - 1)) for side in (1, -1))
        return within, beyond

    def cost(self, seeds: int) -> float:
        """Seconds of training that brings both to so many seeds."""
        return sum(max(0, seeds - had) * seconds for had, seconds in zip(self.had, self.seconds, strict=True))


def next_step(
    sizes: Sizes,
    store: Store,
    *,
    most: int,
    margin: float,
    budget: Budget | None = None,
    overhead: float = 0.0,
) -> Step:
    """What to train next, by the runs so far.

    Args:
        sizes: runs by width, with `FEWEST_SEEDS` seeds of each at least; of a width the first seeds.
        most: seeds that a width can have.
        overhead: seconds of work that a batch costs besides its runs.
    """
    allowed = affordable(sizes, budget)
    for place in range(len(allowed) - 2, -1, -1):
        width = allowed[place]
        found = {rival: compare(sizes, store, width, rival, most) for rival in allowed[place + 1 :]}
        worse = [rival for rival, c in found.items() if c.difference.high < -margin]
        if worse:
            return _end(f"width {width} is shown to be worse than width {worse[0]}, and nothing smaller can be chosen")
        asked = {rival: c for rival, c in found.items() if not c.difference.low > -margin}
        if asked:
            law = _law(sizes)
            questions = [_question(sizes, width, rival, c, most, margin, law) for rival, c in asked.items()]
            return _ask(questions, overhead, settled=place < len(allowed) - 2)
    return _end("every size is shown to be within the margin of all larger ones")


def spending(sizes: Sizes, most: int, step: Step) -> AdaptiveSweep:
    """What was trained of the whole grid, where `step` is what the runs ask for now."""
    means = {width: sum(run.seconds for run in runs) / len(runs) for width, runs in sizes.items()}
    seeds = {width: len(runs) for width, runs in sizes.items()}
    return AdaptiveSweep(
        most=most,
        seeds=seeds,
        seconds=sum(seeds[width] * mean for width, mean in means.items()),
        grid_seconds=most * sum(means.values()),
        why=step.why,
    )


def reasons(spent: AdaptiveSweep) -> Iterator[str]:
    """What was trained and what was left out, in words."""
    trained, grid = sum(spent.seeds.values()), spent.most * len(spent.seeds)
    yield (
        f"trained adaptively: {trained} of the grid's {grid} runs, {spent.seconds / spent.grid_seconds:.0%} of its "
        "training time; intervals hold at all looks together"
    )
    groups: dict[int, list[int]] = {}
    for width, seeds in spent.seeds.items():
        groups.setdefault(spent.most - seeds, []).append(width)
    left_out = [_some(count, widths) for count, widths in sorted(groups.items(), reverse=True) if count > 0]
    if left_out:
        yield f"left out: {', '.join(left_out)}, since {spent.why}"


def _some(count: int, widths: Sequence[int]) -> str:
    *before, last = map(str, sorted(widths))
    many, which = f"{count} seed{'s' if count > 1 else ''}", f"{', '.join(before)} and {last}" if before else last
    return f"{many} of width{'s' if before else ''} {which}"


def _end(why: str) -> Step:
    return Step((), 0, why)


def _ask(questions: Sequence[Question], overhead: float, *, settled: bool) -> Step:
    """The batch of seeds that most likely answers for its time, or the end where no answer is likely.

    Args:
        questions: about one width; it passes when all are answered with yes.
        settled: whether a smaller width than the largest can be chosen already: then a no changes nothing.
    """
    width, last = questions[0].width, [question.chances(question.most) for question in questions]
    passing, failing = min(yes for yes, _ in last), max(no for _, no in last)
    if all(question.n >= question.most for question in questions):
        return _end(f"with all seeds it is open whether width {width} is within the margin")
    if passing < FUTILE and (settled or failing < FUTILE):
        return _end(
            f"with all seeds width {width} would hardly be shown to be within the margin (chance {passing:.0%})"
        )
    tries = [(q, seeds) for q in questions for seeds in range(q.n + 1, q.n + math.ceil((q.most - q.n) / SHARE) + 1)]
    question, seeds = max(tries, key=lambda one: sum(one[0].chances(one[1])) / (overhead + one[0].cost(one[1])))
    why = f"whether width {width} is within the margin of width {question.rival} is open after {question.n} seeds"
    return Step((width, question.rival), seeds, why)


def _question(
    sizes: Sizes, width: int, rival: int, c: Comparison, most: int, margin: float, law: Law | None
) -> Question:
    d, pair = c.difference, (sizes[width], sizes[rival])
    scatter = (d.high - d.value) * math.sqrt(d.n) / sequential.critical(d.n, most, stats.LEVEL)
    expected, doubt = _believed(d.value, scatter / math.sqrt(d.n), c, law)
    return Question(
        width=width,
        rival=rival,
        n=d.n,
        most=most,
        gap=d.value + margin,
        scatter=scatter,
        expected=expected + margin,
        doubt=doubt,
        seconds=(_mean_seconds(pair[0]), _mean_seconds(pair[1])),
        had=(len(pair[0]), len(pair[1])),
    )


def _believed(value: float, error: float, c: Comparison, law: Law | None) -> tuple[float, float]:
    """The difference of many seeds and its standard deviation: what was measured, and what the law says, by precision.

    The law's two predictions have much in common, so that their difference is better known than is taken here.
    """
    if law is None or not error > 0:
        return value, error
    of_a, of_b = laws.predict(law, [{"params": c.a_params}, {"params": c.b_params}], runs=MANY)
    prior, spread = of_b.value - of_a.value, math.hypot(_deviation(of_a), _deviation(of_b))
    weight = error**2 / (error**2 + spread**2)
    return weight * prior + (1 - weight) * value, error * spread / math.hypot(error, spread)


def _deviation(e: Estimate) -> float:
    from scipy.stats import norm

    return (e.high - e.low) / 2 / float(norm.ppf(0.5 + e.level / 2))


def _law(sizes: Mapping[int, Sequence[Run]]) -> Law | None:
    """The law of the error by the runs so far, if it is one to rely on."""
    runs = [run for group in sizes.values() for run in group]
    law = laws.fit_evidence(Evidence.of_runs(runs, "error"), draws=0, fewest_repeats=FEWEST_SEEDS)
    return law if law.status == "supported" else None


def _mean_seconds(runs: Sequence[Run]) -> float:
    return sum(run.seconds for run in runs) / len(runs)
