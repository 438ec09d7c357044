"""One training run, the whole loop on one page.

The run is a function of its trial and data alone: weights come from a generator seeded by the seed, the order of the
samples in an epoch from one seeded by (seed, epoch). A run resumed from a checkpoint is therefore bitwise the run that
was never stopped, on one thread of one machine.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sizewise import families
from sizewise import recipe as recipes
from sizewise.loop import checkpoint
from sizewise.loop.data import Constraint, Data, Start, ahead, batches, generator, take
from sizewise.loop.environment import environment
from sizewise.loop.evaluate import validate, validation_loss
from sizewise.loop.group import ALONE, Group
from sizewise.loop.parallel import step_bytes
from sizewise.loop.state import State, begin
from sizewise.loop.step import at_a_time, step
from sizewise.loop.tiers import settle
from sizewise.records import Point, Recipe, Run, Trial
from sizewise.runtimes import eager
from sizewise.store import Store, sha256
from sizewise.tasks import Task

CHECKPOINT_SECONDS = 15.0
"""A checkpoint is written at the first end of an epoch this long after the last one."""


Progress = Callable[[float], None]
"""Called with the share of the run that is done, in (0, 1]."""


def train_one(
    trial: Trial,
    data: Data,
    store: Store,
    start: Start,
    progress: Progress = lambda share: None,
    runs: int = 1,
    group: Group = ALONE,
) -> Run:
    """Train one trial to its end, from its checkpoint if there is one, and publish it in the store.

    Args:
        data: the task's full training split; the trial's fraction is taken here.
        start: what `trial` starts from.
        runs: trials of this size that are to be trained in all: what is worth trying to speed them up.
        group: the workers that train it together; all of them call this, and the first publishes.
    """
    parts, batch = trial.recipe.accumulate, recipes.batch_of(trial.recipe, len(data.x))
    with _denormals_flushed():
        while True:
            try:
                return _train_one(trial, data, store, start, progress, parts, runs, group)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or parts >= batch or not group.alone:
                    raise
                parts = 2 * parts


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; PyTorch says so on the CPU in the words of a RuntimeError only.

    oneDNN, which computes its convolutions, names no reason: what it cannot set up has mostly found no room.
    """
    words = ("can't allocate memory", "not enough memory", "out of memory", "could not create a primitive")
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in words)


def _train_one(
    trial: Trial, data: Data, store: Store, start: Start, progress: Progress, parts: int, runs: int, group: Group
) -> Run:
    task, recipe = data.task, trial.recipe
    data, teacher = take(data, start.teacher, trial.fraction)
    state = _state(trial, task, start, store, group)
    state.parts = parts
    settle(state, trial, data, teacher, store, runs)
    saved = time.perf_counter()
    while state.epoch < recipe.epochs and not _should_stop(state, recipe):
        _epoch(state, trial, data, teacher, start.constraint)
        _leave_trunk(state, trial, store)
        progress(state.epoch / recipe.epochs)
        due = group.agreed(time.perf_counter() - saved > CHECKPOINT_SECONDS)
        if due and state.epoch < recipe.epochs:
            checkpoint.save(state, store, trial.key)
            saved = time.perf_counter()
    return _end(trial, state, data, store, start)


def _state(trial: Trial, task: Task, start: Start, store: Store, group: Group) -> State:
    """The run as it was kept, or as a shorter run of its trunk left it, or before its first step."""
    kept = group.agreed(checkpoint.latest(store, trial.key))
    state = checkpoint.resume(trial, task, start, kept, group)
    state = state or checkpoint.resume(trial, task, start, group.agreed(_trunk(trial, store)), group)
    return state or begin(trial, task, start, group)


def _leave_trunk(state: State, trial: Trial, store: Store) -> None:
    """Keep the state at the end of the stable part, for longer runs to go on from."""
    trunk, here = recipes.trunk_of(trial), state.epoch == recipes.stable_epochs(trial.recipe)
    if trunk and here and state.parts == trial.recipe.accumulate and state.group.alone:
        store.keep(store.trunk_folder(trunk) / f"{state.epoch}.safetensors", checkpoint.snapshot(state))


def _trunk(trial: Trial, store: Store) -> Path | None:
    """What a shorter run of the same trunk left, the furthest that is not beyond this one's stable part."""
    trunk = recipes.trunk_of(trial)
    left = store.trunk_folder(trunk).glob("*.safetensors") if trunk else ()
    usable = [path for path in left if path.stem.isdigit() and int(path.stem) <= recipes.stable_epochs(trial.recipe)]
    return max(usable, key=lambda path: int(path.stem)) if usable else None


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


