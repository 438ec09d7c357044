"""Transcription: the loss is torch's, padding changes nothing, answers collapse, and the error rate is jiwer's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import families
from sizewise.families.parts import surely_blank
from sizewise.padding import pad
from sizewise.records import Recipe, Signature
from sizewise.tasks import Split
from sizewise.tasks.problems import make
from sizewise.tasks.problems.transcription import Transcription, collapse

WORDS = ("", "go", "left", "right", "stop")
SIGNATURE = Signature("transcription", (40, 4), len(WORDS), dynamic=True)


def problem() -> Transcription:
    found = make(SIGNATURE, WORDS)
    assert isinstance(found, Transcription)
    return found


def ids(*rows: Sequence[int]) -> NDArray[Any]:
    return pad([np.array(row, np.int64) for row in rows], 1)


def split(*rows: Sequence[int]) -> Split:
    return Split(np.zeros((len(rows), 4, 4), np.float32), ids(*rows))


def logits(n: int, frames: int) -> torch.Tensor:
    return torch.randn(n, frames, len(WORDS), generator=torch.Generator().manual_seed(1))


def test_the_loss_of_each_sample_is_torchs() -> None:
    outputs, y = logits(3, 12), ids([1, 2, 2], [4], [3, 1, 3, 1])
    losses, counts = problem().losses(outputs, torch.from_numpy(y), Recipe())
    assert counts.tolist() == [3, 1, 4]
    for row, labels, loss in zip(outputs, y, losses, strict=True):
        target = torch.from_numpy(labels[labels > 0])
        expected = F.ctc_loss(
            row.log_softmax(1), target, torch.tensor(len(row)), torch.tensor(len(target)), reduction="sum"
        )
        torch.testing.assert_close(loss, expected)


def test_padding_changes_neither_loss_nor_answer() -> None:
    steps, outputs, y = (12, 7, 5), logits(3, 12), torch.from_numpy(ids([1, 2, 2], [4], [3, 1]))
    there = torch.arange(12) < torch.tensor(steps)[:, None]
    together = surely_blank(outputs, there)
    losses, _ = problem().losses(together, y, Recipe())
    answers = problem().read(together.numpy(), y.numpy())
    for i, n in enumerate(steps):
        alone, _ = problem().losses(outputs[i : i + 1, :n], y[i : i + 1], Recipe())
        torch.testing.assert_close(losses[i : i + 1], alone)
        (answer,) = problem().read(outputs[i : i + 1, :n].numpy(), y[i : i + 1].numpy())
        np.testing.assert_array_equal(answers[i][answers[i] > 0], answer[answer > 0])


def test_a_model_learns_without_numbers_that_are_none() -> None:
    torch.manual_seed(0)
    module = families.load("cnn1d", SIGNATURE).build(4, seed=0)
    x = torch.from_numpy(pad([np.random.default_rng(i).standard_normal((20 + i, 3)) for i in range(6)]))
    y = torch.from_numpy(ids(*[[1 + i % 4, 1 + (i + 1) % 4] for i in range(6)]))
    optimizer, found = torch.optim.Adam(module.parameters(), 1e-2), []
    for _ in range(60):
        sums, counts = problem().losses(problem().forward(module, x, y), y, Recipe())
        loss = sums.sum() / counts.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found.append(float(loss.detach()))
    assert np.isfinite(found).all()
    assert found[-1] < found[0] / 3


CASES = (
    ([1, 2, 3], [1, 2, 3], 0),  # right
    ([1, 2, 3], [1, 4, 3], 1),  # one for another
    ([1, 2, 3], [1, 3], 1),  # one too few
    ([1, 2], [1, 4, 4, 2], 2),  # two too many
    ([1, 2, 3], [], 3),  # nothing
)


def test_the_word_error_rate_of_cases_made_by_hand() -> None:
    truth, guess = split(*(t for t, _, _ in CASES)), ids(*(g for _, g, _ in CASES))
    judged = problem().judge(guess, truth)
    words, wrong = sum(len(t) for t, _, _ in CASES), sum(w for _, _, w in CASES)
    assert judged.values["word error rate"] == pytest.approx(wrong / words)
    assert judged.values["sentence accuracy"] == pytest.approx(1 / 5)
    texts = [
        [" ".join(WORDS[i] for i in row) for row in rows] for rows in zip(*((t, g) for t, g, _ in CASES), strict=True)
    ]
    assert judged.values["word error rate"] == pytest.approx(jiwer.wer(*texts))
    for name, values in judged.examples.items():
        assert values.mean() == pytest.approx(judged.values[name])


sentences = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=8)


@given(truth=sentences, data=st.data())
def test_the_word_error_rate_is_jiwers(truth: list[list[int]], data: st.DataObject) -> None:
    one = st.lists(st.integers(1, 4), max_size=6)
    guess = data.draw(st.lists(one, min_size=len(truth), max_size=len(truth)))
    judged = problem().judge(ids(*guess), split(*truth))
    texts = [[" ".join(WORDS[i] for i in row) for row in rows] for rows in (truth, guess)]
    assert judged.values["word error rate"] == pytest.approx(jiwer.wer(*texts))
    assert judged.values["sentence accuracy"] == pytest.approx(
        np.mean([t == g for t, g in zip(truth, guess, strict=True)])
    )


frames = st.lists(st.integers(0, 3), min_size=1, max_size=20)


@given(row=frames)
def test_answers_are_frames_without_repeats_and_blanks(row: list[int]) -> None:
    (found,) = collapse(np.array([row]))
    assert found[found > 0].tolist() == [label for label, _ in groupby(row) if label]


@given(labels=st.lists(st.integers(1, 3), max_size=6), data=st.data())
def test_labels_with_blanks_between_and_any_repeats_are_found_again(labels: list[int], data: st.DataObject) -> None:
    row = [0]
    for label in labels:
        row += [label] * data.draw(st.integers(1, 3)) + [0] * data.draw(st.integers(1, 3))
    (found,) = collapse(np.array([row]))
    assert found[found > 0].tolist() == labels


@given(rows=st.lists(frames, min_size=1, max_size=5))
def test_a_batch_collapses_like_its_rows(rows: list[list[int]]) -> None:
    together = collapse(ids(*rows))
    for row, found in zip(rows, together, strict=True):
        (alone,) = collapse(np.array([row]))
        assert found[found > 0].tolist() == alone[alone > 0].tolist()


def test_the_longest_answers_of_two_models_need_not_be_equally_long() -> None:
    a, b = ids([1, 2], [3]), ids([1, 2], [3, 3, 3])
    assert problem().same(a, b).tolist() == [True, False]
    assert problem().same(b, a).tolist() == [True, False]
