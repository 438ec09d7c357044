"""The bag of words knows what is in a text, and not its order or its padding."""

from __future__ import annotations

import pytest
import torch

from sizewise import families
from sizewise.errors import UsageError
from sizewise.records import Signature

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
