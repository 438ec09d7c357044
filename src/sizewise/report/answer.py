"""The answer on top of the page: one short sentence, and the numbers it rests on in two groups.

The chosen size speaks of a width, by means over seeds; the recommended model is one trained model in one runtime.
They are different things with different numbers, and so they never share a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sizewise import words
from sizewise.methods import Quantize, said
from sizewise.records import Candidate, Choice, Comparison, Measurement, Precision, Recommendation, Run
from sizewise.report import format as f
from sizewise.runtimes.registry import RUNTIMES


@dataclass(frozen=True)
class Card:
    """One number: its value, its interval if it is uncertain, how that was made, and what the number is."""

    value: str
    interval: str
    note: str
    label: str


@dataclass(frozen=True)
class Group:
    """The numbers of one thing."""

    title: str
    name: str
    what: str
    cards: tuple[Card, ...]


def headline(choice: Choice) -> str:
    """The choice in a few words; its own sentence has the evidence."""
    if choice.status == "undetermined":
        rival = f"; width {choice.next_run.widths[0]} may be enough" if choice.next_run else ""
        return f"Width {choice.width} for now{rival}."
    if choice.status == "extrapolated":
        return f"Width {choice.width}, the largest trained, is the best so far."
    return f"Choose width {choice.width}, with {choice.params:,} parameters."


def groups(
    choice: Choice | None,
    shipped: Measurement | None,
    recommendation: Recommendation | None,
    runs: Sequence[Run],
    parent: str,
) -> list[Group]:
    """The chosen size, then the recommended model, as far as they exist."""
    found = []
    if choice is not None:
        found.append(_size(choice, runs))
    if shipped is not None and recommendation is not None:
        title = "The recommended model" if recommendation.met else "The recommended model, which misses the budget"
        made = next((run for run in runs if run.trial.key == shipped.candidate.run), None)
        what = describe(shipped.candidate, made, runs)
        found.append(Group(title, shipped.candidate.name, what, _shipped(shipped, parent)))
    return found


_FLOATING: dict[Precision, str] = {"fp32": "full precision", "bf16": "computed in bf16", "fp16": "stored in fp16"}


def describe(candidate: Candidate, made: Run | None, runs: Sequence[Run]) -> str:
    """What a candidate is, in words: how its weights came to be, and what executes them."""
    precision = _FLOATING.get(candidate.precision) or said(candidate.chain[-1:])
    label = RUNTIMES[candidate.runtime].label
    words = f"width {candidate.width} {_origin(candidate, made, runs)}, {precision}, {label}"
    return words if made is None else f"{words}: one trained model (seed {made.trial.seed}), on the test split"


def _origin(candidate: Candidate, made: Run | None, runs: Sequence[Run]) -> str:
    words = said(steps) if (steps := tuple(m for m in candidate.chain if not isinstance(m, Quantize))) else "as trained"
    origin = made.trial.origin if made else None
    width = next((run.trial.width for run in runs if origin and run.trial.key == origin.parent), None)
    return words if width is None else f"{words} from width {width}"


def _size(choice: Choice, runs: Sequence[Run]) -> Group:
    open_ = choice.status == "undetermined"
    score = f.shown(choice.score, f.score_kind(choice.metric))
    largest = max((run.params for run in runs), default=choice.params)
    times = largest / choice.params
    cards = [
        Card(score.value, score.interval, score.note, f"validation {choice.metric.name}"),
        Card(f"{choice.params:,}", "", "", f"parameters, {_fewer(times)}"),
    ]
    hardest = next((c for c in choice.comparisons if c.a == f"width {choice.width}"), None)
    if hardest is not None:
        cards.append(_against(hardest))
    return Group(
        "The size so far" if open_ else "The chosen size",
        f"width {choice.width}",
        f"mean of {f.counted(choice.score.n, 'seed')} on the validation split, in PyTorch at full precision",
        tuple(cards),
    )


def _fewer(times: float) -> str:
    return f"{times:.1f} × fewer than the largest trained" if times > 1 else "the largest trained"


def _against(c: Comparison) -> Card:
    d = f.shown(c.difference, f.gain_kind(c.metric))
    return Card(
        d.value, d.interval, d.note, f"{words.unit(c.metric)} against {c.b}, {f.counted(c.difference.n, 'paired seed')}"
    )


def _shipped(m: Measurement, parent: str) -> tuple[Card, ...]:
    metric = m.test.metric
    score, lost = f.shown(m.test_score, f.score_kind(metric)), f.shown(m.test_drop, f.gain_kind(metric))
    latency, ratio = f.shown(m.latency_p50_ms, "latency"), f.shown(m.throughput_ratio, "times")
    cards = [
        Card(score.value, score.interval, score.note, f"test {metric.name}, {m.test_score.n:,} examples"),
        Card(latency.value, latency.interval, latency.note, f"median latency of {f.counted(m.target.batch, 'sample')}"),
        Card(f.size(m.size_bytes), "", "", f"on disk, {f.size(m.peak_memory_bytes)} peak memory"),
    ]
    if m.candidate.name == parent:
        return tuple(cards)
    against = "the chosen model in PyTorch"
    return (
        cards[0],
        Card(lost.value, lost.interval, lost.note, f"{words.unit(metric)} of it lost against {against}"),
        cards[1],
        Card(ratio.value, ratio.interval, ratio.note, f"the throughput of {against}, batch {m.throughput_batch}"),
        cards[2],
    )
