"""The smallest size that does the job, on made sweeps whose truth is known; and no claim beyond its interval."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sizewise.choose import choose, meets_min_score
from sizewise.errors import BudgetError, UsageError
from sizewise.records import Budget, Choice, Run
from sizewise.store import Store
from tests.builders import labels, publish, sweep

Y = labels(1000)
MARGIN = 0.005  # five of these thousand examples

PLATEAU = {2: [90, 94, 92, 91, 93], 4: [42, 44, 43, 41, 45], 8: [21, 20, 22, 19, 20], 16: [20, 19, 20, 20, 19]}
"""Errors of each width's five seeds: 8 equals 16, and 4 is clearly worse."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def decide(store: Store, wrong: dict[int, list[int]], budget: Budget | None = None, seconds: float = 1.0) -> Choice:
    return choose(sweep(store, Y, wrong, seconds=seconds), store, margin=MARGIN, budget=budget)


def test_a_plateau_gives_its_smallest_size(store: Store) -> None:
    choice = decide(store, PLATEAU)
    assert (choice.width, choice.reference, choice.status) == (8, 16, "supported")
    assert choice.next_run is None
    assert [c.a for c in choice.comparisons] == ["width 8", "width 4", "width 2"]
    assert re.match(r"width 4 is worse than width (8|16) by more than 0.5 points: -2", choice.reasons[0])


def test_the_best_is_chosen_when_the_next_smaller_is_clearly_worse(store: Store) -> None:
    """The best lies inside the ladder, so nothing larger is promised to be better."""
    choice = decide(store, {2: [90, 92, 91], 4: [60, 61, 59], 8: [20, 21, 19], 16: [22, 23, 21]})
    assert (choice.width, choice.reference, choice.status) == (8, 8, "supported")
    assert "width 4 is worse than width 8 by more than 0.5 points" in choice.reasons[0]


def test_a_size_must_hold_against_the_best_even_when_the_largest_is_bad(store: Store) -> None:
    """Training went wrong at the largest width. That makes the small ones no better."""
    choice = decide(store, {2: [90, 92, 91], 4: [60, 61, 59], 8: [20, 21, 19], 16: [667, 667, 667]})
    assert (choice.width, choice.reference, choice.status) == (8, 8, "supported")


def test_a_small_size_that_is_best_by_luck_is_not_chosen(store: Store) -> None:
    """Its mean is the highest, but two of its three seeds say nothing of the kind."""
    choice = decide(store, {4: [5, 26, 24], 8: [20, 19, 21]})
    assert (choice.width, choice.reference, choice.status) == (8, 4, "undetermined")


def test_a_best_that_is_the_largest_and_still_rising_is_extrapolated(store: Store) -> None:
    choice = decide(store, {2: [90, 92, 91], 4: [60, 61, 59], 8: [20, 21, 19]})
    assert (choice.width, choice.status) == (8, "extrapolated")
    assert "still better than the one before" in choice.sentence


def test_noise_leaves_the_choice_undetermined_and_names_the_next_run(store: Store) -> None:
    choice = decide(store, {4: [20, 40, 24], 8: [22, 24, 20]}, seconds=2.0)
    assert (choice.width, choice.status) == (8, "undetermined")
    assert choice.next_run is not None
    assert choice.next_run.widths[0] == 4
    assert 1 <= choice.next_run.seeds <= 20
    assert choice.next_run.seconds == pytest.approx(choice.next_run.seeds * 2 * 2.0)  # both widths, two seconds a run


def test_a_nearly_settled_question_asks_for_fewer_seeds_than_a_wide_open_one(store: Store) -> None:
    nearly = decide(store, {4: [25, 22, 24, 26, 23], 8: [22, 20, 21, 20, 21]})
    assert nearly.next_run is not None
    assert nearly.next_run.seeds < 20


def test_the_walk_stops_at_the_first_undecided_size(store: Store) -> None:
    """Width 2 looks as good as the best, but between them lies a size that nothing is known about."""
    choice = decide(store, {2: [20, 19, 21], 4: [10, 45, 20], 8: [20, 21, 19], 16: [19, 20, 19]})
    assert (choice.width, choice.status) == (8, "supported")
    assert "width 4 is neither shown" in choice.reasons[0]
    assert choice.next_run is not None
    assert choice.next_run.widths[0] == 4


def test_of_equal_sizes_the_smallest_is_chosen(store: Store) -> None:
    choice = decide(store, {2: [20, 21, 19], 4: [20, 21, 19], 8: [20, 21, 19]})
    assert (choice.width, choice.reference, choice.status) == (2, 8, "supported")
    assert "no smaller size was trained" in choice.reasons[0]


def test_a_budget_is_compared_with_the_best_that_it_allows(store: Store) -> None:
    """Widths have 100 parameters a unit: 8 and 16 do not fit, and 2 is as good as 4."""
    choice = decide(
        store, {2: [60, 62, 61], 4: [60, 61, 60], 8: [20, 20, 21], 16: [20, 19, 19]}, Budget(max_params=500)
    )
    assert (choice.width, choice.reference, choice.status) == (2, 4, "supported")
    assert "the budget excludes widths 8, 16" in choice.reasons
    assert any(reason.startswith("without the budget, width 16 would gain +4.17 [") for reason in choice.reasons)


def test_a_budget_never_makes_the_answer_extrapolated(store: Store) -> None:
    """Larger sizes were trained; they are excluded, not unknown."""
    choice = decide(store, {2: [90, 92, 91], 4: [60, 61, 59], 8: [20, 21, 19]}, Budget(max_params=400))
    assert (choice.width, choice.status) == (4, "supported")


