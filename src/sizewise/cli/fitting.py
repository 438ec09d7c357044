"""`fit`, to a study or to any table of runs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from sizewise.cli.arguments import COLUMNS
from sizewise.cli.studies import opened, show
from sizewise.errors import INSUFFICIENT, UsageError


def fit(options: argparse.Namespace) -> int:
    """Fit the law of a study, or of a table."""
    from sizewise import console

    flags = [name for name in (*COLUMNS, *_FIT_OPTIONS) if getattr(options, name) is not None]
    if _is_table(options.study, flags):
        return _fit_table(options)
    if flags:
        raise UsageError(f"--{flags[0]} is for tables, and {options.study} is none", hint="leave it out for a study")
    with opened(options) as space:
        laws = space.fit()
    show(options, laws, console.laws(laws))
    return 0 if any(law.status == "supported" for law in laws) else INSUFFICIENT


_FIT_OPTIONS = (
    "count",
    "chance",
    "examples",
    "predict",
    "form",
    "delta",
    "draws",
    "level",
    "budget",
    "speed",
    "price",
    "target",
    "serve",
    "next",
    "report",
)


def _is_table(given: str, flags: Sequence[str]) -> bool:
    """Whether `fit` was given a table: a file, or the name of one, and no study."""
    from sizewise.laws.intake.files import is_table

    path = Path(given)
    return path.suffix != ".toml" and not path.is_dir() and (path.is_file() or is_table(path) or bool(flags))


def _fit_table(options: argparse.Namespace) -> int:
    from sizewise import console, laws
    from sizewise.cluster import prices
    from sizewise.laws.decisions import Questions, answer
    from sizewise.laws.fit import LEVEL
    from sizewise.laws.parameters import DRAWS

    named = {name: column for name in COLUMNS if (column := getattr(options, name))}
    columns = laws.Columns(**named, count=options.count)
    columns.check()
    for name in ("chance", "examples"):
        if getattr(options, name) is not None and not columns.score:
            raise UsageError(f"--{name} says more about a score, and none is given", hint="name its column as --score")
    report = _page_file(options.report) if options.report else None
    budget = prices.parse(options.budget) if options.budget else None
    rate = prices.Rate(options.speed or 0.0, options.price or 0.0)
    asked = Questions(budget, options.serve, options.target, options.next, rate)
    asked.check(columns.variables)
    evidence = laws.read_table(options.study, columns)
    # Before the fit, so that a mistake in the points is told at once.
    points = laws.read_points(options.predict, columns) if options.predict else []
    draws = DRAWS if options.draws is None else options.draws
    law = laws.fit_evidence(evidence, form=options.form, delta=options.delta, draws=draws)
    level = options.level or LEVEL
    said = laws.predict(law, points, level=level)
    link = laws.link_of(evidence, chance=options.chance, examples=options.examples)
    scores = laws.through(law, link, points, level) if link else []
    decided = answer(law, asked, evidence=evidence, level=level)
    limits = laws.limits(law, evidence)
    records = {"law": law, "predictions": said, "findings": limits, "link": link, "scores": scores} | vars(decided)
    linked = [console.link(link, law, points, scores)] if link else []
    parts = [console.law(law, points, said), *linked, console.limits(limits), *console.decisions(decided)]
    if report:
        from sizewise.report.law_page import LawPage, write_page

        source, command = Path(options.study).name, _again(options)
        page = LawPage(source, named, law, evidence, points, said, decided, level, command, link, scores)
        write_page(page, report)
        records["report"] = str(report)
        parts.append(f"report: {report}")
    show(options, records, "\n\n".join(filter(None, parts)))
    return 0 if law.status == "supported" and (link is None or link.status == "supported") else INSUFFICIENT


def _page_file(given: str) -> Path:
    """Where the page goes, told before the work if it cannot."""
    path = Path(given)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{given} cannot be written", hint="name a file, such as law.html, in a folder that exists")
    return path


def _again(options: argparse.Namespace) -> str:
    """The command that was given."""
    flags = (*COLUMNS, *_FIT_OPTIONS)
    given = [(f"--{name}", value) for name in flags if (value := getattr(options, name)) is not None]
    words = [word for name, value in given for word in (name, value if isinstance(value, str) else f"{value:.12g}")]
    # No cost of the next runs is the cost of the largest so far, which is kept as 0.
    words = [word for i, word in enumerate(words) if not (word == "0" and words[i - 1] == "--next")]
    return shlex.join(["sizewise", "fit", options.study, *words])
