"""What is wrong with a sweep, which size it says to take, and which run would say more."""

from __future__ import annotations

import dataclasses
from typing import Literal

from sizewise.records.estimate import Estimate, Metric
from sizewise.records.law import ComputeOptimal, Contour, Growth, ServingOptimal, Spending


@dataclasses.dataclass(frozen=True)
class RateCheck:
    """The loss at a learning rate over that at the rule's, at one width.

    Attributes:
        factor: of the rule's rate.
        ratio: of validation losses, paired by seed.
    """

    width: int
    factor: float
    ratio: Estimate


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Whether the learning rate's rule over widths holds, by short runs.

    Attributes:
        verdict: "rule" where no other rate is surely better, "scanned" where one was and every width has its own.
        rates: factor of the rule's rate of each width of the sweep, smallest first; () where the rule is kept.
        epochs: of the short runs.
    """

    verdict: Literal["rule", "scanned"]
    checks: tuple[RateCheck, ...]
    rates: tuple[float, ...]
    epochs: int
    request: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A diagnosis in one plain sentence, with its evidence and what to do next."""

    code: Literal[
        "capacity-limited",
        "data-limited",
        "over-fitting",
        "under-trained",
        "badly-tuned",
        "failed-runs",
        "tuning",
        "validation-limited",
        "saturated",
        "not-enough-evidence",
        "double-descent",
        "divergence",
        "outliers",
    ]
    sentence: str
    evidence: tuple[Estimate, ...]
    next_step: str


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the user can afford; None is unlimited. `min_score` is the validation score to reach, in its own unit.

    `max_latency_ms` is for the median request, `max_latency_p99_ms` for all but the slowest one in a hundred.
    """

    max_params: int | None = None
    max_latency_ms: float | None = None
    max_latency_p99_ms: float | None = None
    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None
    max_train_seconds: float | None = None
    min_score: float | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two sets of runs paired by seed.

    Attributes:
        difference: how much better a is than b on this validation split, in the metric's unit: the mean of a minus b,
            or of b minus a where less is better. The interval is over training runs (seeds).
        population: the same difference for unseen examples too: the interval is over seeds and examples together.
        p_value: two-sided paired t-test of no difference, over seeds; NaN where runs were looked at while they came in.
        verdict: "a is better", "b is better" or "undetermined", by `difference`.
    """

    a: str
    b: str
    metric: Metric
    a_mean: float
    b_mean: float
    a_params: int
    b_params: int
    difference: Estimate
    population: Estimate
    p_value: float
    verdict: Literal["a is better", "b is better", "undetermined"]


@dataclasses.dataclass(frozen=True)
class NextRun:
    """The cheapest training that could settle an open question.

    Attributes:
        widths: the two sizes of the question, smaller first; each is trained with `seeds` more seeds.
        seconds: single-process training time of all of them.
    """

    widths: tuple[int, int]
    seeds: int
    seconds: float
    why: str


@dataclasses.dataclass(frozen=True)
class AdaptiveSweep:
    """What a sweep that was trained adaptively took of the whole grid, and why it took no more.

    Attributes:
        most: seeds that every size could have had.
        seeds: what each width had.
        seconds: of training; `grid_seconds` is what all seeds of all widths would have taken, at each width's mean.
        why: what ended it, or the runs that are still to come.
    """

    most: int
    seeds: dict[int, int]
    seconds: float
    grid_seconds: float
    why: str


@dataclasses.dataclass(frozen=True)
class DesignedRun:
    """A run that is worth its cost for a decision, given the runs chosen before it.

    Attributes:
        at: the law's variables, in its units.
        repeats: runs of this setting that come before it: above 0 it is another seed.
        cost: in the unit the plan was made in, FLOP by default.
        width: expected width of the decision's interval after it, in log units.
        removed: share of that width that this run and those before it take away.
    """

    at: dict[str, float]
    repeats: int
    cost: float
    width: float
    removed: float


@dataclasses.dataclass(frozen=True)
class Batch:
    """Runs to make next, best first, for one decision.

    Attributes:
        purpose: the decision that they are for, in words; `at` the place that it is about, by variable.
        budget: what they may cost together, in `unit`; NaN where there is no law to plan with.
        level: nominal coverage of the interval whose width they reduce.
        status, reason: of the law that they were planned with.
    """

    purpose: str
    at: dict[str, float]
    budget: float
    unit: str
    level: float
    runs: tuple[DesignedRun, ...]
    status: Literal["supported", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Everything that was asked of a law; None and () were not asked, or the law cannot be asked that."""

    optimum: ComputeOptimal | None
    serving: ServingOptimal | None
    equal_loss: Contour | None
    growth: tuple[Growth, ...]
    next_runs: Batch | None
    spending: Spending | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """The smallest width that does the job.

    Attributes:
        status: "supported", "extrapolated" (the best size lies at the end of what was trained) or "undetermined".
        margin: of the metric, in its unit.
        score: mean validation score of the width over its seeds.
        predicted: what the law says about the error of this size, if there is a law.
        reference: the width with the best mean that the budget allows.
        comparisons: each width minus the larger one that it does worst against, largest first.
        run: key of the run that stands for this width: its median seed by validation loss.
        spent: of a sweep that was trained adaptively; its intervals hold at all looks together.
    """

    width: int
    params: int
    status: Literal["supported", "extrapolated", "undetermined"]
    sentence: str
    metric: Metric
    margin: float
    score: Estimate
    predicted: Estimate | None
    reference: int
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...]
    next_run: NextRun | None
    run: str
    spent: AdaptiveSweep | None = None
