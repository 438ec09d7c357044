"""Runs the stages of a study and keeps their records in its folder; what is done is not done again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from sizewise import choose as choosing
from sizewise import compress as compression
from sizewise import config, diagnose, laws, measure, plan, recipe, recommend, tasks, train
from sizewise.config import Study
from sizewise.errors import IntegrityError, UsageError
from sizewise.export import export as export_model
from sizewise.loop import environment
from sizewise.paired import compare_runs
from sizewise.records import (
    Choice,
    Comparison,
    Compression,
    Export,
    Finding,
    Law,
    Measurement,
    Plan,
    Recipe,
    Recommendation,
    Run,
    Trial,
    to_json,
)
from sizewise.store import Store
from sizewise.tasks import Task
from sizewise.train import Event, Source

T = TypeVar("T")


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
        self.study, self.task, self.store, self.request, self.listener = study, task, store, request, listener

    @classmethod
    def create(cls, requested: Study, root: Path, listener: Listener | None = None) -> Workspace:
        """A study in a new folder, or the same study in its old one."""
        task = _load(requested)
        text = json.dumps(to_json(requested), sort_keys=True) + task.fingerprint
        request = hashlib.sha256(text.encode()).hexdigest()[:16]
        study = config.resolve(requested, task)
        return cls(study, task, Store(root), request, listener or Listener())

    @classmethod
    def open(cls, root: Path, listener: Listener | None = None) -> Workspace:
        """The study that lies in a folder.

        Raises:
            UsageError: there is none.
        """
        study = config.read(Path(root) / "study.toml")
        task = _load(study)
        store = Store(root)
        return cls(study, task, store, store.load("plan.json", Plan).request, listener or Listener())

    def plan(self) -> Plan:
        """Plan the sweep and time its steps; a plan that the same request made before is kept."""
        known = self._known_plan()
        if known is not None:
            self.study = config.read(self.store / "study.toml")
            return plan.priced(self.study, known, self.store)
        self.study, planned = plan.plan(self.study, self.task, self.store)
        return replace(planned, request=self.request)

    def train(self, planned: Plan) -> tuple[Run, ...]:
        """Train whatever the plan has and the folder has not."""
        config.write(self.study, self.store / "study.toml")
        self.store.save("plan.json", planned)
        self.store.save("environment.json", environment())
        costs = {cost.width: cost for cost in planned.costs}
        trials = (*planned.trials, *planned.probes)
        return self._train(trials, lambda trial: plan.seconds_of(trial, costs, self.study.recipe.epochs))

    def fit(self) -> tuple[Law, ...]:
        """Fit the laws of validation loss and error."""
        runs = [run for group in self.sizes().values() for run in group]
        found = tuple(laws.fit(runs, metric) for metric in ("loss", "error"))
        self.store.save("law.json", found)
        return found

    def diagnose(self) -> tuple[Finding, ...]:
        """Say what limits the models."""
        probes = self._finished(self.planned().probes)
        found = diagnose.diagnose(self.sizes(), probes, self.store, margin=self.study.margin)
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
        )
        self.store.save("choice.json", choice)
        return choice

    def compress(self) -> Compression:
        """Prune, distil and quantize; every result becomes a candidate beside the models trained small."""
        choice, sizes = self.store.load("choice.json", Choice), self.sizes()
        trials, left_out = compression.plan_trials(self.study, sizes, choice, self.task)
        seconds = {width: max(run.seconds for run in runs) for width, runs in sizes.items()}
        runs = self._train(trials, lambda trial: seconds[trial.width])
        models = compression.models(self.study, sizes, choice, runs, self.store)
        self.listener.stage(f"convert {len(models)} models for each runtime and precision")
        candidates, skipped = compression.build(self.study, models, self.task, self.store, self.listener.share)
        comparisons = tuple(
            compare_runs(
                self.store,
                (f"{_DONE[method]} to width {width}", group),
                (f"width {width} trained small", sizes[width]),
            )
            for (method, width), group in sorted(compression.pruned_and_distilled(runs).items())
        )
        result = Compression(candidates[0].name, candidates, comparisons, left_out + skipped)
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

    def _train(self, trials: Sequence[Trial], cost: Callable[[Trial], float]) -> tuple[Run, ...]:
        self.listener.planned({trial.key: cost(trial) for trial in trials})
        workers = self.study.sweep.workers or os.cpu_count() or 1
        source = Source(self.study.task, self.study.data, self.study.reading, self.study.metric, self.task.fingerprint)
        runs = train.train(
            trials,
            source,
            self.store,
            workers=workers,
            cost=cost,
            prepare=compression.prepare,
            on_event=self.listener.event,
        )
        return tuple(map(self.scored, runs))

    def _finished(self, trials: Sequence[Trial]) -> list[Run]:
        return [self.scored(run) for trial in trials if (run := self.store.find_run(trial)) is not None]

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
        return known if known.request == self.request else None

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
        return tuple(dict.fromkeys([self.store.load("recommendation.json", Recommendation).name, *full]))

    def found(self, name: str, kind: Any, default: T) -> T:
        """A record, or the default when its stage has not run. `kind` may be a union, which `type[T]` cannot say."""
        try:
            record: T = self.store.load(name, kind)
        except UsageError:
            return default
        return record


def _load(study: Study) -> Task:
    return tasks.load(study.task, Path(study.data) if study.data else None, study.reading).scored_by(study.metric)


_DONE = {"prune": "pruned", "distil": "distilled"}


def compare(study: Study, a: str, b: str, root: Path, listener: Listener | None = None) -> Comparison:
    """Train two configurations over the same seeds and compare them, paired by seed and by example.

    Args:
        study: task, family, recipe and number of seeds that both share.
        a, b: what sets them apart, as `key=value` pairs: `width=16` or `width=32,optimizer=sgd,lr=0.1`. Keys are
            `width`, `fraction` (of the training data) and the fields of `Recipe`. Rates are taken as written, not
            moved with the width.

    Raises:
        UsageError: a setting is unknown or has no width.
    """
    space = Workspace.create(study, root, listener)
    arms = tuple(_arm(space, text) for text in (a, b))
    trials = [trial for arm in arms for trial in arm]
    with space.store.lock():
        runs = space._train(trials, lambda trial: float(trial.width * trial.recipe.epochs))
    runs_a = [run for run in runs if run.trial in arms[0]]
    runs_b = [run for run in runs if run.trial in arms[1]]
    comparison = compare_runs(space.store, (a, runs_a), (b, runs_b))
    space.store.save("comparison.json", comparison)
    return comparison


def _arm(space: Workspace, text: str) -> tuple[Trial, ...]:
    """The trials of one side of a comparison, one a seed."""
    settings = dict(_setting(part) for part in text.split(","))
    width = settings.pop("width", None)
    if not isinstance(width, int):
        raise UsageError(f"{text!r} has no width", hint="write for example width=16")
    fraction = settings.pop("fraction", 1.0)
    if not isinstance(fraction, float) or not 0 < fraction <= 1:
        raise UsageError(f"fraction is {fraction}", hint="it must be in (0, 1]")
    asked = {"task": space.study.task, "recipe": to_json(space.study.recipe) | settings}
    changed = config.structure(asked, repr(text)).recipe
    recipe.check(changed)
    task, study = space.task, space.study
    return tuple(
        Trial(task.name, task.fingerprint, study.family, width, fraction, changed, seed)
        for seed in range(study.sweep.seeds)
    )


def _setting(part: str) -> tuple[str, object]:
    """One `key=value` pair, with the value as the field's own type."""
    key, separator, value = part.strip().partition("=")
    kinds = {field.name: field.type for field in fields(Recipe)} | {"width": "int", "fraction": "float"}
    if not separator or key not in kinds:
        raise UsageError(f"cannot read the setting {part!r}", hint=f"write key=value with a key of: {', '.join(kinds)}")
    convert: dict[str, Callable[[str], object]] = {"int": int, "float": float}
    try:
        return key, convert.get(str(kinds[key]), str)(value)
    except ValueError as error:
        raise UsageError(f"{key} is {value!r}", hint=f"it must be a number ({kinds[key]})") from error
