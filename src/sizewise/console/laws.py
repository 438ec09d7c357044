"""Laws: of a study in a few lines, of a table with all their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sizewise.console.text import ends, excluded_rows, interval, listed, number, percent, table
from sizewise.records import Estimate, FittedForm, Law, Link

PREDICTING = "value: all runs weigh the same; predicting: larger runs weigh more, as in all predictions and decisions"

MOST_PREDICTIONS = 40
"""Rows of predictions on the screen; JSON has all."""


def laws(found: Sequence[Law]) -> str:
    """The laws of a study, a few lines each; the rest is in law.json and the report."""
    return "\n".join(map(_short_law, found))


def _short_law(law: Law) -> str:
    lines = [f"validation {law.metric}: {law.status}: {law.reason}"]
    if law.forms:
        lead = law.forms[0]
        values = ", ".join(f"{name} = {interval(e)}" for name, e in lead.parameters.items())
        level = next(iter(lead.parameters.values())).level
        lines.append(f"  {lead.formula} with {values} ({level:.0%} intervals, {_evidence(law)})")
        lines.append(f"  weighed by back-tests: {', '.join(f'{f.form} {f.weight:.0%}' for f in law.forms)}")
    if law.backtests:
        lines.append(f"  {_coverage(law)}")
    return "\n".join([*lines, *(f"  {line}" for line in (*_excluded(law), *(f"note: {n}" for n in law.notes)))])


def law(law: Law, points: Sequence[Mapping[str, float]], said: Sequence[Estimate]) -> str:
    """A law in full, and what it says at the points."""
    parts = [f"{law.metric} by {listed(law.variables)}: {law.status}\n{law.reason}"]
    if law.forms:
        parts += [_parameters(law.forms[0]), _forms(law)]
    if law.backtests:
        parts.append(_back_tests(law))
    ranges = ", ".join(f"{number(low)} to {number(high)} {name}" for name, (low, high) in law.box.items())
    asides = [f"evidence: {_evidence(law)}, {ranges}", *_excluded(law), *(f"note: {note}" for note in law.notes)]
    parts.append("\n".join(asides))
    if said:
        parts.append(_predictions(law, points, said))
    return "\n\n".join(parts)


def link(link: Link, law: Law, points: Sequence[Mapping[str, float]], scores: Sequence[Estimate]) -> str:
    """What accuracy goes with which loss, and the scores that the law's losses give at the points."""
    parts = [f"{link.kind} through {law.metric}: {link.status}\n{link.reason}"]
    if link.parameters:
        rows = [(name, f"{e.value:.4g}", ends(e)) for name, e in link.parameters.items()]
        level = next(iter(link.parameters.values())).level
        formula = "accuracy = low + (high - low)/(1 + exp(slope·(loss - midpoint)))"
        formula += "; the error is 1 less it" if link.kind == "error" else ""
        low, high = link.box
        evidence = f"evidence: {link.runs:,} runs of {law.metric} {low:.4g} to {high:.4g}"
        parts.append(f"{formula}\n{table(('link', 'value', f'{level:.0%} interval'), rows)}\n{evidence}")
    if any(e.value == e.value for e in scores):
        parts.append(_predicted("score", link.kind, law, points, scores))
    return "\n\n".join(parts)


def _parameters(lead: FittedForm) -> str:
    intervals = [e for e in lead.parameters.values() if e.low == e.low]
    if not intervals:
        rows = [(name, f"{e.value:.4g}", f"{lead.predicting[name]:.4g}") for name, e in lead.parameters.items()]
        shown = table((lead.form, "value", "predicting"), rows)
        return f"{lead.formula}  ({lead.source})\n{shown}\n{PREDICTING}"
    full = [
        (
            name,
            f"{e.value:.4g}",
            ends(e),
            ends(lead.profile[name]) if name in lead.profile else "",
            f"{lead.predicting[name]:.4g}",
        )
        for name, e in lead.parameters.items()
    ]
    by = "by its profile" if lead.profile else ""
    header = (lead.form, "value", f"{intervals[0].level:.0%} interval", by, "predicting")
    shown = table(header, full)
    return f"{lead.formula}  ({lead.source})\n{shown}\nintervals: {intervals[0].method}\n{PREDICTING}"


def _forms(law: Law) -> str:
    rows = [(f.form, f"{f.weight:.0%}", percent(f.backtest_error), percent(f.scatter)) for f in law.forms]
    return table(("forms weighed", "weight", "back-test error", "fit error"), rows)


def _back_tests(law: Law) -> str:
    rows = [
        (
            ", ".join(f"{number(value)} {name}" for name, value in b.at.items()),
            f"{b.reach:.3g} times",
            f"{b.visible}",
            f"{b.hidden}",
            interval(b.predicted),
            f"{b.observed:.4g}",
        )
        for b in law.backtests
    ]
    header = ("back-test: largest hidden", "beyond", "seen", "hidden", "predicted", "measured")
    return f"{table(header, rows)}\n{_coverage(law)}"


def _coverage(law: Law) -> str:
    hidden = sum(b.hidden for b in law.backtests)
    inside = sum(round(b.covered * b.hidden) for b in law.backtests)
    far = max(b.reach for b in law.backtests)
    level = law.backtests[0].predicted.level
    tests = "a back-test" if len(law.backtests) == 1 else f"{len(law.backtests)} back-tests"
    return (
        f"in {tests}, up to {far:.3g} times beyond: {inside} of {hidden} hidden runs inside their {level:.0%} intervals"
    )


def _excluded(law: Law) -> list[str]:
    """What the evidence lacks, what was not used of it, and what lies far from the law."""
    lines = [f"missing: {'; '.join(law.missing)}"] if law.missing else []
    lines += [f"left out: {excluded_rows(e)}: {e.reason}" for e in law.excluded]
    return lines + [f"outliers: {excluded_rows(e)}: {e.reason}" for e in law.outliers]


def _predictions(law: Law, points: Sequence[Mapping[str, float]], said: Sequence[Estimate]) -> str:
    return _predicted("prediction", law.metric, law, points, said)


def _predicted(title: str, what: str, law: Law, points: Sequence[Mapping[str, float]], said: Sequence[Estimate]) -> str:
    rows = [
        (f"{i}", *(number(point[v]) for v in law.variables), f"{e.value:.4g}", ends(e), e.method.rpartition(", ")[2])
        for i, (point, e) in enumerate(zip(points[:MOST_PREDICTIONS], said, strict=False), 1)
    ]
    header = (title, *law.variables, what, f"{said[0].level:.0%} interval", "")
    more = len(said) - len(rows)
    return table(header, rows) + (f"\nand {more:,} more: --json has them all" if more else "")


def _evidence(law: Law) -> str:
    return f"{law.runs:,} runs of {law.settings:,} settings"
