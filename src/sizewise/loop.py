"""One training run, the whole loop on one page.

The run is a function of its trial and data alone: weights come from a generator seeded by the seed, the order of the
samples in an epoch from one seeded by (seed, epoch). A run resumed from a checkpoint is therefore bitwise the run that
was never stopped, on one thread of one machine.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sizewise import families, padding
from sizewise import recipe as recipes
from sizewise.records import Point, Recipe, Run, Signature, Trial, to_json
from sizewise.runtimes import eager
from sizewise.store import Store, sha256, write_atomic
from sizewise.tasks import Split, Task

CHECKPOINT_SECONDS = 15.0
"""A checkpoint is written at the first end of an epoch this long after the last one."""

POOL = 50
"""Batches that are sorted by length together."""

EVALUATION_BATCH = 512
FULL_BATCH_CHUNK = 4096
"""Batch gradient descent adds up its gradient over chunks of this many samples, to bound its memory."""


@dataclass(frozen=True)
class Data:
    """A task on the device: preprocessed samples (n, ...), images with their channels last, and targets (n, ...)."""

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    task: Task

    @classmethod
    def of(cls, task: Task) -> Data:
        """Preprocess the training and validation splits; the test split is not touched."""
        return cls(*_tensors(task, task.train), *_tensors(task, task.validation), task)

    def subset(self, fraction: float) -> Data:
        """The first `fraction` of a fixed random order of the training split: smaller subsets nest in larger ones."""
        count = max(1, round(fraction * len(self.x)))
        chosen = torch.randperm(len(self.x), generator=_generator(0, 0))[:count]
        return self if count == len(self.x) else replace(self, x=self.x[chosen], y=self.y[chosen])


@dataclass(frozen=True)
class Start:
    """What a run starts from: weights (None: random ones) and, to distil, the teacher's logits (samples, outputs)."""

    weights: dict[str, Tensor] | None = None
    teacher: Tensor | None = None


@dataclass
class State:
    """A run under way."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    seconds: float = 0.0
    curve: tuple[Point, ...] = ()
    best: dict[str, Tensor] | None = None


Progress = Callable[[float], None]
"""Called with the share of the run that is done, in (0, 1]."""


def train_one(trial: Trial, data: Data, store: Store, start: Start, progress: Progress = lambda share: None) -> Run:
    """Train one trial to its end, from its checkpoint if there is one, and publish it in the store.

    Args:
        data: the task's full training split; the trial's fraction is taken here.
        start: `teacher` holds logits for the full training split.
    """
    with _denormals_flushed():
        return _train_one(trial, data, store, start, progress)


def _train_one(trial: Trial, data: Data, store: Store, start: Start, progress: Progress) -> Run:
    task, recipe = data.task, trial.recipe
    data, teacher = _take(data, start.teacher, trial.fraction)
    checkpoint = store.trial_folder(trial.key) / "checkpoint.safetensors"
    state = _resume(trial, task, start, checkpoint) or _begin(trial, task, start)
    saved = time.perf_counter()
    while state.epoch < recipe.epochs and not _should_stop(state, recipe):
        _epoch(state, trial, data, teacher)
        progress(state.epoch / recipe.epochs)
        if time.perf_counter() - saved > CHECKPOINT_SECONDS and state.epoch < recipe.epochs:
            write_atomic(checkpoint, _snapshot(state))
            saved = time.perf_counter()
    run = _publish(trial, state, data, store)
    checkpoint.unlink(missing_ok=True)
    return run


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Vanishing activations otherwise slow a step up to tenfold.

    The mode belongs to the thread and changes its every float, so a caller in the same process gets back what it had.
    """
    flushed = sys.float_info.min * np.float64(0.5) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(bool(flushed))


