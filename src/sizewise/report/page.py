"""The page: what it shows, and the template that it is poured into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sizewise import words
from sizewise.recipe import REFERENCE_WIDTH
from sizewise.recommend import confirmation
from sizewise.records import (
    Choice,
    Compression,
    Exclusion,
    Export,
    Finding,
    Law,
    Measurement,
    Metric,
    Recipe,
    Recommendation,
    Run,
    Signature,
)
from sizewise.report import classes, figures, law, tables
from sizewise.report.answer import groups, headline
from sizewise.report.format import gain_kind, score_kind
from sizewise.report.template import part, pour


@dataclass(frozen=True)
class Page:
    """Everything the page shows; what a stage has not made yet is empty or None, and its section then says so.

    Attributes:
        counts: examples of each split.
        runs: every finished run, the sweep's and all others.
        sweep: keys of the sweep's own trials.
        command: what reproduces the study.
        skipped: what was left out of the data.
        start: the trained weights that the runs start from, as the study names them; "" is random ones.
        pictures: test samples as the recommended model sees them, as SVG, where there is something to see.
        tuned: what a search for a recipe came to, in sentences.
    """

    name: str
    task: str
    family: str
    signature: Signature
    metric: Metric
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    runs: Sequence[Run]
    sweep: frozenset[str]
    laws: Sequence[Law]
    findings: Sequence[Finding]
    choice: Choice | None
    compression: Compression | None
    measurements: Sequence[Measurement]
    recommendation: Recommendation | None
    exports: Sequence[Export]
    command: str
    environment: Mapping[str, str]
    recipe: Recipe
    skipped: Sequence[Exclusion] = ()
    start: str = ""
    pictures: Sequence[str] = ()
    tuned: Sequence[str] = ()

    @property
    def sizes(self) -> dict[int, list[Run]]:
        """The sweep's runs by width."""
        groups: dict[int, list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: (run.trial.width, run.trial.seed)):
            if run.trial.key in self.sweep:
                groups.setdefault(run.trial.width, []).append(run)
        return groups

    @property
    def recommended(self) -> Measurement | None:
        """The measurement of the candidate to ship."""
        name = self.recommendation.name if self.recommendation else None
        return next((m for m in self.measurements if m.candidate.name == name), None)

    @property
    def parent(self) -> str:
        """Name of the chosen model in PyTorch, which every candidate is compared with; empty before compression."""
        return self.compression.parent if self.compression else ""


def render(page: Page) -> str:
    """The page as one HTML document that asks the network for nothing."""
    return pour(
        "page.html.j2",
        page=page,
        style=part("page.css"),
        script=part("page.js"),
        headline=headline(page.choice) if page.choice else "",
        groups=groups(page.choice, page.recommended, page.recommendation, page.runs, page.parent),
        methods=figures.METHODS,
        shapes=figures.legend(page.measurements),
        band_note=law.BAND_NOTE,
        reference_width=REFERENCE_WIDTH,
        score_kind=score_kind(page.metric),
        gain_kind=gain_kind(page.metric),
        confirmation=confirmation(page.recommended, page.recommendation.max_drop)
        if page.recommended and page.recommendation
        else "",
        unit=words.unit(page.metric),
        error_words=words.error(page.metric),
        margin_words=words.amount(page.choice.margin, page.metric) if page.choice else "",
        drop_words=words.amount(page.recommendation.max_drop, page.metric) if page.recommendation else "",
        train_seconds=sum(run.seconds for run in page.runs),
        **_figures(page),
        **_tables(page),
    )


def _figures(page: Page) -> dict[str, object]:
    sizes, compression = page.sizes, page.compression
    return {
        "performance": [
            (one, law.formula(one), figures.size_performance(sizes, one, page.choice)) for one in page.laws if sizes
        ],
        "curves": figures.learning_curves(sizes) if sizes else [],
        "forest": figures.choice_forest(page.choice) if page.choice and page.choice.comparisons else "",
        "frontiers": [figures.frontier(page.measurements, axis, _flags(page)) for axis in ("latency", "size")]
        if page.measurements
        else [],
        "compressed": figures.compression_forest(compression.comparisons)
        if compression and compression.comparisons
        else "",
    }


def _flags(page: Page) -> dict[str, str]:
    """What the frontiers write above the candidates that the answer is about."""
    flags = {page.parent: "chosen model in PyTorch"} if page.parent else {}
    if page.recommendation is None:
        return flags
    shipped = "recommended" if page.recommendation.met else "recommended, over budget"
    return {page.recommendation.name: shipped} | {k: v for k, v in flags.items() if k != page.recommendation.name}


def _tables(page: Page) -> dict[str, object]:
    shipped = page.recommended
    matrix, few = (shipped.test.confusion if shipped else ()), len(page.classes) <= classes.MOST_CLASSES
    return {
        "verdicts": tables.verdicts(page.choice) if page.choice else [],
        "table": tables.sizes(page.sizes),
        "candidates": tables.candidates(page.measurements, page.recommendation, page.parent),
        "per_class": classes.per_class(matrix, page.classes) if matrix else [],
        "confusion": classes.heat(matrix, page.classes) if matrix and few else [],
        "mistakes": classes.mistakes(matrix, page.classes) if matrix and not few else [],
        "values": {k: v for k, v in shipped.test.values.items() if k != page.metric.name} if shipped else {},
    }
