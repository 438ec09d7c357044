"""The search for chains: which methods, how strong, in which order; `proposals` says which to try next.

A chain is judged by what costs little to know: the validation loss of one seed after its last step, with weights and
inputs rounded to 8 bits where int8 is asked for, its parameters (bytes) and its floating-point operations (time). What
no other chain equals or beats in all three survives, and survivors alone are converted and measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sizewise.compress import chains
from sizewise.compress.qat import rounded_loss
from sizewise.compress.start import trained
from sizewise.config import Study
from sizewise.loop import Data
from sizewise.methods import QAT, Chain, Distil, Factorize, Importance, Prune, Scope, Shorten, Training, said
from sizewise.proposals import opened
from sizewise.records import Run, Trial
from sizewise.store import Store
from sizewise.tasks import Task

JOURNAL = "search.journal"
"""File of the study's folder that Optuna writes."""

OBJECTIVES = ("validation loss", "parameters", "operations")
ORDERS = ("prune", "factorize", "prune, factorize", "factorize, prune")
SHORTENING = ("shorten", "shorten, prune", "shorten, factorize")
IMPORTANCES: tuple[Importance, ...] = ("magnitude", "taylor", "hessian")
SCOPES: tuple[Scope, ...] = ("global", "uniform")
KEEP, ENERGY, LAYERS = (0.05, 0.9), (0.4, 0.98), (0.2, 0.9)
LAST: dict[str, Training] = {"distil": Distil(), "distil:features": Distil(lesson="features"), "qat": QAT()}
"""What a chain may end with."""

Train = Callable[[Sequence[Trial]], Sequence[Run]]
Until = Callable[[Sequence["Found"]], float]
"""When to stop, on the monotonic clock, given what was found: survivors take time afterwards."""


class Found(NamedTuple):
    """A chain, the run that its last step left, and the validation loss that it is judged by."""

    chain: Chain
    run: Run
    loss: float


class Searched(NamedTuple):
    """What a search came to.

    Attributes:
        survivors: what no other chain equals or beats, smallest first.
        tried: how many chains were trained.
        failed: chains that could not be done, each with its reason.
    """

    survivors: tuple[Found, ...]
    tried: int
    failed: tuple[str, ...]


def search(
    study: Study,
    parent: Run,
    teachers: Sequence[str],
    task: Task,
    store: Store,
    train: Train,
    *,
    until: Until,
    at_once: int = 1,
    on_share: Callable[[float], None] = lambda share: None,
) -> Searched:
    """Try chains on a trained run until time is up, and at least one batch of `at_once`; what has begun is finished.

    Args:
        teachers: keys of the runs that teach where a chain distils.
        train: trains trials, or finds them trained.

    Raises:
        MissingExtraError: Optuna is not installed.
    """
    began = time.monotonic()
    found: dict[str, Found] = {}
    failed: list[str] = []
    orders, last = _choices(study, parent, task, store)
    data = Data.of(task)
    about = (parent.trial.key, *orders, *last, *study.compress.methods)
    with opened(store / JOURNAL, "chains", OBJECTIVES, needed_for="compress --time", about=about) as asked:
        while (not found and not failed) or time.monotonic() < until(tuple(found.values())):
            batch = [asked.ask() for _ in range(at_once)]
            proposed = [_propose(trial, orders, last) for trial in batch]
            for trial, chain, result in zip(
                batch, proposed, _runs(study, proposed, parent, teachers, task, store, train), strict=True
            ):
                trial.set_user_attr("chain", said(chain))
                if isinstance(result, str):
                    failed.append(f"{said(chain)}: {result}")
                    asked.fail(trial, result)
                else:
                    made = Found(chain, result, _loss(study, result, data, store))
                    found[result.trial.key] = made
                    asked.tell(trial, _objectives(made))
            end = max(until(tuple(found.values())), began + 1.0)
            on_share(min(1.0, (time.monotonic() - began) / (end - began)))
    return Searched(survivors(list(found.values())), len(found), tuple(dict.fromkeys(failed)))


def survivors(found: Sequence[Found]) -> tuple[Found, ...]:
    """Those that no other one equals or beats in every objective while beating it in one, fewest parameters first."""
    table = np.array([_objectives(each) for each in found]).reshape(len(found), len(OBJECTIVES))
    kept = [
        each
        for row, each in zip(table, found, strict=True)
        if not ((table <= row).all(axis=1) & (table < row).any(axis=1)).any()
    ]
    return tuple(sorted(kept, key=lambda each: each.run.params))


def spread(found: Sequence[Found], count: int) -> tuple[Found, ...]:
    """At most `count` of them, spread evenly over their order, both ends among them."""
    places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int))
    return tuple(found[place] for place in places)


def _objectives(made: Found) -> tuple[float, float, float]:
    return (made.loss if np.isfinite(made.loss) else 1e9, float(made.run.params), float(made.run.flops))


def _loss(study: Study, run: Run, data: Data, store: Store) -> float:
    if "int8" not in study.compress.methods:
        return run.validation.loss
    return rounded_loss(trained(run.trial, store, data.task.signature), run.trial.recipe, data)


def _choices(study: Study, parent: Run, task: Task, store: Store) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The orders of methods, and what may come last, that the model and the study allow."""
    shortens = not chains.cannot(Shorten(LAYERS[0]), parent, task, store)
    wanted = {name: method for name, method in LAST.items() if name != "qat" or "int8" in study.compress.methods}
    last = tuple(name for name, method in wanted.items() if not chains.cannot(method, parent, task, store))
    return (*ORDERS, *(SHORTENING if shortens else ())), ("nothing", *last)


def _propose(trial: Any, orders: Sequence[str], last: Sequence[str]) -> Chain:
    """A chain of Optuna's choice. Shares have two digits, so that the same ones come up again and are known."""
    made: list[Training] = []
    for name in trial.suggest_categorical("order", orders).split(", "):
        if name == "shorten":
            made.append(Shorten(round(trial.suggest_float("layers", *LAYERS), 1)))
        elif name == "prune":
            keep = round(trial.suggest_float("keep", *KEEP, log=True), 2)
            importance = trial.suggest_categorical("importance", IMPORTANCES)
            made.append(Prune(keep, importance, trial.suggest_categorical("scope", SCOPES)))
        else:
            made.append(Factorize(round(trial.suggest_float("energy", *ENERGY), 2)))
    end = trial.suggest_categorical("last", last)
    return (*made, *([LAST[end]] if end in LAST else []))


def _runs(
    study: Study,
    proposed: Sequence[Chain],
    parent: Run,
    teachers: Sequence[str],
    task: Task,
    store: Store,
    train: Train,
) -> list[Run | str]:
    """What each chain leaves, or why it cannot be done; first steps are trained together, then second ones."""
    state: list[Run | str] = [parent for _ in proposed]
    for number in range(max(map(len, proposed))):
        trials: dict[int, Trial] = {}
        for place, chain in enumerate(proposed):
            run = state[place]
            if number < len(chain) and isinstance(run, Run):
                method = chains.steps(chain)[number]
                reason = chains.cannot(method, run, task, store)
                if reason:
                    state[place] = reason
                else:
                    trials[place] = chains.step(study, run, method, teachers)
        for place, run in zip(trials, train(list(trials.values())) if trials else (), strict=True):
            state[place] = run
    return state