def _epoch(state: State, trial: Trial, data: Data, teacher: Tensor | None) -> None:
    """One pass over the training data, then the validation split, then one more point on the curve."""
    began = time.perf_counter()
    recipe, steps = trial.recipe, recipes.batches_per_epoch(trial.recipe, len(data.x))
    factor = recipes.schedule(recipe, steps * recipe.epochs)
    state.module.train()
    total, lr = torch.zeros(()), recipe.lr
    with _drawing(trial.seed, state.epoch + 1):
        for number, batch in enumerate(batches(data, recipe, _generator(trial.seed, state.epoch + 1))):
            lr = recipe.lr * factor(state.epoch * steps + number)
            for group in state.optimizer.param_groups:
                group["lr"] = lr
            total += _step(state, trial, data, teacher, batch) * len(batch)
    loss, score = _validate(state.module, recipe, data)
    state.epoch += 1
    state.seconds += time.perf_counter() - began
    point = Point(
        epoch=state.epoch,
        step=state.epoch * steps,
        lr=lr,
        train_loss=float(total) / len(data.x),
        validation_loss=loss,
        validation_score=score,
        seconds=state.seconds,
    )
    state.curve = (*state.curve, point)
    if recipe.patience and _best_epoch(state.curve) == state.epoch:
        state.best = {name: tensor.clone() for name, tensor in state.module.state_dict().items()}


def batches(data: Data, recipe: Recipe, generator: torch.Generator) -> Sequence[Tensor]:
    """The samples of each step of an epoch, in random order.

    Where lengths differ, a batch holds samples of similar ones, since padding costs as much as what it pads: `POOL`
    batches at a time are sorted by length, and their order is drawn again.
    """
    order = torch.randperm(len(data.x), generator=generator)
    size, signature = recipes.batch_of(recipe, len(order)), data.task.signature
    if not signature.dynamic:
        return torch.split(order, size)
    steps = padding.lengths(data.x)
    if signature.target_steps:
        steps += padding.lengths(data.y) * len(data.x[0])  # targets first: each of their steps costs more
    pools = torch.split(order, POOL * size)
    found = torch.split(torch.cat([pool[torch.argsort(steps[pool], stable=True)] for pool in pools]), size)
    return [found[i] for i in torch.randperm(len(found), generator=generator)]


