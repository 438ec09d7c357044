"""Scores and their differences in words: one place, so that a metric reads the same everywhere."""

from __future__ import annotations

from sizewise.records import Estimate, Metric


def score(value: float, metric: Metric) -> str:
    """`98.65%`, or `1.8342` of a metric that is no share."""
    return f"{value:.2%}" if metric.share else f"{value:.4f}"


def validated(value: float, metric: Metric) -> str:
    """A validation score with the metric's name: `98.65% validation accuracy`, or `validation MSE 0.0231`."""
    if metric.share:
        return f"{score(value, metric)} validation {metric.name}"
    return f"validation {metric.name} {score(value, metric)}"


def unit(metric: Metric) -> str:
    """The unit of differences."""
    return "points" if metric.share else metric.name


def amount(value: float, metric: Metric) -> str:
    """A difference that is certain, such as a margin: `0.5 points`."""
    if not metric.share:
        return f"{value:.3g} {metric.name}"
    points = f"{100 * value:g}"
    return f"{points} point" if points == "1" else f"{points} points"


def about(value: float, metric: Metric) -> str:
    """A measured difference without an interval, such as a half-width: `0.37 points`."""
    return f"{100 * value:.2f} points" if metric.share else f"{value:.2g} {metric.name}"


def interval(e: Estimate, metric: Metric, *, sign: bool = True) -> str:
    """A difference with its interval and no unit: `-0.13 [-0.25, +0.01]`."""
    scale, digits = (100, 2) if metric.share else (1, 4)
    plus = "+" if sign else ""
    value, low, high = (f"{scale * v:{plus}.{digits}f}" for v in (e.value, e.low, e.high))
    return f"{value} [{low}, {high}]"


def difference(e: Estimate, metric: Metric, *, sign: bool = True) -> str:
    """A difference with its interval and unit: `-0.13 [-0.25, +0.01] points`."""
    return f"{interval(e, metric, sign=sign)} {unit(metric)}"


def error(metric: Metric) -> str:
    """What laws of the error speak of: what is missing to a perfect score."""
    if metric.name == "accuracy":
        return "an error"
    if metric.higher:
        return f"a 1 - {metric.name}"
    vowels = "AEFHILMNORSX" if metric.name.isupper() else "aeiou"  # abbreviations are spelt: an MSE
    return f"{'an' if metric.name[0] in vowels else 'a'} {metric.name}"
