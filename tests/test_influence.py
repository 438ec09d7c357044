"""Influence values have the metric as their mean, and scatter as the metric does over samples of examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sizewise.records import Signature
from sizewise.tasks import Split
from sizewise.tasks.problems import Judged, make
from sizewise.tasks.problems.influence import area_under_curve, jackknife, ratio

Array = NDArray[np.float64]

EXAMPLES = 400


def judged(logits: Array, y: NDArray[np.int64], classes: int) -> Judged:
    problem = make(Signature("classification", (1, 8, 8), classes), "abcd"[:classes])
    return problem.judge(logits, Split(np.empty((len(y), 0)), y))


def guesses(seed: int, classes: int, examples: int = EXAMPLES) -> tuple[Array, NDArray[np.int64]]:
    """Logits that are right more often than not, and a rare last class."""
    rng, shares = np.random.default_rng(seed), np.array([0.5, 0.35, 0.15, 0.1])[:classes]
    y = rng.choice(classes, examples, p=shares / shares.sum())
    y[:classes] = np.arange(classes)
    return 1.2 * np.eye(classes)[y] + rng.normal(size=(examples, classes)), y


def f1_of(y: NDArray[np.int64], said: NDArray[np.int64], classes: int) -> Callable[[NDArray[np.intp]], float]:
    """Macro F1 of the examples at some positions."""

    def f1(rows: NDArray[np.intp]) -> float:
        counts = np.bincount(classes * y[rows] + said[rows], minlength=classes**2).reshape(classes, classes)
        return float((2 * counts.diagonal() / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)).mean())

    return f1


def standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def bootstrap(statistic: Callable[[NDArray[np.intp]], float], examples: int, draws: int = 1000) -> float:
    """Standard deviation of a statistic over samples of examples with replacement."""
    rng = np.random.default_rng(0)
    return float(np.std([statistic(rng.integers(0, examples, examples)) for _ in range(draws)], ddof=1))


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 4), examples=st.integers(8, 200))
@settings(max_examples=60, deadline=None)
def test_the_mean_of_every_metrics_values_is_the_metric(seed: int, classes: int, examples: int) -> None:
    found = judged(*guesses(seed, classes, examples), classes)
    assert found.examples.keys() == {"accuracy", "F1", "AUROC"}
    for name, values in found.examples.items():
        assert values.shape == (examples,)
        assert values.mean() == pytest.approx(found.values[name], abs=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_standard_error_of_f1_is_the_bootstraps(classes: int) -> None:
    logits, y = guesses(1, classes)
    found, f1 = judged(logits, y, classes), f1_of(y, logits.argmax(axis=1), classes)
    assert f1(np.arange(len(y))) == pytest.approx(found.values["F1"])
    assert standard_error(found.examples["F1"]) == pytest.approx(bootstrap(f1, len(y)), rel=0.1)


def test_the_cells_of_the_confusion_matrix_give_the_jackknife_of_single_examples() -> None:
    logits, y = guesses(2, 3, 150)
    values = jackknife(f1_of(y, logits.argmax(axis=1), 3), len(y))
    np.testing.assert_allclose(judged(logits, y, 3).examples["F1"], values, atol=1e-9)


def test_the_area_is_scikit_learns() -> None:
    logits, y = guesses(3, 2)
    area = roc_auc_score(y, logits[:, 1] - logits[:, 0])
    assert judged(logits, y, 2).values["AUROC"] == pytest.approx(area)


def test_the_area_of_several_classes_is_scikit_learns_one_against_rest() -> None:
    logits, y = guesses(4, 4)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    area = roc_auc_score(y, shares, multi_class="ovr", average="macro")
    assert judged(logits, y, 4).values["AUROC"] == pytest.approx(area)


@given(
    positive=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    negative=st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_ties_count_half(positive: list[int], negative: list[int]) -> None:
    score = np.array([*positive, *negative], float)
    truth = np.arange(len(score)) < len(positive)
    pairs = np.subtract.outer(positive, negative)
    expected = float(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert area_under_curve(score, truth).mean() == pytest.approx(expected)
    assert expected == pytest.approx(roc_auc_score(truth, score))


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_the_variance_of_the_area_is_delongs(share: float) -> None:
    """Their formula written out: the variances of the two kinds' placements over their numbers (equations 4 and 5)."""
    rng = np.random.default_rng(5)
    truth = rng.random(EXAMPLES) < share
    score = rng.normal(size=EXAMPLES) + truth
    above = (score[truth][:, None] > score[~truth][None, :]).astype(float)
    v10, v01 = above.mean(axis=1), above.mean(axis=0)
    delong = v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)
    assert standard_error(area_under_curve(score, truth)) ** 2 == pytest.approx(delong, rel=0.03)


def test_the_variance_of_a_difference_of_areas_is_delongs() -> None:
    """What a paired comparison rests on: the covariance of two models on the same examples counts."""
    rng = np.random.default_rng(6)
    truth = rng.random(EXAMPLES) < 0.4
    shared = rng.normal(size=EXAMPLES) + truth
    a, b = (shared + 0.5 * rng.normal(size=EXAMPLES) for _ in range(2))
    placements = [
        (above.mean(axis=1), above.mean(axis=0))
        for above in ((score[truth][:, None] > score[~truth][None, :]).astype(float) for score in (a, b))
    ]
    (a10, a01), (b10, b01) = placements
    delong = (a10 - b10).var(ddof=1) / len(a10) + (a01 - b01).var(ddof=1) / len(a01)
    difference = area_under_curve(a, truth) - area_under_curve(b, truth)
    assert standard_error(difference) ** 2 == pytest.approx(delong, rel=0.03)


def test_the_standard_error_of_a_ratio_is_the_bootstraps() -> None:
    """A word error rate: errors over words, of sentences of different lengths."""
    rng = np.random.default_rng(7)
    words = rng.integers(1, 30, EXAMPLES).astype(float)
    wrong = rng.binomial(words.astype(int), 0.2).astype(float)
    values = ratio(wrong, words)
    assert values.mean() == pytest.approx(wrong.sum() / words.sum())
    spread = bootstrap(lambda rows: float(wrong[rows].sum() / words[rows].sum()), EXAMPLES)
    assert standard_error(values) == pytest.approx(spread, rel=0.1)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_the_jackknife_of_a_mean_is_the_values_themselves(values: list[float]) -> None:
    x = np.array(values)
    np.testing.assert_allclose(jackknife(lambda rows: float(x[rows].mean()), len(x)), x, atol=1e-9)


@pytest.mark.parametrize("groups", [50, 200])
def test_groups_of_examples_give_the_same_standard_error(groups: int) -> None:
    """Of thousands of sentences not each is left out alone: that would score the rest thousands of times."""
    x = np.random.default_rng(8).exponential(size=2000)
    values = jackknife(lambda rows: float(np.log(x[rows].mean())), len(x), groups)
    assert values.mean() == pytest.approx(np.log(x.mean()))
    exact = jackknife(lambda rows: float(np.log(x[rows].mean())), len(x), groups=len(x))
    assert standard_error(exact) == pytest.approx(x.std() / x.mean() / np.sqrt(len(x)), rel=0.01)
    assert standard_error(values) == pytest.approx(standard_error(exact), rel=0.25)


def test_one_example_has_no_scatter() -> None:
    assert jackknife(lambda rows: 3.0, 1).tolist() == [3.0]
