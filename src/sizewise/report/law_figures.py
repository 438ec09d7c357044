"""The figures about a law and the runs behind it, each a pure function of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sizewise import laws
from sizewise.laws import decide
from sizewise.laws.decide.runs import groups
from sizewise.laws.design import default_cost
from sizewise.laws.forecast import forecast
from sizewise.records import ComputeOptimal, Estimate, Law
from sizewise.report import format as f
from sizewise.report.svg import Chart, Pair, span

Array = NDArray[np.float64]

TRADED = ("params", "samples")
UNITS = {"params": "parameters", "samples": "samples (tokens)", "compute": "compute, FLOP", "unique": "unique samples"}
COST = "compute 6·params·samples, FLOP"

MOST_DRAWN = 800
"""Runs in a chart; of more an even sample is drawn, and all outliers."""

SHADES = 5
FURTHER = 10.0
"""How far beyond the largest run the figures look."""

POINTS = 60
FINE = 160
PATH_STEPS, PATH_DRAWS = 15, 200
ISO_FLOPS, FEWEST_IN_FLOPS = 5, 3
LEVELS = 9
SQUEEZE = 0.25
"""Outliers above the other runs by up to this share of their range are drawn in place."""

NUDGE = 0.022
"""Intervals of several back-tests at one place are drawn side by side, apart by this share of the chart."""


@dataclass(frozen=True)
class Subject:
    """What the figures show.

    Attributes:
        x: (rows, variables), y: (rows,), label: row numbers in the table, (rows,).
        level: nominal coverage of bands and intervals.
    """

    law: Law
    x: Array
    y: Array
    label: NDArray[np.int64]
    level: float

    @classmethod
    def of(cls, law: Law, evidence: laws.Evidence, level: float) -> Subject:
        """The law with the runs to draw."""
        named = {row for e in law.outliers for row in e.rows}
        even = np.zeros(len(evidence.y), dtype=bool)
        even[:: max(1, -(-len(even) // MOST_DRAWN))] = True
        keep = even | np.isin(evidence.label, list(named))
        return cls(law, evidence.x[keep], evidence.y[keep], evidence.label[keep], level)

    @property
    def trades(self) -> bool:
        """Whether the law says how parameters and samples trade."""
        return self.law.variables == TRADED

    @property
    def metric(self) -> str:
        return self.law.metric

    @cached_property
    def cost(self) -> Array:
        """FLOP of each run, or the one variable of the law, (rows,)."""
        return default_cost(self.law.variables, self.x)

    @property
    def cost_name(self) -> str:
        return COST if len(self.law.variables) > 1 else UNITS[self.law.variables[0]]

    @cached_property
    def outliers(self) -> NDArray[np.bool_]:
        return np.isin(self.label, [row for e in self.law.outliers for row in e.rows])

    @cached_property
    def shade(self) -> NDArray[np.int64]:
        """Which of `SHADES` steps of the first variable each run is in, smallest first, (rows,).

        A lone variable is the axis already, so its runs have one shade.
        """
        if len(self.law.variables) == 1:
            return np.full(len(self.y), SHADES // 2)
        return _steps(np.log(self.x[:, 0]))

    @property
    def shades(self) -> list[tuple[int, str]]:
        """Each step that holds runs, and the sizes in it."""
        found = []
        for step in np.unique(self.shade):
            sizes = self.x[self.shade == step, 0]
            low, high = f.quantity(float(sizes.min())), f.quantity(float(sizes.max()))
            found.append((int(step), low if low == high else f"{low} to {high}"))
        return found

    @cached_property
    def path(self) -> list[ComputeOptimal]:
        """The compute-optimal models from the cheapest run's budget to beyond the largest's; none without a trade."""
        if not (self.trades and self.law.forms):
            return []
        budgets = np.geomspace(self.cost.min(), FURTHER * self.cost.max(), PATH_STEPS)
        found = [
            decide.compute_optimal(self.law, float(c), redone=0, draws=PATH_DRAWS, level=self.level) for c in budgets
        ]
        return [o for o in found if o.params and o.samples and o.loss]

    def predicted(self, x: Array) -> list[Estimate]:
        """One new run at each of (points, variables)."""
        points = [dict(zip(self.law.variables, map(float, row), strict=True)) for row in x]
        return laws.predict(self.law, points, level=self.level)

    def mean(self, x: Array) -> Array:
        """The law at (points, variables)."""
        return np.exp(forecast(self.law, x).mean)

    def tip(self, i: int) -> str:
        where = ", ".join(
            f"{f.quantity(float(v))} {name}" for v, name in zip(self.x[i], self.law.variables, strict=True)
        )
        return f"row {self.label[i]:,}: {where}: {self.metric} {self.y[i]:.4g}"

    def draw_runs(
        self, chart: Chart, at: Array, y: Array, shade: NDArray[np.int64], which: NDArray[np.int64] | None = None
    ) -> None:
        """The runs as dots at (at, y), each (rows,); outliers ringed, so that they are seen."""
        for i in map(int, np.arange(len(y)) if which is None else which):
            place, height = float(at[i]), float(y[i])
            if height > chart.y[1]:  # too far off to draw: a triangle at the edge
                chart.dot(place, chart.y[1], f"run s{shade[i]}", radius=5, shape="triangle", tip=self.tip(i))
                continue
            chart.dot(place, height, f"run s{shade[i]}", radius=3.2, tip=self.tip(i))
            if self.outliers[i]:
                chart.dot(place, height, "ring thin-ring", radius=7)


def _steps(log_size: Array) -> NDArray[np.int64]:
    """Even steps in logs; of few sizes each has its own."""
    sizes = np.unique(np.round(log_size, 6))
    if len(sizes) <= SHADES:
        spread = np.linspace(0, SHADES - 1, len(sizes)).round() if len(sizes) > 1 else np.array([SHADES // 2])
        return np.asarray(spread[np.searchsorted(sizes, np.round(log_size, 6))], dtype=np.int64)
    low, high = log_size.min(), log_size.max()
    return np.asarray(np.minimum(SHADES * (log_size - low) / (high - low), SHADES - 1), dtype=np.int64)


def _heights(subject: Subject, more: Sequence[float] = ()) -> Pair:
    """Range of y: of what is drawn. Outliers far above do not count, since they would squeeze the rest."""
    most = float(subject.y[~subject.outliers].max(initial=float(subject.y.min())))
    kept = subject.y[subject.y <= most * (most / float(subject.y.min())) ** SQUEEZE]
    return span([*map(float, kept), *more], log=True, pad=0.08)


def against_one(subject: Subject) -> str:
    """A law of one variable: its band, the runs, and what back-tests predicted."""
    (name,) = subject.law.variables
    x = subject.x[:, 0]
    reach = (float(x.min()) / 1.5, float(x.max()) * FURTHER)
    law = subject.law
    grid = np.unique([*np.geomspace(*reach, POINTS), float(x.min()), float(x.max())])
    said = subject.predicted(grid[:, None]) if law.forms else []
    chart = Chart(
        f"{subject.metric} against {name}",
        reach,
        _heights(subject, [e.value for e in said]),
        UNITS[name],
        subject.metric,
        log_x=True,
        log_y=True,
    )
    if said:
        chart.band([(float(n), e.low, e.high) for n, e in zip(grid, said, strict=True)], "band")
        line = [(float(n), e.value) for n, e in zip(grid, said, strict=True)]
        _draw_law(chart, line, float(x.min()), float(x.max()))
    subject.draw_runs(chart, x, subject.y, subject.shade)
    _draw_back_tests(chart, subject)
    return chart.render()


def _draw_law(chart: Chart, line: Sequence[Pair], first: float, last: float) -> None:
    """Dashed outside the evidence."""
    chart.line([(x, y) for x, y in line if x <= first], "law outside")
    chart.line([(x, y) for x, y in line if first <= x <= last], "law")
    chart.line([(x, y) for x, y in line if x >= last], "law outside")


def against_compute(subject: Subject) -> str:
    """A law of several variables against compute: runs by size, the law at each size, its band along the best path."""
    first, last = float(subject.cost.min()), float(subject.cost.max())
    best = [(o.compute, o.loss) for o in subject.path if o.loss]
    chart = Chart(
        f"{subject.metric} against compute",
        (first / 1.5, last * (1.2 * FURTHER if best else 2 * (last / first) ** (len(subject.law.backtests) * NUDGE))),
        _heights(subject, [e.value for _, e in best]),
        COST,
        subject.metric,
        log_x=True,
        log_y=True,
    )
    chart.band([(c, e.low, e.high) for c, e in best], "band") if best else None
    _draw_sizes(chart, subject, along="compute")
    subject.draw_runs(chart, subject.cost, subject.y, subject.shade)
    edge = max((c for c, _ in best if c <= last), default=last)
    _draw_law(chart, [(c, e.value) for c, e in best], first, edge)
    _draw_back_tests(chart, subject)
    return chart.render()


def against_samples(subject: Subject) -> str:
    """A law of parameters and samples against samples: runs by size and the law at each size."""
    d = subject.x[:, 1]
    chart = Chart(
        f"{subject.metric} against samples",
        span(list(map(float, d)), log=True),
        _heights(subject),
        UNITS["samples"],
        subject.metric,
        log_x=True,
        log_y=True,
    )
    _draw_sizes(chart, subject, along="samples")
    subject.draw_runs(chart, d, subject.y, subject.shade)
    return chart.render()


def _draw_sizes(chart: Chart, subject: Subject, *, along: str) -> None:
    """The law for the middle size of each shade, over the samples that runs of this shade saw."""
    if not (subject.trades and subject.law.forms):
        return
    for step, _ in subject.shades:
        rows = subject.x[subject.shade == step]
        size = float(np.sort(rows[:, 0])[len(rows) // 2])
        samples = np.geomspace(rows[:, 1].min() / 1.5, rows[:, 1].max() * 1.5, POINTS)
        y = subject.mean(np.column_stack([np.full(POINTS, size), samples]))
        x = samples if along == "samples" else 6 * size * samples
        inside = (x >= chart.x[0]) & (x <= chart.x[1]) & (y >= chart.y[0]) & (y <= chart.y[1])
        chart.line(list(zip(map(float, x[inside]), map(float, y[inside]), strict=True)), f"curve s{step}")


def _draw_back_tests(chart: Chart, subject: Subject) -> None:
    """What was predicted for the largest hidden setting, as an interval beside the run that was measured."""
    tests = subject.law.backtests
    for i, test in enumerate(tests):
        x = np.array([[test.at[v] for v in subject.law.variables]])
        place = float(default_cost(subject.law.variables, x)[0])
        at = min(place * (chart.x[1] / chart.x[0]) ** (NUDGE * (i + 1)), chart.x[1])
        words = (
            f"from {test.reach:.3g} times less: predicted {test.predicted.value:.4g} "
            f"[{test.predicted.low:.4g}, {test.predicted.high:.4g}], measured {test.observed:.4g}"
        )
        chart.bar(at, test.predicted.low, test.predicted.high, "hindcast")
        chart.dot(at, test.predicted.value, "hindcast", radius=3.5, shape="diamond", tip=words)
        if not i:
            chart.dot(place, test.observed, "ring", radius=7, tip=words)


def back_tests(subject: Subject) -> str:
    """For each back-test the predicted interval of the largest hidden setting, over what was measured there."""
    tests = subject.law.backtests[::-1]
    ends = [v / t.observed for t in tests for v in (t.predicted.low, t.predicted.high)]
    reach = span([*ends, 1.0], pad=0.1)
    chart = Chart(
        "Predictions of hidden runs over what was measured",
        (max(reach[0], 0.0), min(reach[1], 4.0)),
        (-0.6, len(tests) - 0.4),
        f"predicted {subject.metric} / measured",
        "from runs smaller by a factor of",
        height=80 + 40 * len(tests),
        left=64,
        y_names=tuple(f"{t.reach:.3g}" for t in tests),
    )
    chart.flag(1.0, "measured", "flag chosen")
    for row, t in enumerate(tests):
        e, y = t.predicted, t.observed
        inside = e.low <= y <= e.high
        low, high = max(e.low / y, chart.x[0]), min(e.high / y, chart.x[1])
        chart.across(row, low, high, "hindcast" if inside else "hindcast missed")
        tip = f"{e.value:.4g} [{e.low:.4g}, {e.high:.4g}] from {t.visible} runs; {y:.4g} was measured"
        middle = min(max(e.value / y, chart.x[0]), chart.x[1])
        chart.dot(middle, row, "hindcast" if inside else "hindcast missed", radius=4.5, shape="diamond", tip=tip)
    return chart.render()


def residuals(subject: Subject) -> str:
    """How far each run lies from the law, against how large it is; outliers by their row in the table."""
    off = subject.y / subject.mean(subject.x) - 1
    shown = np.clip(off, *_bounds(off))
    low, high = _usual(subject)
    chart = Chart(
        "Residuals against size",
        span(list(map(float, subject.cost)), log=True),
        span([*map(float, shown), low, high], pad=0.12),
        subject.cost_name,
        "measured / law - 1",
        log_x=True,
        percent_y=True,
        left=56,
    )
    chart.band([(x, low, high) for x in chart.x], "band")
    chart.across(0.0, *chart.x, "zero")
    subject.draw_runs(chart, subject.cost, shown, subject.shade)
    right = math.sqrt(chart.x[0] * chart.x[1])
    for i in _apart(chart, subject.cost, shown, np.flatnonzero(subject.outliers)):
        x = float(subject.cost[i])
        cut = f" at {100 * off[i]:+.0f}%" if shown[i] != off[i] else ""
        words, late = f"row {subject.label[i]:,}{cut}", x > right
        chart.words(x, float(shown[i]), words, "named", anchor="end" if late else "start", gap=11)
    return chart.render()


def _apart(chart: Chart, x: Array, y: Array, rows: NDArray[np.int64]) -> list[int]:
    """Rows to name, farthest from the law first, none so close to another that their names collide."""
    kept: list[int] = []
    for i in rows[np.argsort(-np.abs(y[rows]))]:
        px, py = chart.at_x(float(x[i])), chart.at_y(float(y[i]))
        if all(abs(py - chart.at_y(float(y[j]))) > 13 or abs(px - chart.at_x(float(x[j]))) > 90 for j in kept):
            kept.append(int(i))
    return kept


def _bounds(off: Array) -> Pair:
    """A few wild runs must not squeeze the rest: what lies beyond is drawn at the edge, with its name and value."""
    middle = float(np.quantile(np.abs(off), 0.9))
    return -max(3 * middle, 1e-3), max(3 * middle, 1e-3)


def _usual(subject: Subject) -> Pair:
    """Where so many single runs would lie around a law known exactly, as shares of it."""
    from scipy.special import stdtrit

    half = float(stdtrit(subject.law.freedom, 0.5 + subject.level / 2)) * subject.law.scatter
    return math.expm1(-half), math.expm1(half)


@dataclass(frozen=True)
class IsoFlop:
    """Runs of one compute budget, FLOP: `rows` of the subject, in shade `shade`."""

    compute: float
    rows: NDArray[np.int64]
    shade: int


def iso_flops(subject: Subject) -> list[IsoFlop]:
    """A few budgets at which runs of several sizes were made, evenly from the smallest to the largest."""
    log_n, log_c = np.log(subject.x[:, 0]), np.log(subject.cost)
    found = groups(log_n, log_c)
    if len(found) < FEWEST_IN_FLOPS:
        centres = np.linspace(log_c.min(), log_c.max(), ISO_FLOPS)
        found = [np.flatnonzero(np.abs(log_c - c) < math.log(2) / 2) for c in centres]
        found = [rows for rows in found if len(rows)]
    # The closer together, the less is told apart: as many as fit, evenly in rank.
    chosen = np.unique(np.linspace(0, len(found) - 1, min(ISO_FLOPS, len(found))).round().astype(int))
    shades = np.linspace(0, SHADES - 1, len(chosen)).round().astype(int)
    return [
        IsoFlop(float(np.exp(log_c[found[i]].mean())), found[i], int(shade))
        for i, shade in zip(chosen, shades, strict=True)
    ]


def iso_flop(subject: Subject, budgets: Sequence[IsoFlop]) -> str:
    """Loss against parameters at several budgets: runs, the law, and its minimum with the interval of its place."""
    n = subject.x[:, 0]
    rows = np.concatenate([b.rows for b in budgets])
    chart = Chart(
        f"{subject.metric} against parameters at equal compute",
        span(list(map(float, n[rows])), log=True, pad=0.1),
        _heights(subject_of(subject, rows)),
        UNITS["params"],
        subject.metric,
        log_x=True,
        log_y=True,
        height=360,
    )
    for b in budgets:
        sizes = np.geomspace(max(n[b.rows].min() / 2, chart.x[0]), min(n[b.rows].max() * 2, chart.x[1]), POINTS)
        y = subject.mean(np.column_stack([sizes, b.compute / (6 * sizes)]))
        inside = (y >= chart.y[0]) & (y <= chart.y[1])
        chart.line(list(zip(map(float, sizes[inside]), map(float, y[inside]), strict=True)), f"curve s{b.shade}")
        shade = np.full(len(n), b.shade)
        subject.draw_runs(chart, n, subject.y, shade, b.rows)
    for b in budgets:
        _draw_minimum(chart, subject, b)
    return chart.render()


def _draw_minimum(chart: Chart, subject: Subject, b: IsoFlop) -> None:
    o = decide.compute_optimal(subject.law, b.compute, redone=0, draws=PATH_DRAWS, level=subject.level)
    if o.params is None or o.loss is None or not chart.x[0] <= o.params.value <= chart.x[1]:
        return
    best, y = o.params, o.loss.value
    chart.across(y, max(best.low, chart.x[0]), min(best.high, chart.x[1]), f"minimum s{b.shade}")
    size = f.shown(best, "quantity")
    tip = f"{f.quantity(b.compute)} FLOP: {size.value} {size.interval} params"
    chart.dot(best.value, y, f"minimum s{b.shade}", radius=5.5, shape="diamond", tip=tip)


def subject_of(subject: Subject, rows: NDArray[np.int64]) -> Subject:
    """The same law with some of its runs."""
    return Subject(subject.law, subject.x[rows], subject.y[rows], subject.label[rows], subject.level)


def contours(subject: Subject) -> str:
    """Lines of equal loss over parameters and samples, the runs, and the compute-optimal path with its interval."""
    places = [(o.params, o.samples) for o in subject.path if o.params and o.samples]
    n, d = subject.x[:, 0], subject.x[:, 1]
    chart = Chart(
        f"Equal {subject.metric} over parameters and samples",
        span([*map(float, n), *(p.value for p, _ in places)], log=True),
        span([*map(float, d), *(s.value for _, s in places)], log=True),
        UNITS["params"],
        UNITS["samples"],
        log_x=True,
        log_y=True,
        height=420,
    )
    if places:
        edge = [(p.low, s.high) for p, s in places] + [(p.high, s.low) for p, s in reversed(places)]
        chart.area(edge, "band path")
    _draw_contours(chart, subject)
    subject.draw_runs(chart, n, d, subject.shade)
    _draw_law(chart, [(p.value, s.value) for p, s in places], *_seen(subject, places))
    return chart.render()


def _seen(subject: Subject, places: Sequence[tuple[Estimate, Estimate]]) -> Pair:
    """Between which params of the path its budgets were paid by runs."""
    params = [o.params.value for o in subject.path if o.params and o.compute <= subject.cost.max() * 1.001]
    return (min(params), max(params)) if params else (places[0][0].value, places[-1][0].value) if places else (1.0, 1.0)


def _draw_contours(chart: Chart, subject: Subject) -> None:
    """Loss falls with samples, so each level has one amount of samples at each size, or none."""
    n, d = np.geomspace(*chart.x, FINE), np.geomspace(*chart.y, FINE)
    place = np.stack(np.meshgrid(n, d, indexing="ij"), axis=-1).reshape(-1, 2)
    loss = np.log(subject.mean(place)).reshape(FINE, FINE)
    low, high = loss.min(), loss.max()
    for level in np.linspace(low, high, LEVELS + 2)[1:-1]:
        line = [
            (float(size), float(np.exp(np.interp(-level, -row, np.log(d)))))
            for size, row in zip(n, loss, strict=True)
            if row[-1] <= level <= row[0]
        ]
        if len(line) < 2:
            continue
        chart.line(line, "contour")
        end = line[-1]
        words = f"{math.exp(level):.3g}"
        chart.words(end[0], end[1], words, "contour", anchor="end")


__all__ = [
    "IsoFlop",
    "Subject",
    "against_compute",
    "against_one",
    "against_samples",
    "back_tests",
    "contours",
    "iso_flop",
    "iso_flops",
    "residuals",
]
