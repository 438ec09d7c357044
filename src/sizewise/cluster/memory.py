"""What one training step holds in the memory of one worker, and which parallelism that allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizewise.errors import BudgetError
from sizewise.records import Parallelism, Strategy

FITS = 0.9
"""Share of a device's memory that a step may take as counted here; the rest is for what is not: the runtime, kernels'
workspaces, fragments."""

WHOLE_BLOCKS = 4
"""Blocks that are whole on a worker at a time where weights are sharded: the weights of one that is computed and of one
that is fetched meanwhile, and the gradients of one that is computed and of one that is on its way (Zhao et al. 2023,
arXiv:2304.11277, section 3.4)."""

STAGES: dict[Strategy, int] = {"single": 0, "ddp": 0, "fsdp2": 3}
"""Stage of ZeRO that each strategy is: 0 shares nothing, 3 everything (Rajbhandari et al. 2020, arXiv:1910.02054)."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training step of one model.

    Attributes:
        weights, gradients, states: of the whole model; states are the optimizer's, and copies of weights.
        activations: what is kept for the backward pass of the samples that one worker has at a time.
        block: weights of the largest part that is whole at a time where weights are sharded.
    """

    weights: float
    gradients: float
    states: float
    activations: float
    block: float = 0

    def parts(self, stage: int, workers: int) -> tuple[float, float, float, float]:
        """Bytes of weights, gradients, states and activations on each of the workers, by the stage of ZeRO in 0..3: 1
        shares optimizer states out, 2 gradients too, 3 weights too (Rajbhandari et al. 2020, arXiv:1910.02054, figure 1
        and section 5). Whole blocks, with stage 3 on several workers, count as weights: at most the whole model.
        """
        weights, gradients, states = (
            part / (workers if stage >= shared_from else 1)
            for shared_from, part in ((3, self.weights), (2, self.gradients), (1, self.states))
        )
        whole = min(WHOLE_BLOCKS * self.block, self.weights + self.gradients) if stage == 3 and workers > 1 else 0
        return weights + whole, gradients, states, self.activations

    def on_worker(self, stage: int, workers: int) -> int:
        """Bytes on each of the workers."""
        return math.ceil(sum(self.parts(stage, workers)))


def parallelism(footprint: Footprint, workers: int, device_bytes: int, asked: Strategy | None = None) -> Parallelism:
    """How to share a model out over workers: whole on each where it fits, for that sends least, else sharded.

    Averaging gradients moves twice the model's bytes a step, sharding three times (Rajbhandari et al. 2020, section 7).

    Args:
        device_bytes: memory of one worker's device.
        asked: what the user wants, whether it fits or not.

    Raises:
        BudgetError: not even a part of it fits.
    """
    if workers == 1:
        return Parallelism()
    needed: dict[Strategy, int] = {name: footprint.on_worker(STAGES[name], workers) for name in ("ddp", "fsdp2")}
    room = FITS * device_bytes
    told = f"{_gb(needed['ddp'])} with the whole model on each of {workers} workers, {_gb(needed['fsdp2'])} with a part"
    told += f" of it, {_gb(device_bytes)} a device of which {FITS:.0%} may be taken"
    if asked is not None:
        return Parallelism(asked, workers, f"asked for; {told}")
    if needed["ddp"] <= room:
        return Parallelism("ddp", workers, f"the whole model fits: {told}")
    if needed["fsdp2"] <= room:
        return Parallelism("fsdp2", workers, f"only a part of the model fits: {told}")
    raise BudgetError(
        f"a step does not fit: {told}",
        hint="take more workers, compute a batch in parts (--accumulate), or try all the same: --strategy fsdp2",
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"


__all__ = ["FITS", "STAGES", "Footprint", "parallelism"]
