"""Measurements are fair, taken on the real files, and the only place that looks at the test split."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sizewise import compress, plan, runtimes
from sizewise.choose import choose
from sizewise.diagnose import diagnose
from sizewise.export import export
from sizewise.loop import Data, train_one
from sizewise.measure import mark_frontier, measure
from sizewise.methods import Distil, Narrow
from sizewise.records import Candidate, Measurement, Origin, Target
from sizewise.runtimes.footprint import footprint
from sizewise.store import Store, write_json
from sizewise.tasks import Split
from tests.builders import PARENT, Models, around, measurement, trial

COPIES = 4


def predict(session: runtimes.Session, split: Split) -> NDArray[np.int64]:
    """Classes (n,) that a session says."""
    return np.asarray(session(split.x.astype(np.float32)).argmax(1))


def copy_of(models: Models, store: Store, candidate: Candidate, name: str) -> Candidate:
    """The same files under another name."""
    copied = replace(candidate, name=name)
    shutil.copytree(models.folder(candidate), store / "candidates" / name)
    write_json(store / "candidates" / name / "candidate.json", copied)
    return copied


@pytest.fixture(scope="module")
def measured(models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measurement]:
    """Width 8 in every runtime and precision, and copies of the first, which everything is compared with."""
    root = tmp_path_factory.mktemp("measured")
    shutil.copytree(models.store.root, root, dirs_exist_ok=True)
    store, parent = Store(root), models.candidates[0]
    copies = [copy_of(models, store, parent, f"copy-{i}") for i in range(COPIES)]
    shares: list[float] = []
    found = measure((*models.candidates[:5], *copies), parent, models.task, store, Target(), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    return {m.candidate.name: m for m in found}


def test_a_model_is_as_fast_as_itself(measured: dict[str, Measurement]) -> None:
    """Ten 95 % intervals around ratios that are 1: more than three of them miss once in a thousand times."""
    same = [m for m in measured.values() if m.candidate.runtime == "torch"]
    ratios = [ratio for m in same for ratio in (m.speedup, m.throughput_ratio)]
    assert len(ratios) == 2 * (COPIES + 1)
    assert sum(not r.low <= 1 <= r.high for r in ratios) <= 3, ratios


def test_a_model_agrees_with_itself(measured: dict[str, Measurement]) -> None:
    for m in measured.values():
        if m.candidate.runtime == "torch":
            assert m.agreement == 1
            assert m.validation_drop.value == m.test_drop.value == 0


def test_scores_are_those_of_the_files(measured: dict[str, Measurement], models: Models) -> None:
    for candidate in models.candidates[:5]:
        m, session = measured[candidate.name], runtimes.load(models.folder(candidate))
        for score, split in ((m.validation_score, models.task.validation), (m.test_score, models.task.test)):
            assert score.value == pytest.approx(float((predict(session, split) == split.y).mean()))
            assert score.low < score.value < score.high
            assert score.n == len(split.y)
        assert m.test.score == m.test.values["accuracy"] == pytest.approx(m.test_score.value)


def test_drops_and_agreement_are_paired_with_the_parent(measured: dict[str, Measurement], models: Models) -> None:
    task, parent = models.task, models.candidates[0]
    theirs = predict(runtimes.load(models.folder(parent)), task.test)
    for candidate in models.candidates[1:5]:
        m = measured[candidate.name]
        ours = predict(runtimes.load(models.folder(candidate)), task.test)
        assert m.agreement == pytest.approx((ours == theirs).mean())
        assert m.test_drop.value == pytest.approx((theirs == task.test.y).mean() - (ours == task.test.y).mean())


def test_times_are_ordered_and_positive(measured: dict[str, Measurement]) -> None:
    for m in measured.values():
        assert 0 < m.latency_p50_ms.low <= m.latency_p50_ms.value <= m.latency_p50_ms.high
        assert m.latency_p50_ms.value <= m.latency_p99_ms.value
        assert m.throughput.value > 1e3 / m.latency_p50_ms.value  # a batch is never slower than one by one
        assert m.speedup.n == 10


def test_a_faster_runtime_is_measured_as_faster(measured: dict[str, Measurement]) -> None:
    """A tiny model in eager PyTorch spends its time in Python."""
    assert measured["width8-trained-onnxruntime-fp32"].speedup.low > 1


def test_sizes_are_those_of_the_files(measured: dict[str, Measurement], models: Models) -> None:
    for candidate in models.candidates[:5]:
        names = runtimes.RUNTIMES[candidate.runtime].files()
        sizes = [(models.folder(candidate) / name).stat().st_size for name in names]
        assert measured[candidate.name].size_bytes == sum(sizes)


def test_memory_is_the_runtimes_own(measured: dict[str, Measurement]) -> None:
    memory = {name: m.peak_memory_bytes for name, m in measured.items()}
    assert memory["width8-trained-torch-fp32"] > 2 * memory["width8-trained-onnxruntime-fp32"]


def test_memory_is_not_inherited_from_the_process_that_measures(models: Models) -> None:
    ballast = np.ones(60_000_000)
    folder = models.folder(models.candidates[1])
    assert footprint(folder, threads=1, batch=1).peak_memory_bytes < ballast.nbytes / 2


def test_memory_grows_with_the_batch(models: Models) -> None:
    folder = models.folder(models.candidates[1])
    one, many = (footprint(folder, threads=1, batch=batch).peak_memory_bytes for batch in (1, 20_000))
    assert many - one > 20_000 * 64 * 4  # the input alone


MEASUREMENTS = st.lists(
    st.builds(
        lambda score, latency, size: measurement(
            validation_score=around(score / 10), latency_p50_ms=around(float(latency)), size_bytes=size
        ),
        st.integers(0, 4),
        st.integers(1, 4),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=12,
)


def costs(m: Measurement) -> tuple[float, ...]:
    return (-m.validation_score.value, m.latency_p50_ms.value, m.size_bytes)


@given(MEASUREMENTS)
def test_the_frontier_is_what_nothing_dominates(made: list[Measurement]) -> None:
    marked = mark_frontier(made)
    assert [replace(m, frontier=False) for m in marked] == made
    for m in marked:
        dominated = any(
            all(a <= b for a, b in zip(costs(o), costs(m), strict=True)) and costs(o) != costs(m) for o in marked
        )
        assert m.frontier == (not dominated)
    assert any(m.frontier for m in marked)


class Sealed(Split):
    """A test split that must not be opened."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        return _refuse() if name in ("x", "y") else super().__getattribute__(name)


