"""A search for a recipe, its confirmation and its verification, as one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sizewise.config import Study
from sizewise.records import Proposal, Tried, TunedRecipe
from sizewise.store import Store
from sizewise.tasks import Task
from sizewise.tune.confirm import confirm
from sizewise.tune.search import How, Train, search
from sizewise.tune.verify import verify


def tuned(
    study: Study,
    task: Task,
    store: Store,
    train: Train,
    widths: Sequence[int],
    *,
    trials: int,
    at_once: int,
    first: Sequence[Proposal],
    shaped: bool,
    how: How,
    stage: Callable[[str], None],
) -> TunedRecipe:
    """Search and confirm at the first width, and verify at all.

    Args:
        stage: told what is done, in words.
    """

    def said(told: int) -> None:
        stage(f"try recipes at width {widths[0]}: {told} of {trials} are known")

    searched = search(
        study,
        task,
        widths[0],
        store,
        train,
        trials=trials,
        at_once=at_once,
        first=first,
        shaped=shaped,
        how=how,
        on_batch=said,
    )
    if (few := len(searched.leaders)) > 1:
        stage(f"train the best {few} over other seeds at width {widths[0]}")
    confirmed = confirm(study, task, widths[0], searched.leaders, train)
    best = confirmed.leaders[0]
    stage(f"verify at widths {' and '.join(map(str, widths))}")
    verified = verify(study, task, store, best, widths, train)
    return TunedRecipe(
        own=study.recipe,
        recipe=best.recipe,
        own_family=study.family,
        family=best.family,
        width=widths[0],
        tried=searched.tried,
        stopped=searched.stopped,
        failed=searched.failed,
        seconds=sum(store.run(key).seconds for key in searched.runs) + confirmed.seconds,
        early_seconds=sum(store.run(key).seconds for key in searched.early),
        verify_seconds=verified.seconds,
        verified=verified.found,
        leaders=confirmed.leaders,
        frontier=tuple(Tried(tried.recipe, tried.family, loss, seconds) for tried, loss, seconds in searched.frontier),
    )