def _step(state: State, trial: Trial, data: Data, teacher: Tensor | None, batch: Tensor) -> Tensor:
    """One optimizer step on the samples `batch`; the mean loss before it."""
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros(())
    problem, signature = data.task.problem, data.task.signature
    for chunk in torch.split(batch, FULL_BATCH_CHUNK):
        x, y = trimmed(data.x[chunk], signature), data.y[chunk]
        if trial.recipe.augment:  # by its first sample, which no other batch of the epoch has
            x, y = problem.augment(x, y, _generator(trial.seed, state.epoch + 1, 1 + int(chunk[0])))
        outputs = problem.forward(state.module, x, y)
        sums, counts = problem.losses(outputs, y, trial.recipe)
        loss = sums.sum() / counts.sum()
        if teacher is not None and trial.origin is not None:
            soft = _soft_loss(outputs, teacher[chunk], trial.origin.temperature)
            loss = torch.lerp(loss, soft, trial.origin.weight)
        loss = loss * (len(chunk) / len(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    if trial.recipe.clip:
        nn.utils.clip_grad_norm_(state.module.parameters(), trial.recipe.clip)
    state.optimizer.step()
    return total


def trimmed(x: Tensor, signature: Signature) -> Tensor:
    """Samples without the steps that none of them has."""
    return padding.trim(x) if signature.dynamic else x


def _validate(module: nn.Module, recipe: Recipe, data: Data) -> tuple[float, float]:
    """Loss and score on the validation split; the score is NaN where it needs more than the loss's own outputs."""
    loss, answers = _look(module, recipe, data)
    problem = data.task.problem
    return loss, problem.score(problem.joined(answers), data.task.validation) if answers else math.nan


def validation_loss(module: nn.Module, recipe: Recipe, data: Data) -> float:
    """Mean loss on the validation split, per sample, or per token where targets have steps."""
    return _look(module, recipe, data)[0]


@torch.no_grad()
def _look(module: nn.Module, recipe: Recipe, data: Data) -> tuple[float, list[NDArray[Any]]]:
    """Loss on the validation split, and the answers, batch by batch, if the loss's own outputs tell them."""
    module.eval()
    problem, signature, answers = data.task.problem, data.task.signature, []
    # The smoothed target is a means of training; what is reported is the loss against the true one.
    recipe = replace(recipe, label_smoothing=0.0)
    loss, count = 0.0, 0.0
    for chunk in torch.split(torch.arange(len(data.x_validation)), problem.batch(EVALUATION_BATCH)):
        x, y = trimmed(data.x_validation[chunk], signature), data.y_validation[chunk]
        outputs = problem.forward(module, x, y)
        sums, counts = problem.losses(outputs, y, recipe)
        loss, count = loss + float(sums.double().sum()), count + float(counts.sum())
        if problem.quick:
            answers.append(problem.read(outputs.numpy(), y.numpy()))
    return loss / count, answers


def _soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher || student) at temperature T (Hinton et al. 2015, arXiv:1503.02531, section 2)."""
    student = F.log_softmax(logits / temperature, dim=1)
    target = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)


@torch.no_grad()
def predict(module: nn.Module, x: Tensor, signature: Signature) -> Tensor:
    """Outputs (n, ...) in evaluation mode."""
    module.eval()
    return torch.cat([module(trimmed(chunk, signature)) for chunk in torch.split(x, EVALUATION_BATCH)])


def time_steps(module: nn.Module, recipe: Recipe, data: Data, steps: int = 12) -> float:
    """Median seconds of a real training step at this recipe's batch size, after a warm-up."""
    module = families.arrange_module(module, data.task.signature)
    state = State(module, recipes.optimizer(recipe, module.parameters()))
    trial = Trial("", "", "", 1, 1.0, recipe, 0)
    at_a_time, ready = at_once(recipe, len(data.x)), batches(data, recipe, _generator(0, 1))
    times = []
    for number in range(steps + 3):
        began = time.perf_counter()
        _step(state, trial, data, None, ready[number % len(ready)][:at_a_time])
        times.append(time.perf_counter() - began)
    return float(np.median(times[3:])) * recipes.batch_of(recipe, len(data.x)) / at_a_time


def at_once(recipe: Recipe, samples: int) -> int:
    """Samples whose activations a training step holds at a time."""
    return min(recipes.batch_of(recipe, samples), FULL_BATCH_CHUNK)


def _begin(trial: Trial, task: Task, start: Start) -> State:
    family = families.load(trial.family, task.signature)
    module = family.build(trial.width, seed=trial.seed)
    if start.weights is not None:
        module.load_state_dict(start.weights)
    module = families.arrange_module(module, task.signature)
    return State(module, recipes.optimizer(trial.recipe, module.parameters()))


def _take(data: Data, teacher: Tensor | None, fraction: float) -> tuple[Data, Tensor | None]:
    if teacher is None:
        return data.subset(fraction), None
    labelled = replace(data, y=torch.arange(len(data.y))).subset(fraction)
    return data.subset(fraction), teacher[labelled.y]


def _should_stop(state: State, recipe: Recipe) -> bool:
    """The loss is no longer a number, or has not improved for `patience` epochs."""
    if not state.curve:
        return False
    if not math.isfinite(state.curve[-1].train_loss):
        return True
    return bool(recipe.patience) and state.epoch - _best_epoch(state.curve) >= recipe.patience


def _best_epoch(curve: tuple[Point, ...]) -> int:
    return min(curve, key=lambda point: point.validation_loss).epoch


def _publish(trial: Trial, state: State, data: Data, store: Store) -> Run:
    """Write weights and what each validation example contributes to the metrics, then the run that vouches for them."""
    if state.best is not None:
        state.module.load_state_dict(state.best)
    task, folder = data.task, store.trial_folder(trial.key)
    deployable = eager.Deployable(state.module, task.preprocessor, task.signature)
    answers = task.problem.answers(eager.session(deployable, task.signature), task.validation)
    judged = task.problem.judge(answers, task.validation)
    families.save_weights(state.module.state_dict(), folder / "model.safetensors")
    examples = {name: torch.from_numpy(values) for name, values in judged.examples.items()}
    families.save_weights(examples, folder / "validation.safetensors")
    slots, batch = recipes.OPTIMIZER_SLOTS[trial.recipe.optimizer], at_once(trial.recipe, len(data.x))
    run = Run(
        trial=trial,
        params=families.parameters(state.module),
        flops=families.flops(state.module, task.signature),
        memory_bytes=families.training_bytes(state.module, task.signature, batch, slots),
        train_loss=state.curve[-1].train_loss,
        validation=judged.scores(task.metric, validation_loss(state.module, trial.recipe, data)),
        curve=state.curve,
        seconds=state.seconds,
        files={name: sha256(folder / name) for name in ("model.safetensors", "validation.safetensors")},
        environment=environment(),
    )
    store.save_run(run)
    return run


def _snapshot(state: State) -> bytes:
    """The whole state as one safetensors file: weights, optimizer state, and the curve as metadata."""
    from safetensors.torch import save

    tensors = {f"module.{name}": tensor for name, tensor in families.distinct(state.module.state_dict()).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (state.best or {}).items()}
    for index, slot, tensor in _slots(state.optimizer):
        tensors[f"optimizer.{index}.{slot}"] = tensor
    curve = [to_json(point) for point in state.curve]
    metadata = {"state": json.dumps({"epoch": state.epoch, "seconds": state.seconds, "curve": curve})}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)


