"""What is recommended is shown, fits the budget, and is never said to be more than it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewise.config import Compress
from sizewise.errors import UsageError
from sizewise.methods import Prune, Quantize
from sizewise.recommend import confirmation, recommend, warnings
from sizewise.records import Budget, Candidate, Measurement, Recommendation
from tests.builders import PARENT, around, measurement

RUNTIME = replace(PARENT, name="width8-trained-onnxruntime-fp32", runtime="onnxruntime")
INT8 = replace(
    PARENT, name="width8-trained-onnxruntime-int8", runtime="onnxruntime", precision="int8", chain=(Quantize(),)
)
SMALL = replace(PARENT, name="width4-distilled-onnxruntime-fp32", run="run-of-width4", width=4, runtime="onnxruntime")


def fast(candidate: Candidate, throughput: float, lost: float = 0.0, half: float = 0.0, **changed: Any) -> Measurement:
    """A candidate with this throughput, whose validation accuracy is `lost` ± `half` below the parent's."""
    return measurement(candidate, throughput=around(throughput), validation_drop=around(lost, half), **changed)


def decide(*made: Measurement, budget: Budget | None = None, **options: Any) -> Recommendation:
    return recommend(made, PARENT, Compress(**{"max_drop": 0.003} | options), budget or Budget())


def test_the_fastest_of_what_is_shown_is_shipped() -> None:
    found = decide(fast(PARENT, 1000), fast(RUNTIME, 3000), fast(SMALL, 5000, lost=0.001, half=0.001))
    assert found.name == SMALL.name
    assert found.met
    assert "shown to be within 0.3 points" in found.sentence


def test_a_faster_one_whose_loss_is_not_shown_is_not_shipped() -> None:
    found = decide(fast(PARENT, 1000), fast(RUNTIME, 3000), fast(SMALL, 5000, lost=0.001, half=0.004))
    assert found.name == RUNTIME.name
    assert "with the chosen weights at full precision" in found.sentence


def test_the_chosen_weights_at_full_precision_have_nothing_to_show() -> None:
    """The interval of no difference at all is wider than the limit on a small validation split."""
    found = decide(fast(PARENT, 1000, half=0.01), fast(RUNTIME, 3000, half=0.01))
    assert found.name == RUNTIME.name


def test_int8_of_the_chosen_weights_has() -> None:
    assert decide(fast(PARENT, 1000), fast(INT8, 9000, half=0.01)).name == PARENT.name


def test_when_the_budget_leaves_nothing_shown_the_sentence_says_unproven() -> None:
    small = fast(SMALL, 5000, lost=0.001, half=0.004, size_bytes=1000)
    found = decide(fast(PARENT, 1000), small, budget=Budget(max_size_bytes=5000))
    assert found.name == SMALL.name
    assert found.met
    assert "cannot prove a loss within 0.3 points" in found.sentence


def test_when_everything_loses_too_much_it_is_said() -> None:
    small = fast(SMALL, 5000, lost=0.02, half=0.004, size_bytes=1000)
    found = decide(fast(PARENT, 1000), small, budget=Budget(max_size_bytes=5000))
    assert found.name == SMALL.name
    assert "Every candidate loses more than 0.3 points" in found.sentence


def test_a_budget_that_nothing_meets_is_unmet() -> None:
    found = decide(fast(PARENT, 1000), fast(RUNTIME, 3000), budget=Budget(max_size_bytes=5))
    assert not found.met
    assert found.name == RUNTIME.name
    assert found.sentence.startswith("No candidate meets the budget")


@pytest.mark.parametrize(
    "budget",
    [
        Budget(max_params=4999),
        Budget(max_size_bytes=19_999),
        Budget(max_memory_bytes=299_999_999),
        Budget(max_latency_ms=1.09),
        Budget(max_latency_p99_ms=2.19),
        Budget(min_score=0.981),
    ],
)
def test_each_limit_excludes_what_is_just_beyond_it(budget: Budget) -> None:
    assert not decide(fast(PARENT, 1000), budget=budget).met


