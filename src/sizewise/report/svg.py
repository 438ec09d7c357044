"""Small charts as SVG text: scales, axes and marks, coloured by the page's style sheet.

A chart maps data to a fixed viewBox and scales with the page. Nothing here knows what the data means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Literal

from sizewise.report.format import short

Pair = tuple[float, float]

RIGHT, BELOW = 16, 46
"""Pixels right of the plot and below it."""


@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to pixels between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        a, b, v = self.low, self.high, value
        if self.log:
            a, b, v = math.log(a), math.log(b), math.log(max(v, 1e-300))
        share = (v - a) / (b - a) if b > a else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the range: few where it is long, more digits where a logarithmic one is short."""
        if self.log:
            return self._log_ticks(count)
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * i for i in range(first, last + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), tuple(range(1, 10))):
            found = [f * 10.0**e for e in exponents for f in factors]
            found = [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
            if len(found) >= min(count, 3):
                return found
        return replace(self, log=False).ticks(count)  # less than a few units: there a logarithm is nearly straight


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    return power * next(f for f in (1, 2, 5, 10) if f * power >= raw * 0.999)


def span(values: Sequence[float], *, log: bool = False, pad: float = 0.06) -> Pair:
    """Range of the finite values with some air around it."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0, 10.0]
    low, high = min(finite), max(finite)
    if log:
        air = (high / low) ** pad if high > low else 1.5
        return low / air, high * air
    air = pad * (high - low) or abs(high) * 0.1 or 1.0
    return low - air, high + air


@dataclass
class Chart:
    """A chart under construction: marks are added, then `render` joins them.

    Args:
        title: said to those who cannot see the chart.
        x, y: ranges of the data.
        log_x, log_y: logarithmic axes.
        top: pixels above the plot, where the y label and `flag` write.
        y_names: names of the rows 0, 1, ... of a chart whose y is a list and not a quantity.
    """

    title: str
    x: Pair
    y: Pair
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    width: int = 480
    height: int = 320
    left: int = 50
    top: int = 34
    x_ticks: int = 5
    percent_y: bool = False
    y_names: tuple[str, ...] = ()
    marks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.right, self.bottom = self.width - RIGHT, self.height - BELOW
        self.at_x = Scale(*self.x, self.left, self.right, self.log_x)
        self.at_y = Scale(*self.y, self.bottom, self.top, self.log_y)

    def dot(self, x: float, y: float, style: str, *, radius: float = 3, shape: str = "circle", tip: str = "") -> None:
        """A point; `shape` is a key of OUTLINES, `tip` shows when the pointer rests on it."""
        if math.isfinite(x) and math.isfinite(y):
            self._mark(self.at_x(x), self.at_y(y), style, radius, shape, tip)

    def _mark(self, px: float, py: float, style: str, radius: float, shape: str, tip: str) -> None:
        title = f"<title>{escape(tip)}</title>" if tip else ""
        outline = OUTLINES[shape]
        if outline is None:
            self.marks.append(f'<circle class="{style}" cx="{px:.1f}" cy="{py:.1f}" r="{radius}">{title}</circle>')
        else:
            path = " ".join(f"{px + radius * dx:.1f},{py + radius * dy:.1f}" for dx, dy in outline)
            self.marks.append(f'<polygon class="{style}" points="{path}">{title}</polygon>')

    def bar(self, x: float, low: float, high: float, style: str) -> None:
        """A vertical interval at x."""
        if all(map(math.isfinite, (x, low, high))):
            px, a, b = self.at_x(x), self.at_y(self._inside(low)), self.at_y(self._inside(high))
            self.marks.append(f'<line class="{style}" x1="{px:.1f}" y1="{a:.1f}" x2="{px:.1f}" y2="{b:.1f}"/>')

    def across(self, y: float, low: float, high: float, style: str) -> None:
        """A horizontal interval at y."""
        if all(map(math.isfinite, (y, low, high))):
            py, a, b = self.at_y(y), self.at_x(low), self.at_x(high)
            self.marks.append(f'<line class="{style}" x1="{a:.1f}" y1="{py:.1f}" x2="{b:.1f}" y2="{py:.1f}"/>')

    def line(self, points: Sequence[Pair], style: str) -> None:
        """A line through the points that are numbers."""
        path = self._path(points)
        if path:
            self.marks.append(f'<polyline class="{style}" points="{path}"/>')

    def band(self, points: Sequence[tuple[float, float, float]], style: str) -> None:
        """The area between (x, low) and (x, high)."""
        forth = [(x, low) for x, low, _ in points]
        back = [(x, high) for x, _, high in reversed(points)]
        self.marks.append(f'<polygon class="{style}" points="{self._path([*forth, *back])}"/>')

    def area(self, points: Sequence[Pair], style: str) -> None:
        """The area inside a closed line."""
        inside = [(max(min(x, self.x[1]), self.x[0]), y) for x, y in points]
        self.marks.append(f'<polygon class="{style}" points="{self._path(inside)}"/>')

    def words(
        self, x: float, y: float, words: str, style: str, *, anchor: Literal["start", "end"] = "start", gap: float = 5
    ) -> None:
        """Words beside a place, `gap` pixels after it, or before it with the anchor at their end."""
        late = gap if anchor == "start" else -gap
        self.marks.append(_text(self.at_x(x) + late, self.at_y(self._inside(y)) + 4, words, style, anchor))

    def flag(self, x: float, words: str, style: str, *, foot: float | None = None, row: int = 0) -> None:
        """Words above the plot and a vertical line from them down to `foot`, or to the axis.

        Args:
            row: line of text, 0 nearest to the plot, so that flags close together do not collide.
        """
        px, head = self.at_x(x), self.top - 6 - 15 * row
        end = self.bottom if foot is None else self.at_y(foot)
        late = px > (self.left + self.right) / 2
        self.marks.append(
            f'<line class="{style}" x1="{px:.1f}" y1="{head - 9}" x2="{px:.1f}" y2="{end:.1f}"/>'
            f'<text class="{style}" x="{px + (-5 if late else 5):.1f}" y="{head}" '
            f'text-anchor="{"end" if late else "start"}">{escape(words)}</text>'
        )

    def render(self) -> str:
        """The chart as one `<svg>` element."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">'
            f"{self._axes()}{''.join(self.marks)}</svg>"
        )

    def _inside(self, y: float) -> float:
        return max(min(y, self.y[1]), self.y[0])

    def _path(self, points: Sequence[Pair]) -> str:
        inside = [(x, self._inside(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        return " ".join(f"{self.at_x(x):.1f},{self.at_y(y):.1f}" for x, y in inside)

    def _y_labels(self) -> list[tuple[float, str]]:
        if self.y_names:
            return [(float(row), name) for row, name in enumerate(self.y_names)]
        ticks = self.at_y.ticks()
        return [(tick, f"{100 * tick:.3g}%" if self.percent_y else short(tick)) for tick in ticks]

    def _axes(self) -> str:
        parts = [*self._y_axis(), *self._x_axis()]
        if self.x_label:
            middle = (self.left + self.right) / 2
            parts.append(_text(middle, self.height - 8, self.x_label, "label", "middle"))
        if self.y_label:
            parts.append(_text(0, 12, self.y_label, "label", "start"))
        return "".join(parts)

    def _y_axis(self) -> Iterator[str]:
        for tick, label in self._y_labels():
            py = self.at_y(tick)
            yield f'<line class="grid" x1="{self.left}" y1="{py:.1f}" x2="{self.right}" y2="{py:.1f}"/>'
            yield _text(self.left - 9, py + 4, label, "tick", "end")

    def _x_axis(self) -> Iterator[str]:
        for tick in self.at_x.ticks(self.x_ticks):
            px = self.at_x(tick)
            yield f'<line class="grid" x1="{px:.1f}" y1="{self.top}" x2="{px:.1f}" y2="{self.bottom}"/>'
            yield _text(px, self.bottom + 17, short(tick), "tick", "middle")
        yield f'<line class="axis" x1="{self.left}" y1="{self.bottom}" x2="{self.right}" y2="{self.bottom}"/>'


def glyph(shape: str, style: str) -> str:
    """A mark of a chart as an `<svg>` of its own, for a legend."""
    outline = OUTLINES[shape]
    path = " ".join(f"{5 * dx:.1f},{5 * dy:.1f}" for dx, dy in outline or ())
    mark = f'<polygon class="{style}" points="{path}"/>' if outline else f'<circle class="{style}" r="5"/>'
    return f'<svg class="glyph" viewBox="-7 -7 14 14" aria-hidden="true">{mark}</svg>'


def _text(x: float, y: float, words: str, style: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


OUTLINES: dict[str, list[Pair] | None] = {
    "circle": None,
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
    "triangle": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
    "inverted": [(0, 1.2), (1.1, -0.9), (-1.1, -0.9)],
    "left": [(-1.3, 0), (0.9, -1.1), (0.9, 1.1)],
    "right": [(1.3, 0), (-0.9, 1.1), (-0.9, -1.1)],
    "hourglass": [(-1.1, -1.1), (1.1, -1.1), (-1.1, 1.1), (1.1, 1.1)],
    "pentagon": [(0, -1.2), (1.14, -0.37), (0.71, 0.97), (-0.71, 0.97), (-1.14, -0.37)],
    "hexagon": [(-1.2, 0), (-0.6, -1.0), (0.6, -1.0), (1.2, 0), (0.6, 1.0), (-0.6, 1.0)],
    "cross": [
        (-0.4, -1.2),
        (0.4, -1.2),
        (0.4, -0.4),
        (1.2, -0.4),
        (1.2, 0.4),
        (0.4, 0.4),
        (0.4, 1.2),
        (-0.4, 1.2),
        (-0.4, 0.4),
        (-1.2, 0.4),
        (-1.2, -0.4),
        (-0.4, -0.4),
    ],
}