def test_training_time_is_a_budget_too(store: Store) -> None:
    sizes = {
        width: [publish(store, Y, width=width, seed=s, wrong=100 - 10 * width, seconds=width) for s in range(3)]
        for width in (2, 4, 8)
    }
    choice = choose(sizes, store, margin=MARGIN, budget=Budget(max_train_seconds=5))
    assert choice.width == 4


@pytest.mark.parametrize("budget", [Budget(max_params=150), Budget(max_train_seconds=0.5)])
def test_an_impossible_budget_names_the_smallest_size(store: Store, budget: Budget) -> None:
    with pytest.raises(BudgetError, match=r"200 parameters and trains in 1\.0 s"):
        decide(store, PLATEAU, budget)


def test_a_smaller_size_below_the_minimum_score_is_no_choice(store: Store) -> None:
    """Width 4 is within the margin of width 8, but only width 8 reaches the score."""
    wrong = {4: [23, 22, 23, 22, 23], 8: [20, 20, 20, 20, 20]}
    assert decide(store, wrong).width == 4
    choice = decide(store, wrong, Budget(min_score=0.979))
    assert choice.width == 8
    assert meets_min_score(choice, Budget(min_score=0.979))
    assert "only size that meets the budget" in choice.sentence
    assert "width 4 has a validation accuracy of 97.74%, worse than the 97.90% asked for" in choice.reasons


def test_a_score_that_no_size_reaches_is_said(store: Store) -> None:
    budget = Budget(min_score=0.999)
    choice = decide(store, PLATEAU, budget)
    assert choice.width == 8
    assert not meets_min_score(choice, budget)
    assert "width 8 has a validation accuracy of 97.96%, worse than the 99.90% asked for" in choice.reasons


def test_a_single_seed_decides_nothing(store: Store) -> None:
    with pytest.raises(UsageError, match="two seeds"):
        decide(store, {2: [90], 4: [20]})
    with pytest.raises(UsageError, match="two seeds"):
        choose({}, store)


def test_seeds_that_only_some_sizes_have_decide_nothing(store: Store) -> None:
    sizes = {
        w: [publish(store, Y, width=w, seed=s, wrong=20) for s in seeds] for w, seeds in {2: (0, 1), 4: (1, 2)}.items()
    }
    with pytest.raises(UsageError, match="share 1"):
        choose(sizes, store)


def test_the_order_of_runs_changes_nothing(store: Store) -> None:
    sizes = sweep(store, Y, PLATEAU)
    shuffled = {width: sizes[width][::-1] for width in (4, 16, 2, 8)}
    assert choose(shuffled, store, margin=MARGIN) == choose(sizes, store, margin=MARGIN)


def test_the_width_is_represented_by_its_median_seed(store: Store) -> None:
    choice = decide(store, PLATEAU)
    run = store.run(choice.run)
    assert run.trial.width == 8
    assert run.validation.score == pytest.approx(0.98)


def test_a_diverged_seed_makes_the_choice_uncertain_not_wrong(store: Store) -> None:
    sizes = sweep(store, Y, PLATEAU)
    diverged = publish(store, Y, width=8, seed=4, wrong=667)
    choice = choose(sizes | {8: [*sizes[8][:-1], diverged]}, store, margin=MARGIN)
    assert (choice.width, choice.status) == (16, "undetermined")
    assert choice.next_run is not None


class Pool:
    """Many seeds of two widths, published once; simulated sweeps draw theirs from it.

    Both widths have the same errors in another order, so that the smaller is worse by exactly `gap` examples.
    """

    def __init__(self, store: Store, gap: int, noise: float, seeds: int) -> None:
        self.rng, self.seeds = np.random.default_rng(0), seeds
        errors = np.rint(60 + noise * self.rng.normal(size=seeds)).astype(int)
        wrong = {4: self.rng.permutation(errors) + gap, 8: self.rng.permutation(errors)}
        self.runs = sweep(store, Y, {width: list(map(int, e)) for width, e in wrong.items()})

    def draw(self, seeds: int) -> dict[int, list[Run]]:
        chosen = self.rng.choice(self.seeds, seeds, replace=False)
        return {width: [runs[i] for i in chosen] for width, runs in self.runs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("noise", [1.5, 5.0])
def test_a_size_exactly_at_the_margin_is_rarely_accepted(store: Store, seeds: int, noise: float) -> None:
    """One side of a 95 % interval errs in 2.5 % of sweeps."""
    pool = Pool(store, 5, noise, 150)
    accepted = [choose(pool.draw(seeds), store, margin=MARGIN).width == 4 for _ in range(600)]
    assert np.mean(accepted) <= 0.045  # 0.025 and three standard deviations of 600 draws


@pytest.mark.parametrize("gap", [0, 5, 12])
def test_no_sentence_claims_more_than_its_interval(store: Store, gap: int) -> None:
    pool = Pool(store, gap, 4.0, 30)
    for _ in range(40):
        choice = choose(pool.draw(4), store, margin=MARGIN)
        found = {c.a: c.difference for c in choice.comparisons}
        text = " ".join((choice.sentence, *choice.reasons))
        if "not worse than" in choice.sentence:
            assert found[f"width {choice.width}"].low > -MARGIN
        for width in re.findall(r"(width \d+) is worse than", text) + re.findall(r"(width \d+), loses", text):
            assert found[width].high < -MARGIN
        for width in re.findall(r"(width \d+) is neither", text):
            assert found[width].low <= -MARGIN <= found[width].high
        assert (choice.status == "undetermined") == choice.sentence.startswith("Undetermined")
        assert (choice.status == "undetermined") <= (choice.next_run is not None)
