"""Models to ship: how they were made, and what they are worth where they run."""

from __future__ import annotations

import dataclasses
from typing import Literal

from sizewise.methods import QAT, Chain, Narrow, Prune, Quantize, Shorten, Sparsify
from sizewise.records.choice import Comparison
from sizewise.records.estimate import Estimate
from sizewise.records.run import Scores

RuntimeName = Literal["torch", "aotinductor", "onnxruntime", "openvino", "executorch"]

Precision = Literal["fp32", "bf16", "fp16", "int8", "int4"]


@dataclasses.dataclass(frozen=True)
class Target:
    """Where and how a model will run: device, CPU threads, batch size of the latency scenario."""

    device: Literal["cpu"] = "cpu"
    threads: int = 1
    batch: int = 1


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model that could be shipped: a folder of files for one runtime, and where it came from.

    Attributes:
        run: key of the trained run whose weights it holds.
        chain: how those weights came to be from trained ones, and how they were quantized.
        width: of the family's model; pruned and factorized ones have another form, which their weights say.
        runtime, precision: what executes the files, in which arithmetic.
    """

    name: str
    run: str
    chain: Chain
    width: int
    params: int
    runtime: RuntimeName
    precision: Precision
    train_seconds: float

    @property
    def method(self) -> str:
        """The last method that made its weights fewer: "trained" where there is none; whatever prunes is "prune"."""
        last = next((m for m in reversed(self.chain) if not isinstance(m, Quantize | QAT)), None)
        if last is None:
            return "trained"
        return "prune" if isinstance(last, Narrow | Prune | Shorten | Sparsify) else last.kind


@dataclasses.dataclass(frozen=True)
class Blame:
    """What one layer of a model costs when it alone is quantized to int8, on ONNX Runtime.

    Attributes:
        layer, node: as the weights and as the graph name it.
        changed: share of training samples whose answers change.
        speedup: of the whole model; below 1 the layer costs time.
    """

    layer: str
    node: str
    changed: Estimate
    speedup: Estimate


@dataclasses.dataclass(frozen=True)
class Compression:
    """What `compress` made: the candidates, the paired answers to "compress or train small?", and what was skipped.

    Attributes:
        parent: name of the candidate everything is compared with: the chosen model in eager PyTorch.
        skipped: method or candidate and the reason, in plain words.
        blame: of the chosen model's layers, worst first, where mixed precision was asked for.
    """

    parent: str
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    skipped: tuple[str, ...]
    blame: tuple[Blame, ...] = ()


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
class OperatingPoint:
    """One way to run a model, and how it ran: a candidate with a number of threads and of samples a call.

    Attributes:
        latency_ms: median time of a call with `batch` samples.
        throughput: samples per second.
        peak_memory_bytes, cold_start_ms: of fresh processes that load the model and answer a few calls; the second is
            until the first answer. None at other batches than the target's, where they are not measured.
    """

    candidate: str
    runtime: RuntimeName
    precision: Precision
    threads: int
    batch: int
    latency_ms: Estimate
    throughput: Estimate
    peak_memory_bytes: Estimate | None = None
    cold_start_ms: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class Winner:
    """The best way to run a model for one goal.

    Attributes:
        point: the simplest of those that no other is shown to beat: fewest threads, then smallest batch.
        tied: how many others are not shown to be worse than the best.
        gain: how many times better than PyTorch in full precision on one thread, at the target's batch.
    """

    goal: Literal["latency", "throughput", "memory", "cold start"]
    point: OperatingPoint
    tied: int
    gain: Estimate
    sentence: str


ScenarioName = Literal["single-stream", "multi-stream", "offline", "server"]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One model under one of MLPerf Inference's loads (Reddi et al. 2020, arXiv:1911.02549, section 3).

    Attributes:
        kind: "single-stream" is one request after the other, "multi-stream" eight samples a request, "offline" all
            samples at once, and "server" requests that arrive at random (Poisson).
        value: in `unit`: the 90th or 99th percentile of a request's latency, samples per second, or requests per
            second. Its interval is over runs, except for "server": there it is from the highest rate at which every
            run held the bound to the lowest rate at which one did not.
        bound_ms: latency that 99 % of the requests must keep, of "server".
        seconds: of each run. MLPerf's own rules ask for ten minutes: these are no results by its rules.
    """

    candidate: str
    kind: ScenarioName
    threads: int
    value: Estimate
    unit: str
    bound_ms: float | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Search:
    """Every way to run one model that was timed, and the winner for each goal.

    Attributes:
        left_out: candidates that may not win, and what could not be made, each with the reason.
        missing: runtimes that are not installed, each with the line that installs it.
    """

    run: str
    points: tuple[OperatingPoint, ...]
    winners: tuple[Winner, ...]
    left_out: tuple[str, ...]
    missing: dict[str, str]


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
        steps: lengths at which outputs were compared, where samples may have any.
    """

    name: str
    path: str
    batches: tuple[int, ...]
    max_difference: tuple[float, ...]
    tolerance: float
    files: dict[str, str]
    steps: tuple[int, ...] = ()
