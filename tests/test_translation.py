"""Translation from sentences to served answers: BLEU and its scatter, beam search, and a language of seven words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import families, runtimes, tasks
from sizewise.compress.candidates import build
from sizewise.config import Study
from sizewise.errors import UsageError
from sizewise.loop import Data, Start, batches, train_one
from sizewise.measure import CALLS
from sizewise.padding import BEGIN, END, PAD, lengths, pad
from sizewise.records import Reading, Recipe, Run, Signature, Trial
from sizewise.runtimes import beam
from sizewise.runtimes.timing import TURN_SECONDS, timed
from sizewise.runtimes.worded import worded
from sizewise.store import Store
from sizewise.tasks import Task
from sizewise.tasks.problems.translation import bleu_of_each
from tests.graphs import Next, made

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs", "dog": "Hund"}


@dataclass(frozen=True)
class Trained:
    """A translator of the seven words, and its candidates' folders by runtime and precision."""

    task: Task
    run: Run
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("words")
    sentences = [[list(WORDS)[i] for i in rng.integers(0, len(WORDS), rng.integers(4, 7))] for _ in range(1000)]
    (folder / "words.en").write_text("".join(" ".join(row) + "\n" for row in sentences))
    (folder / "words.de").write_text("".join(" ".join(WORDS[word] for word in row) + "\n" for row in sentences))
    task = tasks.load("parallel", folder, Reading(text="en", target="de", vocabulary=300))
    store = Store(tmp_path_factory.mktemp("study"))
    recipe = Recipe(lr=1e-2, epochs=16, batch_size=32, warmup=0.1, clip=1.0)
    trial = Trial(task.name, task.fingerprint, "translator", 32, 1.0, recipe, 0)
    run = train_one(trial, Data.of(task), store, Start())
    candidates, skipped = build(Study("parallel"), [run], task, store)
    assert [reason.partition(": ")[0] for reason in skipped] == ["width32-trained-openvino-int8"]
    return Trained(task, run, {f"{c.runtime} {c.precision}": store / "candidates" / c.name for c in candidates})


def test_a_small_language_is_learned(trained: Trained) -> None:
    task, session = trained.task, runtimes.load(trained.folders["torch fp32"])
    answers = task.problem.answers(session, task.test)
    words = worded(runtimes.Config.read(trained.folders["torch fp32"]), trained.folders["torch fp32"])
    said = words(answers, task.test.x)
    right = np.mean([text == truth for (text,), truth in zip(said, task.test.references, strict=True)])
    assert right > 0.9
    judged = task.problem.judge(answers, task.test)
    assert judged.values["BLEU"] > 0.95
    assert judged.values["chrF"] > 0.95
    assert trained.run.validation.metric.name == "BLEU"
    assert 0 < trained.run.validation.loss < 0.2


@pytest.mark.parametrize("name", ["onnxruntime fp32", "openvino fp32"])
@pytest.mark.parametrize("batch", [1, 7])
def test_runtimes_give_the_same_ids(trained: Trained, name: str, batch: int) -> None:
    x = trained.task.test.x[:batch]
    reference, other = (runtimes.load(trained.folders[kind]) for kind in ("torch fp32", name))
    np.testing.assert_array_equal(other(x), reference(x))


def test_int8_translates_too(trained: Trained) -> None:
    folder = trained.folders["onnxruntime int8"]
    answers = trained.task.problem.answers(runtimes.load(folder), trained.task.test)
    assert trained.task.problem.judge(answers, trained.task.test).values["BLEU"] > 0.9
    full = sum(path.stat().st_size for path in runtimes.files(trained.folders["onnxruntime fp32"]))
    assert sum(path.stat().st_size for path in runtimes.files(folder)) < 0.9 * full


def test_padding_and_company_change_no_answer(trained: Trained) -> None:
    x = trained.task.test.x[:12]
    session = runtimes.load(trained.folders["torch fp32"])
    together = session(x)
    for row, alone in zip(together, (session(x[i : i + 1, : lengths(x)[i]]) for i in range(len(x))), strict=True):
        np.testing.assert_array_equal(row[row != PAD], alone[0][alone[0] != PAD])


def test_answers_come_in_the_order_of_the_split(trained: Trained) -> None:
    task, session = trained.task, runtimes.load(trained.folders["torch fp32"])
    answers = task.problem.answers(session, task.test)
    assert answers.shape == (len(task.test), task.signature.target_steps)
    for i in (0, 5, 17):
        alone = task.problem.answers(session, task.test.take(np.array([i])))
        np.testing.assert_array_equal(answers[i], alone[0])
    assert task.problem.same(answers, answers).all()


def test_the_loss_is_of_the_next_token(trained: Trained) -> None:
    task = trained.task
    module = families.load("translator", task.signature).build(16, seed=0).eval()
    x, y = torch.from_numpy(task.test.x[:4]), torch.from_numpy(task.test.y[:4])
    with torch.no_grad():
        sums, counts = task.problem.losses(task.problem.forward(module, x, y), y, Recipe())
        for row in range(4):
            ids = y[row][y[row] != PAD]
            logs = torch.log_softmax(module(x[row : row + 1], ids[None, :-1])[0], 1)
            expected = -logs[torch.arange(len(ids) - 1), ids[1:]].sum()
            torch.testing.assert_close(sums[row], expected, rtol=1e-4, atol=1e-4)
            assert counts[row] == len(ids) - 1


