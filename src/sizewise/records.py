"""The nouns: frozen records that the stages pass to one another, and their JSON form.

A record is data only. Stages are functions from records to records, so a study can be stopped, resumed,
moved and read by other programs at any stage boundary.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from functools import cache
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Problem = Literal[
    "classification", "regression", "tagging", "language modelling", "transcription", "translation", "detection"
]
"""What is learned: one label or several numbers a sample, a label at each step, the next token, labels without their
places in time (CTC), a sentence from a sentence, boxes in an image."""

Layout = Literal["image", "volume", "series", "tokens"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An uncertain number: the only way one leaves this library.

    Attributes:
        value: point estimate, in the unit named by the field that holds it.
        low, high: ends of the interval, same unit.
        level: nominal coverage of the interval, in (0, 1).
        method: how the interval was made, in words.
        n: how many independent repeats (seeds, examples or blocks; `method` says which) stand behind it.
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    n: int


@dataclasses.dataclass(frozen=True)
class Metric:
    """The score that sizes are chosen by.

    Attributes:
        name: as the field writes it, for example "accuracy".
        higher: whether more is better.
        share: whether it lies in [0, 1] and is written in per cent, and its differences in points.
        margin: difference that does not matter unless the study says otherwise, in the metric's unit.
    """

    name: str
    higher: bool = True
    share: bool = True
    margin: float = 0.005

    def gain(self, a: float, b: float) -> float:
        """How much better a is than b, in the metric's unit."""
        return a - b if self.higher else b - a


