"""Rows of the page's tables, made from records; every cell that is uncertain keeps its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sizewise import stats
from sizewise.records import Choice, Comparison, Estimate, Measurement, Recommendation, Run


@dataclass(frozen=True)
class Verdict:
    """What one comparison says about the margin: "within" it, "beyond" it, or "open"."""

    comparison: Comparison
    verdict: str
    chosen: bool


@dataclass(frozen=True)
class Size:
    """One width of the sweep: exact costs, and means over its seeds."""

    width: int
    seeds: int
    params: int
    flops: int
    memory_bytes: int
    train_loss: Estimate
    loss: Estimate
    score: Estimate
    seconds: Estimate


@dataclass(frozen=True)
class Row:
    """One candidate's measurement.

    Attributes:
        role: "recommended", "chosen model", both or nothing.
        agreement: the record's share of test examples, with its interval.
        shown: whether it is on the frontier or has a role; the others wait behind a switch.
    """

    m: Measurement
    role: str
    agreement: Estimate
    shown: bool


def verdicts(choice: Choice) -> list[Verdict]:
    """Each width against the larger one that it does worst against, largest first."""
    name = f"width {choice.width}"
    return [Verdict(c, _verdict(c.difference, choice.margin), c.a == name) for c in choice.comparisons]


def _verdict(difference: Estimate, margin: float) -> str:
    """As the choice decides: an interval that does not exist shows nothing."""
    if difference.low > -margin:
        return "within"
    return "beyond" if difference.high < -margin else "open"


def sizes(groups: Mapping[int, Sequence[Run]]) -> list[Size]:
    """The sweep's widths, smallest first."""
    return [_size(width, runs) for width, runs in groups.items()]


def _size(width: int, runs: Sequence[Run]) -> Size:
    def mean(value: Callable[[Run], float], within: tuple[float, float] = stats.POSITIVE) -> Estimate:
        return stats.mean(np.array([value(run) for run in runs]), within=within)

    first = runs[0]
    return Size(
        width=width,
        seeds=len(runs),
        params=first.params,
        flops=first.flops,
        memory_bytes=first.memory_bytes,
        train_loss=mean(lambda run: run.train_loss),
        loss=mean(lambda run: run.validation.loss),
        score=mean(lambda run: run.validation.score, first.validation.metric.range),
        seconds=mean(lambda run: run.seconds),
    )


def candidates(measurements: Sequence[Measurement], best: Recommendation | None, parent: str) -> list[Row]:
    """Every candidate; those that the answer is about first, then fastest first."""
    found = [_row(m, best, parent) for m in measurements]
    return sorted(found, key=lambda row: ("recommended" not in row.role, not row.role, -row.m.throughput.value))


def _row(m: Measurement, best: Recommendation | None, parent: str) -> Row:
    name, n = m.candidate.name, m.test_score.n
    roles = ["recommended"] * bool(best and name == best.name) + ["chosen model"] * (name == parent)
    agreement = stats.proportion(round(m.agreement * n), n)
    return Row(m, " and ".join(roles), agreement, shown=m.frontier or bool(roles))
