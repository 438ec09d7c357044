"""A recipe that was found beside the study's own, by what had no part in finding it.

A search looks at the validation split again and again, so that the best of many is best by luck too, and at one size
and one seed. Here both recipes are trained over other seeds, at that size and at a larger one, and compared, paired,
on the validation split and on the part of the training split that neither learns from. How much smaller the gain is on
the second is what the search took from the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from sizewise import families, stats
from sizewise.config import Study
from sizewise.errors import SizewiseError
from sizewise.loop import unused
from sizewise.paired import Array, compare_scores, example_scores
from sizewise.records import Comparison, Proposal, Run, Verification
from sizewise.runtimes import eager
from sizewise.store import Store
from sizewise.tasks import Split, Task
from sizewise.tune.search import FRACTION, Train, by_key, trial_of

SEEDS = 5
"""From 1: after that of the search."""


class Verified(NamedTuple):
    """Every width's verification, and the seconds of training that all took."""

    found: tuple[Verification, ...]
    seconds: float


TUNED, OWN = "tuned", "the study's own"


def verify(study: Study, task: Task, store: Store, tuned: Proposal, widths: Sequence[int], train: Train) -> Verified:
    """Compare what was found with the study's own at each width, at as many parameters.

    Args:
        tuned: its recipe is moved to each width by the rule, as the study's own is.
        widths: of the study's own family.

    Raises:
        SizewiseError: of a width fewer than two seeds could be trained with both.
    """
    trials = {
        (width, side): [trial_of(study, task, width, tried, seed) for seed in range(1, SEEDS + 1)]
        for width in widths
        for side, tried in ((TUNED, tuned), (OWN, Proposal(study.recipe, study.family)))
    }
    runs = by_key(train([trial for group in trials.values() for trial in group]))
    rest = unused(task, FRACTION)
    found = []
    for width in widths:
        a, b = ([runs[t.key] for t in trials[width, side] if t.key in runs] for side in (TUNED, OWN))
        found.append(_verification(width, a, b, rest, task, store))
    return Verified(tuple(found), sum(run.seconds for run in runs.values()))


def _verification(
    width: int, a: Sequence[Run], b: Sequence[Run], rest: Split, task: Task, store: Store
) -> Verification:
    shared = {run.trial.seed for run in a} & {run.trial.seed for run in b}
    if len(shared) < 2:
        raise SizewiseError(
            f"{len(shared)} of {SEEDS} seeds of width {width} were trained with both recipes",
            hint="see the warnings above",
        )
    pair = [sorted((r for r in side if r.trial.seed in shared), key=lambda r: r.trial.seed) for side in (a, b)]
    on_rest = [np.stack([scores(run, rest, task, store) for run in runs]) for runs in pair]
    on_validation = [example_scores(store, runs) for runs in pair]
    taken, kept = (_gains(two, task) for two in (on_validation, on_rest))
    validation, fresh = (
        compare_scores((TUNED, pair[0][0], tuned), (OWN, pair[1][0], own)) for tuned, own in (on_validation, on_rest)
    )
    return Verification(
        width=width,
        params=a[0].params,
        validation=validation,
        fresh=fresh,
        optimism=stats.paired(taken, kept)[0],
        samples=len(rest),
        verdict=_verdict(fresh),
    )


def _gains(two: Sequence[Array], task: Task) -> Array:
    """How much better the tuned recipe's mean score is, (seeds,)."""
    tuned, own = (one.mean(axis=1) for one in two)
    return np.asarray(tuned - own if task.metric.higher else own - tuned)


def _verdict(fresh: Comparison) -> Literal["better", "worse", "undetermined"]:
    named: dict[str, Literal["better", "worse"]] = {"a is better": "better", "b is better": "worse"}
    return named.get(fresh.verdict, "undetermined")


def scores(run: Run, split: Split, task: Task, store: Store) -> Array:
    """What each example contributes to a run's score, (examples,)."""
    family = families.load(run.trial.family, task.signature)
    weights = store.trial_folder(run.trial.key) / "model.safetensors"
    module = family.build(run.trial.width, weights=weights)
    session = eager.session(eager.Deployable(module, task.preprocessor, task.signature), task.signature)
    return np.asarray(task.problem.judge(task.problem.answers(session, split), split).examples[task.metric.name], float)