@dataclasses.dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out: all that a family has to know of a task.

    A model takes one tensor, a batch of samples. Padding can be seen in it: a token 0, or, in a series that is
    `dynamic`, a last channel that is 1 where there is a step and 0 where there is none. Translators take the target's
    beginning as a second tensor.

    Attributes:
        problem: decides what comes out; shapes are in `families.output_shape`.
        input_shape: of one sample: (channels, height, width) of an image, (channels, depth, height, width) of a volume,
            (steps, channels) of a series, (tokens,) of a text.
        outputs: classes, numbers or tokens of the target; the blank of CTC, number 0, included.
        vocabulary: tokens of the input, ids in [0, vocabulary); 0 where the input is numbers.
        dynamic: whether samples may have fewer steps than `input_shape` says.
        target_steps: longest target with its first and last token; 0 where targets have no steps of their own.
    """

    problem: Problem
    input_shape: tuple[int, ...]
    outputs: int
    vocabulary: int = 0
    dynamic: bool = False
    target_steps: int = 0

    @property
    def layout(self) -> Layout:
        """What one sample is."""
        layouts: dict[int, Layout] = {1: "tokens", 2: "series", 3: "image", 4: "volume"}
        return layouts[len(self.input_shape)]

    @property
    def channels(self) -> int:
        """Channels of the input, where the input is numbers."""
        return self.input_shape[-1] if self.layout == "series" else self.input_shape[0]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How data is read, where its form leaves that open. 0, "" and () are the loader's own choice.

    Attributes:
        size: (height, width) in pixels that images are brought to.
        steps: longest text, series or window, in tokens or steps; what is longer is cut, and counted.
        vocabulary: tokens of the tokenizer that is trained on the training split.
        text, target: columns of a table that hold the sample and what is to be learned from it.
    """

    size: tuple[int, ...] = ()
    steps: int = 0
    vocabulary: int = 0
    text: str = ""
    target: str = ""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Attributes:
        optimizer: "gd" is batch gradient descent (one step an epoch, whole training split).
        lr: learning rate; in a `Study` that of the reference width, in a `Trial` that of its own width.
        batch_size: samples a step; ignored by "gd".
        schedule: "cosine" decays to zero after a linear warm-up over `warmup` of the steps.
        loss: "mse" is the mean squared error between outputs and one-hot targets (Hui & Belkin 2020, arXiv:2006.07322).
        label_smoothing: share of the target that is spread over all classes, in [0, 1) (Szegedy et al. 2016,
            arXiv:1512.00567).
        clip: largest norm of the gradient, which is scaled down to it (Pascanu et al. 2013, arXiv:1211.5063); 0 is off.
        patience: stop after this many epochs without a lower validation loss and keep the best epoch; 0 is off.
        augment: change training samples at random, as the problem knows how to.
    """

    optimizer: Literal["gd", "sgd", "momentum", "adam", "adamw"] = "adam"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 64
    epochs: int = 5
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: float = 0.05
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    label_smoothing: float = 0.0
    clip: float = 0.0
    patience: int = 0
    augment: bool = False


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a trial starts from when it does not start from random weights.

    Attributes:
        method: "prune" starts from the parent's weights cut to the trial's width; "distil" learns from its outputs.
        parent: key of the parent trial.
        temperature, weight: of the soft targets in distillation (Hinton et al. 2015, arXiv:1503.02531): the loss is
            (1 - weight)·hard + weight·temperature²·KL(teacher || student) at that temperature; unused when pruning.
    """

    method: Literal["prune", "distil"]
    parent: str
    temperature: float = 4.0
    weight: float = 0.7


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model to train: everything that decides its result, and nothing else.

    Attributes:
        fingerprint: hash of the task's data, splits and preprocessing.
        fraction: share of the training split used, in (0, 1].
    """

    task: str
    fingerprint: str
    family: str
    width: int
    fraction: float
    recipe: Recipe
    seed: int
    origin: Origin | None = None

    @property
    def key(self) -> str:
        """Content hash, 16 hex digits: equal trials have equal keys on every machine."""
        # Through the converter, which makes a rate written as 1 the float that it will be read back as.
        text = json.dumps(to_json(from_json(Trial, to_json(self))), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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
        memory_bytes: weights, gradients, optimizer state and saved activations of one training step.
        train_loss: mean loss over the last epoch's steps.
        validation: scores on the validation split.
        seconds: wall time spent training and evaluating, summed over interruptions.
        files: sha256 of each file of the trial folder.
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
    """

    trials: tuple[Trial, ...]
    probes: tuple[Trial, ...]
    costs: tuple[Cost, ...]
    workers: int
    seconds: float
    finished: int
    notes: tuple[str, ...] = ()
    request: str = ""


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Rows of a table, or parts of a task's data, that were left out, and why.

    `rows` names the first ten, numbered from 1; it is empty where what was left out has no numbers.
    """

    reason: str
    count: int
    rows: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class BackTest:
    """A law fitted without its largest runs, asked to predict them.

    Attributes:
        visible, hidden: how many runs it saw and had to predict.
        reach: largest hidden compute (or size) over the largest it saw.
        error: root mean squared log error of the prediction.
        covered: share of the hidden runs inside their intervals, which were made without looking at them.
        predicted, observed: for the largest of the hidden settings, the geometric mean of its runs.
        at: that setting, by variable.
    """

    visible: int
    hidden: int
    reach: float
    error: float
    covered: float
    predicted: Estimate
    observed: float
    at: dict[str, float]


@dataclasses.dataclass(frozen=True)
class FittedForm:
    """One form's part in a law.

    Attributes:
        weight: its share in predictions, in [0, 1], from how well it predicted runs that were hidden from it and how
            closely it follows those that were not.
        parameters: as people write them; with intervals for the leading form only.
        profile: intervals of the same parameters by profile likelihood, for the leading form only.
        theta, covariance: the fit that predicts, in the form's coordinates around the law's centre. Larger runs weigh
            more in it, since it is to be right at their end.
        predicting: that fit's parameters as people write them; those of `parameters` let all runs weigh the same.
        scatter: standard deviation of log y around that fit.
        backtest_error: root mean squared log error over the hidden runs; NaN when too few runs were left to fit it.
        agreeing: share of the starts of its search that ended in the same optimum.
    """

    form: str
    formula: str
    source: str
    weight: float
    parameters: dict[str, Estimate]
    profile: dict[str, Estimate]
    theta: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    predicting: dict[str, float]
    scatter: float
    objective: float
    backtest_error: float
    agreeing: float


@dataclasses.dataclass(frozen=True)
class Law:
    """Performance as a function of size: several forms, weighed by back-tests, with a calibrated prediction.

    Attributes:
        metric: what y is, for example validation "loss" (nats) or "error" (1 - accuracy).
        variables: what it depends on, for example ("params", "samples").
        forms: heaviest first; the first one is the law that is printed.
        centre: log of the variables around which the forms' theta are written.
        box: smallest and largest value of each variable; `largest` is the largest run's log geometric mean of them.
        points: the evidence as (x..., y) rows, at most 2,000 of them.
        runs, settings: how many there were, and how many different x.
        scatter: standard deviation of log y of single runs; `seed_scatter` the part that repeats of a setting show.
        inflation: factor between theory and the systematic variance of predictions, from back-tests and residuals.
        freedom: degrees of freedom of the predictive t distribution.
        backtests: one for each amount of evidence that was hidden.
        excluded, outliers: rows left out, and rows kept that lie far from the law.
        missing: what the evidence lacks, in words.
        notes: how the columns were read.
        status: "supported", or why there is no law to rely on; `reason` is the evidence behind it in one sentence.
    """

    metric: str
    variables: tuple[str, ...]
    forms: tuple[FittedForm, ...]
    centre: tuple[float, ...]
    box: dict[str, tuple[float, float]]
    largest: float
    points: tuple[tuple[float, ...], ...]
    runs: int
    settings: int
    scatter: float
    seed_scatter: float
    inflation: float
    freedom: float
    backtests: tuple[BackTest, ...]
    excluded: tuple[Exclusion, ...]
    outliers: tuple[Exclusion, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    status: Literal["supported", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Link:
    """A score as a bounded function of loss: score = low + (high - low)/(1 + exp(slope·(loss - midpoint))).

    Attributes:
        kind: "accuracy" falls with loss, "error" rises with it and is 1 minus an accuracy; parameters are the latter's.
        parameters: midpoint (nats), slope (1/nats), low and high (shares of examples).
        draws: what else the parameters may be, (draws, 4), in that order.
        scatter: standard deviation of scores around the curve beyond that of `examples`, in [0, 1].
        examples: how many examples a score is a share of; None when unknown, and `scatter` is then all of it.
        freedom: degrees of freedom of the scatter.
        box: lowest and highest loss seen.
        hidden, error, covered: how many runs of the lowest losses were hidden from it, the root mean squared error of
            their scores as then predicted, and the share of them inside their intervals; NaN without such a test.
        status: "supported", or why no score is predicted; `reason` is the evidence behind it in one sentence.
    """

    kind: Literal["accuracy", "error"]
    parameters: dict[str, Estimate]
    draws: tuple[tuple[float, ...], ...]
    scatter: float
    examples: int | None
    freedom: float
    box: tuple[float, float]
    runs: int
    hidden: int
    error: float
    covered: float
    status: Literal["supported", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class OptimalSize:
    """The compute-optimal size by one approach. Where the evidence does not allow it, all is None: see `reason`.

    Attributes:
        params, samples: of the model with the lowest loss for the compute.
        exponent: a in params ∝ compute^a.
        behind: how many runs or groups of runs it rests on; `reason` says which.
    """

    approach: Literal["envelope", "iso-FLOP", "parametric"]
    params: Estimate | None
    samples: Estimate | None
    exponent: Estimate | None
    behind: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Whether two approaches name the same size.

    Attributes:
        ratio: params of `a` over those of `b`, both from the same resamples of the runs; None if one has no answer.
        verdict: "agree" where the interval lies within a factor that hardly changes the loss, "disagree" where it
            leaves out 1, else "undetermined".
    """

    a: str
    b: str
    ratio: Estimate | None
    verdict: Literal["agree", "disagree", "undetermined"]
    sentence: str


