"""The best few of a search, over seeds that had no part in finding them.

The lowest of many validation losses is low by its seed's luck, too, and an unsteady recipe has the most of it. So the
leaders are trained over two other seeds, and what is best by these alone goes to the verification, which has seeds of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sizewise.config import Study
from sizewise.records import Proposal
from sizewise.tasks import Task
from sizewise.tune.rates import log_loss
from sizewise.tune.search import Train, by_key, trial_of

SEEDS = (6, 7)
"""After that of the search, 0, and those of the verification."""


class Confirmed(NamedTuple):
    """The leaders of a search, best first, and the seconds of training that this took."""

    leaders: tuple[Proposal, ...]
    seconds: float


def confirm(study: Study, task: Task, width: int, leaders: Sequence[Proposal], train: Train) -> Confirmed:
    """Order the leaders by the mean logarithm of their validation losses; one with a seed that fails comes last."""
    if len(leaders) < 2:
        return Confirmed(tuple(leaders), 0.0)
    trials = {one: [trial_of(study, task, width, one, seed) for seed in SEEDS] for one in leaders}
    runs = by_key(train([trial for group in trials.values() for trial in group]))

    def mean(one: Proposal) -> float:
        losses = [log_loss(runs[trial.key]) if trial.key in runs else math.inf for trial in trials[one]]
        return sum(losses) / len(losses)

    return Confirmed(tuple(sorted(leaders, key=mean)), sum(run.seconds for run in runs.values()))