def _refuse() -> NoReturn:
    raise AssertionError("the test split was read")


def test_only_measuring_opens_the_test_split(models: Models, tmp_path: Path) -> None:
    """Planning, training, choosing, compressing and exporting, each on a task whose test split cannot be read."""
    task, store = replace(models.task, test=Sealed()), Store(tmp_path)
    plan.plan(replace(models.study, sweep=replace(models.study.sweep, widths=(2, 3))), task)
    data, recipe = Data.of(task), replace(models.study.recipe, epochs=2)

    def run(width: int, seed: int, origin: Origin | None = None) -> Any:
        made = replace(trial(task, width, seed, recipe=recipe), origin=origin)
        return train_one(made, data, store, compress.prepare(made, store, data))

    sizes = {width: [run(width, seed) for seed in range(3)] for width in (2, 3)}
    diagnose(sizes, (), store)
    choice = choose(sizes, store)
    chosen = store.run(choice.run)
    for method in (Narrow(), Distil()):
        run(2, 0, Origin(method, sizes[3][0].trial.key))
    candidates, _ = compress.build(models.study, (chosen,), task, store)
    export(measurement(candidates[1], validation_score=around(chosen.validation.score)), task, store)
    with pytest.raises(AssertionError, match="the test split was read"):
        measure(candidates[:1], candidates[0], task, store, Target())


def test_a_measurement_of_nothing_else_is_its_own_frontier() -> None:
    (alone,) = mark_frontier([measurement(PARENT)])
    assert alone.frontier
