"""The compute-optimal size by three approaches, and whether they agree.

Hoffmann et al. 2022, arXiv:2203.15556, section 3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sizewise.errors import UsageError
from sizewise.laws import solve
from sizewise.laws.compete import recency
from sizewise.laws.decide.draws import (
    DRAWS,
    Belief,
    belief,
    exponential,
    judged,
    members,
    refused,
    shared_out,
    uncentred,
)
from sizewise.laws.decide.runs import FEWEST_GROUPS, FEWEST_ON_ENVELOPE, Line, envelope, groups, iso_flop
from sizewise.laws.decide.shortages import Shortages
from sizewise.laws.forecast import LEVEL, predict
from sizewise.laws.forms import named
from sizewise.laws.intake.evidence import Array, Evidence
from sizewise.laws.parameters import resamples
from sizewise.records import Agreement, ComputeOptimal, Estimate, Law, OptimalSize
from sizewise.stats import percentile_interval

FLOP_PER_SAMPLE = 6.0
"""FLOP for each parameter and sample, forward and backward (Kaplan et al. 2020, arXiv:2001.08361, section 2.1)."""

TOLERANCE = 1e-3
"""Relative difference in loss that is taken for none."""

REDONE = 200
"""Resamples of the runs on which all approaches are redone."""

MOST_ROWS = 2_000
SOLID = 0.8
"""An approach has an answer where at least this share of the resamples gives one."""

Approach = Literal["envelope", "iso-FLOP", "parametric"]
Verdict = Literal["agree", "disagree", "undetermined"]


@dataclass(frozen=True)
class _Answer:
    """One approach: log N of the optimum for the runs and, NaN where there is none, for each resample, (resamples,)."""

    approach: Approach
    value: float
    redone: Array

    @property
    def known(self) -> bool:
        return math.isfinite(self.value) and bool(np.isfinite(self.redone).mean() >= SOLID)


def compute_optimal(
    law: Law,
    compute: float,
    *,
    evidence: Evidence | None = None,
    flop_per_sample: float = FLOP_PER_SAMPLE,
    tolerance: float = TOLERANCE,
    level: float = LEVEL,
    draws: int = DRAWS,
    redone: int = REDONE,
    seed: int = 0,
) -> ComputeOptimal:
    """Model and data with the lowest loss for a training budget.

    Args:
        compute: FLOP = flop_per_sample·params·samples.
        evidence: the runs of the law, with their clusters; None takes the law's own record of them, one cluster a run.
        tolerance: relative difference in loss that does not matter. It sets `nearly`, and how close two approaches
            have to be in order to agree.
        draws: laws drawn for the parametric interval; redone: resamples of the runs, 0 leaves approaches 1 and 2 out.

    Raises:
        UsageError: the budget does not pay for one parameter and one sample.
    """
    if not (math.isfinite(compute) and compute > flop_per_sample > 0):
        raise UsageError(f"a budget of {compute:g} FLOP trains nothing", hint="give floating-point operations, as 1e21")
    if refusal := refused(law):
        names: tuple[Approach, ...] = ("envelope", "iso-FLOP", "parametric")
        none = tuple(OptimalSize(a, None, None, None, 0, f"no law to rely on: {refusal[1]}") for a in names)
        head = (compute, flop_per_sample, None, None, None, None, tolerance)
        return ComputeOptimal(*head, none, (), "undetermined", *refusal)
    held = belief(law, draws=draws, seed=seed, level=level)
    log_c = math.log(compute)
    log_product = log_c - math.log(flop_per_sample)
    parametric, chosen = _parametric(held, log_product)
    assert parametric.params is not None
    assert parametric.samples is not None
    low, high = held.centre.near(log_product, tolerance)
    approaches: tuple[OptimalSize, ...] = (parametric,)
    agreements: tuple[Agreement, ...] = ()
    if redone:
        runs = _runs(law) if evidence is None else evidence
        margin = 0.5 * float(high[chosen] - low[chosen])
        approaches, agreements = _redone(law, runs, parametric, log_c, flop_per_sample, margin, level, redone, seed)
    status, reason = judged(law, parametric.params, "params")
    return ComputeOptimal(
        compute=compute,
        flop_per_sample=flop_per_sample,
        params=parametric.params,
        samples=parametric.samples,
        loss=predict(law, [{"params": parametric.params.value, "samples": parametric.samples.value}], level=level)[0],
        nearly=(exponential(float(low[chosen])), exponential(float(high[chosen]))),
        tolerance=tolerance,
        approaches=approaches,
        agreements=agreements,
        verdict=_overall(agreements),
        status=status,
        reason=reason,
    )


def _parametric(held: Belief, log_product: float) -> tuple[OptimalSize, int]:
    """Approach 3, and the form whose numbers it gives."""
    each, drawn = held.centre.optimal_log_params(log_product), held.drawn.optimal_log_params(log_product)
    chosen = held.middle(each)
    value, exponent = float(each[chosen]), float(held.centre.exponent()[chosen])
    answer = OptimalSize(
        approach="parametric",
        params=held.estimate(value, drawn),
        samples=held.estimate(log_product - value, log_product - drawn),
        exponent=held.plain(exponent, held.drawn.exponent()),
        behind=held.runs,
        reason=f"{held.runs} runs and {len(held.weight)} forms",
    )
    return answer, chosen


def _redone(
    law: Law,
    evidence: Evidence,
    parametric: OptimalSize,
    log_c: float,
    flop: float,
    margin: float,
    level: float,
    count: int,
    seed: int,
) -> tuple[tuple[OptimalSize, ...], tuple[Agreement, ...]]:
    """All approaches on the same resamples."""
    rng = np.random.default_rng(seed)
    if len(evidence.y) > MOST_ROWS:
        evidence = evidence.take(np.sort(rng.choice(len(evidence.y), MOST_ROWS, replace=False)))
    drawn = resamples(evidence, count, rng)
    weights = np.concatenate([evidence.weight[None], drawn])
    log_n, log_y = evidence.log_x[:, 0], evidence.log_y
    cost = math.log(flop) + evidence.log_x.sum(axis=1)
    members_of = groups(log_n, cost)
    lines: dict[Approach, Line] = {
        "envelope": envelope(log_n, cost, log_y, weights),
        "iso-FLOP": iso_flop(log_n, cost, log_y, weights, members_of),
    }
    log_product = log_c - math.log(flop)
    refits = _refits(law, evidence, drawn).optimal_log_params(log_product)
    assert parametric.params is not None
    answers = [_Answer(name, float(line.at(log_c)[0]), line.at(log_c)[1:]) for name, line in lines.items()]
    sizes = [_size(a, line, log_product, level) for a, line in zip(answers, lines.values(), strict=True)]
    answers.append(_Answer("parametric", math.log(parametric.params.value), refits))
    pairs = itertools.combinations(answers, 2)
    return (*sizes, parametric), tuple(_agreement(a, b, margin, level) for a, b in pairs)


def _refits(law: Law, evidence: Evidence, drawn: Array) -> Shortages:
    """A law for each resample: the forms take them in turn, as many each as it has weight. (resamples,), shuffled."""
    x, log_y = evidence.log_x - np.array(law.centre), evidence.log_y
    forms, weight = members(law)
    recent = recency(evidence, np.ones(len(log_y), dtype=bool)) / evidence.weight
    ends = np.cumsum(shared_out(weight, len(drawn)))
    laws = []
    for fitted, rows in zip(forms, np.split(drawn * recent, ends[:-1]), strict=True):
        if len(rows):
            form, theta = named(fitted.form, law.variables), np.array(fitted.theta)
            scale = solve.scales(form, theta[None], x, log_y, (evidence.weight * recent)[None])
            found = solve.refit(form, theta, x, log_y, rows, solve.HUBER * float(scale[0]))
            laws.append(uncentred(fitted, law, found.theta))
    return Shortages.joined(laws)


def _size(answer: _Answer, line: Line, log_product: float, level: float) -> OptimalSize:
    on_envelope = answer.approach == "envelope"
    fewest = FEWEST_ON_ENVELOPE if on_envelope else FEWEST_GROUPS
    behind = int(line.places[0])
    said = f"{behind} {'runs on the envelope' if on_envelope else 'groups of equal compute with a minimum inside'}"
    if not answer.known:
        share = float(np.isfinite(answer.redone).mean())
        why = f"{said}; it takes {fewest}, over a factor of 4 in compute"
        if math.isfinite(answer.value):
            why = f"{said}, and only {share:.0%} of the resamples have enough"
        return OptimalSize(answer.approach, None, None, None, behind, why)
    finite = np.isfinite(answer.redone)
    redone, slopes = answer.redone[finite], line.slope[1:][finite]
    return OptimalSize(
        approach=answer.approach,
        params=_percentiles(np.exp(redone), math.exp(answer.value), level, behind),
        samples=_percentiles(np.exp(log_product - redone), math.exp(log_product - answer.value), level, behind),
        exponent=_percentiles(slopes, float(line.slope[0]), level, behind),
        behind=behind,
        reason=said,
    )


def _percentiles(drawn: Array, value: float, level: float, n: int) -> Estimate:
    return percentile_interval(drawn, value, level=level, method=f"cluster bootstrap of {len(drawn)}", n=n)


def _agreement(a: _Answer, b: _Answer, margin: float, level: float) -> Agreement:
    """Sizes that differ by no more than `margin` in log N have the same loss for all that matters."""
    if not (a.known and b.known):
        absent = " and ".join(x.approach for x in (a, b) if not x.known)
        return Agreement(a.approach, b.approach, None, "undetermined", f"no answer by {absent}")
    apart = a.redone - b.redone
    apart = apart[np.isfinite(apart)]
    ratio = _percentiles(np.exp(apart), math.exp(a.value - b.value), level, len(apart))
    low, high = math.log(ratio.low), math.log(ratio.high)
    verdict: Verdict = "undetermined"
    if -margin <= low and high <= margin:
        verdict = "agree"
    elif low > 0 or high < 0:
        verdict = "disagree"
    words = {"agree": "agree", "disagree": "disagree", "undetermined": "may or may not agree"}[verdict]
    factor = f"a factor of {ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}] in params"
    return Agreement(a.approach, b.approach, ratio, verdict, f"{a.approach} and {b.approach} {words}: {factor}")


def _overall(agreements: Sequence[Agreement]) -> Verdict:
    verdicts = {a.verdict for a in agreements if a.ratio is not None}
    if "disagree" in verdicts:
        return "disagree"
    return "agree" if verdicts == {"agree"} else "undetermined"


def _runs(law: Law) -> Evidence:
    """The evidence as far as the law keeps it."""
    table = np.array(law.points)
    rows = np.arange(len(table))
    x = table[:, :-1]
    stratum = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
    return Evidence(law.metric, law.variables, x, table[:, -1], np.ones(len(rows)), rows, stratum, rows + 1)