@pytest.mark.parametrize(
    "budget",
    [
        Budget(max_params=5000),
        Budget(max_size_bytes=20_000),
        Budget(max_memory_bytes=300_000_000),
        Budget(max_latency_ms=1.11),
        Budget(max_latency_p99_ms=2.21),
        Budget(min_score=0.98),
    ],
)
def test_each_limit_admits_what_just_meets_it(budget: Budget) -> None:
    assert decide(fast(PARENT, 1000), budget=budget).met


def test_a_latency_must_be_within_its_limit_with_its_whole_interval() -> None:
    """1.0 ± 0.1 ms is not shown to take less than 1.05 ms."""
    sure = fast(SMALL, 500, latency_p50_ms=around(1.04, 0.005))
    found = decide(fast(PARENT, 1000), sure, budget=Budget(max_latency_ms=1.05))
    assert found.name == SMALL.name


@pytest.mark.parametrize(
    ("goal", "better"),
    [
        ("throughput", {"throughput": around(2000)}),
        ("latency", {"latency_p50_ms": around(0.5)}),
        ("size", {"size_bytes": 10}),
        ("memory", {"peak_memory_bytes": 10}),
    ],
)
def test_the_goal_decides_among_equals(goal: str, better: dict[str, Any]) -> None:
    assert decide(measurement(PARENT), measurement(RUNTIME, **better), goal=goal).name == RUNTIME.name
    assert decide(measurement(PARENT, **better), measurement(RUNTIME), goal=goal).name == PARENT.name


def test_the_test_split_decides_nothing() -> None:
    made = [fast(PARENT, 1000), fast(SMALL, 5000, lost=0.001, half=0.001)]
    spoiled = [replace(m, test_score=around(0.1), test_drop=around(0.9), agreement=0.0) for m in made]
    assert decide(*spoiled) == decide(*made)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(UsageError, match="no candidate was measured"):
        decide()


def test_int8_that_is_slower_is_said_aloud() -> None:
    (text,) = warnings([fast(RUNTIME, 3000), fast(INT8, 2000)])
    assert "int8 is slower than fp32 on onnxruntime for 1 of these models: 0.67 to 0.67 times" in text


@pytest.mark.parametrize(
    "made",
    [
        [fast(RUNTIME, 3000), fast(INT8, 4000)],
        [fast(RUNTIME, 3000)],
        [fast(INT8, 2000), fast(SMALL, 3000)],
        [measurement(RUNTIME, throughput=around(3000, 900)), measurement(INT8, throughput=around(2500, 900))],
    ],
)
def test_int8_that_is_not_shown_to_be_slower_is_not(made: list[Measurement]) -> None:
    assert warnings(made) == ()


def test_what_is_slower_than_the_chosen_model_is_labelled() -> None:
    slow = measurement(replace(SMALL, name="slow"), throughput_ratio=around(0.7, 0.1))
    open_ = measurement(SMALL, throughput_ratio=around(0.95, 0.1))
    (text,) = warnings([fast(PARENT, 1000), slow, open_])
    assert "1 of 3 candidates are slower than the chosen model in PyTorch, the slowest slow at 0.70" in text


@pytest.mark.parametrize(
    ("lost", "half", "said"),
    [
        (0.0, 0.002, "confirms it"),
        (0.01, 0.002, "contradicts it"),
        (0.001, 0.004, "neither confirms it nor contradicts"),
    ],
)
def test_the_test_split_confirms_or_contradicts_once(lost: float, half: float, said: str) -> None:
    pruned = replace(SMALL, chain=(Prune(0.5),))
    assert said in confirmation(measurement(pruned, test_drop=around(lost, half)), 0.003)


def test_the_chosen_weights_have_nothing_to_confirm() -> None:
    assert confirmation(measurement(RUNTIME, test_drop=around(0.5)), 0.003) == ""
