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

import numpy as np
import torch
from torch import Tensor

from sizewise import families
from sizewise import recipe as recipes
from sizewise.loop.data import Constraint, Data, Start, ahead, batches, generator, take
from sizewise.loop.environment import environment
from sizewise.loop.evaluate import validate, validation_loss
from sizewise.loop.state import State, begin, resume, snapshot
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
) -> Run:
    """Train one trial to its end, from its checkpoint if there is one, and publish it in the store.

    Args:
        data: the task's full training split; the trial's fraction is taken here.
        start: what `trial` starts from.
        runs: trials of this size that are to be trained in all: what is worth trying to speed them up.
    """
    parts, batch = trial.recipe.accumulate, recipes.batch_of(trial.recipe, len(data.x))
    with _denormals_flushed():
        while True:
            try:
                return _train_one(trial, data, store, start, progress, parts, runs)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or parts >= batch:
                    raise
                parts = 2 * parts


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; PyTorch says so on the CPU in the words of a RuntimeError only.

    oneDNN, which computes its convolutions, names no reason: what it cannot set up has mostly found no room.
    """
    words = ("can't allocate memory", "not enough memory", "out of memory", "could not create a primitive")
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in words)


def _train_one(trial: Trial, data: Data, store: Store, start: Start, progress: Progress, parts: int, runs: int) -> Run:
    task, recipe = data.task, trial.recipe
    data, teacher = take(data, start.teacher, trial.fraction)
    checkpoint = store.checkpoint(trial.key)
    state = resume(trial, task, start, checkpoint) or _branch(trial, task, start, store) or begin(trial, task, start)
    state.parts = parts
    settle(state, trial, data, teacher, store, runs)
    saved = time.perf_counter()
    while state.epoch < recipe.epochs and not _should_stop(state, recipe):
        _epoch(state, trial, data, teacher, start.constraint)
        _leave_trunk(state, trial, store)
        progress(state.epoch / recipe.epochs)
        if time.perf_counter() - saved > CHECKPOINT_SECONDS and state.epoch < recipe.epochs:
            store.keep(checkpoint, snapshot(state))
            saved = time.perf_counter()
    run = _publish(trial, state, data, store, start)
    store.drop(checkpoint)
    return run


def _leave_trunk(state: State, trial: Trial, store: Store) -> None:
    """Keep the state at the end of the stable part, for longer runs to go on from."""
    trunk, here = recipes.trunk_of(trial), state.epoch == recipes.stable_epochs(trial.recipe)
    if trunk and here and state.parts == trial.recipe.accumulate:
        store.keep(store.trunk_folder(trunk) / f"{state.epoch}.safetensors", snapshot(state))


def _branch(trial: Trial, task: Task, start: Start, store: Store) -> State | None:
    """The state that a shorter run of the same trunk left, the furthest that is not beyond this one's stable part."""
    trunk = recipes.trunk_of(trial)
    left = store.trunk_folder(trunk).glob("*.safetensors") if trunk else ()
    usable = [path for path in left if path.stem.isdigit() and int(path.stem) <= recipes.stable_epochs(trial.recipe)]
    return resume(trial, task, start, max(usable, key=lambda path: int(path.stem))) if usable else None


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
    with _drawing(trial.seed, state.epoch + 1):
        for number, batch in enumerate(ahead(data, batches(data, recipe, generator(trial.seed, state.epoch + 1)))):
            lr = recipe.lr * factor(state.epoch * steps + number)
            for group in state.optimizer.param_groups:
                group["lr"] = lr
            total += step(state, trial, data, teacher, batch) * len(batch)
            if constraint is not None:
                constraint.follow(state.module, (state.epoch * steps + number + 1) / (steps * recipe.epochs), number)
    recipes.evaluating(state.optimizer)
    state.epoch += 1
    if state.average is not None and recipes.average_epoch(recipe, state.epoch):
        state.average.update_parameters(state.module)
    loss, score = validate(state.model, recipe, data, state.parts)
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


def _publish(trial: Trial, state: State, data: Data, store: Store, start: Start) -> Run:
    """Write weights and what each validation example contributes to the metrics, then the run that vouches for them."""
    module = state.model
    if state.best is not None:
        module.load_state_dict(state.best)
    if start.constraint is not None:
        start.constraint.end(module)
    task, folder = data.task, store.trial_folder(trial.key)
    deployable = eager.Deployable(module, task.preprocessor, task.signature)
    answers = task.problem.answers(eager.session(deployable, task.signature), task.validation, state.parts)
    judged = task.problem.judge(answers, task.validation)
    families.save_weights(module.state_dict(), folder / "model.safetensors", start.form.metadata)
    examples = {name: torch.from_numpy(values) for name, values in judged.examples.items()}
    families.save_weights(examples, folder / "validation.safetensors")
    slots = recipes.slots(trial.recipe)
    batch = at_a_time(recipes.batch_of(trial.recipe, len(data.x)), state.parts)
    run = Run(
        trial=trial,
        params=families.parameters(module),
        flops=families.flops(module, task.signature),
        memory_bytes=families.training_bytes(module, task.signature, batch, slots),
        train_loss=state.curve[-1].train_loss,
        validation=judged.scores(task.metric, validation_loss(module, trial.recipe, data, state.parts)),
        curve=state.curve,
        seconds=state.seconds,
        files={name: sha256(folder / name) for name in ("model.safetensors", "validation.safetensors")},
        environment=environment(),
        engine=state.engine,
        parts=state.parts,
        diverged=0 if math.isfinite(state.curve[-1].train_loss) else state.epoch,
    )
    store.save_run(run)
    return run


@contextmanager
def _drawing(seed: int, epoch: int) -> Iterator[None]:
    """What a module draws itself, such as dropout, is that of one epoch of one seed, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, epoch).initial_seed())
        yield
