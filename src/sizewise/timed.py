"""Compression within a time: what is made in any case, a search for chains, and what all models take to be measured.

The time is that of the whole: what is left of it for a search depends on what converting and measuring will take, which
is measured first, on models that must be converted anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sizewise import compress, measure
from sizewise.compress import chains
from sizewise.compress import search as chain_search
from sizewise.config import Study
from sizewise.methods import written
from sizewise.records import Candidate, Choice, Run, Trial
from sizewise.store import Store
from sizewise.tasks import Task

TRAINING, SEEDING, MEASURING = 0.3, 0.25, 0.35
"""Shares of the time that may go to what is pruned and distilled in any case, to training survivors of the search over
more seeds, and to converting and measuring them with all other models; the rest is spent on trying chains."""


@dataclass(frozen=True)
class Stage:
    """What a compression works on, and what it reports to.

    Attributes:
        sizes: the sweep's runs by width.
        train: trains trials, or finds them trained, with the predicted seconds of each.
        workers: trials that are trained at a time.
        said: called with a sentence when a part begins; `share` with what is done of it.
    """

    study: Study
    task: Task
    store: Store
    choice: Choice
    sizes: Mapping[int, Sequence[Run]]
    train: Callable[[Sequence[Trial], Callable[[Trial], float]], Sequence[Run]]
    workers: int
    said: Callable[[str], None]
    share: Callable[[float], None]


@dataclass(frozen=True)
class Timed:
    """One compression that keeps to its time, which begins with this object."""

    on: Stage
    began: float = field(default_factory=time.monotonic)

    @property
    def limit(self) -> float:
        """Seconds of the whole."""
        return self.on.study.compress.time_seconds

    def fitting(
        self, trials: Sequence[Trial], cost: Callable[[Trial], float]
    ) -> tuple[tuple[Trial, ...], tuple[str, ...]]:
        """Those of the trials made in any case that there is time for, and a sentence about the others."""
        return compress.within(trials, cost, TRAINING * self.limit * self.on.workers)

    def searched(self, others: Sequence[Run]) -> tuple[list[Run], tuple[str, ...]]:
        """Runs of the chains that a search finds, over more seeds as far as there is time, and why chains failed.

        Args:
            others: models that are to be converted and measured besides, the chosen one first.
        """
        on = self.on
        each = self._seconds_a_model(others)
        most = max(1, int(MEASURING * self.limit / each) - len(others))

        def left_for(kept: Sequence[chain_search.Found]) -> float:
            """When all models must be trained that are to be measured."""
            return self.began + self.limit - (len(others) + len(kept)) * each

        def until(found: Sequence[chain_search.Found]) -> float:
            kept = chain_search.spread(chain_search.survivors(found), most)
            return left_for(kept) - min(sum(map(self._seeding, kept)), SEEDING * self.limit)

        on.said("search for chains of methods")
        teachers = chains.teachers(on.choice, on.sizes)
        found = chain_search.search(
            on.study,
            on.store.run(on.choice.run),
            teachers,
            on.task,
            on.store,
            self._train,
            until=until,
            at_once=on.workers,
            on_share=on.share,
        )
        kept = chain_search.spread(found.survivors, most)
        on.said(f"{found.tried} chains tried; {len(kept)} that none equals, over more seeds")
        runs = [one.run for one in kept]
        for one in kept:
            if time.monotonic() + self._seeding(one) > left_for(kept):
                break
            text = "+".join(map(written, one.chain))
            made, _ = chains.done([text], on.study, on.choice, on.sizes, on.task, on.store, self._train)
            runs += made
        return runs, found.failed

    def _seeding(self, found: chain_search.Found) -> float:
        """Seconds that the other seeds of a chain take."""
        made = chains.trained_seconds(found.run, self.on.store)
        return made * (self.on.study.compress.seeds - 1) / self.on.workers

    def _seconds_a_model(self, models: Sequence[Run]) -> float:
        """What converting a model takes and measuring it in all runtimes and precisions.

        The first two are converted now, which they would be later. The first waits for packages to be imported, and for
        its layers to be blamed; the second is timed. Of it the model in PyTorch, often the slowest, and another
        candidate are measured.
        """
        self.on.said("see how long a model takes to convert and to measure")
        compress.build(self.on.study, models[:1], self.on.task, self.on.store)
        plain = replace(self.on.study, compress=replace(self.on.study.compress, time_seconds=0.0))
        began = time.monotonic()
        candidates, _ = compress.build(plain, models[1:2] or models[:1], self.on.task, self.on.store)
        converted = time.monotonic() - began
        one, two = (self._measuring(some) for some in (candidates[:1], (candidates[0], candidates[-1])))
        return converted + one + max(0.0, two - one) * (len(candidates) - 1)

    def _measuring(self, candidates: Sequence[Candidate]) -> float:
        """Seconds of measuring some candidates, in as few blocks as are left where there are many."""
        began, few = time.monotonic(), measure.FEWEST_BLOCKS
        measure.measure(candidates, candidates[0], self.on.task, self.on.store, self.on.study.target, blocks=few)
        return time.monotonic() - began

    def _train(self, trials: Sequence[Trial]) -> Sequence[Run]:
        """Trials that nothing is known of yet: each counts the same."""
        return self.on.train(trials, lambda trial: 1.0)
