"""Which measured candidate to ship, decided on the validation split and the measured costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sizewise import words
from sizewise.config import Compress
from sizewise.errors import UsageError
from sizewise.records import Budget, Candidate, Measurement, Recommendation

GOALS: dict[str, Callable[[Measurement], float]] = {
    "throughput": lambda m: -m.throughput.value,
    "latency": lambda m: m.latency_p50_ms.value,
    "size": lambda m: float(m.size_bytes),
    "memory": lambda m: float(m.peak_memory_bytes),
}


def recommend(
    measurements: Sequence[Measurement], parent: Candidate, options: Compress, budget: Budget
) -> Recommendation:
    """The best candidate for the goal among those whose loss of score is shown to be within `max_drop`.

    The parent's own weights at full precision have nothing to show: every runtime computes the same function, which the
    export checks. When the budget leaves no candidate that is shown, those whose measured loss is within `max_drop` are
    considered, and the sentence says so.

    Raises:
        UsageError: nothing was measured.
    """
    if not measurements:
        raise UsageError("no candidate was measured", hint="run `sizewise compress` and `sizewise measure` first")
    fitting = [m for m in measurements if _within(m, budget)]
    pool = fitting or list(measurements)
    shown = [m for m in pool if _same_function(m, parent) or m.validation_drop.high <= options.max_drop]
    measured = [m for m in pool if m.validation_drop.value <= options.max_drop]
    best = min(shown or measured or pool, key=GOALS[options.goal])
    return Recommendation(
        name=best.candidate.name,
        met=bool(fitting),
        sentence=_sentence(best, parent, options, fits=bool(fitting), shown=bool(shown), kept=bool(measured)),
        goal=options.goal,
        max_drop=options.max_drop,
    )


def confirmation(m: Measurement, max_drop: float) -> str:
    """What the test split, read once and deciding nothing, says of a candidate that validation chose; "" of one that
    has nothing to show."""
    if not m.candidate.chain:
        return ""
    lost, limit = words.interval(m.test_drop, m.test.metric), words.amount(max_drop, m.test.metric)
    if m.test_drop.high <= max_drop:
        return f"The test split confirms it: {lost} lost, within {limit}."
    if m.test_drop.low > max_drop:
        return f"The test split contradicts it: {lost} lost, more than {limit}."
    return f"The test split neither confirms it nor contradicts it: {lost} lost."


def warnings(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """What did not pay: fewer bits that are slower than full precision on the same runtime, and what is slower than the
    model that it came from."""
    return (*_slower_in_fewer_bits(measurements), *_slower_than_the_parent(measurements))


def _slower_in_fewer_bits(measurements: Sequence[Measurement]) -> Iterator[str]:
    full = {(m.candidate.run, m.candidate.runtime): m for m in measurements if m.candidate.precision == "fp32"}
    slower: dict[tuple[str, str], list[float]] = {}
    for m in measurements:
        c = m.candidate
        other = full.get((c.run, c.runtime))
        if other is not None and m.throughput.high < other.throughput.low:
            ratio = m.throughput.value / other.throughput.value
            slower.setdefault((c.precision, c.runtime), []).append(ratio)
    for (precision, runtime), ratios in slower.items():
        yield (
            f"{precision} is slower than fp32 on {runtime} for {len(ratios)} of these models: {min(ratios):.2f} to "
            f"{max(ratios):.2f} times the throughput at batch {measurements[0].throughput_batch}"
        )


def _slower_than_the_parent(measurements: Sequence[Measurement]) -> Iterator[str]:
    slower = [m for m in measurements if m.throughput_ratio.high < 1]
    if slower:
        worst = min(slower, key=lambda m: m.throughput_ratio.value)
        yield (
            f"{len(slower)} of {len(measurements)} candidates are slower than the chosen model in PyTorch, the slowest "
            f"{worst.candidate.name} at {worst.throughput_ratio.value:.2f} times its throughput"
        )


def _same_function(m: Measurement, parent: Candidate) -> bool:
    return m.candidate.run == parent.run and m.candidate.precision == parent.precision


def _within(m: Measurement, budget: Budget) -> bool:
    """Whether a candidate meets every limit on what is shipped; a latency limit must hold for its whole interval."""
    limits = (
        (budget.max_params, m.candidate.params),
        (budget.max_latency_ms, m.latency_p50_ms.high),
        (budget.max_latency_p99_ms, m.latency_p99_ms.high),
        (budget.max_size_bytes, m.size_bytes),
        (budget.max_memory_bytes, m.peak_memory_bytes),
    )
    enough = budget.min_score is None or m.test.metric.gain(m.validation_score.value, budget.min_score) >= 0
    return enough and all(limit is None or value <= limit for limit, value in limits)


def _sentence(m: Measurement, parent: Candidate, options: Compress, *, fits: bool, shown: bool, kept: bool) -> str:
    d, r = m.validation_drop, m.throughput_ratio
    what = (
        f"{m.candidate.name}: {r.value:.1f} [{r.low:.1f}, {r.high:.1f}] times the throughput of the chosen model in "
        f"PyTorch, {m.size_bytes / 1000:,.0f} kB"
    )
    metric = m.test.metric
    of = f"points of validation {metric.name}" if metric.share else f"of validation {metric.name}"
    loss, limit = f"{words.interval(d, metric)} {of} lost", words.amount(options.max_drop, metric)
    if not fits:
        return f"No candidate meets the budget; best in {options.goal} without it is {what}, {loss}."
    if _same_function(m, parent):
        return f"Ship {what}, with the chosen weights at full precision: best in {options.goal} of what loses nothing."
    if shown:
        return f"Ship {what}, {loss}: shown to be within {limit}, and best in {options.goal}."
    if kept:
        return f"Best in {options.goal} is {what}, {loss}; {d.n:,} examples cannot prove a loss within {limit}."
    return f"Every candidate loses more than {limit}; the best in {options.goal} is {what}, {loss}."
