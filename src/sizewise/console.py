"""What people see in a terminal: records as text on stdout, progress with an ETA on stderr."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sizewise import words
from sizewise.recommend import warnings
from sizewise.records import (
    Batch,
    Choice,
    Comparison,
    Compression,
    ComputeOptimal,
    Contour,
    Decisions,
    Estimate,
    Exclusion,
    Export,
    Finding,
    FittedForm,
    Growth,
    Law,
    Link,
    Measurement,
    Plan,
    Recommendation,
    Run,
    ServingOptimal,
)

if TYPE_CHECKING:
    from sizewise.study import Listener
    from sizewise.train import Event

PLAIN_SECONDS = 10.0
"""Seconds between progress lines when stderr is not a terminal."""


TEXT_WIDTH = 120

PREDICTING = "value: all runs weigh the same; predicting: larger runs weigh more, as in all predictions and decisions"

MOST_PREDICTIONS = 40
"""Rows of predictions on the screen; JSON has all."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the right, the first to the left."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan(p: Plan) -> str:
    embedded = any(c.non_embedding != c.params for c in p.costs)
    rows = [
        (
            f"{c.width}",
            f"{c.params:,}",
            *([f"{c.non_embedding:,}"] if embedded else []),
            f"{c.flops:,}",
            f"{c.training_flops:,}",
            f"{c.memory_bytes / 1e6:.1f}",
            f"{c.step_ms:.2f}",
            f"{c.seconds:.1f}",
        )
        for c in p.costs
    ]
    counts = ("parameters", "non-embedding") if embedded else ("parameters",)
    text = table(("width", *counts, "FLOPs/sample", "training", "memory MB", "ms/step", "s/run"), rows)
    total = len(p.trials) + len(p.probes)
    text += f"\n{total} trials ({len(p.trials)} of the sweep, {len(p.probes)} probes), {p.finished} already finished"
    text += f"\nabout {duration(p.seconds)} of training with {p.workers} worker processes"
    return "\n".join([text, *(f"note: {note}" for note in p.notes)])


def runs(found: Sequence[Run]) -> str:
    rows = [
        (
            f"{r.trial.width}",
            f"{r.trial.seed}",
            f"{r.params:,}",
            f"{r.train_loss:.4f}",
            f"{r.validation.loss:.4f}",
            words.score(r.validation.score, r.validation.metric),
            f"{r.seconds:.1f}",
        )
        for r in found
    ]
    name = found[0].validation.metric.name if found else "score"
    return table(("width", "seed", "parameters", "train loss", "val loss", f"val {name}", "seconds"), rows)


def laws(found: Sequence[Law]) -> str:
    """The laws of a study, a few lines each; the rest is in law.json and the report."""
    return "\n".join(map(_short_law, found))


def _short_law(law: Law) -> str:
    lines = [f"validation {law.metric}: {law.status}: {law.reason}"]
    if law.forms:
        lead = law.forms[0]
        values = ", ".join(f"{name} = {_interval(e)}" for name, e in lead.parameters.items())
        level = next(iter(lead.parameters.values())).level
        lines.append(f"  {lead.formula} with {values} ({level:.0%} intervals, {_evidence(law)})")
        lines.append(f"  weighed by back-tests: {', '.join(f'{f.form} {f.weight:.0%}' for f in law.forms)}")
    if law.backtests:
        lines.append(f"  {_coverage(law)}")
    return "\n".join([*lines, *(f"  {line}" for line in _left_out(law))])


def law(law: Law, points: Sequence[Mapping[str, float]], said: Sequence[Estimate]) -> str:
    """A law in full, and what it says at the points."""
    parts = [f"{law.metric} by {_listed(law.variables)}: {law.status}\n{law.reason}"]
    if law.forms:
        parts += [_parameters(law.forms[0]), _forms(law)]
    if law.backtests:
        parts.append(_back_tests(law))
    ranges = ", ".join(f"{_size(low)} to {_size(high)} {name}" for name, (low, high) in law.box.items())
    asides = [f"evidence: {_evidence(law)}, {ranges}", *_left_out(law), *(f"note: {note}" for note in law.notes)]
    parts.append("\n".join(asides))
    if said:
        parts.append(_predictions(law, points, said))
    return "\n\n".join(parts)


