"""A metric reads the same everywhere: shares in per cent and points, all others in their own unit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise import words
from sizewise.records import Estimate, Metric

ACCURACY = Metric("accuracy")
WER = Metric("word error rate", higher=False)
MSE = Metric("MSE", higher=False, share=False, margin=0.02)
BLEU = Metric("BLEU", share=False, margin=0.5)
GAIN = Estimate(-0.0013, -0.0025, 0.0001, 0.95, "made", 5)


def test_scores() -> None:
    assert words.score(0.9865, ACCURACY) == "98.65%"
    assert words.score(1.8342, MSE) == "1.8342"


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        (ACCURACY, 0.9786, "97.86% validation accuracy"),
        (WER, 0.05, "5.00% validation word error rate"),
        (MSE, 0.0231, "validation MSE 0.0231"),
        (BLEU, 21.5, "validation BLEU 21.5000"),
    ],
)
def test_a_validation_score_has_its_metrics_name(metric: Metric, value: float, said: str) -> None:
    assert words.validated(value, metric) == said


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [(ACCURACY, 0.005, "0.5 points"), (WER, 0.02, "2 points"), (MSE, 0.02, "0.02 MSE"), (BLEU, 0.5, "0.5 BLEU")],
)
def test_a_margin_is_said_in_the_metrics_unit(metric: Metric, value: float, said: str) -> None:
    assert words.amount(value, metric) == said


def test_differences_have_their_interval_and_unit() -> None:
    assert words.difference(GAIN, ACCURACY) == "-0.13 [-0.25, +0.01] points"
    assert words.difference(GAIN, ACCURACY, sign=False) == "-0.13 [-0.25, 0.01] points"
    assert words.difference(GAIN, MSE) == "-0.0013 [-0.0025, +0.0001] MSE"
    assert words.interval(GAIN, WER) == "-0.13 [-0.25, +0.01]"


def test_half_widths() -> None:
    assert words.about(0.00371, ACCURACY) == "0.37 points"
    assert words.about(0.0123, MSE) == "0.012 MSE"


@pytest.mark.parametrize(
    ("metric", "said"),
    [(ACCURACY, "an error"), (Metric("F1"), "a 1 - F1"), (WER, "a word error rate"), (MSE, "an MSE")],
)
def test_what_a_law_of_the_error_speaks_of(metric: Metric, said: str) -> None:
    assert words.error(metric) == said


@given(st.floats(-1, 1), st.floats(0, 0.5), st.sampled_from([ACCURACY, WER]))
def test_points_are_a_hundredth_of_the_share(value: float, half: float, metric: Metric) -> None:
    e = Estimate(value, value - half, value + half, 0.95, "made", 5)
    numbers = [float(text) for text in re.findall(r"[-+][\d.]+", words.difference(e, metric))]
    assert numbers == pytest.approx([100 * e.value, 100 * e.low, 100 * e.high], abs=0.00501)


@given(st.floats(-9, 9), st.floats(-9, 9), st.sampled_from([ACCURACY, WER, MSE, BLEU]))
def test_a_gain_is_positive_when_a_is_better(a: float, b: float, metric: Metric) -> None:
    assert (metric.gain(a, b) > 0) == ((a > b) if metric.higher else (a < b))
    assert metric.gain(a, b) == -metric.gain(b, a)
