"""What each verb does."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.cli.fitting import fit
from sizewise.cli.serving import serve
from sizewise.cli.studies import changed, opened, overrides, remember, show, study_name, workspace
from sizewise.errors import INSUFFICIENT, UsageError

if TYPE_CHECKING:
    from sizewise.study import Listener, Workspace
    from sizewise.tune import How


def _run(options: argparse.Namespace) -> int:
    from sizewise import console

    if options.dry_run:
        return _plan(options)
    with console.progress() as listener:
        space = workspace(options, listener)
        with space.store.lock():
            return _run_stages(space, listener, options)


def _run_stages(space: Workspace, listener: Listener, options: argparse.Namespace) -> int:
    from sizewise import choose, console
    from sizewise.report.study_page import write

    listener.stage(f"plan {space.task.name}: {len(space.task.train):,} training samples")
    plan = space.plan()
    print(console.plan(plan), file=sys.stderr)
    listener.stage(f"train {len(plan.trials) + len(plan.probes)} trials into {space.store.root}")
    space.train(plan)
    listener.stage("fit, diagnose and choose")
    findings, choice = space.diagnose(), space.choose()
    laws = space.fit()
    remember(space)
    listener.stage(f"compress width {choice.width}")
    compression = space.compress()
    listener.stage(f"measure {len(compression.candidates)} candidates, each in alternation with {compression.parent}")
    measurements, recommendation = space.measure()
    listener.stage("export and report")
    exports = space.export()
    report = write(space)
    records = {
        "choice": choice,
        "laws": laws,
        "findings": findings,
        "compression": compression,
        "recommendation": recommendation,
        "measurements": measurements,
        "exports": exports,
        "report": str(report),
    }
    text = [
        console.choice(choice),
        "",
        console.laws(laws),
        "",
        console.findings(findings),
        "",
        console.compression(compression),
        "",
        console.measurements(measurements, recommendation),
        "",
        console.exports(exports, space.store.root),
        f"report: {report}",
    ]
    show(options, records, "\n".join(text))
    met = recommendation.met and choose.meets_min_score(choice, space.study.budget)
    return 0 if met and choice.status != "undetermined" else INSUFFICIENT


def _plan(options: argparse.Namespace) -> int:
    from sizewise import console

    with console.progress() as listener:
        plan = workspace(options, listener).plan()
    return show(options, plan, console.plan(plan))


def _train(options: argparse.Namespace) -> int:
    if not launched():
        return _train_here(options)
    from sizewise import distributed

    with distributed.joined() as rank:
        if rank:
            distributed.follow()
            return 0
        return _train_here(options)


def launched() -> bool:
    """Whether torchrun, or whatever sets its variables, started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _train_here(options: argparse.Namespace) -> int:
    from sizewise import console

    if options.dry_run:
        return _plan(options)
    with console.progress() as listener:
        space = workspace(options, listener)
        with space.store.lock():
            plan = space.plan()
            print(console.plan(plan), file=sys.stderr)
            listener.stage(f"train {len(plan.trials) + len(plan.probes)} trials into {space.store.root}")
            runs = space.train(plan)
    return show(options, runs, console.runs(runs))


def _diagnose(options: argparse.Namespace) -> int:
    from sizewise import console

    with opened(options) as space:
        findings = space.diagnose()
    return show(options, findings, console.findings(findings))


def _choose(options: argparse.Namespace) -> int:
    from sizewise import choose, console

    with opened(options) as space:
        choice = space.choose()
        met = choose.meets_min_score(choice, space.study.budget)
    show(options, choice, console.choice(choice))
    return 0 if met and choice.status != "undetermined" else INSUFFICIENT


def _compress(options: argparse.Namespace) -> int:
    from sizewise import config, console

    with opened(options) as space:
        space.study = changed(space.study, overrides(options))
        config.check(space.study)
        compression = space.compress()
        if not space.study.compress.time_seconds:
            return show(options, compression, console.compression(compression))
        measurements, recommendation = space.measure()
    records = {"compression": compression, "measurements": measurements, "recommendation": recommendation}
    text = f"{console.compression(compression)}\n\n{console.measurements(measurements, recommendation)}"
    show(options, records, text)
    return 0 if recommendation.met else INSUFFICIENT


def _measure(options: argparse.Namespace) -> int:
    from sizewise import console

    with opened(options) as space:
        measurements, recommendation = space.measure()
        records: dict[str, object] = {"measurements": measurements, "recommendation": recommendation}
        text = [console.measurements(measurements, recommendation)]
        if options.search:
            search = space.search(options.runtimes, options.threads, options.batches)
            records["search"], text = search, [*text, "", console.search(search)]
        if options.scenarios:
            scenarios = space.scenarios(options.scenarios, options.bound_ms)
            records["scenarios"], text = scenarios, [*text, "", console.scenarios(scenarios)]
    show(options, records, "\n".join(text))
    return 0 if recommendation.met else INSUFFICIENT


def _export(options: argparse.Namespace) -> int:
    from sizewise import console

    with opened(options) as space:
        exports = space.export(options.names)
        root = space.store.root
    return show(options, exports, console.exports(exports, root))


def _report(options: argparse.Namespace) -> int:
    from sizewise.report.study_page import write

    with opened(options) as space:
        path = write(space)
    return show(options, {"report": str(path)}, f"report: {path}")


def _compare(options: argparse.Namespace) -> int:
    from sizewise import arms, config, console

    requested = config.structure(overrides(options) | {"task": options.task}, "the command line")
    root = Path(options.out or f"runs/compare-{study_name(options.task)}")
    with console.progress() as listener:
        listener.stage(f"train both sides into {root}")
        result = arms.compare(requested, options.a, options.b, root, listener)
    show(options, result, console.comparison(result))
    return 0 if result.verdict != "undetermined" else INSUFFICIENT


def _simulate(options: argparse.Namespace) -> int:
    from sizewise import console
    from sizewise.cluster import scenario

    found = scenario.forecast(scenario.read(Path(options.scenario)))
    show(options, found, console.simulated(found))
    return 0 if found.fits else INSUFFICIENT


def _tune(options: argparse.Namespace) -> int:
    from sizewise import console

    timed = "time" in options.objectives
    if timed and options.halving:
        raise UsageError("training time is an objective, and halving is on", hint="leave out one of the two")
    how: How = "loss and time" if timed else "halving" if options.halving else "whole runs"
    with console.progress() as listener:
        space = workspace(options, listener)
        with space.store.lock():
            found = space.tune(
                options.trials,
                options.at,
                shaped=not options.no_shape,
                how=how,
            )
    show(options, found, console.tuned(found, options.study))
    return 0 if found.verified[0].verdict == "better" else INSUFFICIENT


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "plan": _plan,
    "train": _train,
    "fit": fit,
    "diagnose": _diagnose,
    "choose": _choose,
    "compress": _compress,
    "measure": _measure,
    "export": _export,
    "report": _report,
    "serve": serve,
    "compare": _compare,
    "simulate": _simulate,
    "tune": _tune,
}

__all__ = ["HANDLERS", "launched"]
