"""Scores of language models and taggers, against arithmetic by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sizewise import families, tasks
from sizewise.padding import PAD
from sizewise.records import Reading, Recipe, Signature
from sizewise.runtimes import eager
from sizewise.tasks import Preprocessor, Split, Task, problems
from sizewise.tasks.problems.problem import Session

MODEL = Signature("language modelling", (3,), 4, vocabulary=4, dynamic=True)
TAGGER = Signature("tagging", (3,), 3, vocabulary=4, dynamic=True)


def logits(probabilities: list[list[list[float]]]) -> NDArray[np.float32]:
    return np.log(np.array(probabilities, np.float32))


def uniform(outputs: int) -> Session:
    return lambda x: np.zeros((*x.shape, outputs), np.float32)


def test_bits_per_byte_and_perplexity_by_hand() -> None:
    problem = problems.make(MODEL, tuple("abcd"))
    half, quarter = [0.1, 0.2, 0.2, 0.5], [0.25, 0.25, 0.25, 0.25]
    y = np.array([[3, 1, PAD], [2, PAD, PAD]])
    split = Split(np.ones((2, 3), np.int64), y, (5, 3))
    nats = problem.read(logits([[half, quarter, half], [quarter, half, half]]), y)
    np.testing.assert_allclose(nats, [math.log(8), math.log(4)], rtol=1e-6)
    judged = problem.judge(nats, split)
    assert judged.values["bits per byte"] == pytest.approx(5 / 8)
    assert judged.values["perplexity"] == pytest.approx(32 ** (1 / 3))
    assert judged.loss == pytest.approx(math.log(32) / 3)
    for name, values in judged.examples.items():
        assert values.mean() == pytest.approx(judged.values[name])


def test_a_uniform_model_of_bytes_needs_the_logarithm_of_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Wer reitet so spät durch Nacht und Wind?\n" * 30)
    task = tasks.load("language", tmp_path / "a.txt", Reading(vocabulary=259, steps=16))
    for split in (task.train, task.validation, task.test):
        judged = task.problem.judge(task.problem.answers(uniform(259), split), split)
        assert judged.values["bits per byte"] == pytest.approx(math.log2(259), rel=1e-5)
        assert judged.values["perplexity"] == pytest.approx(259, rel=1e-5)


def test_bits_per_byte_do_not_depend_on_the_tokenizer(tmp_path: Path) -> None:
    """A model that spreads a token's probability over its bytes has one score, in whatever tokens it is asked."""
    (tmp_path / "a.txt").write_text("so much for that\n" * 100)
    found = []
    for vocabulary in (259, 270):
        task = tasks.load("language", tmp_path / "a.txt", Reading(vocabulary=vocabulary, steps=16))
        size = np.array([0, 0, 0, *(len(token) for token in task.classes[3:])])
        nats = np.array([size[row[row != PAD]].sum() * 3 * math.log(2) for row in task.test.y])
        found.append(task.problem.judge(nats, task.test).values["bits per byte"])
    assert found == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("signature", [MODEL, TAGGER], ids=lambda signature: signature.problem)
def test_padding_leaves_losses_alone(signature: Signature) -> None:
    problem = problems.make(signature, tuple("abcd"))
    outputs, y = torch.randn(2, 3, signature.outputs), torch.tensor([[1, 2, 2], [2, PAD, PAD]])
    changed = outputs.clone()
    changed[1, 1:] += 100 * torch.rand(2, signature.outputs)
    for recipe in (Recipe(), Recipe(label_smoothing=0.1)):
        sums, counts = problem.losses(outputs, y, recipe)
        assert counts.tolist() == [3, 1]
        assert torch.equal(problem.losses(changed, y, recipe)[0], sums)
        alone, _ = problem.losses(outputs[1:, :1], y[1:, :1], recipe)
        torch.testing.assert_close(alone, sums[1:])


@pytest.mark.parametrize("family", ["lstm", "gru", "transformer"])
def test_no_model_sees_the_token_that_it_foretells(family: str) -> None:
    signature = Signature("language modelling", (12,), 20, vocabulary=20, dynamic=True)
    module = families.load(family, signature).build(16, seed=0).eval()
    x = torch.randint(3, 20, (2, 12))
    changed = x.clone()
    changed[:, 7:] = torch.randint(3, 20, (2, 5))
    with torch.no_grad():
        torch.testing.assert_close(module(x)[:, :7], module(changed)[:, :7])
        torch.testing.assert_close(module(x)[:, :5], module(x[:, :5]))


def test_tags_are_scored_where_there_are_steps() -> None:
    problem = problems.make(TAGGER, ("", "noun", "verb"))
    outputs = np.zeros((2, 2, 3), np.float32)  # trimmed: no sample has a third step
    outputs[0, 0, 1] = outputs[0, 1, 2] = outputs[1, 0, 2] = 1
    outputs[..., 0] = 9  # padding is never an answer
    y = np.array([[1, 1, PAD], [2, PAD, PAD]])
    answers = problem.read(outputs, y)
    np.testing.assert_array_equal(answers[:, :1], [[1], [2]])
    judged = problem.judge(answers, Split(y, y))
    assert judged.values["accuracy"] == pytest.approx(2 / 3)
    assert judged.examples["accuracy"].mean() == pytest.approx(2 / 3)


def test_a_tagger_learns_to_tell_tokens(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(1, 4, (60, 3))
    x[::3, 2] = PAD
    signature = Signature("tagging", (3,), 4, vocabulary=4, dynamic=True)
    part = Split(x, x.copy())
    task = tasks.make_task("copy", "", ("", "a", "b", "c"), part, part, part, signature=signature)
    assert _trained(task).values["accuracy"] == 1.0


def _trained(task: Task) -> problems.Judged:
    module = families.load("bigru", task.signature).build(8, seed=0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    x, y = torch.from_numpy(task.train.x), torch.from_numpy(task.train.y)
    for _ in range(60):
        optimizer.zero_grad()
        sums, counts = task.problem.losses(module(x), y, Recipe())
        (sums.sum() / counts.sum()).backward()
        optimizer.step()
    session = eager.session(eager.Deployable(module, Preprocessor(), task.signature), task.signature)
    return task.problem.judge(task.problem.answers(session, task.test), task.test)
