"""How numbers look on the page: one place, so that the same number looks the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sizewise.records import Estimate, Metric

MISSING = "–"

Kind = Literal["percent", "points", "latency", "count", "number", "loss", "times", "duration", "quantity", "change"]

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "kappa": "κ", "epsilon": "ε", "lambda": "λ"}


@dataclass(frozen=True)
class Shown:
    """An estimate in words.

    Attributes:
        value: with its unit.
        interval: in the unit of the value; empty where there is none, as for a single seed.
        note: level and method of the interval.
    """

    value: str
    interval: str
    note: str


def shown(e: Estimate, kind: Kind) -> Shown:
    """An estimate as the page shows it; the value decides the unit and the decimals of its interval."""
    write, unit = _writer(kind, e.value)
    exists = not (math.isnan(e.low) or math.isnan(e.high))
    low, high = (write(v) if math.isfinite(v) else "∞" if v > 0 else "-∞" for v in (e.low, e.high))
    return Shown(
        value=write(e.value) + unit if math.isfinite(e.value) else MISSING,
        interval=f"[{low}, {high}]" if exists else "",
        note=f"{100 * e.level:.0f}% interval, {e.method}" if exists else e.method,
    )


def score_kind(metric: Metric) -> Kind:
    """How scores of a metric are written."""
    return "percent" if metric.share else "loss"


def gain_kind(metric: Metric) -> Kind:
    """How differences of a metric are written."""
    return "points" if metric.share else "change"


def _writer(kind: Kind, value: float) -> tuple[Callable[[float], str], str]:
    """How to write numbers of this kind near `value`, and their unit."""
    writers: dict[Kind, tuple[Callable[[float], str], str]] = {
        "percent": (lambda v: f"{100 * v:.2f}", "%"),
        "points": (lambda v: f"{100 * v:+.2f}", ""),
        "count": (lambda v: f"{v:,.0f}", ""),
        "number": (_fixed(value, 3), ""),
        "loss": (_fixed(value, 4), ""),
        "times": (_fixed(value, 2), " ×"),
        "duration": (_fixed(value, 2), " s"),
        "quantity": (quantity, ""),
        "change": (lambda v: f"{v:+.4f}", ""),
    }
    if kind != "latency":
        return writers[kind]
    factor, unit = (1e3, " µs") if value < 1 else (1.0, " ms")
    fixed = _fixed(factor * value, 3)
    return (lambda v: fixed(factor * v)), unit


def _fixed(near: float, digits: int) -> Callable[[float], str]:
    """Writes numbers with the decimals that give `near` that many significant digits."""
    places = _decimals(near, digits)
    return lambda v: f"{v:,.{places}f}"


def _decimals(value: float, digits: int) -> int:
    """How many decimals show `digits` significant digits of a value."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(digits - 1 - math.floor(math.log10(abs(value))), 0)


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, thousands separated."""
    return f"{value:,.{_decimals(value, digits)}f}" if math.isfinite(value) else MISSING


def p_value(value: float) -> str:
    """A p-value with two digits, or that it is below a thousandth."""
    if not math.isfinite(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def quantity(value: float, digits: int = 3) -> str:
    """A number of any magnitude: 0.348, 5.76k, 3.07G, 1.01·10²¹."""
    if value == 0 or 1e-3 <= abs(value) < 1e12:
        return _scaled(value, digits)
    return power(value, digits) if math.isfinite(value) else MISSING


def power(value: float, digits: int = 3) -> str:
    """A number as a multiple of a power of ten: 3.07·10²¹, 10²¹."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    raised = "10" + str(int(exponent)).translate(_RAISED)
    return raised if float(mantissa) == 1 else f"{float(mantissa):g}·{raised}"


def short(value: float) -> str:
    """A count for an axis or a label: 262, 5.8k, 694k, 1.2M, 3·10²¹."""
    return power(value) if abs(value) >= 1e12 else _scaled(value, 3)


def _scaled(value: float, digits: int) -> str:
    value = float(f"{value:.{digits}g}")  # first, so that 999,999 is 1M and not 1,000k
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def size(value: float) -> str:
    """Bytes in decimal units."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} bytes"


def percent(value: float) -> str:
    """A share in percent, two decimals."""
    return f"{100 * value:.2f}%" if math.isfinite(value) else MISSING


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def greek(words: str) -> str:
    """Names of Greek letters as the letters."""
    for name, letter in GREEK.items():
        words = words.replace(name, letter)
    return words


def counted(count: int, noun: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sentence(words: str) -> str:
    """The words with a capital at the start and a full stop at the end."""
    return words[:1].upper() + words[1:].rstrip(".") + "."
