"""What earlier studies say of a new one: more the nearer they are, and nothing when none is near."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise import library, tasks
from sizewise.cli import main
from sizewise.errors import IntegrityError, StoreError
from sizewise.library import Similar, distance, guess
from sizewise.records import Cost, Estimate, Plan, Precedent, Proposal, Recipe, from_json, to_json
from sizewise.study import Workspace
from tests.builders import around, toy_task

FEATURES = {"log samples": 7.0, "log outputs": 2.3, "log inputs": 4.2, "logistic": 0.9}
LADDER = tuple(Cost(w, 100 * w, 100 * w, 1, 1, 1, 1.0, 1.0) for w in (1, 3, 10, 30, 100))
EXPONENT = Estimate(0.4, 0.3, 0.5, 0.9, "made", 50)


def precedent(**changed: object) -> Precedent:
    made = Precedent(
        key="a",
        name="digits",
        problem="classification",
        layout="image",
        family="cnn",
        metric="accuracy",
        features=FEATURES,
        recipe=Recipe(),
        smallest=100,
        largest=10_000,
        width=30,
        params=3000,
        status="supported",
        margin=0.005,
        score=around(0.98),
        exponents={"loss": EXPONENT},
        runs=35,
        seconds=100.0,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def test_recipes_come_from_the_best_of_every_precedent_before_the_second_of_any() -> None:
    a, b, c, d = (Proposal(Recipe(lr=rate), "cnn") for rate in (0.1, 0.2, 0.3, 0.4))
    near, middle, far = (
        precedent(recipe=d.recipe, recipes=(a, b)),
        precedent(recipe=c.recipe),
        precedent(recipes=(a, d)),
    )
    found = [Similar(near, 0.1), Similar(middle, 0.5), Similar(far, 2.0)]
    assert library.recipes(found, 9) == (a, c, b, d)
    assert library.recipes(found, 2) == (a, c)
    assert library.recipes([], 2) == ()
    assert library.recipes([Similar(near, 2.5)], 2) == ()


def test_the_same_task_again_is_guessed_as_it_was_chosen() -> None:
    found = guess([Similar(precedent(), 0.0)], LADDER)
    assert found is not None
    assert found.width == 30
    assert found.params.low < 3000 < found.params.high
    assert found.params.high / found.params.low < found.uninformed.high / found.uninformed.low / 2
    assert found.weight > 0.7
    assert found.exponents["loss"].value == pytest.approx(0.4)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(100, 10_000)), min_size=1, max_size=5), st.floats(0.01, 3))
def test_an_interval_widens_with_distance_and_never_beyond_what_is_known_without(
    found: list[tuple[float, int]], further: float
) -> None:
    near = [Similar(precedent(params=params), d) for d, params in found]
    far = [replace(one, distance=one.distance + further) for one in near]
    a, b = guess(near, LADDER), guess(far, LADDER)
    assert a is not None
    assert b is not None
    widths = [math.log(e.high / e.low) for e in (a.params, b.params, a.uninformed)]
    assert widths == sorted(widths)
    assert a.weight >= b.weight


def test_what_is_far_from_everything_gets_the_ladder_alone() -> None:
    found = guess([Similar(precedent(), 100.0)], LADDER)
    assert found is not None
    assert found.weight < 0.001
    assert found.params.value == pytest.approx(found.uninformed.value, rel=0.01)
    assert found.width == 10


def test_no_precedent_no_guess() -> None:
    assert guess([], LADDER) is None
    assert guess([Similar(precedent(status="undetermined"), 0.0)], LADDER) is None


def test_only_the_same_kind_of_study_is_compared() -> None:
    others = [precedent(key=k, **{k: "other"}) for k in ("problem", "layout", "family")]
    same = library.comparable([precedent(), *others], problem="classification", layout="image", family="cnn")
    assert [one.key for one in same] == ["a"]


def test_distance_is_over_what_both_know() -> None:
    further = FEATURES | {"log samples": FEATURES["log samples"] + math.log(10)}
    assert distance(FEATURES, FEATURES) == 0
    assert distance(FEATURES, further) == pytest.approx(0.5)  # one unit in one of four features
    assert distance(FEATURES, further | {"label entropy": 1.0}) == pytest.approx(0.5)
    assert distance(FEATURES, {"log samples": 7.0}) == math.inf


def test_features_tell_easy_tasks_from_hard_ones_and_read_no_test_split() -> None:
    easy, hard = (library.features(toy_task(400, noise=noise)) for noise in (0.3, 3.0))
    assert set(easy) == set(library.SCALES)
    for name in ("nearest centroid", "logistic", "nearest neighbour"):
        assert 0 <= hard[name] < easy[name] <= 1
    assert easy["label entropy"] == pytest.approx(1.0, abs=1e-3)
    assert distance(easy, hard) > 0.5
    blind = replace(toy_task(400, noise=0.3), test=toy_task(400, noise=0.3).test.take(np.array([], dtype=np.int64)))
    assert library.features(blind) == easy


def test_texts_have_landmarks_too(shared_data: Path) -> None:
    found = library.features(tasks.load("text", shared_data / "rt-polarity"))
    assert set(found) == set(library.SCALES)
    assert 0 < found["logistic"] < 1


def test_a_study_takes_its_own_place_in_the_file(own_library: Path) -> None:
    library.add(precedent())
    library.add(precedent(key="b"))
    library.add(precedent(width=10))
    assert [(one.key, one.width) for one in library.precedents()] == [("b", 30), ("a", 10)]
    assert [path.name for path in own_library.glob("*.json")] == ["studies.json"]


def test_another_persons_file_is_read_beside_ones_own(own_library: Path) -> None:
    library.add(precedent())
    theirs = [to_json(precedent(key="a", width=3)), to_json(precedent(key="c"))]
    (own_library / "theirs.json").write_text(json.dumps(theirs))
    assert {one.key: one.width for one in library.precedents()} == {"a": 30, "c": 30}


def test_a_damaged_file_is_named_and_left_alone(own_library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_library / "studies.json").write_text("{")
    assert library.precedents() == ()
    assert "is damaged" in capsys.readouterr().err
    with pytest.raises(IntegrityError):
        library.add(precedent())
    assert (own_library / "studies.json").read_text() == "{"


def test_a_library_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIZEWISE_LIBRARY", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="cannot write"):
        library.add(precedent())


@pytest.mark.slow
def test_a_finished_study_is_what_the_next_plan_starts_from(
    small_study: Path, own_library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Workspace.open(small_study).remember()
    assert made.features.keys() == library.SCALES.keys()
    text = (own_library / "studies.json").read_text()
    assert len(text) < 10_000
    assert "/" not in made.name
    library.add(replace(made, key="another", status="supported", width=9))
    assert main(["plan", "digits", "--widths", "2,4,6,9,13", "--seeds", "3", "--epochs", "2", "--json"]) == 0
    plan = from_json(Plan, json.loads(capsys.readouterr().out))
    assert plan.guess is not None
    assert plan.guess.precedents == (("digits", 0.0),)
    assert main(["plan", "digits", "--widths", "2,4,6,9,13", "--seeds", "3", "--epochs", "2"]) == 0
    assert "first guess, by 1 earlier: width" in capsys.readouterr().out
