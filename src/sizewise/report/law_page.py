"""The page about a law of anyone's runs: what it says, how well it held, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sizewise.laws import Evidence
from sizewise.records import Decisions, Estimate, Law, Link
from sizewise.report import format as f
from sizewise.report import law_figures as figures
from sizewise.report.template import part, pour
from sizewise.store import write_atomic

MOST_PREDICTIONS = 200
"""Rows of predictions on the page; the JSON of the same command has all."""


@dataclass(frozen=True)
class LawPage:
    """Everything the page shows.

    Attributes:
        source: name of the table.
        columns: what its columns mean: by meaning, their names in the table.
        points, predictions: places asked for by variable, and what the law says there.
        level: nominal coverage of predictive intervals.
        command: what makes the page again.
        link, scores: what score goes with a loss, and the scores at the points; None and () without scores.
    """

    source: str
    columns: Mapping[str, str]
    law: Law
    evidence: Evidence
    points: Sequence[Mapping[str, float]]
    predictions: Sequence[Estimate]
    decisions: Decisions
    level: float
    command: str
    link: Link | None = None
    scores: Sequence[Estimate] = ()


@dataclass(frozen=True)
class Card:
    """One number of the answer, with its interval."""

    label: str
    e: Estimate
    kind: f.Kind


def render(page: LawPage) -> str:
    """The page as one HTML document that asks the network for nothing."""
    law = page.law
    subject = figures.Subject.of(law, page.evidence, page.level)
    return pour(
        "law_page.html.j2",
        page=page,
        law=law,
        lead=law.forms[0] if law.forms else None,
        style=part("page.css") + part("law_page.css"),
        script=part("page.js"),
        headline=headline(law),
        coverage=coverage(law),
        formula=formula(law),
        cards=cards(page.decisions),
        subject=subject,
        far=figures.FURTHER,
        shown=list(zip(page.points, page.predictions, strict=True))[:MOST_PREDICTIONS],
        scored=[pair for pair in zip(page.points, page.scores, strict=False) if pair[1].n][:MOST_PREDICTIONS],
        ways={"compute": "along the optimal path", "params": "as parameters alone", "samples": "as samples alone"},
        left_out=[("left out", e) for e in law.excluded] + [("outliers", e) for e in law.outliers],
        **_figures(subject),
    )


def write_page(page: LawPage, path: Path) -> None:
    """The page as a file, which is there in full or not at all."""
    write_atomic(path, render(page).encode())


def headline(law: Law) -> str:
    """The answer in one sentence, no surer than the evidence."""
    by = " and ".join(law.variables)
    if law.status == "supported":
        return f"A law of {law.metric} by {by} that held: {_held(law)}."
    if law.status == "unreliable":
        return f"No law of {law.metric} by {by} to rely on."
    return f"Not enough runs for a law of {law.metric} by {by}."


def _held(law: Law) -> str:
    hidden, inside, level = _tally(law)
    return f"{100 * inside / hidden:.0f}% of the runs hidden from it lay inside their {level} intervals"


def _tally(law: Law) -> tuple[int, int, str]:
    """Runs that back-tests hid, those of them inside their intervals, and the intervals' level."""
    hidden = sum(b.hidden for b in law.backtests)
    inside = sum(round(b.covered * b.hidden) for b in law.backtests)
    return hidden, inside, f"{100 * law.backtests[0].predicted.level:.0f}%"


def coverage(law: Law) -> str:
    """How many hidden runs fell inside their intervals, in words; empty without back-tests."""
    if not law.backtests:
        return ""
    hidden, inside, level = _tally(law)
    far = max(b.reach for b in law.backtests)
    tests = f.counted(len(law.backtests), "back-test")
    return (
        f"In {tests}, up to {far:.3g} times beyond, {inside} of {hidden} hidden runs lay inside their {level} intervals"
    )


def formula(law: Law) -> Markup | None:
    """The leading form with its parameters and their intervals, None if nothing could be fitted."""
    if not law.forms:
        return None
    lead = law.forms[0]
    shown = [(name, f.shown(e, "quantity")) for name, e in lead.parameters.items()]
    values = Markup(", ").join(
        Markup('{}\u00a0=\u00a0{} <small title="{}">{}</small>').format(
            f.greek(name), one.value, one.note, one.interval
        )
        for name, one in shown
    )
    return Markup("<b>{}</b> with {}").format(f.greek(lead.formula), values)


def cards(d: Decisions) -> list[Card]:
    """The numbers that most readers came for, where the law decides them."""
    found = []
    if (o := d.optimum) and o.status == "supported" and o.params and o.samples and o.loss:
        budget = f"for {f.power(o.compute)} FLOP"
        found += [
            Card(f"parameters {budget}", o.params, "quantity"),
            Card(f"samples {budget}", o.samples, "quantity"),
            Card("loss of one run there", o.loss, "loss"),
        ]
    if (s := d.serving) and s.status == "supported" and s.params:
        found.append(
            Card(f"parameters to serve {f.quantity(s.serving)} samples at loss {s.target:.4g}", s.params, "quantity")
        )
    if d.growth and (g := d.growth[0]).status == "supported" and g.ratio:
        found.append(Card("times today's loss with ten times the compute", g.ratio, "number"))
    return found


def _figures(subject: figures.Subject) -> dict[str, object]:
    """What can be drawn of this law."""
    law = subject.law
    fitted, several = bool(law.forms) and bool(len(subject.y)), len(law.variables) > 1
    budgets = figures.iso_flops(subject) if fitted and subject.trades else []
    return {
        "against": [figures.against_compute(subject) if several else figures.against_one(subject)]
        + ([figures.against_samples(subject)] if fitted and subject.trades else [])
        if len(subject.y)
        else [],
        "tested": figures.back_tests(subject) if law.backtests else "",
        "residuals": figures.residuals(subject) if fitted else "",
        "budgets": budgets,
        "iso_flop": figures.iso_flop(subject, budgets) if budgets else "",
        "contours": figures.contours(subject) if fitted and subject.trades else "",
    }


__all__ = ["LawPage", "render", "write_page"]
