"""Searches that Optuna proposes for, kept in a study's folder: the only file that knows it.

A search is a journal, written as it goes: it goes on where it stopped, and Optuna's dashboard opens it. What to try
next is said by a Gaussian process (Snoek, Larochelle & Adams 2012, arXiv:1206.2944), which learns most from a few
outcomes. It takes one objective and outcomes of one kind; of several, or where proposals are stopped early, the
tree-structured Parzen estimator says it (Bergstra et al. 2011; Ozaki et al. 2022). What to stop is said by asynchronous
successive halving (Li et al. 2020, arXiv:1810.05934).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sizewise.errors import extra
from sizewise.records import to_json

FEWEST = 3
"""Outcomes that a Gaussian process is fitted to at least."""

REASON = "reason"
"""Attribute of a proposal that failed, in words."""


class Search:
    """Proposals and their outcomes.

    Args:
        optuna: the package.
        made: its study.
    """

    def __init__(self, optuna: Any, made: Any) -> None:
        self._optuna, self._made = optuna, made

    def ask(self) -> Any:
        """An Optuna trial, whose `suggest_...` methods say what to try."""
        return self._made.ask()

    def tell(self, trial: Any, values: float | Sequence[float]) -> None:
        """What a proposal came to."""
        self._made.tell(trial, values)

    def stop(self, trial: Any) -> None:
        """A proposal is not worth going on with."""
        self._made.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, trial: Any, reason: str) -> None:
        """A proposal could not be done."""
        trial.set_user_attr(REASON, reason)
        self._made.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def suggest(self, values: Mapping[str, Any]) -> None:
        """Have these values proposed next, unless they were before."""
        self._made.enqueue_trial(dict(values), skip_if_exists=True)

    def resume(self) -> None:
        """Propose again what was under way when the process ended."""
        states = self._optuna.trial.TrialState
        for frozen in self._made.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self._made.enqueue_trial(frozen.params, user_attrs=frozen.user_attrs)
            self._made.tell(frozen.number, state=states.FAIL)

    def told(self) -> list[Any]:
        """Optuna's records of what was finished, stopped early, or failed for a reason, in order."""
        states = self._optuna.trial.TrialState
        kept = self._made.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.FAIL))
        return [one for one in kept if one.state != states.FAIL or REASON in one.user_attrs]

    def stopped(self, frozen: Any) -> bool:
        """Whether a record is of a proposal that was stopped early."""
        return bool(frozen.state == self._optuna.trial.TrialState.PRUNED)

    def finished(self, frozen: Any) -> bool:
        """Whether a record is of a proposal that went to its end."""
        return bool(frozen.state == self._optuna.trial.TrialState.COMPLETE)

    def frontier(self) -> list[Any]:
        """Records of what nothing that was told is at least as good as by every objective, by the last of them."""
        return sorted(self._made.best_trials, key=lambda one: one.values[-1])


@contextmanager
def opened(
    path: Path,
    name: str,
    objectives: Sequence[str],
    *,
    needed_for: str,
    about: Sequence[object] = (),
    halve: int = 0,
    seed: int = 0,
) -> Iterator[Search]:
    """The search that a journal holds, or a new one.

    Args:
        objectives: what is made small, in words.
        about: records and plain values on which outcomes depend besides what is proposed: where one differs, another
            search begins beside the first, since what the first learned is not true of it.
        halve: reduction factor of successive halving; 0 stops nothing early.

    Raises:
        MissingExtraError: Optuna is not installed.
    """
    with extra("search", needed_for=needed_for):
        import optuna
        from optuna.storages.journal import JournalFileBackend
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(optuna):
        made = optuna.create_study(
            study_name=_named(name, about),
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(path))),
            directions=["minimize"] * len(objectives),
            pruner=optuna.pruners.SuccessiveHalvingPruner(1, halve) if halve else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        made.set_metric_names(list(objectives))
        drawn = seed + len(made.get_trials(deepcopy=False))  # so that one that goes on does not draw the same again
        made.sampler = _sampler(optuna, drawn, several=len(objectives) > 1, halved=halve > 0)
        yield Search(optuna, made)


def _named(name: str, about: Sequence[object]) -> str:
    if not about:
        return name
    text = json.dumps(to_json(list(about)), sort_keys=True)
    return f"{name} [{hashlib.sha256(text.encode()).hexdigest()[:8]}]"


def _sampler(optuna: Any, seed: int, *, several: bool, halved: bool) -> Any:
    """What proposes."""
    if several or halved:
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=not several)
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=FEWEST)


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Optuna tells every trial on stderr, where our progress is, and warns of its own younger parts."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
