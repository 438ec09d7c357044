"""Simulated runs."""

from __future__ import annotations

from sizewise.cluster.scenario import Forecast
from sizewise.console.text import duration, number, percent, table


def simulated(found: Forecast) -> str:
    """How a model is shared out, what a step takes of time and memory, and the whole run."""
    step, layout = found.step, found.step.layout
    shared = [
        f"{step.replicas:,} replicas of {layout.pipeline} parts, stage {layout.stage} of ZeRO",
        f"micro-batches of {layout.samples}, {layout.parts} a step{', blocks computed again' * layout.recompute}",
    ]
    times = [
        (name, f"{seconds:.4g}", percent(seconds / step.seconds))
        for name, seconds in (
            ("compute", step.compute),
            ("waiting in the pipeline", step.bubble),
            ("waiting for other replicas", step.exposed),
            ("a step", step.seconds),
        )
    ]
    kinds = ("weights", "gradients", "optimizer states", "activations")
    memory = [(kind, f"{size / 1e9:.3g}") for kind, size in zip(kinds, step.memory, strict=True)]
    memory.append(("in all", f"{step.memory_bytes / 1e9:.3g}"))
    return "\n".join(
        [
            f"{number(found.params)} parameters: {'; '.join(shared)}",
            table(("seconds", "", "share"), times),
            table(("memory of a device", "GB"), memory) + ("" if found.fits else "\nit does not fit"),
            f"{step.speed:.4g} FLOP a second of all devices, {step.utilisation:.1%} of what they could do at most",
            f"{found.steps:,} steps: {duration(3600 * found.hours)}, cost {found.cost:,.0f}",
        ]
    )
