"""From runs to a law, and what follows from it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from sizewise.records.estimate import Estimate


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Rows of a table, or parts of a task's data, that were left out, and why.

    `rows` names the first ten, numbered from 1; it is empty where what was left out has no numbers.
    """

    reason: str
    count: int
    rows: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class BackTest:
    """A law fitted without its largest runs, asked to predict them.

    Attributes:
        visible, hidden: how many runs it saw and had to predict.
        reach: largest hidden compute (or size) over the largest it saw.
        error: root mean squared log error of the prediction.
        covered: share of the hidden runs inside their intervals, which were made without looking at them.
        predicted, observed: for the largest of the hidden settings, the geometric mean of its runs.
        at: that setting, by variable.
    """

    visible: int
    hidden: int
    reach: float
    error: float
    covered: float
    predicted: Estimate
    observed: float
    at: dict[str, float]


@dataclasses.dataclass(frozen=True)
class FittedForm:
    """One form's part in a law.

    Attributes:
        weight: its share in predictions, in [0, 1], from how well it predicted runs that were hidden from it and how
            closely it follows those that were not.
        parameters: as people write them; with intervals for the leading form only.
        profile: intervals of the same parameters by profile likelihood, for the leading form only.
        theta, covariance: the fit that predicts, in the form's coordinates around the law's centre. Larger runs weigh
            more in it, since it is to be right at their end.
        predicting: that fit's parameters as people write them; those of `parameters` let all runs weigh the same.
        scatter: standard deviation of log y around that fit.
        backtest_error: root mean squared log error over the hidden runs; NaN when too few runs were left to fit it.
        agreeing: share of the starts of its search that ended in the same optimum.
    """

    form: str
    formula: str
    source: str
    weight: float
    parameters: dict[str, Estimate]
    profile: dict[str, Estimate]
    theta: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    predicting: dict[str, float]
    scatter: float
    objective: float
    backtest_error: float
    agreeing: float


