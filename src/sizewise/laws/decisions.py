"""What is asked of a law, and all its answers together: budgets, serving, trades, growth and the next runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sizewise.cluster.prices import Amount, Rate
from sizewise.errors import UsageError
from sizewise.laws import decide
from sizewise.laws.design import Decision, LossAt, OptimalParams, belief, default_cost, lattice, next_runs
from sizewise.laws.forecast import LEVEL
from sizewise.laws.intake.evidence import Array, Evidence
from sizewise.records import Batch, Contour, Decisions, Law

TRADED = ("params", "samples")
BATCH = 6
"""Most runs of a batch: after these the law is better fitted again than trusted further."""

SMALL = 30.0
"""What the next runs may cost together over the least that one of them costs. Smaller ones gain most for their cost on
paper, but only if the law still holds so far from the decision."""

LEAST_GAIN = 0.01
"""A batch that narrows the decision's interval by a smaller share is not worth making."""

FURTHER = 10.0
"""Without a budget the next runs are for the loss of a run of so many times the largest one's cost."""


@dataclass(frozen=True)
class Questions:
    """What to decide; None is not asked.

    Attributes:
        budget: training compute in FLOP, or an amount of time or money that `rate` turns into it.
        serve: samples (tokens) that the model will be asked for.
        target: a loss, in the law's units.
        next_cost: what the next runs may cost together, FLOP for a law of params and samples, else in the law's
            variable; 0 is the cost of the largest run so far.
        rate: what an hour of training is good for, and what it costs.
    """

    budget: float | Amount | None = None
    serve: float | None = None
    target: float | None = None
    next_cost: float | None = None
    rate: Rate = Rate()  # noqa: RUF009, it is frozen

    @property
    def compute(self) -> float | None:
        """The budget in FLOP.

        Raises:
            UsageError: the rate does not say what it buys.
        """
        return self.rate.flop(self.budget) if isinstance(self.budget, Amount) else self.budget

    def check(self, variables: tuple[str, ...]) -> None:
        """
        Raises:
            UsageError: a law of these variables cannot be asked this, or what a budget buys is not known.
        """
        _ = self.compute
        asked = [name for name in ("budget", "serve", "target") if getattr(self, name) is not None]
        if asked and variables != TRADED:
            raise UsageError(
                f"{asked[0]} asks how params and samples trade, and the law would be one of {' and '.join(variables)}",
                hint="name the columns of params and samples, or of one of them and compute",
            )
        if self.serve is not None and self.budget is None and self.target is None:
            raise UsageError(
                "serving asks for the cheapest model of some loss, and none is given",
                hint="give the loss as --target, or as what a training --budget reaches",
            )


def answer(law: Law, asked: Questions, *, evidence: Evidence | None = None, level: float = LEVEL) -> Decisions:
    """Everything that was asked, and what ten times the compute would give where the law can tell.

    Args:
        evidence: the law's runs, with their clusters; None takes the law's own record of them.

    Raises:
        UsageError: a question that this law cannot be asked.
    """
    asked.check(law.variables)
    b, s, t = asked.compute, asked.serve, asked.target
    reached = {"target": t} if t is not None else {"compute": b}
    grows = law.status == "supported" and law.variables == TRADED
    optimum = None if b is None else decide.compute_optimal(law, b, evidence=evidence, level=level)
    amount = Amount(asked.budget, "FLOP") if isinstance(asked.budget, float | int) else asked.budget
    return Decisions(
        optimum=optimum,
        serving=None if s is None else decide.serving_optimal(law, s, level=level, **reached),
        equal_loss=None if t is None else _trades(law, t, level),
        growth=decide.growth(law, level=level) if grows else (),
        next_runs=None if asked.next_cost is None else _batch(law, asked.next_cost, b, level),
        spending=decide.spending(law, optimum, amount, asked.rate, level=level) if optimum and amount else None,
    )


def _trades(law: Law, target: float, level: float) -> Contour:
    """Around the model that is cheapest to train to the target."""
    cheapest = decide.serving_optimal(law, 0.0, target=target, level=level)
    n, d = cheapest.params, cheapest.samples
    if n is None or d is None or not (math.isfinite(n.value) and math.isfinite(d.value)):
        return Contour(math.nan, math.nan, None, None, decide.FEWER, None, None, (), cheapest.status, cheapest.reason)
    return decide.equal_loss(law, n.value, d.value, level=level)


def _batch(law: Law, cost: float, budget: float | None, level: float) -> Batch:
    """The next runs of a batch; a law too thin to plan with gets none, and says so."""
    unit = "FLOP" if len(law.variables) > 1 else law.variables[0]
    if not law.forms:
        return Batch("", {}, cost or math.nan, unit, level, (), law.status, law.reason)
    runs = np.array([p[:-1] for p in law.points])
    spent = default_cost(law.variables, runs)
    limit, at = cost or float(spent.max()), {} if budget else _further(law, runs[spent.argmax()])
    goal: Decision = OptimalParams(budget) if budget else LossAt(at)
    words = f"the compute-optimal params at {budget:.4g} FLOP" if budget else f"the {law.metric} further out"
    places = lattice(law, limit)
    substantial = default_cost(law.variables, places) >= limit / SMALL
    places = places[substantial] if substantial.any() else places
    if not len(places):
        raise UsageError(
            f"no run within the sizes of the table costs as little as {limit:.4g} {unit}",
            hint=f"raise the cost; the cheapest run so far cost {spent.min():.4g}",
        )
    try:
        found = next_runs(law, places, goal, limit, level=level, most=BATCH)
    except UsageError as error:  # these runs say too little about the decision, which is no mistake of the question
        return Batch(words, at, limit, unit, level, (), "insufficient", error.message)
    if not found or found[-1].removed < LEAST_GAIN:
        source, part = belief(law, places, goal).sources[0]
        why = f"no runs for {limit:.4g} {unit} together would make {words} much surer"
        why += f": {part:.0%} of the doubt is {source}"
        return Batch(words, at, limit, unit, level, (), "insufficient", why)
    return Batch(words, at, limit, unit, level, found, law.status, law.reason)


def _further(law: Law, largest: Array) -> dict[str, float]:
    """A run of the largest one's shape at `FURTHER` times its cost."""
    sized = len(law.variables) - ("unique" in law.variables)
    return dict(zip(law.variables, map(float, largest * FURTHER ** (1 / sized)), strict=True))


__all__ = ["Questions", "answer"]
