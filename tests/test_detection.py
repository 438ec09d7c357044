"""Detection from the loss to exported models: what is learned, how it is scored, and that runtimes agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import compress, config, families, runtimes
from sizewise.config import Study
from sizewise.loop import Data, Start, train_one
from sizewise.measure import inputs
from sizewise.records import Recipe, Run, Signature, Trial
from sizewise.report.pictures import boxed
from sizewise.runtimes import eager
from sizewise.runtimes.boxes import Boxes
from sizewise.store import Store
from sizewise.tasks import Split, Task
from sizewise.tasks.problems.detection import HALF, RANGE, Detection
from tests.detection_data import squares

RECIPE = Recipe(optimizer="adamw", lr=6e-3, batch_size=8, epochs=30, clip=5.0, augment=True)


@pytest.fixture(scope="module")
def task() -> Task:
    return squares()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def run(task: Task, store: Store) -> Run:
    trial = Trial(task.name, task.fingerprint, "detector", 4, 1.0, RECIPE, 0)
    return train_one(trial, Data.of(task), store, Start())


def perfect(split: Split, most: int = 8) -> NDArray[np.float32]:
    """Answers that are the truth."""
    answers = np.zeros((len(split), most, 6), np.float32)
    answers[:, : split.y.shape[1], 0] = split.y[..., 0]
    answers[:, : split.y.shape[1], 1] = 0.9 * (split.y[..., 0] > 0)
    answers[:, : split.y.shape[1], 2:] = split.y[..., 1:]
    return answers


def noisy(split: Split, seed: int = 0) -> NDArray[np.float32]:
    """Answers off by some pixels, with random scores, and some that are not there."""
    rng = np.random.default_rng(seed)
    answers = perfect(split)
    there = answers[..., 0] > 0
    answers[..., 2:] += np.where(there[..., None], rng.normal(size=answers[..., 2:].shape), 0)
    answers[..., 1] = np.where(there, rng.uniform(0.1, 1, there.shape), 0)
    answers[:, -1] = (1, 0.5, 2, 2, 12, 12)
    answers[:, -1, 1] = rng.uniform(0.1, 1, len(answers))
    return answers


def test_it_learns(run: Run) -> None:
    first, last = run.curve[0], run.curve[-1]
    assert last.validation_loss < 0.5 * first.validation_loss
    assert run.validation.score > 0.8
    assert set(run.validation.values) == {HALF, RANGE, "AP@.5 tall", "AP@.5 flat"}


def test_a_run_that_was_stopped_is_the_run_that_was_not(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise.loop.run.CHECKPOINT_SECONDS", 0.0)
    trial = Trial(task.name, task.fingerprint, "detector", 2, 1.0, replace(RECIPE, epochs=3), 0)
    data = Data.of(task)

    def stop(share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(trial, data, Store(tmp_path / "a"), Start(), stop)
    assert list((tmp_path / "a").rglob("checkpoint.safetensors"))
    ours = train_one(trial, data, Store(tmp_path / "a"), Start())
    theirs = train_one(trial, data, Store(tmp_path / "b"), Start())
    assert ours.files == theirs.files


def test_perfect_answers_have_a_precision_of_one(task: Task) -> None:
    judged = task.problem.judge(perfect(task.test), task.test)
    assert judged.values[HALF] == pytest.approx(1.0)
    assert judged.values[RANGE] == pytest.approx(1.0)
    assert task.problem.same(perfect(task.test), perfect(task.test)).all()


def test_no_answers_have_a_precision_of_nothing(task: Task) -> None:
    judged = task.problem.judge(np.zeros((len(task.test), 8, 6), np.float32), task.test)
    assert judged.values[HALF] == 0


def test_the_judge_agrees_with_pycocotools(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    """Called as its manual says: the truth and the answers as annotations of COCO's form, all settings its own."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    split, answers = task.validation, noisy(task.validation)
    values = task.problem.judge(answers, split).values
    assert not capsys.readouterr().out
    truth, found = COCO(), []
    truth.dataset = {"images": [{"id": i} for i in range(len(split))], "categories": [{"id": 1}, {"id": 2}]}
    truth.dataset["annotations"] = [
        {"id": 10 * i + j + 1, "image_id": i, "category_id": int(row[0]), "iscrowd": 0}
        | {"bbox": [row[1], row[2], row[3] - row[1], row[4] - row[2]], "area": (row[3] - row[1]) * (row[4] - row[2])}
        for i, rows in enumerate(split.y.astype(float))
        for j, row in enumerate(rows)
        if row[0]
    ]
    truth.createIndex()
    for i, rows in enumerate(answers.astype(float)):
        found += [
            {"image_id": i, "category_id": int(row[0]), "score": row[1]}
            | {"bbox": [row[2], row[3], row[4] - row[2], row[5] - row[3]]}
            for row in rows
            if row[0]
        ]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.05 < values[RANGE] < values[HALF] < 0.99
    assert values[RANGE] == pytest.approx(evaluation.stats[0])
    assert values[HALF] == pytest.approx(evaluation.stats[1])


def test_influence_values_have_the_metric_as_mean_and_its_spread(task: Task) -> None:
    split = squares(samples=80).train
    problem = task.problem
    judged = problem.judge(noisy(split), split)
    for name in (HALF, RANGE):
        assert judged.examples[name].mean() == pytest.approx(judged.values[name])
    values = judged.examples[HALF]
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(split), len(split)) for _ in range(60)]
    scores = [problem.score(noisy(split)[draw], split.take(draw)) for draw in draws]
    assert values.std() / len(split) ** 0.5 == pytest.approx(np.std(scores), rel=0.5)