@dataclasses.dataclass(frozen=True)
class Law:
    """Performance as a function of size: several forms, weighed by back-tests, with a calibrated prediction.

    Attributes:
        metric: what y is, for example validation "loss" (nats) or "error" (1 - accuracy).
        variables: what it depends on, for example ("params", "samples").
        forms: heaviest first; the first one is the law that is printed.
        centre: log of the variables around which the forms' theta are written.
        box: smallest and largest value of each variable; `largest` is the largest run's log geometric mean of them.
        points: the evidence as (x..., y) rows, at most 2,000 of them.
        runs, settings: how many there were, and how many different x.
        scatter: standard deviation of log y of single runs; `seed_scatter` the part that repeats of a setting show.
        inflation: factor between theory and the systematic variance of predictions, from back-tests and residuals.
        freedom: degrees of freedom of the predictive t distribution.
        backtests: one for each amount of evidence that was hidden.
        excluded, outliers: rows left out, and rows kept that lie far from the law.
        missing: what the evidence lacks, in words.
        notes: how the columns were read, and what the runs started from.
        status: "supported", or why there is no law to rely on; `reason` is the evidence behind it in one sentence.
    """

    metric: str
    variables: tuple[str, ...]
    forms: tuple[FittedForm, ...]
    centre: tuple[float, ...]
    box: dict[str, tuple[float, float]]
    largest: float
    points: tuple[tuple[float, ...], ...]
    runs: int
    settings: int
    scatter: float
    seed_scatter: float
    inflation: float
    freedom: float
    backtests: tuple[BackTest, ...]
    excluded: tuple[Exclusion, ...]
    outliers: tuple[Exclusion, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    status: Literal["supported", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Link:
    """A score as a bounded function of loss: score = low + (high - low)/(1 + exp(slope·(loss - midpoint))).

    Attributes:
        kind: "accuracy" falls with loss, "error" rises with it and is 1 minus an accuracy; parameters are the latter's.
        parameters: midpoint (nats), slope (1/nats), low and high (shares of examples).
        draws: what else the parameters may be, (draws, 4), in that order.
        scatter: standard deviation of scores around the curve beyond that of `examples`, in [0, 1].
        examples: how many examples a score is a share of; None when unknown, and `scatter` is then all of it.
        freedom: degrees of freedom of the scatter.
        box: lowest and highest loss seen.
        hidden, error, covered: how many runs of the lowest losses were hidden from it, the root mean squared error of
            their scores as then predicted, and the share of them inside their intervals; NaN without such a test.
        status: "supported", or why no score is predicted; `reason` is the evidence behind it in one sentence.
    """

    kind: Literal["accuracy", "error"]
    parameters: dict[str, Estimate]
    draws: tuple[tuple[float, ...], ...]
    scatter: float
    examples: int | None
    freedom: float
    box: tuple[float, float]
    runs: int
    hidden: int
    error: float
    covered: float
    status: Literal["supported", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class OptimalSize:
    """The compute-optimal size by one approach. Where the evidence does not allow it, all is None: see `reason`.

    Attributes:
        params, samples: of the model with the lowest loss for the compute.
        exponent: a in params ∝ compute^a.
        behind: how many runs or groups of runs it rests on; `reason` says which.
    """

    approach: Literal["envelope", "iso-FLOP", "parametric"]
    params: Estimate | None
    samples: Estimate | None
    exponent: Estimate | None
    behind: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Whether two approaches name the same size.

    Attributes:
        ratio: params of `a` over those of `b`, both from the same resamples of the runs; None if one has no answer.
        verdict: "agree" where the interval lies within a factor that hardly changes the loss, "disagree" where it
            leaves out 1, else "undetermined".
    """

    a: str
    b: str
    ratio: Estimate | None
    verdict: Literal["agree", "disagree", "undetermined"]
    sentence: str


@dataclasses.dataclass(frozen=True)
class ComputeOptimal:
    """Model and data that make the most of a training budget. Without a law to rely on the numbers are None.

    Attributes:
        compute: FLOP, `flop_per_sample`·params·samples.
        params, samples: by the law, all its forms weighed; `loss` is predicted for one run there.
        nearly: smallest and largest params whose loss the law puts within `tolerance` (relative) of the best.
        approaches: envelope, iso-FLOP and parametric; `agreements` compares each pair, `verdict` all of them.
    """

    compute: float
    flop_per_sample: float
    params: Estimate | None
    samples: Estimate | None
    loss: Estimate | None
    nearly: tuple[float, float] | None
    tolerance: float
    approaches: tuple[OptimalSize, ...]
    agreements: tuple[Agreement, ...]
    verdict: Literal["agree", "disagree", "undetermined"]
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class More:
    """What a larger budget would give, spent as well as it can be.

    Attributes:
        times, extra: the budget as a multiple of the present one, and what it is more, in the budget's unit.
        params, samples: the best ones for it.
        ratio: the loss of one run there over the law's at the present budget's optimum.
        verdict: "better" where the interval of the ratio lies below 1, "worse" above, else "undetermined".
    """

    times: float
    extra: float
    params: float
    samples: float
    ratio: Estimate
    verdict: Literal["better", "worse", "undetermined"]


@dataclasses.dataclass(frozen=True)
class Spending:
    """A budget in its own unit.

    Attributes:
        value, unit: what was given: "FLOP", "h" or a currency.
        told: the same in "FLOP", "h" and "money", as far as speed and price say.
        speed: FLOP per second that training reaches, as given; 0 is unknown.
        price: of an hour, as given; 0 is unknown.
    """

    value: float
    unit: str
    told: dict[str, float]
    speed: float
    price: float
    more: tuple[More, ...]


@dataclasses.dataclass(frozen=True)
class ServingOptimal:
    """The model that costs least over its life, training and serving, among all with one loss.

    Attributes:
        serving: samples (tokens) that it will be asked for; each costs 2·params FLOP, in training 6.
        target: the loss; by the law's estimate when it was given as a training budget.
        params, samples: of the cheapest model; inf at an end says that some laws never reach the target.
        training, lifetime: its FLOP.
        trained: params of the model of that loss that is cheapest to train.
        saved: share of that model's lifetime FLOP that is saved.
        reached: share of the drawn laws that reach the target at all.
    """

    serving: float
    target: float
    params: Estimate | None
    samples: Estimate | None
    training: Estimate | None
    lifetime: Estimate | None
    trained: Estimate | None
    saved: Estimate | None
    reached: float
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Contour:
    """Models of the loss that one model has: what parameters are worth in samples.

    Attributes:
        params, samples: the model in question; `loss` is predicted for it.
        rate: per cent of samples that one per cent of parameters is worth there.
        fewer, more: without the share `fewer` of its parameters it needs `more` times its samples.
        least: params below which no amount of samples gives this loss.
        places: (params, samples) along the contour, where samples can do it at all.
    """

    params: float
    samples: float
    loss: Estimate | None
    rate: Estimate | None
    fewer: float
    more: Estimate | None
    least: Estimate | None
    places: tuple[tuple[float, Estimate], ...]
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Growth:
    """What a larger run would give.

    Attributes:
        how: what grows: "compute" along the optimal path, or "params" or "samples" alone.
        at: the larger run, by variable.
        loss: predicted for it.
        ratio: its loss over the law's at the present run; what both have in common is no part of the interval.
        verdict: "better" where the interval of the ratio lies below 1, "worse" above, else "undetermined".
    """

    how: Literal["compute", "params", "samples"]
    at: dict[str, float]
    loss: Estimate | None
    ratio: Estimate | None
    verdict: Literal["better", "worse", "undetermined"]
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str
