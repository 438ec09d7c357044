"""What training takes and gives."""

from __future__ import annotations

import dataclasses
from typing import Literal

from sizewise.records.cluster import Packing
from sizewise.records.estimate import Metric
from sizewise.records.law import More
from sizewise.records.precedent import Guess
from sizewise.records.trial import Trial

Tier = Literal["reference", "traced", "compiled"]

Strategy = Literal["single", "ddp", "fsdp2"]


@dataclasses.dataclass(frozen=True)
class Engine:
    """How the steps of a size were computed: the same for all its seeds, so that they are compared like with like.

    Attributes:
        tier: "reference" is the module as it stands; "traced" computes its loss and gradients as one line of tensor
            operations, "compiled" as machine code.
        step_ms: median milliseconds of one step of each that was tried, when it was chosen.
        left_out: why each of the others was not tried.
    """

    tier: Tier = "reference"
    step_ms: dict[str, float] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Parallelism:
    """How a run was shared out over workers, each of which took its part of every batch.

    Attributes:
        strategy: "single" is one process; "ddp" has the whole model on every worker and averages gradients, "fsdp2" has
            a part of each weight, its gradient and its optimizer state on every worker.
        reason: why this strategy, with the arithmetic.
    """

    strategy: Strategy = "single"
    workers: int = 1
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Point:
    """One epoch of a learning curve. Losses are means per sample or token; the score is NaN where it is costly."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    validation_loss: float
    validation_score: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Scores:
    """One model on one split.

    Attributes:
        metric: what `score` is.
        loss: mean per sample, or per token where targets have steps.
        values: every metric of the problem, by name.
        confusion: counts of classes, rows are truth; empty where there are no classes.
    """

    metric: Metric
    loss: float
    score: float
    values: dict[str, float]
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def error(self) -> float:
        """What a law is fitted to: the score where less is better, and 1 - score where more is."""
        return 1 - self.score if self.metric.higher else self.score


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained trial: what came out and what it cost.

    Attributes:
        params: trainable parameters.
        flops: forward floating-point operations for one sample.
        memory_bytes: weights, gradients, optimizer state and saved activations of one training step, on each worker.
        train_loss: mean loss over the last epoch's steps.
        validation: scores on the validation split.
        seconds: wall time spent training and evaluating, summed over interruptions.
        files: sha256 of each file of the trial folder.
        engine: how its steps were computed.
        parts: in which the gradient of a batch was added up: more than the recipe's where memory ran out.
        diverged: the epoch in which the training loss was no longer a number; 0 if it always was one.
        parallelism: how it was shared out over workers.
    """

    trial: Trial
    params: int
    flops: int
    memory_bytes: int
    train_loss: float
    validation: Scores
    curve: tuple[Point, ...]
    seconds: float
    files: dict[str, str]
    environment: dict[str, str]
    engine: Engine = Engine()
    parts: int = 1
    diverged: int = 0
    parallelism: Parallelism = Parallelism()


@dataclasses.dataclass(frozen=True)
class Failure:
    """A trial that did not end in a run, and why.

    Attributes:
        kind: "memory" ran out even for one sample at a time, an "error" was raised by a model or its data, or the
            process "died" each time.
        reason: one sentence, with what the error said.
        trace: the end of the traceback.
    """

    trial: Trial
    kind: Literal["memory", "error", "died"]
    reason: str
    trace: str = ""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one width costs, timed on a few real steps.

    Attributes:
        params, non_embedding: trainable parameters, and those of them that are no tables of token vectors.
        flops, training_flops: floating-point operations for one sample: forward, and forward and backward.
        memory_bytes: of one training step.
        seconds: one run at the full training split.
    """

    width: int
    params: int
    non_embedding: int
    flops: int
    training_flops: int
    memory_bytes: int
    step_ms: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trials to train and what that will cost.

    Attributes:
        trials: the sweep proper: every size with every seed, one recipe, the whole training split.
        probes: a few of them with one thing changed, for the diagnosis.
        seconds: predicted wall time with `workers` processes, trials already finished not counted.
        notes: what was given up to fit a time limit, in plain words.
        request: hash of the configuration and data that led to this plan.
        packing: onto declared machines; then `workers` and `seconds` are theirs.
        more: what longer runs of one worker would give, in hours, by a law that an earlier `fit` found.
        guess: what earlier studies say of the right size; None without any that is similar.
    """

    trials: tuple[Trial, ...]
    probes: tuple[Trial, ...]
    costs: tuple[Cost, ...]
    workers: int
    seconds: float
    finished: int
    notes: tuple[str, ...] = ()
    request: str = ""
    packing: Packing | None = None
    more: tuple[More, ...] = ()
    guess: Guess | None = None
