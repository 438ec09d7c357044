"""Runs the stages of a study and keeps their records in its folder; what is done is not done again."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from sizewise import (
    adaptive,
    config,
    diagnose,
    distributed,
    families,
    laws,
    library,
    measure,
    plan,
    recipe,
    recommend,
    starts,
    tasks,
    train,
    tune,
)
from sizewise import choose as choosing
from sizewise import compress as compression
from sizewise import scenarios as loads
from sizewise import search as searching
from sizewise.compressed import compressed
from sizewise.config import Study
from sizewise.errors import DataError, IntegrityError, SizewiseError, UsageError
from sizewise.export import export as export_model
from sizewise.loop import environment
from sizewise.records import (
    Choice,
    Compression,
    Export,
    Failure,
    Finding,
    Law,
    Measurement,
    Plan,
    Precedent,
    Recommendation,
    Run,
    Scenario,
    Search,
    Trial,
    TunedRecipe,
    Tuning,
    to_json,
)
from sizewise.runtimes import RUNTIMES
from sizewise.shared import Shared
from sizewise.starts import Starts
from sizewise.store import Store
from sizewise.tasks import Task
from sizewise.timed import Stage
from sizewise.train import Event, Source
from sizewise.tune import rates

T = TypeVar("T")

KNOWN = 4
"""Of the recipes that a search tries one in so many may be one of similar studies."""

PLACES = ("on", "share")
"""Keys of a sweep that say where it is trained."""


@dataclass(frozen=True)
class Listener:
    """Where a study reports to while it works.

    Attributes:
        stage: called with a sentence when a stage begins.
        planned: called with the predicted seconds of each trial, by key, before they are trained.
        event: called when a trial makes progress.
        share: called with the share of the current stage that is done.
    """

    stage: Callable[[str], None] = lambda sentence: None
    planned: Callable[[dict[str, float]], None] = lambda seconds: None
    event: Callable[[Event], None] = lambda event: None
    share: Callable[[float], None] = lambda share: None


class Workspace:
    """A study in its folder. The methods are the stages, in order; each reads what the one before wrote.

    Args:
        study: the resolved configuration.
        task: the data it is about.
        store: the folder.
        request: identity of what the user asked for, to recognise the plan that it led to.
    """

    def __init__(self, study: Study, task: Task, store: Store, request: str, listener: Listener) -> None:
        config.check(study)
        recipe.check(study.recipe)
        task.problem.check(study.recipe)
        self.study, self.task, self.store, self.request, self.listener = study, task, store, request, listener

    @classmethod
    def create(cls, requested: Study, root: Path, listener: Listener | None = None) -> Workspace:
        """A study in a new folder, or the same study in its old one."""
        task = _load(requested)
        asked = to_json(requested)
        for place in PLACES:  # where a study is trained changes nothing of its plan
            del asked["sweep"][place]
        if not requested.start:
            del asked["start"]  # studies had no start once, and keep their plans
        del asked["cluster"]  # where it is trained does not change what is
        if not requested.sweep.adaptive:
            del asked["sweep"]["adaptive"]
        text = json.dumps(asked, sort_keys=True) + task.fingerprint
        request = hashlib.sha256(text.encode()).hexdigest()[:16]
        study = config.resolve(requested, task)
        return cls(study, task, Store(root), request, listener or Listener())

    @classmethod
    def open(cls, root: Path, listener: Listener | None = None) -> Workspace:
        """The study that lies in a folder.

        Raises:
            UsageError: there is none.
            DataError: its data is not what it was.
        """
        study = config.read(Path(root) / "study.toml")
        task = _load(study)
        store = Store(root)
        planned = store.load("plan.json", Plan)
        if planned.trials[0].fingerprint != task.fingerprint:
            raise DataError(
                f"the data of {root} changed since it was planned: its fingerprint was "
                f"{planned.trials[0].fingerprint} and is {task.fingerprint}",
                hint="bring the data back as it was, or run a study of the new data into another folder",
            )
        return cls(study, task, store, planned.request, listener or Listener())

    @cached_property
    def starts(self) -> Starts | None:
        """The weights that trials start from; found, or downloaded, when they are first asked for."""
        return starts.find(self.study.start, self.task.fingerprint)

    def plan(self) -> Plan:
        """Plan the sweep and time its steps; a plan that the same request made before is kept."""
        known = self._known_plan()
        if known is not None:
            places = {name: getattr(self.study.sweep, name) for name in PLACES}
            study = config.read(self.store / "study.toml")
            self.study = replace(study, sweep=replace(study.sweep, **places), cluster=self.study.cluster)
            planned = plan.priced(self.study, known, self.store)
        else:
            self.study, planned = plan.plan(self.study, self.task, self.store, self.starts)
            planned = replace(planned, guess=library.guess(self.similar(), planned.costs))
        samples = len(self.task.train) * self.study.recipe.epochs
        more = plan.more(planned, self.found("law.json", tuple[Law, ...], ()), samples)
        return replace(planned, request=self.request, more=more)

    def train(self, planned: Plan) -> tuple[Run, ...]:
        """Train whatever the plan has and the folder has not, each width at a rate that was checked."""
        planned = self.check_rates(planned)
        config.write(self.study, self.store / "study.toml")
        self.store.save("plan.json", planned)
        self.store.save("environment.json", environment())
        costs = {cost.width: cost for cost in planned.costs}
        trials = (*planned.trials, *planned.probes)
        if not starts.kept(trials, self.store) and self.starts:
            self.starts.keep(trials, self.store)

        def cost(trial: Trial) -> float:
            return plan.seconds_of(trial, costs, self.study.recipe.epochs)

        return self._train_adaptively(planned, cost) if self.study.sweep.adaptive else self.run_trials(trials, cost)

    def _train_adaptively(self, planned: Plan, cost: Callable[[Trial], float]) -> tuple[Run, ...]:
        """A few seeds of every size and the probes, then batch by batch what the choice still needs."""
        for trial in planned.trials:
            self.store.clear_failure(trial)
        wanted = [*(trial for trial in planned.trials if trial.seed < plan.FEWEST_SEEDS), *planned.probes]
        trained: tuple[Run, ...] = ()
        while wanted:
            trained = self.run_trials([*(run.trial for run in trained), *wanted], cost)
            step = self._next_step()
            wanted = [t for t in planned.trials if t.width in step.widths and t.seed < step.seeds and self._untried(t)]
            if wanted:
                self.listener.stage(f"train {len(wanted)} more trials: {step.why}")
        return tuple(self._finished((*planned.trials, *planned.probes)))

    def _untried(self, trial: Trial) -> bool:
        return self.store.find_run(trial) is None and self.store.find_failure(trial) is None

    def _next_step(self) -> adaptive.Step:
        """What an adaptive study would train next, by the runs that the folder holds."""
        return adaptive.next_step(
            self.sizes(),
            self.store,
            most=self.study.sweep.seeds,
            margin=self.study.margin,
            budget=self.study.budget,
            overhead=plan.START_SECONDS * self._workers(),
        )

    def _looks(self) -> int:
        """Seeds that a size could have had, where runs decided which to train next, and so what to look at last."""
        return self.study.sweep.seeds if self.study.sweep.adaptive else 0

    def _workers(self) -> int:
        return self.study.sweep.workers or os.cpu_count() or 1

    def check_rates(self, planned: Plan) -> Plan:
        """Check the learning rate by short runs, if the study asks for it; the plan, at the rates that came of it."""
        widths, costs = [cost.width for cost in planned.costs], {cost.width: cost for cost in planned.costs}
        tuning = self._known_tuning()
        if tuning is None and (checked := rates.scans(self.study, self.task, widths)):
            self.listener.stage(f"check the learning rate: {len(checked)} short trials")
            epochs = self.study.recipe.epochs

            def trained(trials: Sequence[Trial]) -> tuple[Run, ...]:
                return self._train_started(trials, lambda trial: plan.seconds_of(trial, costs, epochs))

            found = rates.check(self.study, self.task, widths, trained)
            tuning = replace(found, request=self.request)
            self.store.save("tuning.json", tuning)
        if tuning is not None and tuning.rates:
            self.study, planned = plan.retuned(self.study, planned, tuning.rates, self.task, self.store, self.starts)
        return planned

    def _train_started(self, trials: Sequence[Trial], cost: Callable[[Trial], float]) -> tuple[Run, ...]:
        """Train trials from the weights that the study starts from, if it starts from any."""
        if self.starts:
            trials = self.starts.begin(tuple(trials))
            self.starts.keep(trials, self.store)
        return self.run_trials(trials, cost)

    def tune(
        self,
        trials: int,
        widths: Sequence[int] = (),
        *,
        shaped: bool = True,
        how: tune.How = "whole runs",
    ) -> TunedRecipe:
        """Search for a recipe at the first of these widths, and verify what is found at all of them.

        Args:
            trials: recipes to try, those of earlier calls included.
            widths: empty is a small one and a large one of the ladder.
            shaped: whether depth against width is tried, too, where a family has a depth.
            how: what recipes are judged by.
        """
        ladder = plan.ladder(families.load(self.study.family, self.task.signature), self.study)
        found = tune.tuned(
            self.study,
            self.task,
            self.store,
            lambda trials: self._train_started(trials, lambda trial: trial.width * trial.recipe.epochs),
            tuple(widths) or (ladder[len(ladder) // 3], ladder[-1 - len(ladder) // 4]),
            trials=trials,
            at_once=self._workers(),
            first=library.recipes(self.similar(), max(1, trials // KNOWN)),
            shaped=shaped,
            how=how,
            stage=self.listener.stage,
        )
        self.store.save("recipe.json", found)
        return found

    def _known_tuning(self) -> Tuning | None:
        known = self.found("tuning.json", Tuning, None)
        return known if known is not None and known.request == self.request else None

    def fit(self) -> tuple[Law, ...]:
        """Fit the laws of validation loss and error."""
        runs = [run for group in self.sizes().values() for run in group]
        found = tuple(laws.fit(runs, metric) for metric in ("loss", "error"))
        if self.study.start:
            found = tuple(replace(law, notes=(*law.notes, fine_tuned(self.study.start))) for law in found)
        self.store.save("law.json", found)
        return found

    def diagnose(self) -> tuple[Finding, ...]:
        """Say what limits the models."""
        probes = self._finished(self.planned().probes)
        found = diagnose.diagnose(
            self.sizes(),
            probes,
            self.store,
            margin=self.study.margin,
            failures=self.failures(),
            looks=self._looks(),
        )
        tuning = self._known_tuning()
        found += (rates.finding(tuning),) if tuning is not None else ()
        self.store.save("findings.json", found)
        return found

    def choose(self) -> Choice:
        """Choose the smallest size that does the job."""
        error_law = next(law for law in self.fit() if law.metric == "error")
        choice = choosing.choose(
            self.sizes(),
            self.store,
            margin=self.study.margin,
            budget=self.study.budget,
            error_law=error_law,
            looks=self._looks(),
        )
        if self.study.sweep.adaptive:
            spent = adaptive.spending(self.sizes(), self.study.sweep.seeds, self._next_step())
            choice = replace(choice, spent=spent, reasons=(*choice.reasons, *adaptive.reasons(spent)))
        self.store.save("choice.json", choice)
        return choice

    def similar(self) -> tuple[library.Similar, ...]:
        """The nearest of the studies that were finished before, this one left out."""
        known = [one for one in library.precedents() if one.key != self._precedent_key()]
        signature = self.task.signature
        kind = {"problem": signature.problem, "layout": signature.layout, "family": self.study.family}
        comparable = library.comparable(known, **kind)
        return library.nearest(self._features, comparable) if comparable else ()

    @cached_property
    def _features(self) -> dict[str, float]:
        return library.features(self.task)

    def _precedent_key(self) -> str:
        asked = (self.task.fingerprint, self.study.family, self.task.metric.name)
        return hashlib.sha256(" ".join(asked).encode()).hexdigest()[:16]

    def remember(self) -> Precedent:
        """Leave what this study found to later ones, in the library.

        Raises:
            StoreError: the library cannot be written.
        """
        choice, planned, sizes = self.store.load("choice.json", Choice), self.planned(), self.sizes()
        runs = [run for group in sizes.values() for run in group]
        tuned: TunedRecipe | None = self.found("recipe.json", TunedRecipe, None)
        precedent = Precedent(
            key=self._precedent_key(),
            name=Path(self.task.name).stem,
            problem=self.task.signature.problem,
            layout=self.task.signature.layout,
            family=self.study.family,
            metric=self.task.metric.name,
            features=self._features,
            recipe=self.study.recipe,
            smallest=planned.costs[0].params,
            largest=planned.costs[-1].params,
            width=choice.width,
            params=choice.params,
            status=choice.status,
            margin=choice.margin,
            score=choice.score,
            exponents=library.exponents(self.found("law.json", tuple[Law, ...], ())),
            runs=len(runs),
            seconds=sum(run.seconds for run in runs),
            recipes=tuned.leaders if tuned else (),
        )
        library.add(precedent)
        return precedent

    def compress(self) -> Compression:
        """Prune, distil and quantize; every result becomes a candidate beside the models trained small."""
        result = compressed(
            Stage(
                self.study,
                self.task,
                self.store,
                self.store.load("choice.json", Choice),
                self.sizes(),
                train=self.run_trials,
                workers=self._workers(),
                said=self.listener.stage,
                share=self.listener.share,
            )
        )
        self.store.save("compression.json", result)
        return result

    def measure(self) -> tuple[tuple[Measurement, ...], Recommendation]:
        """Measure every candidate and recommend one; what was measured on this target is kept."""
        made = self.store.load("compression.json", Compression)
        parent = next(c for c in made.candidates if c.name == made.parent)
        measurements = self._known_measurements(made)
        if measurements is None:
            measurements = measure.measure(
                made.candidates, parent, self.task, self.store, self.study.target, self.listener.share
            )
            self.store.save("measurements.json", measurements)
        recommendation = recommend.recommend(measurements, parent, self.study.compress, self.study.budget)
        self.store.save("recommendation.json", recommendation)
        return measurements, recommendation

    def search(self, names: Sequence[str], threads: Sequence[int], batches: Sequence[int]) -> Search:
        """Run the recommended model in every way there is here, and name the winner for each goal.

        Raises:
            UsageError: a runtime is unknown.
        """
        unknown = [name for name in names if name not in RUNTIMES]
        if unknown:
            raise UsageError(f"no runtime is called {unknown[0]!r}", hint=f"known: {', '.join(RUNTIMES)}")
        measurements = {m.candidate.name: m for m in self._measurements()}
        self.listener.stage(f"try every way to run {self._recommended()}")
        run = self.scored(self.store.run(measurements[self._recommended()].candidate.run))
        found = searching.search(
            self.study,
            run,
            self.task,
            self.store,
            names=[name for name in RUNTIMES if name in names],
            threads=threads,
            batches=batches,
            on_done=self.listener.share,
        )
        self.store.save("search.json", found)
        return found

    def scenarios(self, kinds: Sequence[str], bound_ms: float) -> tuple[Scenario, ...]:
        """The recommended model and the chosen one in PyTorch under MLPerf's loads."""
        names = self.store.load("compression.json", Compression).parent, self._recommended()
        folders = {name: self.store / "candidates" / name for name in dict.fromkeys(names)}
        self.listener.stage(f"put {len(folders)} models under {len(kinds)} loads")
        found = loads.run(
            folders, self.task, self.study.target.threads, kinds, bound_ms=bound_ms, on_done=self.listener.share
        )
        self.store.save("scenarios.json", found)
        return found

    def _recommended(self) -> str:
        return self.store.load("recommendation.json", Recommendation).name

    def export(self, names: Sequence[str] = ()) -> tuple[Export, ...]:
        """Export candidates by name; by default the recommended one and the chosen model at full precision."""
        measurements = {m.candidate.name: m for m in self._measurements()}
        wanted = tuple(names) or self._default_exports(measurements)
        unknown = [name for name in wanted if name not in measurements]
        if unknown:
            raise UsageError(f"no candidate is called {unknown[0]!r}", hint=f"known: {', '.join(measurements)}")
        exports = tuple(export_model(measurements[name], self.task, self.store) for name in wanted)
        self.store.save("exports.json", exports)
        return exports

    def sizes(self) -> dict[int, list[Run]]:
        """The sweep's finished runs by width.

        Raises:
            UsageError: there are none.
        """
        groups: dict[int, list[Run]] = {}
        for run in self._finished(self.planned().trials):
            groups.setdefault(run.trial.width, []).append(run)
        if not groups:
            raise UsageError(f"{self.store.root} has no finished runs", hint=f"sizewise train {self.store.root}")
        return dict(sorted(groups.items()))

    def run_trials(self, trials: Sequence[Trial], cost: Callable[[Trial], float]) -> tuple[Run, ...]:
        """Train any trials on the study's data into its folder; `cost` is the predicted seconds of one."""
        self.listener.planned({trial.key: cost(trial) for trial in trials})
        sweep = self.study.sweep
        source = Source(self.study.task, self.study.data, self.study.reading, self.study.metric, self.task.fingerprint)
        runs = train.train(
            trials,
            source,
            Shared(self.store.root, sweep.share) if sweep.share else self.store,
            workers=sweep.workers,
            on=sweep.on,
            by=distributed.executor(self.study.cluster) if distributed.workers() > 1 else None,
            cost=cost,
            memory=self._memory(),
            prepare=compression.prepare,
            on_event=self.listener.event,
        )
        return tuple(map(self.scored, runs))

    def _memory(self) -> Callable[[Trial], int]:
        """Bytes of a training step of each width, as the plan found them; 0 of others."""
        known: Plan | None = self.found("plan.json", Plan, None)
        costs = {cost.width: cost.memory_bytes for cost in (known.costs if known is not None else ())}
        return lambda trial: costs.get(trial.width, 0)

    def _finished(self, trials: Sequence[Trial]) -> list[Run]:
        return [self.scored(run) for trial in trials if (run := self.store.find_run(trial)) is not None]

    def failures(self) -> tuple[Failure, ...]:
        """Trials of the plan that have no run, and why."""
        planned = self.planned()
        found = (self.store.find_failure(trial) for trial in (*planned.trials, *planned.probes))
        return tuple(failure for failure in found if failure is not None)

    def scored(self, run: Run) -> Run:
        """A run by this study's metric: another one may have been asked for when it was trained."""
        metric, found = self.task.metric, run.validation
        return replace(run, validation=replace(found, metric=metric, score=found.values[metric.name]))

    def planned(self) -> Plan:
        """The plan that the folder holds."""
        return self.store.load("plan.json", Plan)

    def _known_plan(self) -> Plan | None:
        try:
            known = self.planned()
        except (UsageError, IntegrityError):
            return None
        same = known.request == self.request and self._starts_alike((*known.trials, *known.probes))
        return known if same else None

    def _starts_alike(self, trials: tuple[Trial, ...]) -> bool:
        """Whether the weights that trials start from are still those. What is gone is as the study kept it."""
        try:
            return self.starts is None or self.starts.begin(trials) == trials
        except SizewiseError as error:
            if not starts.kept(trials, self.store):
                raise
            print(f"note: {error.message}; the study's own copy is used", file=sys.stderr)
            return True

    def _measurements(self) -> tuple[Measurement, ...]:
        return self.found("measurements.json", tuple[Measurement, ...], ())

    def _known_measurements(self, made: Compression) -> tuple[Measurement, ...] | None:
        known = self._measurements()
        same = {m.candidate for m in known} == set(made.candidates)
        asked = self.study.target, self.task.metric
        return known if same and all((m.target, m.test.metric) == asked for m in known) else None

    def _default_exports(self, measurements: dict[str, Measurement]) -> tuple[str, ...]:
        parent = measurements[self.store.load("compression.json", Compression).parent].candidate
        chosen = [m.candidate for m in measurements.values() if m.candidate.run == parent.run]
        full = [c.name for c in chosen if (c.runtime, c.precision) == ("onnxruntime", "fp32")]
        return tuple(dict.fromkeys([self._recommended(), *full]))

    def found(self, name: str, kind: Any, default: T) -> T:
        """A record, or the default when its stage has not run. `kind` may be a union, which `type[T]` cannot say."""
        try:
            record: T = self.store.load(name, kind)
        except UsageError:
            return default
        return record


def _load(study: Study) -> Task:
    return tasks.load(study.task, Path(study.data) if study.data else None, study.reading).scored_by(study.metric)


def fine_tuned(start: str) -> str:
    """What must be said with every law of runs that start from trained weights."""
    return (
        f"the runs start from {start}: this is a law of fine-tuning these weights, not of training from random ones, "
        "and the two differ (Hernandez et al. 2021, arXiv:2102.01293; Zhang et al. 2024, arXiv:2402.17193)"
    )
