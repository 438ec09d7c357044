"""Made data, runs and measurements, for tests that need to know the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sizewise import compress, config, families, tasks
from sizewise import recipe as recipes
from sizewise.config import Study
from sizewise.families.weights import read_weights
from sizewise.loop import Data, Start, train_one
from sizewise.records import (
    Candidate,
    Estimate,
    Measurement,
    Metric,
    Point,
    Recipe,
    Run,
    Scores,
    Signature,
    Target,
    Trial,
)
from sizewise.store import Store
from sizewise.tasks import Split, Task, problems
from sizewise.tasks.task import make_task

CLASSES = 3


def labels(examples: int) -> NDArray[np.int64]:
    """As many of each class, in turn."""
    return np.arange(examples, dtype=np.int64) % CLASSES


def publish(
    store: Store,
    y: NDArray[np.int64],
    *,
    width: int,
    seed: int,
    wrong: int,
    recipe: Recipe | None = None,
    fraction: float = 1.0,
    curve: Sequence[Point] = (),
    seconds: float = 1.0,
) -> Run:
    """A finished run, in the store, that has exactly `wrong` of the validation examples wrong.

    Which ones is drawn from the seed, so that other runs of that seed share most of them.
    """
    trial = Trial("made", "", "cnn", width, fraction, recipe or Recipe(), seed)
    missed = np.random.default_rng(seed).permutation(len(y))[:wrong]
    said = y.copy()
    said[missed] = (said[missed] + 1) % CLASSES
    problem = problems.make(Signature("classification", (1, 8, 8), CLASSES), "abc")
    judged = problem.judge(5.0 * np.eye(CLASSES)[said], Split(np.empty((len(y), 0)), y))
    examples = {name: torch.from_numpy(values) for name, values in judged.examples.items()}
    families.save_weights(examples, store.trial_folder(trial.key) / "validation.safetensors")
    scores = judged.scores(problem.metric)
    points = tuple(curve) or (Point(1, 10, 1e-3, scores.loss, scores.loss, scores.score, seconds),)
    run = Run(
        trial, 100 * width, 0, 0, points[-1].train_loss, scores, points, seconds, {"validation.safetensors": ""}, {}
    )
    store.save_run(run)
    return store.run(trial.key)


def sweep(
    store: Store, y: NDArray[np.int64], wrong: Mapping[int, Sequence[int]], *, seconds: float = 1.0
) -> dict[int, list[Run]]:
    """Runs by width; `wrong` holds the number of errors of each width's seeds 0, 1, 2, ..."""
    return {
        width: [publish(store, y, width=width, seed=s, wrong=w, seconds=seconds) for s, w in enumerate(errors)]
        for width, errors in wrong.items()
    }


def toy_task(samples: int = 180, side: int = 8, *, noise: float = 0.6, seed: int = 0) -> Task:
    """Images with a bright band whose place is the class: learned within an epoch or two."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        y = labels(count)
        x = noise * rng.normal(size=(count, 1, side, side))
        for c in range(CLASSES):
            x[y == c, :, 2 * c : 2 * c + 2] += 1
        return Split(x.astype(np.float32), y)

    return make_task("toy", "", tuple("abc"[:CLASSES]), split(samples), split(samples // 2), split(samples // 2))


def trial(
    task: Task, width: int = 2, seed: int = 0, *, family: str = "cnn", fraction: float = 1.0, recipe: Recipe
) -> Trial:
    """A trial on a task."""
    return Trial(task.name, task.fingerprint, family, width, fraction, recipe, seed)


def train(made: Trial, task: Task, root: Path, start: Start | None = None) -> Run:
    """Train one trial in this process, on one thread."""
    torch.set_num_threads(1)
    return train_one(made, Data.of(task), Store(root), start or Start())


def weights(run: Run, root: Path) -> dict[str, torch.Tensor]:
    """The trained weights of a run."""
    return read_weights(Store(root).trial_folder(run.trial.key) / "model.safetensors")


@dataclass(frozen=True)
class Models:
    """Two models of the real digits, trained for real, and their candidates: each in every runtime and precision."""

    study: Study
    task: Task
    store: Store
    runs: tuple[Run, ...]
    candidates: tuple[Candidate, ...]

    def folder(self, candidate: Candidate) -> Path:
        return self.store / "candidates" / candidate.name


def make_models(root: Path) -> Models:
    """Widths 8 and 4; the first five candidates are width 8's."""
    task, store = tasks.load("digits", None), Store(root)
    recipe = Recipe(batch_size=32, epochs=15)
    runs = tuple(train(trial(task, w, recipe=recipes.at_width(recipe, w)), task, root) for w in (8, 4))
    study = config.resolve(Study("digits", recipe=recipe), task)
    candidates, skipped = compress.build(study, runs, task, store)
    assert not skipped
    return Models(study, task, store, runs, candidates)


def around(value: float, half: float = 0.0) -> Estimate:
    """An estimate with a symmetric interval."""
    return Estimate(value, value - half, value + half, 0.95, "made", 100)


PARENT = Candidate("width8-trained-torch-fp32", "run-of-width8", (), 8, 5000, "torch", "fp32", 1.0)


def measurement(candidate: Candidate = PARENT, **changed: object) -> Measurement:
    """A measurement like the parent's, with what is `changed`."""
    base = Measurement(
        candidate=candidate,
        target=Target(),
        validation_score=around(0.98, 0.01),
        validation_drop=around(0.0),
        test_score=around(0.97, 0.01),
        test_drop=around(0.0),
        test=Scores(Metric("accuracy"), 0.1, 0.97, {"accuracy": 0.97}, ((97, 3), (3, 97))),
        latency_p50_ms=around(1.0, 0.1),
        latency_p99_ms=around(2.0, 0.2),
        speedup=around(1.0, 0.01),
        throughput=around(1000.0, 10.0),
        throughput_ratio=around(1.0, 0.01),
        throughput_batch=64,
        size_bytes=20_000,
        peak_memory_bytes=300_000_000,
        agreement=1.0,
    )
    return replace(base, **changed)  # type: ignore[arg-type]