def test_batches_hold_sentences_of_similar_length_and_each_once(trained: Trained) -> None:
    data, recipe = Data.of(trained.task), Recipe(batch_size=16)
    found = batches(data, recipe, torch.Generator().manual_seed(1))
    assert sorted(torch.cat(list(found)).tolist()) == list(range(len(data.x)))
    again = batches(data, recipe, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    steps = lengths(data.y)
    spread = [int(steps[batch].max() - steps[batch].min()) for batch in found]
    assert np.mean(spread) < 0.5
    assert int(steps.max() - steps.min()) >= 2
    first = [int(steps[batch].max()) for batch in found]
    assert first != sorted(first)


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, CALLS), (2 * TURN_SECONDS, 1)])
def test_slow_models_are_timed_with_fewer_calls(seconds: float, calls: int) -> None:
    def session(x: NDArray[Any]) -> NDArray[Any]:
        time.sleep(seconds)
        return x

    assert len(timed(session, np.zeros(1), CALLS)) <= calls


def sentences(n: int, seed: int) -> tuple[list[str], list[str]]:
    """References, and copies of them with some words changed."""
    rng, vocabulary = np.random.default_rng(seed), [f"w{i}" for i in range(30)]
    meant = [[vocabulary[i] for i in rng.zipf(1.5, rng.integers(5, 15)) % 30] for _ in range(n)]
    said = [[w if rng.random() < 0.7 else vocabulary[rng.integers(30)] for w in row] for row in meant]
    return [" ".join(row) for row in said], [" ".join(row) for row in meant]


def test_bleu_of_each_has_the_corpus_bleu_as_mean_and_its_scatter() -> None:
    from sacrebleu.metrics import BLEU

    said, meant = sentences(400, 0)
    values = bleu_of_each(said, meant)
    assert values.mean() == pytest.approx(BLEU().corpus_score(said, [meant]).score / 100, abs=1e-9)
    rng, draws = np.random.default_rng(1), []
    for _ in range(60):
        chosen = rng.integers(0, len(said), len(said))
        draws.append(BLEU().corpus_score([said[i] for i in chosen], [[meant[i] for i in chosen]]).score / 100)
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert error == pytest.approx(np.std(draws), rel=0.3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(min_size=1, max_size=30)), min_size=1, max_size=6))
def test_bleu_of_anything_is_a_number(pairs: Sequence[tuple[str, str]]) -> None:
    values = bleu_of_each([a for a, _ in pairs], [b for _, b in pairs])
    assert values.shape == (len(pairs),)
    assert np.isfinite(values).all()
    assert -1e-9 <= values.mean() <= 1 + 1e-9


def test_metrics_without_scatter_are_not_chosen_by(trained: Trained) -> None:
    with pytest.raises(UsageError, match="no metric 'chrF'"):
        trained.task.scored_by("chrF")


TOKENS = 9


def dice(seed: int) -> Next:
    """The next token's logits are a fixed random function of source and beginning."""

    def following(source: NDArray[np.int64], said: NDArray[np.int64]) -> NDArray[Any]:
        row = (seed, *source[source != PAD], 99, *said[said != PAD])
        return np.random.default_rng(row).normal(0, 2, TOKENS).astype(np.float32)

    return following


def plainly(following: Next, source: NDArray[Any], longest: int, beams: int) -> list[int]:
    """Beam search of one source as a textbook writes it."""
    alive: list[tuple[float, list[int]]] = [(0.0, [BEGIN])]
    for _ in range(longest - 1):
        grown = []
        for score, ids in alive:
            if ids[-1] == END:
                grown.append((score, ids))
                continue
            logits = following(source, np.array(ids)).astype(float)
            logs = logits - np.log(np.exp(logits).sum())
            grown += [(score + logs[i], [*ids, i]) for i in range(TOKENS) if i not in (PAD, BEGIN)]
        alive = sorted(grown, key=lambda found: -found[0] / (len(found[1]) - 1))[:beams]
        if all(ids[-1] == END for _, ids in alive):
            break
    best = max(alive, key=lambda found: found[0] / (len(found[1]) - 1))[1]
    return [i for i in best[1:] if i != END]


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beam_search_is_the_textbooks(beams: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = pad([rng.integers(3, TOKENS, rng.integers(1, 6)) for _ in range(9)])
    found = beam.search(*made(dice(seed)), source, 8, beams)
    for row, x in zip(found, source, strict=True):
        assert [int(i) for i in row if i != PAD] == plainly(dice(seed), x, 8, beams)


def test_what_has_ended_is_not_decoded_again() -> None:
    encode, decode = made(dice(0))
    sizes = []

    def counted(token: NDArray[Any], memory: NDArray[Any], past: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        sizes.append(len(token))
        return decode(token, memory, past)

    source = np.random.default_rng(0).integers(3, TOKENS, (20, 4))
    beam.search(encode, counted, source, 30, 4)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] == 20


def test_the_source_is_read_once_and_each_token_is_decoded_once() -> None:
    encode, decode = made(dice(0))
    read, steps = [], []

    def reading(source: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        read.append(len(source))
        return encode(source)

    def counted(token: NDArray[Any], memory: NDArray[Any], past: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        steps.append(past.shape[2])
        return decode(token, memory, past)

    beam.search(reading, counted, np.array([[3, 4], [5, 0]]), 12, 4)
    assert read == [2]
    assert steps == list(range(len(steps)))


def test_the_longest_answer_has_an_end() -> None:
    encode, decode = made(lambda source, said: np.array([0, 0, -50, 5, 1], np.float32))
    found = beam.search(encode, decode, np.ones((2, 3), np.int64), 6, 2)
    np.testing.assert_array_equal(found, np.full((2, 5), 3))


def test_translators_need_translation() -> None:
    with pytest.raises(UsageError, match="translator family cannot do classification"):
        families.load("translator", Signature("classification", (5,), 3, vocabulary=10))