@dataclasses.dataclass(frozen=True)
class ComputeOptimal:
    """Model and data that make the most of a training budget. Without a law to rely on the numbers are None.

    Attributes:
        compute: FLOP, `flop_per_sample`·params·samples.
        params, samples: by the law, all its forms weighed; `loss` is predicted for one run there.
        nearly: smallest and largest params whose loss the law puts within `tolerance` (relative) of the best.
        approaches: envelope, iso-FLOP and parametric; `agreements` compares each pair, `verdict` all of them.
    """

    compute: float
    flop_per_sample: float
    params: Estimate | None
    samples: Estimate | None
    loss: Estimate | None
    nearly: tuple[float, float] | None
    tolerance: float
    approaches: tuple[OptimalSize, ...]
    agreements: tuple[Agreement, ...]
    verdict: Literal["agree", "disagree", "undetermined"]
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class ServingOptimal:
    """The model that costs least over its life, training and serving, among all with one loss.

    Attributes:
        serving: samples (tokens) that it will be asked for; each costs 2·params FLOP, in training 6.
        target: the loss; by the law's estimate when it was given as a training budget.
        params, samples: of the cheapest model; inf at an end says that some laws never reach the target.
        training, lifetime: its FLOP.
        trained: params of the model of that loss that is cheapest to train.
        saved: share of that model's lifetime FLOP that is saved.
        reached: share of the drawn laws that reach the target at all.
    """

    serving: float
    target: float
    params: Estimate | None
    samples: Estimate | None
    training: Estimate | None
    lifetime: Estimate | None
    trained: Estimate | None
    saved: Estimate | None
    reached: float
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Contour:
    """Models of the loss that one model has: what parameters are worth in samples.

    Attributes:
        params, samples: the model in question; `loss` is predicted for it.
        rate: per cent of samples that one per cent of parameters is worth there.
        fewer, more: without the share `fewer` of its parameters it needs `more` times its samples.
        least: params below which no amount of samples gives this loss.
        places: (params, samples) along the contour, where samples can do it at all.
    """

    params: float
    samples: float
    loss: Estimate | None
    rate: Estimate | None
    fewer: float
    more: Estimate | None
    least: Estimate | None
    places: tuple[tuple[float, Estimate], ...]
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Growth:
    """What a larger run would give.

    Attributes:
        how: what grows: "compute" along the optimal path, or "params" or "samples" alone.
        at: the larger run, by variable.
        loss: predicted for it.
        ratio: its loss over the law's at the present run; what both have in common is no part of the interval.
        verdict: "better" where the interval of the ratio lies below 1, "worse" above, else "undetermined".
    """

    how: Literal["compute", "params", "samples"]
    at: dict[str, float]
    loss: Estimate | None
    ratio: Estimate | None
    verdict: Literal["better", "worse", "undetermined"]
    status: Literal["supported", "undetermined", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """A diagnosis in one plain sentence, with its evidence and what to do next."""

    code: Literal[
        "capacity-limited",
        "data-limited",
        "over-fitting",
        "under-trained",
        "badly-tuned",
        "validation-limited",
        "saturated",
        "not-enough-evidence",
        "double-descent",
        "divergence",
        "outliers",
    ]
    sentence: str
    evidence: tuple[Estimate, ...]
    next_step: str


@dataclasses.dataclass(frozen=True)
class Target:
    """Where and how a model will run: device, CPU threads, batch size of the latency scenario."""

    device: Literal["cpu"] = "cpu"
    threads: int = 1
    batch: int = 1


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the user can afford; None is unlimited. `min_score` is the validation score to reach, in its own unit.

    `max_latency_ms` is for the median request, `max_latency_p99_ms` for all but the slowest one in a hundred.
    """

    max_params: int | None = None
    max_latency_ms: float | None = None
    max_latency_p99_ms: float | None = None
    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None
    max_train_seconds: float | None = None
    min_score: float | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two sets of runs paired by seed.

    Attributes:
        difference: how much better a is than b on this validation split, in the metric's unit: the mean of a minus b,
            or of b minus a where less is better. The interval is over training runs (seeds).
        population: the same difference for unseen examples too: the interval is over seeds and examples together.
        p_value: two-sided paired t-test of no difference, over seeds.
        verdict: "a is better", "b is better" or "undetermined", by `difference`.
    """

    a: str
    b: str
    metric: Metric
    a_mean: float
    b_mean: float
    a_params: int
    b_params: int
    difference: Estimate
    population: Estimate
    p_value: float
    verdict: Literal["a is better", "b is better", "undetermined"]


@dataclasses.dataclass(frozen=True)
class NextRun:
    """The cheapest training that could settle an open question.

    Attributes:
        widths: the two sizes of the question, smaller first; each is trained with `seeds` more seeds.
        seconds: single-process training time of all of them.
    """

    widths: tuple[int, int]
    seeds: int
    seconds: float
    why: str


@dataclasses.dataclass(frozen=True)
class DesignedRun:
    """A run that is worth its cost for a decision, given the runs chosen before it.

    Attributes:
        at: the law's variables, in its units.
        repeats: runs of this setting that come before it: above 0 it is another seed.
        cost: in the unit the plan was made in, FLOP by default.
        width: expected width of the decision's interval after it, in log units.
        removed: share of that width that this run and those before it take away.
    """

    at: dict[str, float]
    repeats: int
    cost: float
    width: float
    removed: float


@dataclasses.dataclass(frozen=True)
class Batch:
    """Runs to make next, best first, for one decision.

    Attributes:
        purpose: the decision that they are for, in words; `at` the place that it is about, by variable.
        budget: what they may cost together, in `unit`; NaN where there is no law to plan with.
        level: nominal coverage of the interval whose width they reduce.
        status, reason: of the law that they were planned with.
    """

    purpose: str
    at: dict[str, float]
    budget: float
    unit: str
    level: float
    runs: tuple[DesignedRun, ...]
    status: Literal["supported", "unreliable", "insufficient"]
    reason: str


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Everything that was asked of a law; None and () were not asked, or the law cannot be asked that."""

    optimum: ComputeOptimal | None
    serving: ServingOptimal | None
    equal_loss: Contour | None
    growth: tuple[Growth, ...]
    next_runs: Batch | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """The smallest width that does the job.

    Attributes:
        status: "supported", "extrapolated" (the best size lies at the end of what was trained) or "undetermined".
        margin: of the metric, in its unit.
        score: mean validation score of the width over its seeds.
        predicted: what the law says about the error of this size, if there is a law.
        reference: the width with the best mean that the budget allows.
        comparisons: each width minus the larger one that it does worst against, largest first.
        run: key of the run that stands for this width: its median seed by validation loss.
    """

    width: int
    params: int
    status: Literal["supported", "extrapolated", "undetermined"]
    sentence: str
    metric: Metric
    margin: float
    score: Estimate
    predicted: Estimate | None
    reference: int
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...]
    next_run: NextRun | None
    run: str


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model that could be shipped: a folder of files for one runtime, and where it came from.

    Attributes:
        run: key of the trained run whose weights it holds.
        method: how those weights came to be.
        runtime, precision: what executes the files, in which arithmetic.
    """

    name: str
    run: str
    method: Literal["trained", "prune", "distil"]
    width: int
    params: int
    runtime: Literal["torch", "onnxruntime", "openvino"]
    precision: Literal["fp32", "int8"]
    train_seconds: float


@dataclasses.dataclass(frozen=True)
class Compression:
    """What `compress` made: the candidates, the paired answers to "compress or train small?", and what was skipped.

    Attributes:
        parent: name of the candidate everything is compared with: the chosen model in eager PyTorch.
        skipped: method or candidate and the reason, in plain words.
    """

    parent: str
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One candidate on one target.

    Attributes:
        validation_score, test_score: of the task's metric, with an interval over examples.
        validation_drop, test_drop: how much worse than the parent, in the metric's unit, paired by example.
        latency_p50_ms, latency_p99_ms: one request of `target.batch` samples.
        throughput: samples per second at batch `throughput_batch`.
        speedup: parent's p50 latency divided by this one's, measured in alternation.
        throughput_ratio: this throughput divided by the parent's, measured in alternation.
        size_bytes: files the runtime needs, on disk.
        peak_memory_bytes: peak resident memory of a fresh process that loads and runs only this model.
        agreement: share of test samples on which this and the parent give the same answer.
        frontier: no other candidate is at least as good in validation score, latency and size, and better in one.
    """

    candidate: Candidate
    target: Target
    validation_score: Estimate
    validation_drop: Estimate
    test_score: Estimate
    test_drop: Estimate
    test: Scores
    latency_p50_ms: Estimate
    latency_p99_ms: Estimate
    speedup: Estimate
    throughput: Estimate
    throughput_ratio: Estimate
    throughput_batch: int
    size_bytes: int
    peak_memory_bytes: int
    agreement: float
    frontier: bool = False


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """The candidate to ship, decided on the validation split only, and why."""

    name: str
    met: bool
    sentence: str
    goal: Literal["throughput", "latency", "size", "memory"]
    max_drop: float


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported model folder and the evidence that it equals the model it came from.

    Attributes:
        path: folder, relative to the study.
        batches: batch sizes at which outputs were compared; of sequences, batches of different lengths.
        max_difference: largest absolute difference of the outputs to the reference, per batch size.
        tolerance: the difference above which nothing is exported.
    """

    name: str
    path: str
    batches: tuple[int, ...]
    max_difference: tuple[float, ...]
    tolerance: float
    files: dict[str, str]


@cache
def _converter() -> Any:
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(float, lambda value, _: math.nan if value is None else float(value))
    return converter


def to_json(record: Any) -> Any:
    """A record, or a container of records, as plain JSON values."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(v) for v in record]
    if isinstance(record, float) and not math.isfinite(record):
        return None  # JSON has no NaN: a value that does not exist is null, and null is read as NaN
    return record


def from_json(kind: type[T], data: Any) -> T:
    """The record of class `kind` that `to_json` wrote.

    Raises:
        Exception: cattrs' errors, when `data` has unknown, missing or ill-typed fields.
    """
    result: T = _converter().structure(data, kind)
    return result