def _epoch(state: State, trial: Trial, data: Data, teacher: Tensor | None, constraint: Constraint | None) -> None:
    """One pass over the training data, then the validation split, then one more point on the curve."""
    began = time.perf_counter()
    recipe, steps = trial.recipe, recipes.batches_per_epoch(trial.recipe, len(data.x))
    factor = recipes.schedule(recipe, steps * recipe.epochs)
    state.module.train()
    recipes.training(state.optimizer)
    total, lr = torch.zeros(()), recipe.lr
    with _drawing(trial.seed, state.epoch + 1, state.group.rank):
        for number, batch in enumerate(ahead(data, batches(data, recipe, generator(trial.seed, state.epoch + 1)))):
            lr = recipe.lr * factor(state.epoch * steps + number)
            for group in state.optimizer.param_groups:
                group["lr"] = lr
            total += step(state, trial, data, teacher, batch) * len(batch)
            if constraint is not None:
                constraint.follow(state.module, (state.epoch * steps + number + 1) / (steps * recipe.epochs), number)
    recipes.evaluating(state.optimizer)
    for module in (state.module, state.average):
        if module is not None:
            state.group.level(module)
    state.epoch += 1
    if state.average is not None and recipes.average_epoch(recipe, state.epoch):
        state.average.update_parameters(state.module)
    loss, score = validate(state.model, recipe, data, state.parts, state.group)
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
        state.best = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def _should_stop(state: State, recipe: Recipe) -> bool:
    """The loss is no longer a number, or has not improved for `patience` epochs."""
    if not state.curve:
        return False
    if not math.isfinite(state.curve[-1].train_loss):
        return True
    return bool(recipe.patience) and state.epoch - _best_epoch(state.curve) >= recipe.patience


def _best_epoch(curve: tuple[Point, ...]) -> int:
    return min(curve, key=lambda point: point.validation_loss).epoch


def _end(trial: Trial, state: State, data: Data, store: Store, start: Start) -> Run:
    """Publish a run, once, when it is whole again."""
    group = state.group
    if state.best is not None:
        state.model.load_state_dict(state.best)
    weights = group.whole(state.model.state_dict()) if group.sharded else None
    if group.rank:
        group.wait()
        return store.run(trial.key)
    if weights is not None:
        state.module = begin(trial, data.task, start).module
        state.module.load_state_dict(weights)
    if start.constraint is not None:
        start.constraint.end(state.model)
    run = _publish(trial, state, data, store, start.form)
    checkpoint.discard(store, trial.key)
    group.wait()
    return run


def _publish(trial: Trial, state: State, data: Data, store: Store, form: families.Form) -> Run:
    """Write weights and what each validation example contributes to the metrics, then the run that vouches for them."""
    module, task, folder = state.model, data.task, store.trial_folder(trial.key)
    deployable = eager.Deployable(module, task.preprocessor, task.signature)
    answers = task.problem.answers(eager.session(deployable, task.signature), task.validation, state.parts)
    judged = task.problem.judge(answers, task.validation)
    families.save_weights(module.state_dict(), folder / "model.safetensors", form.metadata)
    examples = {name: torch.from_numpy(values) for name, values in judged.examples.items()}
    families.save_weights(examples, folder / "validation.safetensors")
    batch = at_a_time(recipes.batch_of(trial.recipe, len(data.x)), state.parts)
    run = Run(
        trial=trial,
        params=families.parameters(module),
        flops=families.flops(module, task.signature),
        memory_bytes=step_bytes(module, task.signature, batch, recipes.slots(trial.recipe), state.group.parallelism),
        train_loss=state.curve[-1].train_loss,
        validation=judged.scores(task.metric, validation_loss(module, trial.recipe, data, state.parts)),
        curve=state.curve,
        seconds=state.seconds,
        files={name: sha256(folder / name) for name in ("model.safetensors", "validation.safetensors")},
        environment=environment(),
        engine=state.engine,
        parts=state.parts,
        diverged=0 if math.isfinite(state.curve[-1].train_loss) else state.epoch,
        parallelism=state.group.parallelism,
    )
    store.save_run(run)
    return run


@contextmanager
def _drawing(seed: int, epoch: int, rank: int) -> Iterator[None]:
    """What a module draws itself, such as dropout, is that of one epoch of one seed, too, and of one worker."""
    numbers = (seed, epoch, 0, rank) if rank else (seed, epoch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(*numbers).initial_seed())
        yield
