"""What a step of a model holds in memory, counted on the model itself, and how that is shared out over workers."""

from __future__ import annotations

import os

from torch import nn

from sizewise import families, room
from sizewise import recipe as recipes
from sizewise.cluster.memory import STAGES, Footprint, parallelism
from sizewise.loop.data import Data
from sizewise.loop.group import blocks
from sizewise.loop.step import at_a_time
from sizewise.records import Parallelism, Signature, Strategy, Trial


def footprint(module: nn.Module, signature: Signature, samples: int, slots: int) -> Footprint:
    """Bytes of a step with `samples` on a worker at a time and `slots` values of optimizer state a weight."""
    weights, parts = _bytes(module), [_bytes(block) for block in blocks(module, signature)]
    rest = weights - sum(parts)
    kept = families.activation_bytes(module, signature, samples)
    return Footprint(weights, weights, slots * weights, kept, max([rest, *parts]))


def step_bytes(module: nn.Module, signature: Signature, samples: int, slots: int, shared: Parallelism) -> int:
    """Bytes of a step on each worker when all together hold `samples` at a time."""
    own = -(-samples // shared.workers)
    if shared.workers == 1:
        return families.training_bytes(module, signature, own, slots)
    return footprint(module, signature, own, slots).on_worker(STAGES[shared.strategy], shared.workers)


def chosen(
    trial: Trial, data: Data, workers: int, *, device_bytes: int = 0, asked: Strategy | None = None
) -> Parallelism:
    """How to share a trial's model out.

    Args:
        device_bytes: memory of one worker; 0 is this machine's free memory over its workers.

    Raises:
        BudgetError: it does not fit, and the user did not ask for it.
    """
    signature = data.task.signature
    module = families.load(trial.family, signature).build(trial.width, seed=trial.seed)
    samples = at_a_time(recipes.batch_of(trial.recipe, len(data.x)), trial.recipe.accumulate)
    found = footprint(module, signature, -(-samples // workers), recipes.slots(trial.recipe))
    return parallelism(found, workers, device_bytes or room.free() // workers_here(), asked)


def workers_here() -> int:
    """Workers on this machine, as torchrun and Ray say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


__all__ = ["chosen", "footprint", "step_bytes", "workers_here"]
