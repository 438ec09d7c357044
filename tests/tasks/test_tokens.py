"""Text to tokens and back: nothing is unknown, nothing is lost."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.padding import BEGIN, END, PAD
from sizewise.tasks.tokens import SMALLEST, Tokens

WORDS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "Ünïcode, naïve"] * 3
TOKENS = Tokens.train(WORDS, 300)
READ = Tokens.read(TOKENS.write())


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    (ids,) = TOKENS.ids([text])
    assert TOKENS.text(ids) == unicodedata.normalize("NFC", text)
    assert not len(ids) or (ids.min() > END and ids.max() < len(TOKENS.vocabulary))
    np.testing.assert_array_equal(READ.ids([text])[0], ids)


@given(st.text())
def test_each_character_of_a_token_is_a_byte(text: str) -> None:
    (ids,) = TOKENS.ids([text])
    assert sum(len(TOKENS.vocabulary[i]) for i in ids) == len(unicodedata.normalize("NFC", text).encode())


@pytest.mark.parametrize("text", ["", "\x00", "[PAD]", "[BEGIN] x [END]", "\ud7ff\ue000", "\U0010ffff", "e\u0301"])
def test_awkward_texts_come_back(text: str) -> None:
    test_any_text_comes_back.hypothesis.inner_test(text)  # type: ignore[attr-defined]


def test_padding_first_and_last_token_are_no_text() -> None:
    (ids,) = TOKENS.ids(["the cat"])
    assert TOKENS.text(np.array([BEGIN, *ids, END, PAD, PAD])) == "the cat"
    assert TOKENS.vocabulary[:3] == ("[PAD]", "[BEGIN]", "[END]")


def test_the_smallest_vocabulary_is_bytes() -> None:
    tokens = Tokens.train(WORDS, SMALLEST)
    assert len(tokens.vocabulary) == SMALLEST
    assert [len(ids) for ids in tokens.ids(["abc", "é"])] == [3, 2]


def test_without_capitals() -> None:
    tokens = Tokens.train(WORDS, 300, lower=True)
    assert tokens.text(tokens.ids(["The CAT"])[0]) == "the cat"