def test_a_perfect_grid_is_read_as_the_boxes_it_was_drawn_from(task: Task) -> None:
    problem = task.problem
    assert isinstance(problem, Detection)
    y = torch.from_numpy(task.train.y)
    heat, weight, goal = problem._targets(torch.zeros(len(y), 6, 8, 12), y)
    assert weight.flatten(1).sum(1).tolist() == pytest.approx((y[..., 0] > 0).sum(1).tolist(), rel=1e-4)
    boxes = Boxes(task.signature)(torch.cat([torch.logit(heat * 0.98 + 0.001), goal], dim=1))
    assert problem.score(boxes.numpy(), task.train) == pytest.approx(1.0)
    assert (boxes[..., 1].diff(dim=1) <= 0).all()


@given(st.integers(0, 2**31 - 1))
def test_augmented_boxes_lie_on_the_augmented_objects(seed: int) -> None:
    task = squares(samples=4)
    x, y = torch.from_numpy(task.train.x).float() / 100, torch.from_numpy(task.train.y)
    changed, boxes = task.problem.augment(x, y, torch.Generator().manual_seed(seed))
    assert changed.shape == x.shape
    for image, rows in zip(changed, boxes, strict=True):
        for kind, *edges in rows.tolist():
            left, top, right, bottom = edges
            assert 0 <= left <= right <= 48
            assert 0 <= top <= bottom <= 32
            if kind and right - left > 4 and bottom - top > 4:
                inside = image[:, int(top) + 2 : int(bottom) - 1, int(left) + 2 : int(right) - 1]
                assert inside.mean() > image.mean()


def test_the_same_generator_augments_alike(task: Task) -> None:
    x, y = torch.from_numpy(task.train.x).float(), torch.from_numpy(task.train.y)
    a, b, c = (task.problem.augment(x, y, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])


def test_images_without_boxes_have_a_loss(task: Task) -> None:
    grid = torch.zeros(2, 6, 8, 12, requires_grad=True)
    sums, counts = task.problem.losses(grid, torch.zeros(2, 3, 5), Recipe())
    assert counts.tolist() == [1, 1]
    sums.sum().backward()  # type: ignore[no-untyped-call]
    assert grid.grad is not None
    assert grid.grad.isfinite().all()
    assert sums.isfinite().all()


def test_distance_forgives_places_and_faint_boxes(task: Task) -> None:
    a = np.zeros((1, 4, 6), np.float32)
    a[0, :2] = [[1, 0.5, 0, 0, 10, 10], [2, 0.499999, 5, 5, 9, 9]]
    swapped, faint, other = a[:, [1, 0, 2, 3]], a.copy(), a.copy()
    faint[0, 2] = (1, 0.01005, 20, 20, 30, 30)
    other[0, 0, 2] = 3
    assert task.problem.distance(a, a) == 0
    assert task.problem.distance(a, swapped) == pytest.approx(0, abs=1e-9)
    assert task.problem.distance(a, faint) == pytest.approx(48 * 5e-5, rel=1e-2)
    assert task.problem.distance(faint, a) == pytest.approx(48 * 5e-5, rel=1e-2)
    assert task.problem.distance(a, other) == pytest.approx(3)


def test_same_needs_class_and_place(task: Task) -> None:
    a = perfect(task.test)
    moved, renamed = a.copy(), a.copy()
    moved[0, 0, 2:] += 30
    renamed[1, 0, 0] = 3 - renamed[1, 0, 0]
    assert task.problem.same(a, moved).tolist() == [False, *[True] * (len(a) - 1)]
    assert task.problem.same(a, renamed).tolist() == [True, False, *[True] * (len(a) - 2)]


def test_every_runtime_gives_the_same_boxes(run: Run, task: Task, store: Store) -> None:
    study = config.resolve(Study("squares", family="detector", recipe=RECIPE), task)
    candidates, skipped = compress.candidates.build(study, (run,), task, store)
    assert not skipped
    module = compress.candidates.deployable(run, task, store)
    reference = eager.session(module, task.signature)
    for candidate in candidates:
        session = runtimes.load(store / "candidates" / candidate.name)
        for batch in (1, 7):
            x = inputs(task.validation, batch, task.signature)
            ours, theirs = session(x), reference(x)
            assert ours.shape == theirs.shape == (batch, 100, 6)
            if candidate.precision == "fp32":
                assert task.problem.distance(ours, theirs) < 1e-3
        score = task.problem.score(task.problem.answers(session, task.validation), task.validation)
        assert score > run.validation.score - (0.1 if candidate.precision == "int8" else 1e-3), candidate.name


def test_boxes_of_a_small_grid_are_as_many_as_it_has_cells() -> None:
    signature = Signature("detection", (3, 16, 40), 2)
    family = families.load("detector", signature)
    grid = family.build(1, seed=0).eval()(torch.zeros(3, 3, 16, 40))
    boxes = Boxes(signature)(grid)
    assert boxes.shape == (3, 80, 6)
    assert (boxes[..., 2:] >= 0).all()
    assert (boxes[..., 2:] <= torch.tensor([40, 16, 40, 16])).all()


def test_pictures_show_what_was_found_and_what_is_true(run: Run, task: Task, store: Store) -> None:
    session = eager.session(compress.candidates.deployable(run, task, store), task.signature)
    pictures = boxed(task, session)
    assert len(pictures) == 3
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        assert root[0].attrib["href"].startswith("data:image/png;base64,")
        assert {box[0].text.partition(" ")[0] for box in root[1:]} >= {"truth:"}
