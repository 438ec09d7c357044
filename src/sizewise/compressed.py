"""The stage that makes the chosen model smaller and faster, each result beside a model that was trained small."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sizewise import compress
from sizewise.compress import chains
from sizewise.compress.candidates import BLAME
from sizewise.methods import Distil, Narrow, said
from sizewise.paired import compare_runs
from sizewise.records import Blame, Candidate, Comparison, Compression, Run, Trial
from sizewise.store import Store, read_json
from sizewise.timed import Stage, Timed


def compressed(on: Stage) -> Compression:
    """Prune, distil and quantize; every result becomes a candidate beside the models trained small."""
    timed = Timed(on) if on.study.compress.time_seconds else None
    runs, left_out = _runs(on, timed)
    models = compress.models(on.study, on.sizes, on.choice, runs, on.store)
    on.said(f"convert {len(models)} models for each runtime and precision")
    candidates, skipped = compress.build(on.study, models, on.task, on.store, on.share)
    return Compression(
        candidates[0].name, candidates, _beside_training_small(on, runs), left_out + skipped, _blame(on, candidates)
    )


def _runs(on: Stage, timed: Timed | None) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """Every run that a method made, and what was left out with its reason: methods, stated chains, and a search's."""
    trials, left_out = compress.plan_trials(on.study, on.sizes, on.choice, on.task)
    seconds = {width: max(run.seconds for run in runs) for width, runs in on.sizes.items()}

    def cost(trial: Trial) -> float:
        return seconds[trial.width]

    if timed is not None:
        trials, no_time = timed.fitting(trials, cost)
        left_out += no_time
    runs = list(on.train(trials, cost))
    stated = on.study.compress.chains
    chained, failed = chains.done(
        stated, on.study, on.choice, on.sizes, on.task, on.store, lambda trials: on.train(trials, cost)
    )
    runs += chained
    if timed is not None:
        others = compress.models(on.study, on.sizes, on.choice, runs, on.store)
        searched, not_done = timed.searched(others)
        runs += searched
        failed += not_done
    return tuple({run.trial.key: run for run in runs}.values()), left_out + failed


def _beside_training_small(on: Stage, runs: Sequence[Run]) -> tuple[Comparison, ...]:
    """Each group of runs that were made alike beside the nearest size of the sweep."""
    found = []
    for (made, width), group in sorted(chains.groups(runs, on.store).items()):
        small = _nearest(on.sizes, group[0].params)
        arm = _described(made, width, group[0], on.store)
        found.append(compare_runs(on.store, (arm, group), (f"width {small} trained small", on.sizes[small])))
    return tuple(found)


def _described(made: str, width: int, run: Run, store: Store) -> str:
    """A group of compressed runs, in words; pruned and distilled ones of the family are known by their width."""
    method = run.trial.origin.method if run.trial.origin else None
    family = isinstance(method, Narrow) or (isinstance(method, Distil) and method.start == "random")
    return f"{made} to width {width}" if family else f"width {width} {said(chains.of(run, store))}"


def _nearest(sizes: Mapping[int, Sequence[Run]], params: int) -> int:
    """The width of the sweep whose models are nearest to a number of parameters, in their ratio."""
    return min(sizes, key=lambda width: abs(math.log(sizes[width][0].params / params)))


def _blame(on: Stage, candidates: Sequence[Candidate]) -> tuple[Blame, ...]:
    """What the layers of the chosen model cost, if that was measured."""
    folders = [on.store / "candidates" / c.name for c in candidates if c.run == candidates[0].run]
    known = [folder / BLAME for folder in folders if (folder / BLAME).is_file()]
    return read_json(known[0], tuple[Blame, ...]) if known else ()
