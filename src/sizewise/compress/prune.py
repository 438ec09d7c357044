"""Structured pruning to a share of the parameters: whole units go, the least important first."""

from __future__ import annotations

import torch
from torch import nn

from sizewise import families
from sizewise.compress.importance import Scores, unit_scores
from sizewise.compress.units import Units, remove, survey
from sizewise.errors import SizewiseError
from sizewise.families.graph import dependencies
from sizewise.families.weights import tie, ties
from sizewise.methods import Prune
from sizewise.records import Signature

ROUNDS = 512
"""Parts of the units after each of which the parameters are counted: the share that is asked for is met to one part."""

LEAST = 16
"""Each group keeps at least one in so many of its units, so that no layer becomes the neck of the bottle."""

Order = list[tuple[Units, int]]
"""Units to take away, by group and number, the first one first."""


def prune(module: nn.Module, method: Prune, task: Signature, scores: Scores) -> nn.Module:
    """The module without its least important units, in place.

    Args:
        scores: what each single weight counts, by parameter, as `importance.weight_scores` finds it.

    Raises:
        SizewiseError: nothing can be taken away, or not as much.
    """
    goal = method.keep * families.parameters(module)
    groups = survey(module, task)
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    tied, training = ties(module), module.training
    with dependencies(module, task) as graph:
        order = _order(method, {units: _values(module, graph, units, scores, method) for units in groups})
        here = {units: list(range(units.count)) for units in groups}
        part = max(1, -(-len(order) // ROUNDS))
        while order and _parameters(module, names) > goal:
            for units in groups:
                gone = [number for owner, number in order[:part] if owner == units]
                if gone:
                    remove(module, graph, units, [here[units].index(number) for number in gone])
                    here[units] = [number for number in here[units] if number not in gone]
            order = order[part:]
    tie(module, tied)
    module.train(training)
    left = families.parameters(module)
    if left > goal:
        raise SizewiseError(
            f"pruning cannot leave {method.keep:.3g} of the parameters: {left:,} stay whatever goes",
            hint="ask for a larger share, or start from a smaller width",
        )
    return module


def _parameters(module: nn.Module, names: list[str]) -> int:
    """The graph lends the module constants as parameters, and unties what was one: counted is what was one before."""
    return sum(module.get_parameter(name).numel() for name in names)


def _values(module: nn.Module, graph: object, units: Units, scores: Scores, method: Prune) -> list[float]:
    """What units are ordered by: what the loss would change for each weight that goes, where that is what the criterion
    estimates, and else the score beside the others of the group, since weights of two layers have no common scale."""
    found = unit_scores(module, graph, units, scores)
    if method.importance in ("taylor", "hessian"):
        ones = {name: torch.ones_like(score) for name, score in scores.items()}
        found = found / unit_scores(module, graph, units, ones).clamp(min=1)
    else:
        found = found / found.mean().clamp(min=torch.finfo(found.dtype).tiny)
    return [float(value) for value in found]


def _order(method: Prune, values: dict[Units, list[float]]) -> Order:
    """All units but those that stay in any case, the least important first; uniformly, every group's in its turn."""
    rows = []
    for place, (units, found) in enumerate(values.items()):
        ranked = sorted(range(units.count), key=lambda number, found=found: found[number])  # type: ignore[misc]
        kept = max(1, -(-units.count // LEAST))
        for rank, number in enumerate(ranked[: units.count - kept]):
            key = found[number] if method.scope == "global" else (rank + 1) / units.count
            rows.append((key, place, number, units))
    return [(units, number) for _, _, number, units in sorted(rows, key=lambda row: row[:3])]
