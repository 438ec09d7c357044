"""Gathers what a study's folder holds into the page, and writes it."""

from __future__ import annotations

from pathlib import Path

from sizewise import runtimes, tune
from sizewise.records import Choice, Compression, Export, Finding, Law, Measurement, Recommendation, TunedRecipe
from sizewise.report import pictures
from sizewise.report.page import Page, render
from sizewise.store import write_atomic
from sizewise.study import Workspace


def write(space: Workspace) -> Path:
    """Write report.html from whatever stages have run."""
    path = space.store / "report.html"
    write_atomic(path, render(collect(space)).encode())
    return path


def collect(space: Workspace) -> Page:
    """Everything the page shows; a stage that has not run is absent."""
    task, root = space.task, space.store.root
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    return Page(
        name=root.name,
        task=task.name,
        family=space.study.family,
        signature=task.signature,
        metric=task.metric,
        classes=task.classes,
        counts={name: len(split) for name, split in splits.items()},
        runs=tuple(map(space.scored, space.store.runs())),
        sweep=frozenset(trial.key for trial in space.planned().trials),
        laws=space.found("law.json", tuple[Law, ...], ()),
        findings=space.found("findings.json", tuple[Finding, ...], ()),
        choice=space.found("choice.json", Choice, None),
        compression=space.found("compression.json", Compression, None),
        measurements=space.found("measurements.json", tuple[Measurement, ...], ()),
        recommendation=space.found("recommendation.json", Recommendation, None),
        exports=space.found("exports.json", tuple[Export, ...], ()),
        command=f"sizewise run {root / 'study.toml'} --out {root}",
        environment=space.found("environment.json", dict[str, str], {}),
        recipe=space.study.recipe,
        skipped=task.skipped,
        start=space.study.start,
        pictures=_pictures(space),
        tuned=_tuned(space),
    )


def _tuned(space: Workspace) -> list[str]:
    """What a search for a recipe came to."""
    found = space.found("recipe.json", TunedRecipe, None)
    return list(tune.sentences(found)) if found is not None else []


def _pictures(space: Workspace) -> list[str]:
    """Test images with the recommended detector's boxes."""
    recommendation = space.found("recommendation.json", Recommendation, None)
    if space.task.signature.problem != "detection" or recommendation is None:
        return []
    folder = space.store / "candidates" / recommendation.name
    return pictures.boxed(space.task, runtimes.load(folder)) if folder.is_dir() else []
