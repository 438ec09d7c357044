"""Other metrics than accuracy, and numbers instead of classes, go through the same stages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    brier_score_loss,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    recall_score,
    roc_auc_score,
)

from sizewise import config, console, laws, runtimes
from sizewise.choose import choose
from sizewise.config import Compress, Study, Sweep
from sizewise.diagnose import diagnose
from sizewise.errors import UsageError
from sizewise.paired import example_scores
from sizewise.records import Choice, Measurement, Metric, Plan, Recipe, Run, Scores, Signature, from_json, to_json
from sizewise.report.page import render
from sizewise.report.study_page import collect
from sizewise.store import Store
from sizewise.study import Listener, Workspace
from sizewise.tasks import Split, Task, make_task, problems
from sizewise.tasks.problems.problem import prepared
from tests.builders import toy_task, train, trial

RECIPE = Recipe(lr=0.01, batch_size=32, epochs=3)
TOY = toy_task(noise=1.5)


# Classification by another metric


def two_classes(scores: NDArray[np.float64], y: NDArray[np.int64]) -> problems.Judged:
    problem = problems.make(Signature("classification", (1, 8, 8), 2), ("healthy", "ill"))
    return problem.judge(np.stack([np.zeros_like(scores), scores], axis=1), Split(np.empty((len(y), 0)), y))


def test_of_two_classes_the_second_is_the_one_looked_for() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.3).astype(np.int64)
    scores = rng.normal(size=300) + 1.5 * y - 0.5
    found, said = two_classes(scores, y).values, scores > 0
    assert found["sensitivity"] == pytest.approx(recall_score(y, said))
    assert found["specificity"] == pytest.approx(recall_score(y, said, pos_label=0))
    assert found["AUROC"] == pytest.approx(roc_auc_score(y, scores))
    assert found["F1"] == pytest.approx(f1_score(y, said, average="macro"))
    assert found["Brier score"] == pytest.approx(2 * brier_score_loss(y, 1 / (1 + np.exp(-scores))))


def test_confidence_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=20_000)
    y = (rng.random(20_000) < 1 / (1 + np.exp(-scores))).astype(np.int64)
    assert two_classes(scores, y).values["calibration error"] < 0.02
    assert two_classes(3 * scores, y).values["calibration error"] > 0.05


def test_a_metric_that_the_problem_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match="classification has no metric 'AUC'") as caught:
        TOY.scored_by("AUC")
    assert "did you mean 'AUROC'?" in caught.value.hint
    with pytest.raises(UsageError, match="no metric 'BLEU'") as caught:
        TOY.scored_by("BLEU")
    assert "known: accuracy, F1, AUROC" in caught.value.hint


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[int, list[Run]]]:
    """A sweep scored by accuracy."""
    root = tmp_path_factory.mktemp("runs")
    sizes = {
        width: [train(trial(TOY, width, seed, recipe=RECIPE), TOY, root) for seed in range(3)] for width in (1, 2, 6)
    }
    return Store(root), sizes


@pytest.mark.parametrize("name", ["F1", "AUROC"])
def test_sizes_are_chosen_by_the_metric_that_is_asked_for(
    runs: tuple[Store, dict[int, list[Run]]], tmp_path: Path, name: str
) -> None:
    task, store = TOY.scored_by(name), Store(tmp_path)
    sizes = {
        width: [train(run.trial, task, tmp_path) for run in group] for width, group in runs[1].items() if width > 1
    }
    choice = choose(sizes, store, margin=0.02)
    assert choice.metric == Metric(name)
    assert f"validation {name})" in choice.sentence
    chosen = sizes[choice.width]
    assert choice.score.value == pytest.approx(np.mean([run.validation.values[name] for run in chosen]))
    assert choice.score.value != pytest.approx(np.mean([run.validation.values["accuracy"] for run in chosen]), abs=1e-6)
    for comparison in choice.comparisons:
        assert comparison.a_mean == pytest.approx(np.mean([run.validation.score for run in sizes[2]]))
    assert f"points of {name}" in console.findings(diagnose(sizes, (), store, margin=0.02))


def test_what_is_kept_of_each_example_averages_to_every_metric(runs: tuple[Store, dict[int, list[Run]]]) -> None:
    store, sizes = runs
    for run in sizes[2]:
        for metric in TOY.problem.metrics():
            asked = replace(run, validation=replace(run.validation, metric=metric))
            values = example_scores(store, [asked])
            assert values.shape == (1, len(TOY.validation))
            assert values.mean() == pytest.approx(run.validation.values[metric.name])


def test_a_study_that_is_asked_for_another_metric_chooses_by_it_without_training_again(
    runs: tuple[Store, dict[int, list[Run]]],
) -> None:
    """The runs of the folder were scored by accuracy."""
    task, (store, found) = TOY.scored_by("AUROC"), runs
    trials = tuple(run.trial for group in found.values() for run in group)
    store.save("plan.json", Plan(trials, (), (), workers=1, seconds=0, finished=0))
    space = Workspace(config.resolve(Study("toy", recipe=RECIPE), task), task, store, "request", Listener())
    sizes = space.sizes()
    assert {width: len(group) for width, group in sizes.items()} == {
        width: len(group) for width, group in found.items()
    }
    for group in sizes.values():
        assert all(run.validation.score == run.validation.values["AUROC"] for run in group)
    choice = space.choose()
    assert choice.metric.name == "AUROC"
    assert choice.score.value == pytest.approx(np.mean([r.validation.values["AUROC"] for r in sizes[choice.width]]))


# Numbers

SHAPE = (1, 8, 8)
UNIT = np.array([40_000.0, 0.3])
CENTRE = np.array([250_000.0, -2.0])
"""Two numbers of very different units: a price and a temperature, say."""


def numbers(samples: int = 240, seed: int = 0) -> Task:
    """Images whose left and right brightness are the numbers, in the user's units."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        hidden = rng.normal(size=(count, 2))
        x = 20 * rng.normal(size=(count, *SHAPE)) + 100
        x[..., :4] += 30 * hidden[:, 0, None, None, None]
        x[..., 4:] += 30 * hidden[:, 1, None, None, None]
        return Split(x.astype(np.float32), (CENTRE + UNIT * hidden).astype(np.float32))

    splits = split(samples), split(samples // 2), split(samples // 2)
    return make_task("numbers", "", ("price", "temperature"), *splits, signature=Signature("regression", SHAPE, 2))


NUMBERS = numbers()


def test_the_margin_of_a_squared_error_is_a_hundredth_of_the_variance() -> None:
    squared, absolute = NUMBERS.problem.metrics()
    assert (squared.name, absolute.name) == ("MSE", "MAE")
    assert squared.margin == pytest.approx(0.01 * NUMBERS.train.y.astype(float).var(axis=0).mean(), rel=1e-3)
    assert not squared.higher
    assert config.resolve(Study("numbers"), NUMBERS).margin == squared.margin


def test_metrics_of_numbers_are_scikit_learns_in_the_users_unit() -> None:
    y = NUMBERS.validation.y
    answers = y + np.random.default_rng(0).normal(size=y.shape) * UNIT / 3
    found = NUMBERS.problem.judge(answers, NUMBERS.validation)
    assert found.values["MSE"] == pytest.approx(mean_squared_error(y, answers))
    assert found.values["MAE"] == pytest.approx(mean_absolute_error(y, answers))
    assert found.values["R2"] == pytest.approx(r2_score(y, answers))
    assert found.loss == pytest.approx(1 / 9, rel=0.15)  # of standardised targets: both count alike
    for name, values in found.examples.items():
        assert values.mean() == pytest.approx(found.values[name])


def test_numbers_that_are_hardly_different_are_the_same_answer() -> None:
    y = NUMBERS.validation.y.astype(float)
    assert NUMBERS.problem.same(y, y + 1e-4 * UNIT).all()
    assert not NUMBERS.problem.same(y, y + np.array([0.0, 0.1])).any()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The whole pipeline on numbers, in this process."""
    root = tmp_path_factory.mktemp("numbers")
    sweep = Sweep(widths=(2, 4), seeds=3, probes=False, workers=1)
    study = Study("numbers", recipe=Recipe(lr=0.01, batch_size=32, epochs=5), sweep=sweep, compress=Compress(()))
    made = Workspace(config.resolve(study, NUMBERS), NUMBERS, Store(root), "request", Listener())
    config.write(made.study, root / "study.toml")
    planned = made.plan()
    made.store.save("plan.json", planned)
    for one in planned.trials:
        train(one, NUMBERS, root)
    made.diagnose()
    made.choose()
    made.compress()
    made.measure()
    made.export()
    return made


def test_a_size_is_chosen_by_its_squared_error(space: Workspace) -> None:
    choice, sizes = space.store.load("choice.json", Choice), space.sizes()
    assert space.study.family == "cnn"
    assert choice.metric.name == "MSE"
    assert f"validation MSE {choice.score.value:.4f}" in choice.sentence
    errors = {width: np.mean([run.validation.values["MSE"] for run in group]) for width, group in sizes.items()}
    assert choice.reference == min(errors, key=lambda width: errors[width])
    assert errors[choice.width] < 0.5 * (UNIT**2).mean(), "better than half the variance"
    assert all(run.validation.error == run.validation.values["MSE"] for group in sizes.values() for run in group)


def test_a_smaller_error_is_a_positive_gain(space: Workspace) -> None:
    (comparison,) = space.store.load("choice.json", Choice).comparisons
    assert comparison.difference.value == pytest.approx(comparison.b_mean - comparison.a_mean)


def test_loss_is_of_standardised_targets_and_the_score_in_the_users_unit(space: Workspace) -> None:
    run = space.sizes()[4][0]
    assert run.validation.loss < 1 < run.validation.score
    assert run.validation.confusion == ()
    assert all(np.isnan(point.validation_score) for point in run.curve)


def test_measured_errors_are_those_of_the_files(space: Workspace) -> None:
    measured = space.store.load("measurements.json", tuple[Measurement, ...])
    assert {m.candidate.runtime for m in measured} == {"torch", "onnxruntime", "openvino"}
    for m in measured:
        session = runtimes.load(space.store / "candidates" / m.candidate.name)
        answers = session(prepared(NUMBERS.test.x, NUMBERS.signature))
        assert m.test_score.value == pytest.approx(mean_squared_error(NUMBERS.test.y, answers), rel=1e-4)
        assert m.test.values["R2"] > 0.5
        assert m.test_score.low < m.test_score.value < m.test_score.high
        if m.candidate.run == space.store.load("choice.json", Choice).run:
            assert m.agreement == 1
            assert abs(m.test_drop.value) < 1e-4 * m.test_score.value


def exported(space: Workspace) -> list[Path]:
    return sorted((space.store / "models").iterdir())


def test_an_exported_model_answers_in_the_users_unit(space: Workspace) -> None:
    assert exported(space)
    for folder in exported(space):
        config = runtimes.verify(folder)
        assert config.classes == ("price", "temperature")
        session = runtimes.load(folder)
        for rows in (1, 7):
            answers = session(prepared(NUMBERS.test.x[:rows], NUMBERS.signature))
            assert answers.shape == (rows, 2)
        answers = session(prepared(NUMBERS.test.x, NUMBERS.signature))
        np.testing.assert_allclose(answers.mean(axis=0), CENTRE, atol=0.3 * UNIT.max())
        assert np.corrcoef(answers[:, 1], NUMBERS.test.y[:, 1])[0, 1] > 0.7


def test_a_model_card_names_the_metric_and_its_value(space: Workspace) -> None:
    for folder in exported(space):
        card = (folder / "README.md").read_text()
        value = json.loads((folder / "measurements.json").read_text())["test_score"]["value"]
        assert "metrics: [MSE]" in card
        assert f"{value:.4f}" in card
        assert "Output `values`" in card


def test_what_is_said_of_numbers_speaks_of_no_points_or_per_cent_of_accuracy(space: Workspace) -> None:
    page = render(collect(space))
    choice = console.choice(space.store.load("choice.json", Choice))
    for text in (page, choice, console.runs(space.store.runs()), console.findings(space.diagnose())):
        assert "accuracy" not in text.replace("accuracy.", "")
    assert "MSE" in page


def test_a_run_that_diverges_has_no_score_and_breaks_nothing(space: Workspace, tmp_path: Path) -> None:
    shutil.copytree(space.store.root, tmp_path / "copy")
    store, sizes = Store(tmp_path / "copy"), space.sizes()
    wild = Recipe("sgd", lr=1e9, batch_size=32, epochs=3)
    diverged = train(trial(NUMBERS, 4, 2, recipe=wild), NUMBERS, store.root)
    assert np.isnan(diverged.validation.score)
    choice = choose({2: sizes[2], 4: [*sizes[4][:2], diverged]}, store, margin=space.study.margin)
    assert (choice.status, choice.reference) == ("undetermined", 2)
    assert laws.fit([*sizes[2], diverged], "error").status == "insufficient"


def test_preprocessing_of_targets_is_fitted_on_the_training_split_alone() -> None:
    changed = replace(NUMBERS.test, y=NUMBERS.test.y * 100)
    again = make_task(
        "numbers", "", NUMBERS.classes, NUMBERS.train, NUMBERS.validation, changed, signature=NUMBERS.signature
    )
    assert again.preprocessor == NUMBERS.preprocessor
    assert again.fingerprint != NUMBERS.fingerprint


def test_scores_of_numbers_survive_json(space: Workspace) -> None:
    run = space.sizes()[2][0]
    assert space.store.run(run.trial.key) == run
    assert from_json(Scores, to_json(run.validation)) == run.validation


PROBLEM_OF_TEXT = problems.make(Signature("language modelling", (256,), 8000, vocabulary=8000), ())


def test_fewer_samples_are_evaluated_at_a_time_where_each_has_many_outputs() -> None:
    assert PROBLEM_OF_TEXT.batch(512) == 2**25 // (256 * 8000)
    assert NUMBERS.problem.batch(512) == 512
