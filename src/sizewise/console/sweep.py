"""What was planned and trained, what limits it, and the size to take."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sizewise import words
from sizewise.console.text import TEXT_WIDTH, duration, excluded_rows, interval, made, number, percent, table
from sizewise.records import (
    Choice,
    Comparison,
    Exclusion,
    Finding,
    Guess,
    More,
    NodeLoad,
    Packing,
    Plan,
    Run,
    TunedRecipe,
)

MOST_LOADS = 12
"""Lines of nodes that are printed."""


def plan(p: Plan) -> str:
    """Every size with its costs, and the wall time of all."""
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
    extra = [_packing(p.packing)] if p.packing else []
    extra += [_more(p.more, p.packing)] if p.more else []
    extra += [_guess(p.guess)] if p.guess else []
    return "\n".join([text, *extra, *(f"note: {note}" for note in p.notes)])


def _packing(found: Packing) -> str:
    """What the machines have to do; those that have the same are one line."""
    alike: dict[NodeLoad, int] = {}
    for load in found.nodes:
        alike[load] = alike.get(load, 0) + 1
    shown = sorted(alike.items(), key=lambda item: -item[0].seconds)
    rows = [
        (f"{count}", f"{load.trials}", duration(load.seconds), percent(load.idle), f"{load.cost:.2f}")
        for load, count in shown[:MOST_LOADS]
    ]
    text = table(("nodes", "trials each", "time", "idle", "cost each"), rows)
    left = sum(count for _, count in shown[MOST_LOADS:])
    more = [f"and {left} more nodes"] if left else []
    ratio = found.seconds / found.least if found.least else 1.0
    sentence = (
        f"cost {found.cost:.2f} {found.currency} in all; no schedule is shorter than {duration(found.least)}, this one "
        f"takes {ratio:.3f} times that (longest first: at most {found.bound:.3f} times the best schedule)"
    )
    return "\n".join([text, *more, sentence])


def _more(found: Sequence[More], packing: Packing | None) -> str:
    price, currency = (packing.worker_hour, packing.currency) if packing else (0.0, "")
    rows = [
        (
            f"{m.times:g}",
            duration(3600 * m.extra),
            *([f"{price * m.extra:.3g}"] if price else []),
            number(m.params),
            interval(m.ratio),
            m.verdict,
        )
        for m in found
    ]
    more = ("more time", *([f"{currency} more"] if price else []))
    head = ("times the longest run", *more, "params", f"loss, times, {found[0].ratio.level:.0%} interval", "")
    return f"{table(head, rows)}\nby the law of this study's runs; intervals: {made(found[0].ratio)}"


def _guess(g: Guess) -> str:
    """What earlier studies say, and how much of it is theirs."""
    near = ", ".join(f"{name} (distance {distance:.2g})" for name, distance in g.precedents)
    e, alone = g.params, g.uninformed
    lines = [
        f"first guess, by {len(g.precedents)} earlier: width {g.width}, about {number(e.value)} parameters "
        f"[{number(e.low)}, {number(e.high)}]; the ladder alone says [{number(alone.low)}, {number(alone.high)}]",
        f"  {g.weight:.0%} of it from {near}; it decides nothing",
    ]
    lines += [f"  their {metric} falls with params^-{interval(alpha)}" for metric, alpha in g.exponents.items()]
    return "\n".join(lines)


def runs(found: Sequence[Run]) -> str:
    """One line a run."""
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


def left_out(skipped: Sequence[Exclusion]) -> list[str]:
    """What a task's data leaves out, one sentence a reason."""
    rows = [f" ({excluded_rows(e)})" if e.rows else "" for e in skipped]
    return [f"left out of the data: {e.count:,} {e.reason}{which}" for e, which in zip(skipped, rows, strict=True)]


def findings(found: Sequence[Finding]) -> str:
    """What limits the models, and what to do about it."""
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
    """The chosen size, why, and which runs would say more."""
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
    """Two configurations, their difference and the verdict."""
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


def tuned(found: TunedRecipe, study: str) -> str:
    """A recipe that was searched for, what it is worth, and how to train with it."""
    from sizewise import tune  # here, since PyTorch comes with it, and a table of runs needs none

    changed = tune.flags(found)
    command = [f"to train with it: sizewise run {study} {changed}"] if changed else []
    return "\n".join([*tune.sentences(found), *command])
