"""The bag of words knows what is in a text, and not its order or its padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sizewise import families
from sizewise.errors import UsageError
from sizewise.loop import Data, Start, train_one
from sizewise.records import Recipe, Signature, Trial
from sizewise.store import Store
from sizewise.tasks import Split, make_task

TEXTS = Signature("classification", (6,), 3, vocabulary=50, dynamic=True)


def test_order_and_padding_do_not_matter() -> None:
    bag = families.load("bag", TEXTS).build(4, seed=0).eval()
    x = torch.tensor([[5, 7, 9]])
    expected = bag(x)
    torch.testing.assert_close(bag(torch.tensor([[9, 5, 7]])), expected)
    torch.testing.assert_close(bag(torch.tensor([[5, 7, 9, 0, 0, 0]])), expected)
    assert not torch.allclose(bag(torch.tensor([[5, 7, 8]])), expected)
    assert torch.isfinite(bag(torch.zeros(1, 6, dtype=torch.long))).all()


def test_its_parameters_are_token_vectors_and_a_linear_layer() -> None:
    family = families.load("bag", TEXTS)
    assert [family.params(width) for width in (1, 2, 8)] == [50 + 6, 100 + 9, 400 + 27]


def test_tokens_are_left_out_in_training_alone() -> None:
    bag = families.load("bag", TEXTS).build(4, seed=0)
    x = torch.randint(1, 50, (8, 6))
    assert not torch.equal(bag.train()(x), bag(x))
    assert torch.equal(bag.eval()(x), bag(x))


def test_it_is_the_first_choice_for_texts_and_refuses_all_else() -> None:
    assert families.suited(TEXTS) == "bag"
    for other in (
        Signature("classification", (1, 8, 8), 3),
        Signature("language modelling", (6,), 50, vocabulary=50),
    ):
        with pytest.raises(UsageError, match="bag family cannot do"):
            families.load("bag", other)


def test_a_run_repeats_although_tokens_are_left_out_by_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(3, 50, (60, 6))
    x[np.arange(60), rng.integers(0, 6, 60)] = np.arange(60) % 3 + 50  # the class, as one of the words
    signature = Signature("classification", (6,), 3, vocabulary=53, dynamic=True)
    part = Split(x, np.arange(60, dtype=np.int64) % 3)
    task = make_task("words", "", ("a", "b", "c"), part, part, part, signature=signature)
    recipe = Recipe(lr=0.03, batch_size=16, epochs=20)
    trial = Trial("words", task.fingerprint, "bag", 4, 1.0, recipe, 0)
    runs = []
    for chance in (1, 2):
        torch.manual_seed(chance)
        runs.append(train_one(trial, Data.of(task), Store(tmp_path / str(chance)), Start()))
    assert [p.train_loss for p in runs[0].curve] == [p.train_loss for p in runs[1].curve]
    assert runs[0].validation.score > 0.9
