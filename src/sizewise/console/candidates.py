"""Models to ship, and what was measured of them."""

from __future__ import annotations

from collections.abc import Sequence

from sizewise import words
from sizewise.console.text import table
from sizewise.recommend import confirmation, warnings
from sizewise.records import Blame, Comparison, Compression, Export, Measurement, Recommendation, Scenario, Search


def compression(c: Compression) -> str:
    """What compression made, beside what was trained small."""
    rows = [
        (f"{k.a} - {k.b}", f"{k.a_params:,}", words.interval(k.difference, k.metric), f"{k.difference.n}", _winner(k))
        for k in c.comparisons
    ]
    text = f"{len(c.candidates)} candidates beside {c.parent}"
    if rows:
        metric = c.comparisons[0].metric
        gained = f"{words.unit(metric)} better" if not metric.higher else words.unit(metric)
        text += "\n" + table((f"validation {metric.name}", "parameters", gained, "seeds", "verdict"), rows)
    if c.blame:
        text += "\n" + table(
            ("layer in int8 alone", "answers changed", "speed of the model"), list(map(_blamed, c.blame))
        )
    return "\n".join([text, *(f"skipped: {reason}" for reason in c.skipped)])


def _blamed(b: Blame) -> tuple[str, str, str]:
    changed, speed = b.changed, b.speedup
    return (
        b.layer,
        f"{changed.value:.2%} [{changed.low:.2%}, {changed.high:.2%}]",
        f"{speed.value:.2f} [{speed.low:.2f}, {speed.high:.2f}]",
    )


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
    return "\n".join(
        [
            *lines,
            *(f"note: {text}" for text in warnings(found)),
            recommendation.sentence,
            *_confirmed(found, recommendation),
        ]
    )


def _confirmed(found: Sequence[Measurement], recommendation: Recommendation) -> list[str]:
    best = next(m for m in found if m.candidate.name == recommendation.name)
    said = confirmation(best, recommendation.max_drop)
    return [said] if said else []


_COSTS = ("p50 µs", "p99 µs", "samples/s", "ratio", "kB", "peak MB")


def search(s: Search) -> str:
    """The winner for each goal, what may not win, and what is not installed; every point is in search.json."""
    ways = len({(p.candidate, p.threads) for p in s.points})
    lines = [f"{len(s.points)} ways to run it: {ways} of models and threads, each at several batches"]
    lines += [f"  {winner.sentence}" for winner in s.winners]
    lines += [f"note: left out {text}" for text in s.left_out]
    return "\n".join([*lines, *(f"note: {name} is missing: {hint}" for name, hint in s.missing.items())])


def scenarios(found: Sequence[Scenario]) -> str:
    """What MLPerf's load generator found, one line a model and scenario."""
    rows = [
        (s.candidate, s.kind, f"{s.value.value:,.4g}", f"[{s.value.low:,.4g}, {s.value.high:,.4g}]", s.unit)
        for s in found
    ]
    return table(("model", "scenario", "result", "interval", "unit"), rows)


def exports(found: Sequence[Export], root: object) -> str:
    """Where exported models lie, and how equal they are to their sources."""
    return "\n".join(
        f"{root}/{e.path}: equal to its model within {max(e.max_difference):.2g} at batches "
        f"{' and '.join(map(str, e.batches))}"
        for e in found
    )
