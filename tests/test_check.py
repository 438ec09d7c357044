"""The public checks: what keeps its promises passes, and each broken one is one clear error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sizewise
from sizewise import tasks
from sizewise.check import Check
from sizewise.errors import DataError, UsageError
from sizewise.families.family import Builder
from sizewise.records import Signature
from sizewise.tasks import Preprocessor, Split, Task, make_task
from tests import own_family, own_models

IMAGES = Signature("classification", (1, 8, 8), 10)
TEXTS = Signature("classification", (12,), 3, vocabulary=20, dynamic=True)


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_users_perceptron_keeps_every_promise() -> None:
    found = by_name(sizewise.check_family(own_family.build, IMAGES, widths=(4, 8, 16)))
    assert {name for name, check in found.items() if not check.passed} == {"padding"}
    assert found["padding"].detail == "all samples have one length"
    assert "two batch sizes" in found["ONNX"].detail


@pytest.mark.parametrize("problem", ["classification", "tagging", "language modelling"])
def test_texts_of_several_lengths_are_padded_and_exported(problem: str) -> None:
    signature = replace(TEXTS, problem=problem, outputs=20)  # type: ignore[arg-type]
    found = by_name(sizewise.check_family("transformer", signature, widths=(16, 32)))
    assert all(found[name].passed for name in ("sizes", "seeds", "answers", "learning", "padding", "ONNX"))


def test_numbers_and_transcripts_are_learned_too() -> None:
    for signature in (
        Signature("regression", (6, 3), 2),
        Signature("transcription", (16, 4), 5, dynamic=True),
    ):
        found = by_name(sizewise.check_family("lstm", signature, widths=(4, 8)))
        assert found["learning"].passed
        assert found["ONNX"].passed


@pytest.mark.parametrize(
    ("builder", "signature", "message"),
    [
        (own_models.one_size, IMAGES, r"650 parameters at width 4 and 650 at width 8"),
        (own_models.own_dice, IMAGES, r"gives 1\.weight other values the second time"),
        (own_models.too_many_answers, IMAGES, r"with \(2, 11\), and classification needs one tensor of 2 × 10"),
        (own_models.stuck, IMAGES, r"does not learn 48 samples by heart"),
        (own_models.sees_padding, TEXTS, r"answers a sample of 6 steps differently"),
    ],
)
def test_each_broken_promise_is_one_error(builder: Builder, signature: Signature, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sizewise.check_family(builder, signature, widths=(4, 8))


def test_what_cannot_be_exported_is_skipped_with_the_reason() -> None:
    found = by_name(sizewise.check_family(own_models.branching, IMAGES, widths=(4, 8)))
    assert not found["ONNX"].passed
    assert found["ONNX"].detail.startswith("cannot be exported: ")


def test_a_real_task_keeps_every_promise() -> None:
    assert all(check.passed for check in sizewise.check_task(tasks.load("digits")))


def made(**changed: Split) -> Task:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(rng.normal(size=(count, 5, 3)).astype(np.float32), rng.normal(size=(count, 2)).astype(np.float32))

    splits = {"train": split(40), "validation": split(20), "test": split(20)} | changed
    return make_task("made", "", ("a", "b"), *splits.values(), signature=Signature("regression", (5, 3), 2))


def test_numbers_are_judged_perfect_at_no_error() -> None:
    found = by_name(sizewise.check_task(made()))
    assert found["perfect answers"].detail == "are judged so by MSE, MAE"
    assert all(check.passed for check in found.values())


def test_a_leak_between_splits_is_an_error() -> None:
    task = made()
    with pytest.raises(DataError, match="20 of the 20 samples of validation are also in train"):
        sizewise.check_task(made(validation=task.train.take(np.arange(20)), train=task.train))


def test_preprocessing_that_has_seen_other_data_is_an_error() -> None:
    task = made()
    everything = Split(np.concatenate([task.train.x, task.test.x]), np.concatenate([task.train.y, task.test.y]))
    leaked = replace(task, preprocessor=Preprocessor.fit(everything, task.signature))
    with pytest.raises(DataError, match="not what its training split gives"):
        sizewise.check_task(leaked)
    with pytest.raises(DataError, match="has the fingerprint 0000"):
        sizewise.check_task(replace(task, fingerprint="0000"))
