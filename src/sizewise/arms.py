"""Two configurations, trained over the same seeds and compared."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from sizewise import config, families, recipe, starts
from sizewise.config import Study
from sizewise.errors import UsageError
from sizewise.paired import compare_runs
from sizewise.records import Comparison, Recipe, Trial, to_json
from sizewise.starts import Starts
from sizewise.study import Listener, Workspace


def compare(study: Study, a: str, b: str, root: Path, listener: Listener | None = None) -> Comparison:
    """Train two configurations over the same seeds and compare them, paired by seed and by example.

    Args:
        study: task, family, recipe and number of seeds that both share.
        a, b: what sets them apart, as `key=value` pairs: `width=16` or `width=32,optimizer=sgd,lr=0.1`. Keys are
            `width`, `fraction` (of the training data), `start` (as in a study) and the fields of `Recipe`. Rates are
            taken as written, not moved with the width.

    Raises:
        UsageError: a setting is unknown or has no width.
    """
    space = Workspace.create(study, root, listener)
    with space.store.lock():
        arms = tuple(_arm(space, text) for text in (a, b))
        trials = [trial for arm in arms for trial in arm]
        runs = space.run_trials(trials, lambda trial: float(trial.width * trial.recipe.epochs))
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
    fraction, start = settings.pop("fraction", 1.0), str(settings.pop("start", space.study.start))
    if not isinstance(fraction, float) or not 0 < fraction <= 1:
        raise UsageError(f"fraction is {fraction}", hint="it must be in (0, 1]")
    asked = {"task": space.study.task, "recipe": to_json(space.study.recipe) | settings}
    changed = config.structure(asked, repr(text)).recipe
    recipe.check(changed)
    space.task.problem.check(changed)
    task, study = space.task, space.study
    trials = tuple(
        Trial(task.name, task.fingerprint, study.family, width, fraction, changed, seed)
        for seed in range(study.sweep.seeds)
    )
    found = starts.find(start, task.fingerprint)
    return _started(trials, found, space) if found else trials


def _started(trials: tuple[Trial, ...], found: Starts, space: Workspace) -> tuple[Trial, ...]:
    """One side's trials, starting from weights that are in the folder, after it was said what they take of them."""
    for note in found.notes(families.load(space.study.family, space.task.signature), trials):
        print(f"note: {note}", file=sys.stderr)
    found.keep(trials, space.store)
    return found.begin(trials)


def _true_or_false(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _setting(part: str) -> tuple[str, object]:
    """One `key=value` pair, with the value as the field's own type."""
    key, separator, value = part.strip().partition("=")
    kinds = {field.name: field.type for field in fields(Recipe)} | {"width": "int", "fraction": "float", "start": "str"}
    if not separator or key not in kinds:
        raise UsageError(f"cannot read the setting {part!r}", hint=f"write key=value with a key of: {', '.join(kinds)}")
    convert: dict[str, Callable[[str], object]] = {"int": int, "float": float, "bool": _true_or_false}
    try:
        return key, convert.get(str(kinds[key]), str)(value)
    except ValueError as error:
        must = "true or false" if kinds[key] == "bool" else f"a number ({kinds[key]})"
        raise UsageError(f"{key} is {value!r}", hint=f"it must be {must}") from error
