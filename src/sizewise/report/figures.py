"""The page's figures, each a pure function of records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sizewise import stats, words
from sizewise.records import (
    Choice,
    Comparison,
    Estimate,
    Law,
    Measurement,
    Metric,
    Precision,
    Run,
    RuntimeName,
)
from sizewise.report import format as f
from sizewise.report import law as laws
from sizewise.report.svg import Chart, Pair, span
from sizewise.runtimes.registry import RUNTIMES

Sizes = Mapping[int, Sequence[Run]]

METHODS = {"trained": "trained small", "prune": "pruned", "distil": "distilled", "factorize": "factorized"}
SHAPES: dict[tuple[RuntimeName, Precision], str] = {
    ("torch", "fp32"): "circle",
    ("onnxruntime", "fp32"): "square",
    ("openvino", "fp32"): "diamond",
    ("onnxruntime", "int8"): "triangle",
    ("openvino", "int8"): "inverted",
    ("openvino", "int4"): "hourglass",
    ("torch", "bf16"): "right",
    ("openvino", "bf16"): "left",
    ("openvino", "fp16"): "pentagon",
    ("aotinductor", "fp32"): "hexagon",
    ("executorch", "fp32"): "cross",
}


def legend(measurements: Sequence[Measurement]) -> dict[str, str]:
    """The shapes of what was measured, each with the runtime and precision that it stands for."""
    drawn = {(m.candidate.runtime, m.candidate.precision) for m in measurements}
    return {
        shape: f"{RUNTIMES[runtime].label} {precision}"
        for (runtime, precision), shape in SHAPES.items()
        if (runtime, precision) in drawn
    }


def size_performance(sizes: Sizes, law: Law, choice: Choice | None) -> str:
    """Validation loss or error against parameters: every seed, means with intervals, the law and its band."""
    value = laws.observed(law)
    points = [(run.params, value(run)) for runs in sizes.values() for run in runs]
    params = sorted({p for p, _ in points})
    reach = (params[0] / 1.5, params[-1] * 4)
    values = [v for _, v in points]
    log_y = all(v > 0 for v in values if math.isfinite(v))
    chart = Chart(
        f"Validation {law.metric} against parameters",
        reach,
        span(values, log=log_y, pad=0.12),
        "parameters",
        f"validation {law.metric}",
        log_x=True,
        log_y=log_y,
        percent_y=law.metric == "error" and next(iter(sizes.values()))[0].validation.metric.share,
    )
    drawn = laws.curve(law, reach)
    if drawn is not None:
        _draw_law(chart, drawn)
    if choice is not None:
        chart.flag(choice.params, f"width {choice.width}: {_standing(choice)}", "flag chosen")
    for runs in sizes.values():
        _draw_size(chart, runs, value)
    return chart.render()


def _standing(choice: Choice) -> str:
    return "so far" if choice.status == "undetermined" else "chosen"


def _draw_law(chart: Chart, curve: laws.Curve) -> None:
    chart.band(list(zip(curve.params, curve.low, curve.high, strict=True)), "band")
    line = list(zip(curve.params, curve.value, strict=True))
    chart.line([(n, y) for n, y in line if n <= curve.first], "law outside")
    chart.line([(n, y) for n, y in line if curve.first <= n <= curve.last], "law")
    chart.line([(n, y) for n, y in line if n >= curve.last], "law outside")


def _draw_size(chart: Chart, runs: Sequence[Run], value: Callable[[Run], float]) -> None:
    params, values = runs[0].params, [value(run) for run in runs]
    for run, v in zip(runs, values, strict=True):
        tip = f"width {run.trial.width}, seed {run.trial.seed}: {v:.4g}"
        chart.dot(params, v, "seed", radius=2.6, tip=tip)
    if len(values) > 1 and all(map(math.isfinite, values)):
        e = stats.mean(np.array(values))
        chart.bar(params, e.low, e.high, "interval")
        tip = f"width {runs[0].trial.width}: mean {e.value:.4g} [{e.low:.4g}, {e.high:.4g}], {e.n} seeds"
        chart.dot(params, e.value, "mean", radius=4, tip=tip)


def learning_curves(sizes: Sizes) -> list[tuple[int, str]]:
    """For each width its chart: training and validation loss over epochs, every seed and the mean."""
    losses = [x for runs in sizes.values() for r in runs for p in r.curve for x in (p.train_loss, p.validation_loss)]
    shared = span(losses, log=True, pad=0.05)
    return [(width, _learning_curve(width, runs, shared)) for width, runs in sizes.items()]


def _learning_curve(width: int, runs: Sequence[Run], shared: Pair) -> str:
    epochs = max(len(run.curve) for run in runs)
    chart = Chart(
        f"Learning curves of width {width}",
        (0.5, epochs + 0.5),
        shared,
        "epoch",
        log_y=True,
        width=250,
        height=190,
        left=40,
        top=12,
        x_ticks=4,
    )
    _draw_curves(chart, [[(p.epoch, p.train_loss) for p in run.curve] for run in runs], "train")
    _draw_curves(chart, [[(p.epoch, p.validation_loss) for p in run.curve] for run in runs], "validation")
    return chart.render()


def _draw_curves(chart: Chart, curves: list[list[Pair]], style: str) -> None:
    """Every seed thin, and the mean over the epochs that all of them have."""
    for curve in curves:
        chart.line(curve, f"{style} thin")
    means = [(group[0][0], float(np.mean([y for _, y in group]))) for group in zip(*curves, strict=False)]
    chart.line(means, f"{style} bold")


def choice_forest(choice: Choice) -> str:
    """Differences of each width to the strongest larger one with their intervals, against the margin."""
    rows = choice.comparisons[::-1]
    chosen = [c.a == f"width {choice.width}" for c in rows]
    chart = _forest(
        f"How much better each width is than the strongest larger one, validation {choice.metric.name}",
        rows,
        ["mean chosen" if yes else "mean" for yes in chosen],
        # Far-off sizes would squeeze the ones that matter: what lies beyond ten margins is cut at the edge.
        margin=-_scale(choice.metric) * choice.margin,
        edge=-10 * _scale(choice.metric) * choice.margin,
        left=84,
    )
    return chart.render()


def compression_forest(comparisons: Sequence[Comparison]) -> str:
    """Differences of each compressed model to the one trained small at its width, with their intervals."""
    rows = comparisons[::-1]
    styles = [f"candidate {_last_method(c.a)}" for c in rows]
    return _forest(f"{comparisons[0].metric.name} compressed against trained small", rows, styles, left=160).render()


def _last_method(label: str) -> str:
    """Of a chain, in words, the last method: it gives the colour, as it does on the frontier."""
    return max(METHODS, key=lambda method: label.rfind(METHODS[method]))


def _forest(
    title: str,
    rows: Sequence[Comparison],
    styles: Sequence[str],
    *,
    margin: float | None = None,
    edge: float = -math.inf,
    left: int,
) -> Chart:
    """Differences in points, one a row from below, with zero and the margin as vertical lines."""
    metric, scale = rows[0].metric, _scale(rows[0].metric)
    ends = [max(scale * x, edge) for c in rows for x in (c.difference.low, c.difference.high)]
    margins = [] if margin is None else [margin]
    low, high = span([*ends, 0.0, *margins], pad=0.06)
    chart = Chart(
        title,
        (low, high),
        (-0.6, len(rows) - 0.4),
        f"validation {metric.name}, {words.unit(metric)} better" if metric.share else f"better by, {metric.name}",
        height=84 + 16 * len(margins) + 28 * len(rows),
        left=left,
        top=34 + 16 * len(margins),
        y_names=tuple(c.a for c in rows),
    )
    chart.flag(0.0, "no difference", "flag zero", row=len(margins))
    for one in margins:
        chart.flag(one, f"margin {-one:g}", "flag margin")
    for row, (c, style) in enumerate(zip(rows, styles, strict=True)):
        _draw_difference(chart, row, c, style)
    return chart


def _draw_difference(chart: Chart, row: int, c: Comparison, style: str) -> None:
    left, d, scale = chart.x[0], c.difference, _scale(c.metric)
    tip = f"{c.a} against {c.b}: {words.difference(d, c.metric)}, {d.n} seeds"
    if scale * d.high > left:
        chart.across(row, max(scale * d.low, left), scale * d.high, "interval")
    inside = scale * d.value > left
    chart.dot(max(scale * d.value, left), row, style, radius=5, shape="circle" if inside else "left", tip=tip)


def _scale(metric: Metric) -> float:
    """Differences of shares are drawn in points."""
    return 100.0 if metric.share else 1.0


def frontier(measurements: Sequence[Measurement], axis: str, flags: Mapping[str, str]) -> str:
    """Validation score against latency or bytes: every candidate with its interval, the frontier joined.

    Args:
        flags: what to write above some candidates, by name; the first is the most important.
    """
    cost: Callable[[Measurement], float] = {
        "latency": lambda m: 1e3 * m.latency_p50_ms.value,
        "size": lambda m: float(m.size_bytes),
    }[axis]
    metric = measurements[0].test.metric
    scores = [x for m in measurements for x in (m.validation_score.low, m.validation_score.high)]
    chart = Chart(
        f"Validation {metric.name} against {axis}",
        span([cost(m) for m in measurements], log=True),
        span(scores),
        "p50 latency of one request, µs" if axis == "latency" else "bytes on disk",
        f"validation {metric.name}",
        log_x=True,
        percent_y=metric.share,
        height=360,
        top=50,
    )
    chart.line(_steps(measurements, cost), "frontier")
    for m in measurements:
        if m.candidate.name in flags:
            row = list(flags).index(m.candidate.name)
            chart.flag(cost(m), flags[m.candidate.name], "flag", foot=m.validation_score.value, row=row)
    # The dominated first and paler, so that the frontier lies on top, and the flagged above all.
    for m in sorted(measurements, key=lambda m: (m.candidate.name in flags, m.frontier)):
        _draw_candidate(chart, m, cost(m), flagged=m.candidate.name in flags)
    return chart.render()


def _draw_candidate(chart: Chart, m: Measurement, cost: float, *, flagged: bool) -> None:
    score, method = m.validation_score, m.candidate.method
    shape = SHAPES[m.candidate.runtime, m.candidate.precision]
    if m.frontier or flagged:
        chart.bar(cost, score.low, score.high, f"whisker {method}")
    if flagged:
        chart.dot(cost, score.value, "ring", radius=9)
    rank = "front" if m.frontier or flagged else "behind"
    chart.dot(cost, score.value, f"candidate {rank} {method}", radius=5, shape=shape, tip=_tip(m))


def _steps(measurements: Sequence[Measurement], cost: Callable[[Measurement], float]) -> list[Pair]:
    """The best score reached at each cost or below, as a staircase up to the highest cost."""
    steps: list[Pair] = []
    for m in sorted(measurements, key=cost):
        score = m.validation_score.value
        if not steps or m.test.metric.gain(score, steps[-1][1]) > 0:
            if steps:
                steps.append((cost(m), steps[-1][1]))
            steps.append((cost(m), score))
    return [*steps, (max(map(cost, measurements)), steps[-1][1])]


def _tip(m: Measurement) -> str:
    def say(e: Estimate, kind: f.Kind) -> str:
        shown = f.shown(e, kind)
        return f"{shown.value} {shown.interval}"

    kind = f.score_kind(m.test.metric)

    return (
        f"{m.candidate.name}\n"
        f"validation {say(m.validation_score, kind)}\n"
        f"test {say(m.test_score, kind)}\n"
        f"p50 {say(m.latency_p50_ms, 'latency')}\n"
        f"{say(m.throughput, 'count')} samples/s\n"
        f"{f.size(m.size_bytes)}"
    )