def _resume(trial: Trial, task: Task, start: Start, checkpoint: Path) -> State | None:
    """The run as its checkpoint left it; None when there is none, or it is damaged, which is said."""
    from safetensors import SafetensorError

    if not checkpoint.exists():
        return None
    state = _begin(trial, task, start)
    try:
        _restore(state, checkpoint)
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        print(f"warning: {checkpoint} is damaged ({error}); the trial starts again", file=sys.stderr)
        return None
    return state


def _restore(state: State, path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, a safetensors handle is no dict
        meta = json.loads(file.metadata()["state"])
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        groups[kind][rest] = tensor
    state.module.load_state_dict(families.complete(groups["module"], state.module))
    state.best = groups["best"] or None
    slots: dict[int, dict[str, Tensor]] = {}
    parameters = list(state.module.parameters())
    for name, tensor in groups["optimizer"].items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = _laid_out(tensor, parameters[int(index)])
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": slots})
    state.epoch, state.seconds = meta["epoch"], meta["seconds"]
    state.curve = tuple(Point(**point) for point in meta["curve"])


def _laid_out(slot: Tensor, parameter: Tensor) -> Tensor:
    """An optimizer's values in the memory layout of their weights: fused optimizers walk both as if they had one."""
    return torch.empty_like(parameter).copy_(slot) if slot.shape == parameter.shape else slot


def _slots(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, str, Tensor]]:
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                yield index, name, value


def _tensors(task: Task, split: Split) -> tuple[Tensor, Tensor]:
    x = families.arrange(torch.from_numpy(task.preprocessor(split.x)), task.signature)
    return x, torch.from_numpy(task.preprocessor.targets(split.y))


def _generator(*numbers: int) -> torch.Generator:
    """A generator for one seed and epoch, or a batch of it. SeedSequence spreads neighbouring pairs far apart."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]) & (2**63 - 1))


@contextmanager
def _drawing(seed: int, epoch: int) -> Iterator[None]:
    """What a module draws itself, such as dropout, is that of one epoch of one seed, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_generator(seed, epoch).initial_seed())
        yield


@cache
def environment() -> dict[str, str]:
    """What the numbers depend on besides the trial."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "simd": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


__all__ = ["Data", "Start", "environment", "predict", "time_steps", "train_one", "validation_loss"]
