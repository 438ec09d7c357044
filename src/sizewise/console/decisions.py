"""What follows from a law."""

from __future__ import annotations

from collections.abc import Sequence

from sizewise.console.text import ends, headed, interval, made, number, table
from sizewise.records import Batch, ComputeOptimal, Contour, Decisions, Growth, ServingOptimal, Spending


def decisions(d: Decisions) -> list[str]:
    """Each answer in a few lines, its status first."""
    parts = [
        _optimum(d.optimum) if d.optimum else "",
        _spending(d.spending) if d.spending else "",
        _serving(d.serving) if d.serving else "",
        _equal_loss(d.equal_loss) if d.equal_loss else "",
        _growth(d.growth) if d.growth else "",
        _next_runs(d.next_runs) if d.next_runs else "",
    ]
    return [part for part in parts if part]


def _optimum(o: ComputeOptimal) -> str:
    head = headed(f"compute-optimal for {o.compute:.4g} FLOP", o.status, o.reason)
    if o.params is None or o.loss is None or o.nearly is None:
        return head
    rows = [
        (a.approach, interval(a.params), interval(a.samples), interval(a.exponent), f"{a.behind:,}")
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
        f"one run there: {interval(o.loss)}; {number(low)} to {number(high)} params are within {o.tolerance:.1%} of it",
    ]
    return "\n".join([head, *lines])


def _spending(s: Spending) -> str:
    """The budget in each unit that is known, and what more of it would give."""
    money = s.unit if s.unit not in ("FLOP", "h") else "at that price"
    same = [f"{value:.4g} {money if unit == 'money' else unit}" for unit, value in s.told.items()]
    head = f"that budget: {', or '.join(same)}"
    rows = [
        (
            f"{m.extra:.4g} {s.unit} more",
            f"{m.times:g}",
            number(m.params),
            number(m.samples),
            interval(m.ratio),
            m.verdict,
        )
        for m in s.more
    ]
    if not rows:
        return head
    first = s.more[0].ratio
    header = ("spent on the best size", "times", "params", "samples", f"loss, times, {first.level:.0%} interval", "")
    return f"{head}\n{table(header, rows)}\nintervals: {made(first)}"


def _serving(s: ServingOptimal) -> str:
    head = headed(f"cheapest to train and serve {number(s.serving)} samples, loss {s.target:.4g}", s.status, s.reason)
    if s.params is None or s.saved is None:
        return head
    named = {
        "params": s.params,
        "samples": s.samples,
        "training FLOP": s.training,
        "lifetime FLOP": s.lifetime,
        "params if it were only trained": s.trained,
    }
    rows = [(name, f"{e.value:.4g}", ends(e)) for name, e in named.items() if e]
    rows.append(("lifetime FLOP saved by that", f"{s.saved.value:.1%}", f"[{s.saved.low:.1%}, {s.saved.high:.1%}]"))
    header = ("over its life", "value", f"{s.params.level:.0%} interval")
    return f"{head}\n{table(header, rows)}\nintervals: {made(s.params)}; {s.reached:.0%} of them reach this loss"


def _equal_loss(c: Contour) -> str:
    if c.loss is None or c.rate is None or c.more is None or c.least is None:
        return headed("models of equal loss", c.status, c.reason)
    head = f"models of the loss {interval(c.loss)} that {number(c.params)} params and {number(c.samples)} samples have"
    rows = [
        (number(n), f"{d.value:.4g}", ends(d), f"{n / c.params:.3g}", f"{d.value / c.samples:.3g}") for n, d in c.places
    ]
    header = ("params", "samples", f"{c.loss.level:.0%} interval", "times params", "times samples")
    lines = [
        f"without {c.fewer:.0%} of the params: {interval(c.more)} times the samples",
        f"1% of params is worth {interval(c.rate)}% of samples; fewer than {interval(c.least)} params never have it",
        f"intervals: {made(c.rate)}",
    ]
    return "\n".join([headed(head, c.status, c.reason), table(header, rows), *lines])


def _growth(found: Sequence[Growth]) -> str:
    told = [(g, g.loss, g.ratio) for g in found if g.loss and g.ratio]
    if not told:
        return headed("ten times the compute", found[0].status, found[0].reason)
    ways = {"compute": "along the optimal path", "params": "as parameters alone", "samples": "as samples alone"}
    rows = [
        (ways[g.how], *(number(x) for x in g.at.values()), interval(loss), interval(ratio), g.verdict)
        for g, loss, ratio in told
    ]
    first, _, ratio = told[0]
    header = ("ten times the compute", *first.at, f"one run, {ratio.level:.0%} interval", "times today's", "")
    return f"{table(header, rows)}\nintervals of times: {made(ratio)}"


def _next_runs(b: Batch) -> str:
    if not b.runs:
        return headed("next runs", b.status, b.reason)
    place = " and ".join(f"{number(value)} {name}" for name, value in b.at.items())
    head = f"next runs for {b.purpose}{f', {place}' if place else ''}, at most {b.budget:.4g} {b.unit} together"
    rows = [
        (
            f"{i}",
            *(number(value) for value in run.at.values()),
            f"{run.repeats + 1}",
            f"{run.cost:.4g}",
            f"{run.width:.3g}",
            f"{run.removed:.0%}",
        )
        for i, run in enumerate(b.runs, 1)
    ]
    header = ("run", *b.runs[0].at, "seed", b.unit, f"width of its {b.level:.0%} interval, log", "narrower by")
    return f"{headed(head, b.status, b.reason)}\n{table(header, rows)}"
