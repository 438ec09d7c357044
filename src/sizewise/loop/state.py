"""A run under way: what changes from epoch to epoch, and how it begins; `checkpoint` keeps it while it is stopped."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from sizewise import families
from sizewise import recipe as recipes
from sizewise.engine import Gradients
from sizewise.errors import UsageError
from sizewise.loop.data import Start
from sizewise.loop.group import ALONE, Group
from sizewise.records import Engine, Point, Trial
from sizewise.tasks import Task


@dataclass
class State:
    """A run under way.

    Attributes:
        module: what the steps train.
        average: of its weights, where the recipe asks for one.
        best: weights of the best epoch, where the run may stop early.
        parts: in which the gradient of a batch is added up.
        gradients: a faster way to the loss and its gradients, see `tiers`.
        engine: how steps are computed, as it is recorded.
        group: the workers that the run is shared out to.
        net: what steps call in the module's place, where there are several.
    """

    module: nn.Module
    optimizer: Optimizer
    average: AveragedModel | None = None
    epoch: int = 0
    seconds: float = 0.0
    curve: tuple[Point, ...] = ()
    best: dict[str, Tensor] | None = None
    parts: int = 1
    gradients: Gradients | None = None
    engine: Engine = field(default_factory=Engine)
    group: Group = ALONE
    net: nn.Module | None = None

    @property
    def called(self) -> nn.Module:
        """What steps call."""
        return self.module if self.net is None else self.net

    @property
    def model(self) -> nn.Module:
        """What is looked at and published: the average, once it is one of something."""
        averaged = self.average is not None and int(self.average.n_averaged)
        return self.average.module if self.average is not None and averaged else self.module


def begin(trial: Trial, task: Task, start: Start, group: Group = ALONE) -> State:
    """A run before its first step. Every worker makes the whole model, so that weights are those of the seed, and then
    keeps its part.

    Raises:
        UsageError: an average of weights was asked for whose parts lie on several workers, or dropout of a model that
            has none.
    """
    family = families.load(trial.family, task.signature)
    module = family.build(trial.width, seed=trial.seed)
    if start.weights is not None:
        families.fill(module, start.weights, start.form)
    recipes.set_dropout(module, trial.recipe.dropout)
    module = families.arrange_module(module, task.signature)
    if start.constraint is not None:
        if group.sharded:
            raise UsageError(
                f"what acts on weights while they are trained needs them whole, not sharded over {group.size} workers",
                hint="let every worker have the whole model: --strategy ddp",
            )
        start.constraint.begin(module)
    if group.sharded and trial.recipe.average != "none":
        raise UsageError(
            f"the average {trial.recipe.average!r} of weights that are sharded over {group.size} workers is not kept",
            hint="leave --average out, or let every worker have the whole model: --strategy ddp",
        )
    average = recipes.average(trial.recipe, module)
    net = group.spread(module, task.signature)
    made = recipes.optimizer(trial.recipe, module)
    if group.sharded:
        recipes.unfused(made)
    return State(module, made, average, parts=trial.recipe.accumulate, group=group, net=net)