def link(link: Link, law: Law, points: Sequence[Mapping[str, float]], scores: Sequence[Estimate]) -> str:
    """What accuracy goes with which loss, and the scores that the law's losses give at the points."""
    parts = [f"{link.kind} through {law.metric}: {link.status}\n{link.reason}"]
    if link.parameters:
        rows = [(name, f"{e.value:.4g}", _ends(e)) for name, e in link.parameters.items()]
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
            _ends(e),
            _ends(lead.profile[name]) if name in lead.profile else "",
            f"{lead.predicting[name]:.4g}",
        )
        for name, e in lead.parameters.items()
    ]
    by = "by its profile" if lead.profile else ""
    header = (lead.form, "value", f"{intervals[0].level:.0%} interval", by, "predicting")
    shown = table(header, full)
    return f"{lead.formula}  ({lead.source})\n{shown}\nintervals: {intervals[0].method}\n{PREDICTING}"


def _forms(law: Law) -> str:
    rows = [(f.form, f"{f.weight:.0%}", _share(f.backtest_error), _share(f.scatter)) for f in law.forms]
    return table(("forms weighed", "weight", "back-test error", "fit error"), rows)


def _back_tests(law: Law) -> str:
    rows = [
        (
            ", ".join(f"{_size(value)} {name}" for name, value in b.at.items()),
            f"{b.reach:.3g} times",
            f"{b.visible}",
            f"{b.hidden}",
            _interval(b.predicted),
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


def _left_out(law: Law) -> list[str]:
    """What the evidence lacks, what was not used of it, and what lies far from the law."""
    lines = [f"missing: {'; '.join(law.missing)}"] if law.missing else []
    lines += [f"left out: {_rows(e)}: {e.reason}" for e in law.excluded]
    return lines + [f"outliers: {_rows(e)}: {e.reason}" for e in law.outliers]


def left_out(skipped: Sequence[Exclusion]) -> list[str]:
    """What a task's data leaves out, one sentence a reason."""
    rows = [f" ({_rows(e)})" if e.rows else "" for e in skipped]
    return [f"left out of the data: {e.count:,} {e.reason}{which}" for e, which in zip(skipped, rows, strict=True)]


def _rows(e: Exclusion) -> str:
    more = f" and {e.count - len(e.rows):,} more" if e.count > len(e.rows) else ""
    return f"row{'s' if e.count > 1 else ''} {', '.join(f'{row:,}' for row in e.rows)}{more}"


def _predictions(law: Law, points: Sequence[Mapping[str, float]], said: Sequence[Estimate]) -> str:
    return _predicted("prediction", law.metric, law, points, said)


def _predicted(title: str, what: str, law: Law, points: Sequence[Mapping[str, float]], said: Sequence[Estimate]) -> str:
    rows = [
        (f"{i}", *(_size(point[v]) for v in law.variables), f"{e.value:.4g}", _ends(e), e.method.rpartition(", ")[2])
        for i, (point, e) in enumerate(zip(points[:MOST_PREDICTIONS], said, strict=False), 1)
    ]
    header = (title, *law.variables, what, f"{said[0].level:.0%} interval", "")
    more = len(said) - len(rows)
    return table(header, rows) + (f"\nand {more:,} more: --json has them all" if more else "")


def decisions(d: Decisions) -> list[str]:
    """Each answer in a few lines, its status first."""
    parts = [
        _optimum(d.optimum) if d.optimum else "",
        _serving(d.serving) if d.serving else "",
        _equal_loss(d.equal_loss) if d.equal_loss else "",
        _growth(d.growth) if d.growth else "",
        _next_runs(d.next_runs) if d.next_runs else "",
    ]
    return [part for part in parts if part]


def _headed(what: str, status: str, reason: str) -> str:
    """A question with its standing; the reason of a law that holds was given with the law."""
    return f"{what}: {status}" if status == "supported" else f"{what}: {status}\n{reason}"


def _optimum(o: ComputeOptimal) -> str:
    head = _headed(f"compute-optimal for {o.compute:.4g} FLOP", o.status, o.reason)
    if o.params is None or o.loss is None or o.nearly is None:
        return head
    rows = [
        (a.approach, _interval(a.params), _interval(a.samples), _interval(a.exponent), f"{a.behind:,}")
        for a in o.approaches
        if a.params and a.samples and a.exponent
    ]
    level = f"{o.params.level:.0%} intervals"
    low, high = o.nearly
    lines = [
        table((f"approach, {level}", "params", "samples", "a of params ∝ compute^a", "n"), rows),
        *(f"{a.approach}: no answer: {a.reason}" for a in o.approaches if a.params is None),
        f"do they agree: {o.verdict}",
        *(f"  {a.sentence}" for a in o.agreements if a.ratio),
        f"one run there: {_interval(o.loss)}; {_size(low)} to {_size(high)} params are within {o.tolerance:.1%} of it",
    ]
    return "\n".join([head, *lines])


def _serving(s: ServingOptimal) -> str:
    head = _headed(f"cheapest to train and serve {_size(s.serving)} samples, loss {s.target:.4g}", s.status, s.reason)
    if s.params is None or s.saved is None:
        return head
    named = {
        "params": s.params,
        "samples": s.samples,
        "training FLOP": s.training,
        "lifetime FLOP": s.lifetime,
        "params if it were only trained": s.trained,
    }
    rows = [(name, f"{e.value:.4g}", _ends(e)) for name, e in named.items() if e]
    rows.append(("lifetime FLOP saved by that", f"{s.saved.value:.1%}", f"[{s.saved.low:.1%}, {s.saved.high:.1%}]"))
    header = ("over its life", "value", f"{s.params.level:.0%} interval")
    return f"{head}\n{table(header, rows)}\nintervals: {_made(s.params)}; {s.reached:.0%} of them reach this loss"


def _equal_loss(c: Contour) -> str:
    if c.loss is None or c.rate is None or c.more is None or c.least is None:
        return _headed("models of equal loss", c.status, c.reason)
    head = f"models of the loss {_interval(c.loss)} that {_size(c.params)} params and {_size(c.samples)} samples have"
    rows = [
        (_size(n), f"{d.value:.4g}", _ends(d), f"{n / c.params:.3g}", f"{d.value / c.samples:.3g}") for n, d in c.places
    ]
    header = ("params", "samples", f"{c.loss.level:.0%} interval", "times params", "times samples")
    lines = [
        f"without {c.fewer:.0%} of the params: {_interval(c.more)} times the samples",
        f"1% of params is worth {_interval(c.rate)}% of samples; fewer than {_interval(c.least)} params never have it",
        f"intervals: {_made(c.rate)}",
    ]
    return "\n".join([_headed(head, c.status, c.reason), table(header, rows), *lines])


def _growth(found: Sequence[Growth]) -> str:
    told = [(g, g.loss, g.ratio) for g in found if g.loss and g.ratio]
    if not told:
        return _headed("ten times the compute", found[0].status, found[0].reason)
    ways = {"compute": "along the optimal path", "params": "as parameters alone", "samples": "as samples alone"}
    rows = [
        (ways[g.how], *(_size(x) for x in g.at.values()), _interval(loss), _interval(ratio), g.verdict)
        for g, loss, ratio in told
    ]
    first, _, ratio = told[0]
    header = ("ten times the compute", *first.at, f"one run, {ratio.level:.0%} interval", "times today's", "")
    return f"{table(header, rows)}\nintervals of times: {_made(ratio)}"


def _next_runs(b: Batch) -> str:
    if not b.runs:
        return _headed("next runs", b.status, b.reason)
    place = " and ".join(f"{_size(value)} {name}" for name, value in b.at.items())
    head = f"next runs for {b.purpose}{f', {place}' if place else ''}, at most {b.budget:.4g} {b.unit} together"
    rows = [
        (
            f"{i}",
            *(_size(value) for value in run.at.values()),
            f"{run.repeats + 1}",
            f"{run.cost:.4g}",
            f"{run.width:.3g}",
            f"{run.removed:.0%}",
        )
        for i, run in enumerate(b.runs, 1)
    ]
    header = ("run", *b.runs[0].at, "seed", b.unit, f"width of its {b.level:.0%} interval, log", "narrower by")
    return f"{_headed(head, b.status, b.reason)}\n{table(header, rows)}"


def _made(e: Estimate) -> str:
    return f"{e.method}, {e.n:,} runs"


def _evidence(law: Law) -> str:
    return f"{law.runs:,} runs of {law.settings:,} settings"


def _interval(e: Estimate) -> str:
    return f"{e.value:.4g} {_ends(e)}" if e.low == e.low else f"{e.value:.4g}"


def _ends(e: Estimate) -> str:
    return f"[{e.low:.4g}, {e.high:.4g}]" if e.low == e.low else "none"


def _share(value: float) -> str:
    return f"{value:.1%}" if value == value else "none"


def _size(value: float) -> str:
    """A count for people, such as 7e+09 or 1234."""
    return f"{value:,.0f}" if 100 <= value < 1e6 and value == round(value) else f"{value:.4g}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def findings(found: Sequence[Finding]) -> str:
    return "\n".join(f"{f.code}: {f.sentence}\n  next: {f.next_step}" for f in found) or "nothing limits these models"


def limits(found: Sequence[Finding]) -> str:
    """Findings about a table of runs, wrapped: they name rows. Outliers are named with the evidence."""
    return "\n".join(
        textwrap.fill(line, TEXT_WIDTH, subsequent_indent="  ", initial_indent=indent)
        for f in found
        if f.code != "outliers"
        for indent, line in (("", f"{f.code}: {f.sentence}"), ("  ", f"next: {f.next_step}"))
    )


def choice(c: Choice) -> str:
    lines = [f"choice ({c.status}): {c.sentence}", *(f"  {reason}" for reason in c.reasons)]
    if c.predicted:
        lines.append(f"  the law predicts {_error(c)} at this size")
    if c.next_run:
        n = c.next_run
        which = " and ".join(map(str, n.widths))
        lines.append(f"  next: {n.seeds} more seeds of widths {which}, about {duration(n.seconds)}, since {n.why}")
    return "\n".join(lines)


def _error(c: Choice) -> str:
    """What the law predicts for the chosen size."""
    e = c.predicted
    assert e is not None
    value, low, high = (words.score(v, c.metric) for v in (e.value, e.low, e.high))
    return f"{words.error(c.metric)} of {value} [{low}, {high}]"


def comparison(c: Comparison) -> str:
    cut = 1 - c.b_params / c.a_params
    sides = "a - b" if c.metric.higher else "b - a"
    p = "" if c.p_value != c.p_value else f", p = {c.p_value:.2g}"
    return "\n".join(
        [
            f"a: {c.a}  {c.a_params:,} parameters, {c.metric.name} {c.a_mean:.4f}",
            f"b: {c.b}  {c.b_params:,} parameters, {c.metric.name} {c.b_mean:.4f}  ({cut:+.1%} of a's parameters cut)",
            f"{sides}: {words.difference(c.difference, c.metric)} ({c.difference.level:.0%}, {c.difference.n} paired "
            f"seeds{p})",
            f"  for unseen examples too: {words.difference(c.population, c.metric)}",
            f"verdict: {c.verdict}",
        ]
    )


def compression(c: Compression) -> str:
    rows = [
        (f"{k.a} - {k.b}", f"{k.a_params:,}", words.interval(k.difference, k.metric), f"{k.difference.n}", _winner(k))
        for k in c.comparisons
    ]
    text = f"{len(c.candidates)} candidates beside {c.parent}"
    if rows:
        metric = c.comparisons[0].metric
        gained = f"{words.unit(metric)} better" if not metric.higher else words.unit(metric)
        text += "\n" + table((f"validation {metric.name}", "parameters", gained, "seeds", "verdict"), rows)
    return "\n".join([text, *(f"skipped: {reason}" for reason in c.skipped)])


def _winner(c: Comparison) -> str:
    return {"a is better": "compress", "b is better": "train small"}.get(c.verdict, c.verdict)


def measurements(found: Sequence[Measurement], recommendation: Recommendation) -> str:
    """The frontier, the recommended candidate and their parent; the rest is in measurements.json and the report."""
    shown = [m for m in found if m.frontier or m.candidate.name in (recommendation.name, found[0].candidate.name)]
    rows = [
        (
            ("* " if m.frontier else "  ") + m.candidate.name,
            words.score(m.test_score.value, m.test.metric),
            words.interval(m.test_drop, m.test.metric),
            f"{1e3 * m.latency_p50_ms.value:.0f}",
            f"{1e3 * m.latency_p99_ms.value:.0f}",
            f"{m.throughput.value:,.0f}",
            f"{m.throughput_ratio.value:.2f}",
            f"{m.size_bytes / 1e3:,.1f}",
            f"{m.peak_memory_bytes / 1e6:,.0f}",
        )
        for m in sorted(shown, key=lambda m: -m.throughput.value)
    ]
    metric = found[0].test.metric
    header = ("* on the frontier", f"test {metric.name}", f"{words.unit(metric)} lost", *_COSTS)
    lines = [f"{len(shown)} of {len(found)} candidates, fastest first", table(header, rows)]
    return "\n".join([*lines, *(f"note: {text}" for text in warnings(found)), recommendation.sentence])


_COSTS = ("p50 µs", "p99 µs", "samples/s", "ratio", "kB", "peak MB")


def exports(found: Sequence[Export], root: object) -> str:
    return "\n".join(
        f"{root}/{e.path}: equal to its model within {max(e.max_difference):.2g} at batches "
        f"{' and '.join(map(str, e.batches))}"
        for e in found
    )


@contextmanager
def progress() -> Iterator[Listener]:
    """A listener that draws a live bar with an ETA on a terminal, and prints a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from sizewise.study import Listener

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        watch = _Watch(bar, plain=not console.is_terminal)
        yield Listener(watch.stage, watch.planned, watch.event, watch.share)


class _Watch:
    """Adds up the progress of trials, each weighed by its predicted time."""

    def __init__(self, bar: object, *, plain: bool) -> None:
        from rich.progress import Progress

        assert isinstance(bar, Progress)
        self.bar, self.plain = bar, plain
        self.task = bar.add_task("", total=1.0, visible=False)
        self.weights: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.name, self.began, self.told = "", time.monotonic(), time.monotonic()

    def stage(self, sentence: str) -> None:
        if not self.plain:
            self.bar.console.print(f"[dim]·[/] {sentence}", highlight=False)
        else:
            print(f"· {sentence}", file=sys.stderr, flush=True)
        self.name = sentence.partition(" ")[0]
        self.began = self.told = time.monotonic()
        self.bar.reset(self.task, total=1.0, visible=False, description=self.name)

    def planned(self, seconds: dict[str, float]) -> None:
        total = sum(seconds.values()) or 1.0
        self.weights = {key: value / total for key, value in seconds.items()}
        self.done = {}
        self.began = self.told = time.monotonic()

    def event(self, event: Event) -> None:
        self.done[event.key] = max(event.share, self.done.get(event.key, 0.0))
        finished = sum(share == 1.0 for share in self.done.values())
        share = sum(self.weights.get(key, 0.0) * share for key, share in self.done.items())
        self.share(share, f" {finished}/{len(self.weights)} trials")

    def share(self, share: float, detail: str = "") -> None:
        self.bar.update(self.task, completed=share, visible=True, description=f"{self.name}{detail}")
        now = time.monotonic()
        if self.plain and share > 0 and now - self.told > PLAIN_SECONDS:
            self.told = now
            left = max(0.0, (now - self.began) * (1 - share) / share)
            print(f"  {self.name}{detail}: {share:.0%}, {duration(left)} left", file=sys.stderr, flush=True)
