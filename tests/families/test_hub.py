"""Classes of transformers come in sizes by their configuration."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from sizewise import families
from sizewise.errors import UsageError
from sizewise.records import Signature

TEXTS = Signature("classification", (20,), 3, vocabulary=50, dynamic=True)
TAGS = Signature("tagging", (20,), 5, vocabulary=50, dynamic=True)
IMAGES = Signature("classification", (1, 28, 28), 10)
LANGUAGE = Signature("language modelling", (20,), 50, vocabulary=50)


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("BertForSequenceClassification", TEXTS),
        ("DistilBertForSequenceClassification", TEXTS),
        ("RobertaForSequenceClassification", TEXTS),
        ("BertForTokenClassification", TAGS),
        ("GPT2LMHeadModel", LANGUAGE),
        ("LlamaForCausalLM", LANGUAGE),
        ("ViTForImageClassification", IMAGES),
        ("ResNetForImageClassification", IMAGES),
        ("ConvNextForImageClassification", IMAGES),
    ],
)
def test_every_width_is_larger_than_the_one_before(name: str, signature: Signature) -> None:
    family = families.load(f"transformers:{name}", signature)
    params = [family.params(width) for width in (1, 2, 3, 4, 8, 11)]
    assert all(a < b for a, b in pairwise(params))
    families.check_output(family, 3)


def test_proportions_are_those_of_the_default_configuration() -> None:
    from transformers import BertConfig

    from sizewise.families.hub import configuration

    whole, half = (configuration(BertConfig, width, TEXTS) for width in (96, 48))
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    assert [getattr(whole, name) for name in sizes] == [768, 12, 12, 3072]
    assert [getattr(half, name) for name in sizes] == [384, 6, 6, 1536]
    assert (whole.vocab_size, whole.num_labels, whole.pad_token_id) == (50, 3, 0)


def test_padding_is_masked() -> None:
    module = families.load("transformers:BertForSequenceClassification", TEXTS).build(4, seed=0).eval()
    x = torch.randint(1, 50, (1, 9))
    padded = torch.cat([x, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    torch.testing.assert_close(module(x), module(padded), rtol=0, atol=1e-5)


def test_a_class_that_does_not_exist_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="no class 'BertForSequenceClasification'") as error:
        families.load("transformers:BertForSequenceClasification", TEXTS)
    assert "did you mean transformers:BertForSequenceClassification" in error.value.hint


def test_a_class_for_other_samples_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot do classification with images"):
        families.load("transformers:BertForSequenceClassification", IMAGES)


def test_a_class_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="not wide in one number"):
        families.load("transformers:SwinForImageClassification", IMAGES)
