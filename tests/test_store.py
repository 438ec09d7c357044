"""Files appear whole or not at all, and records come back as they went in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise import config
from sizewise.config import Study
from sizewise.errors import IntegrityError, StoreError, UsageError
from sizewise.methods import Narrow
from sizewise.records import Choice, Origin, Recipe, Trial, from_json, to_json
from sizewise.store import Store, write_atomic, write_json
from tests.builders import toy_task

RECIPES = st.builds(
    Recipe,
    optimizer=st.sampled_from(["gd", "sgd", "momentum", "adam", "adamw"]),
    lr=st.floats(1e-6, 10),
    weight_decay=st.floats(0, 1),
    batch_size=st.integers(1, 4096),
    epochs=st.integers(1, 500),
    schedule=st.sampled_from(["constant", "cosine"]),
    loss=st.sampled_from(["cross_entropy", "mse"]),
    patience=st.integers(0, 9),
)


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"before")

    def half(temporary: Path) -> NoReturn:
        temporary.write_bytes(b"half of")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left on device") as caught:
        write_atomic(path, half)
    assert "free some space" in caught.value.hint
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_no_json_can_hold_is_null_and_comes_back_as_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None}


@pytest.mark.parametrize("text", ["", "{", '{"width": 3}', "[]", '{"widht": 1}'])
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "choice.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"choice\.json is damaged"):
        Store(tmp_path).load("choice.json", Choice)


def test_a_stage_that_has_not_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no choice\.json"):
        Store(tmp_path).load("choice.json", Choice)


def test_the_lock_admits_one_and_tidies_up(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / ".tmp-left").write_bytes(b"by a killed process")
    with Store(tmp_path).lock(), pytest.raises(StoreError, match="another sizewise process"), Store(tmp_path).lock():
        pass
    assert not list((tmp_path / "trials").iterdir())
    with Store(tmp_path).lock():
        pass


@given(recipe=RECIPES, width=st.integers(1, 999), seed=st.integers(0, 99), fraction=st.floats(0.01, 1))
@settings(max_examples=60)
def test_a_trial_survives_json_with_its_key(recipe: Recipe, width: int, seed: int, fraction: float) -> None:
    trial = Trial("digits", "f" * 16, "cnn", width, fraction, recipe, seed, Origin(Narrow(), "0" * 16))
    again = from_json(Trial, json.loads(json.dumps(to_json(trial))))
    assert again == trial
    assert again.key == trial.key
    assert replace(trial, seed=seed + 1).key != trial.key


@given(recipe=RECIPES, margin=st.floats(0.001, 0.5), widths=st.lists(st.integers(1, 99), max_size=5))
@settings(max_examples=40, deadline=None)
def test_a_study_survives_toml(
    recipe: Recipe, margin: float, widths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = Study(task="digits", margin=margin, recipe=recipe, sweep=config.Sweep(widths=tuple(widths)))
    path = tmp_path_factory.mktemp("toml") / "study.toml"
    config.write(study, path)
    assert config.read(path) == study


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
@pytest.mark.parametrize("samples", [99, 1_200, 12_000])
def test_every_effort_resolves_to_a_study_that_can_run(effort: str, samples: int) -> None:
    study = config.structure({"task": "digits", "sweep": {"effort": effort}}, "here")
    task = toy_task(samples)
    resolved = config.resolve(study, task)
    config.check(resolved)
    assert resolved.recipe.epochs >= 1
    assert resolved.sweep.seeds >= 5
    assert config.resolve(resolved, task) == resolved


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"task": "digits", "sweep": {"sedes": 3}}, "unknown key 'sweep.sedes'"),
        ({"task": "digits", "recipe": 3}, "recipe is 3"),
        ({"task": "digits", "margin": "big"}, "margin is 'big'"),
        ({"task": "digits", "recipe": {"epochs": 2.5}}, "recipe.epochs is 2.5"),
        ({"task": "digits", "recipe": {"optimizer": "adamm"}}, "recipe.optimizer is 'adamm'"),
        ({"task": "digits", "sweep": {"widths": ["wide"]}}, "sweep.widths is"),
        ({"margin": 0.01}, "has no key 'task'"),
    ],
)
def test_a_wrong_configuration_says_where(data: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config.structure(data, "study.toml")
