"""The command line: `sizewise VERB STUDY --flag value`.

Data goes to stdout (`--json` on every verb), messages and progress to stderr. Exit codes: 0 done, 1 error, 2 usage,
3 finished but the budget is unmet or the evidence insufficient. Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sizewise.errors import SizewiseError, UsageError

if TYPE_CHECKING:
    from sizewise.config import Study
    from sizewise.study import Listener, Workspace

INSUFFICIENT = 3
INTERRUPTED = 130
UNREAD = 141
"""As of a process that wrote to a pipe that nobody reads any more."""

DESCRIPTION = """Find the smallest model that does the job, and prove it.

STUDY is a task (digits, mnist), a folder of images in class subfolders, an .npz file, a study.toml,
or the folder of a study that was begun. `sizewise run digits` does everything, in order:
"""

VERBS = {
    "run": "all of the stages below, then the report",
    "plan": "which models to train and what that will cost; trains nothing",
    "train": "train the sweep, resuming where it stopped",
    "fit": "fit the law from size to loss or error, to a study or to any table of runs",
    "diagnose": "say what limits the models",
    "choose": "choose the smallest size that does the job",
    "compress": "prune, distil and quantize the chosen size",
    "measure": "measure every candidate on its real runtime",
    "export": "write model folders, checked against the models they came from",
    "report": "write one offline HTML page",
    "serve": "serve exported model folders over HTTP (Open Inference Protocol v2)",
    "compare": "compare two configurations over the same seeds",
}


def duration(text: str) -> float:
    """Seconds from `90`, `90s`, `10m` or `2h`."""
    return _scaled(text, {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}, "a time such as 90s, 10m or 2h")


def size(text: str) -> int:
    """Bytes from `500000`, `500kB`, `2MB` or `1GB` (decimal), or `512KiB`, `2MiB`."""
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    return int(_scaled(text, units, "a size such as 500kB or 2MB"))


def count(text: str) -> int:
    """A whole number from `50000`, `50k` or `2M`."""
    return int(_scaled(text, {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}, "a number such as 50000, 50k or 2M"))


def _scaled(text: str, units: dict[str, int], expected: str) -> float:
    match = re.fullmatch(r"([0-9.]+)\s*([a-zA-Z]*)", text.strip())
    if match is None or match[2].lower() not in units or match[1].count(".") > 1 or match[1] == ".":
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return float(match[1]) * units[match[2].lower()]


def whole_numbers(text: str) -> list[int]:
    """A list from `4,8,16`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 4,8,16") from error


def pixels(text: str) -> list[int]:
    """Height and width from `96x128`, or of a square from `64`."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 96x128")
    return [int(sides[0]), int(sides[-1])]


def numbers(text: str) -> list[float]:
    """A list from `0.25,0.5`."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0.25,0.5") from error


def positive(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def amount(text: str) -> float:
    """A number above zero as tables write it: `1e21`, `7B`, `300M`."""
    from sizewise.laws.intake.numbers import parse

    value, suffix = parse(text)
    if suffix == "%" or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 1e21, 7B or 300M")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, both left out."""
    if not 0 < (value := positive(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 0.9")
    return value


def chance(text: str) -> float:
    """What guessing scores: 0, or a number below 1."""
    return 0.0 if text.strip() in ("0", "0.0") else share(text)


def draws(text: str) -> int:
    """0, or enough resamples for an interval."""
    if not text.isdecimal() or 0 < int(text) < 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or a whole number from 20, such as 400")
    return int(text)


def words(text: str) -> list[str]:
    """A list from `prune,int8`."""
    return [part.strip() for part in text.split(",") if part.strip()]


FLAGS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "data": ("data", str, "where the task's files lie"),
    "image-size": ("reading.size", pixels, "what images are brought to, such as 96x128: height, width"),
    "steps": ("reading.steps", int, "longest text, series or window"),
    "vocabulary": ("reading.vocabulary", int, "tokens of the tokenizer"),
    "text": ("reading.text", str, "column of the samples"),
    "target": ("reading.target", str, "column of what is to be learned"),
    "family": ("family", str, "built-in family, or your own package.module:function (default: what suits the task)"),
    "effort": ("sweep.effort", str, "quick, standard or thorough"),
    "time": ("sweep.time_seconds", duration, "time for training the sweep, such as 10m; the plan shrinks to fit"),
    "widths": ("sweep.widths", whole_numbers, "the sizes themselves, such as 4,8,16,32"),
    "sizes": ("sweep.sizes", int, "number of sizes, log-spaced in parameters"),
    "smallest": ("sweep.smallest", int, "smallest width"),
    "largest": ("sweep.largest", int, "largest width"),
    "seeds": ("sweep.seeds", int, "runs of each size"),
    "fractions": ("sweep.fractions", numbers, "shares of the training data to probe, such as 0.25,0.5"),
    "workers": ("sweep.workers", int, "worker processes, one thread each"),
    "epochs": ("recipe.epochs", int, "passes over the training data"),
    "lr": ("recipe.lr", float, "learning rate at width 32"),
    "batch-size": ("recipe.batch_size", int, "samples a step"),
    "optimizer": ("recipe.optimizer", str, "gd (whole batch), sgd, momentum, adam or adamw"),
    "weight-decay": ("recipe.weight_decay", float, "weight decay"),
    "schedule": ("recipe.schedule", str, "constant or cosine"),
    "loss": ("recipe.loss", str, "cross_entropy or mse"),
    "label-smoothing": ("recipe.label_smoothing", float, "share of the target spread over all classes"),
    "clip": ("recipe.clip", float, "largest norm of the gradient; 0 is off"),
    "patience": ("recipe.patience", int, "stop after this many epochs without improvement; 0 is off"),
    "metric": ("metric", str, "the score that sizes are chosen by, such as accuracy, F1 or AUROC"),
    "margin": ("margin", float, "score that may be given up for a smaller size; of accuracy, 0.005 is half a point"),
    "max-params": ("budget.max_params", count, "most parameters, such as 50k"),
    "max-latency-ms": ("budget.max_latency_ms", float, "longest p50 latency of one request"),
    "max-size": ("budget.max_size_bytes", size, "most bytes on disk, such as 200kB"),
    "max-memory": ("budget.max_memory_bytes", size, "most memory of a serving process, such as 100MB"),
    "max-train-time": ("budget.max_train_seconds", duration, "longest training of one model"),
    "min-score": ("budget.min_score", float, "validation score to reach; an accuracy is in [0, 1]"),
    "methods": ("compress.methods", words, "what compress tries: prune,distil,int8"),
    "goal": ("compress.goal", str, "what to ship is best at: throughput, latency, size or memory"),
    "max-drop": ("compress.max_drop", float, "score compression may lose; of accuracy, 0.003 is 0.3 points"),
    "threads": ("target.threads", int, "threads the shipped model may use"),
}
"""Flag name: (key in study.toml, parser of its value, help)."""


class _Parser(argparse.ArgumentParser):
    """Errors in the house style: what was wrong, then a hint."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}\nhint: {self.prog} --help", file=sys.stderr)
        raise SystemExit(UsageError.exit_code)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = _Parser(prog="sizewise", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    root.add_argument("--version", action="store_true", help="print the version")
    verbs = root.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=summary)
        sub.add_argument("--json", action="store_true", help="print the records as JSON")
        _ARGUMENTS.get(verb, _study_argument)(sub)
    return root


def _study_argument(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("study", metavar="STUDY", help="the folder of a study, or its task")


def _planning_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("study", metavar="STUDY", help="a task, a data folder or file, a study.toml or a study's folder")
    sub.add_argument("--out", metavar="DIR", help="the study's folder (default: runs/NAME)")
    sub.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    sub.add_argument("--no-probes", action="store_true", help="do not check tuning, training length and data")
    _study_flags(sub)


def _study_flags(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("study", "each sets one key of study.toml")
    for name, (key, parse, text) in FLAGS.items():
        group.add_argument(f"--{name}", dest=f"set:{key}", type=parse, metavar="X", help=text)


COLUMNS = {
    "params": "parameters",
    "samples": "samples (tokens) seen",
    "compute": "training compute in floating-point operations",
    "unique": "different samples among those seen",
    "loss": "the loss",
    "error": "the share of errors, instead of a loss",
    "score": "accuracy or share of errors beside the loss, to be predicted through it",
    "seed": "seeds, which tell repeats of one setting apart",
    "group": "what rows share their luck, such as the checkpoints of one run",
    "weight": "how much a row counts",
}
"""Flags of `fit` that name a column of a table."""


def _fit_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "study", metavar="STUDY|TABLE", help="a study's folder, or a table of runs: .csv, .tsv, .jsonl or .parquet"
    )
    group = sub.add_argument_group(
        "table",
        "what its columns mean: one of loss and error, and at least one of params, samples and compute. Numbers may be "
        "written as 7B, 300M, 1.2e9 or 1,234,567",
    )
    for name, text in COLUMNS.items():
        group.add_argument(f"--{name}", metavar="COL", help=text)
    group.add_argument("--count", choices=("total", "non-embedding"), help="which parameters --params counts")
    group.add_argument("--chance", type=chance, metavar="P", help="what guessing scores (default: fitted)")
    group.add_argument("--examples", type=count, metavar="N", help="how many examples a score is a share of")
    group.add_argument("--predict", metavar="TABLE", help="sizes to predict at, in columns of the same names")
    group.add_argument("--form", metavar="NAME", help="fit this form alone (default: all compete)")
    group.add_argument(
        "--delta", type=positive, metavar="X", help="where Huber's loss turns linear, in log loss (default: estimated)"
    )
    group.add_argument("--draws", type=draws, metavar="N", help="bootstrap resamples; 0 leaves intervals out")
    group.add_argument("--level", type=share, metavar="P", help="coverage of the predictions' intervals (default: 0.9)")
    group.add_argument(
        "--report", metavar="FILE", help="write the law, its pictures and decisions as one offline HTML page"
    )
    group = sub.add_argument_group("decisions", "what to ask the law of a table, each answered with its interval")
    group.add_argument("--budget", type=amount, metavar="FLOP", help="the best size and data for this training compute")
    group.add_argument("--target", type=amount, metavar="LOSS", help="which sizes reach this loss with how much data")
    group.add_argument(
        "--serve",
        type=amount,
        metavar="SAMPLES",
        help="the model that is cheapest to train and then serve so much, with the loss of --target or --budget",
    )
    group.add_argument(
        "--next",
        type=amount,
        nargs="?",
        const=0.0,
        metavar="COST",
        help="which runs to make next for at most this cost together (default: that of the largest run so far)",
    )


def _export_arguments(sub: argparse.ArgumentParser) -> None:
    _study_argument(sub)
    sub.add_argument("names", nargs="*", metavar="NAME", help="candidates (default: the recommended and the chosen)")


def _serve_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folders", nargs="+", metavar="FOLDER", help="an exported model folder")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    sub.add_argument("--port", type=int, default=8000, help="port, 0 for any free one (default: %(default)s)")
    sub.add_argument("--threads", type=int, default=1, help="threads of each model (default: %(default)s)")


def _compare_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("a", metavar="A", help="settings such as width=32 or width=32,optimizer=sgd,lr=0.1")
    sub.add_argument("b", metavar="B", help="the other settings")
    sub.add_argument("--task", default="digits", help="what to train on (default: %(default)s)")
    sub.add_argument("--out", metavar="DIR", help="where the runs are kept (default: runs/compare-TASK)")
    _study_flags(sub)


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "run": _planning_arguments,
    "plan": _planning_arguments,
    "train": _planning_arguments,
    "fit": _fit_arguments,
    "export": _export_arguments,
    "serve": _serve_arguments,
    "compare": _compare_arguments,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the process's exit code."""
    root = parser()
    options = root.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"sizewise {version('sizewise')}")
        return 0
    if options.verb is None:
        root.print_help()
        return UsageError.exit_code
    try:
        code = _HANDLERS[options.verb](options)
        if code == INSUFFICIENT:
            print("note: exit code 3: the budget is unmet, or the evidence does not suffice to decide", file=sys.stderr)
        return code
    except SizewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD


def _run(options: argparse.Namespace) -> int:
    from sizewise import console

    if options.dry_run:
        return _plan(options)
    with console.progress() as listener:
        space = _workspace(options, listener)
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
    _show(options, records, "\n".join(text))
    met = recommendation.met and choose.meets_min_score(choice, space.study.budget)
    return 0 if met and choice.status != "undetermined" else INSUFFICIENT


def _plan(options: argparse.Namespace) -> int:
    from sizewise import console

    with console.progress() as listener:
        plan = _workspace(options, listener).plan()
    return _show(options, plan, console.plan(plan))


def _train(options: argparse.Namespace) -> int:
    from sizewise import console

    if options.dry_run:
        return _plan(options)
    with console.progress() as listener:
        space = _workspace(options, listener)
        with space.store.lock():
            plan = space.plan()
            print(console.plan(plan), file=sys.stderr)
            listener.stage(f"train {len(plan.trials) + len(plan.probes)} trials into {space.store.root}")
            runs = space.train(plan)
    return _show(options, runs, console.runs(runs))


def _fit(options: argparse.Namespace) -> int:
    from sizewise import console

    flags = [name for name in (*COLUMNS, *_FIT_OPTIONS) if getattr(options, name) is not None]
    if _is_table(options.study, flags):
        return _fit_table(options)
    if flags:
        raise UsageError(f"--{flags[0]} is for tables, and {options.study} is none", hint="leave it out for a study")
    with _opened(options) as space:
        laws = space.fit()
    _show(options, laws, console.laws(laws))
    return 0 if any(law.status == "supported" for law in laws) else INSUFFICIENT


_FIT_OPTIONS = (
    "count",
    "chance",
    "examples",
    "predict",
    "form",
    "delta",
    "draws",
    "level",
    "budget",
    "target",
    "serve",
    "next",
    "report",
)


def _is_table(given: str, flags: Sequence[str]) -> bool:
    """Whether `fit` was given a table: a file, or the name of one, and no study."""
    from sizewise.laws.intake.files import is_table

    path = Path(given)
    return path.suffix != ".toml" and not path.is_dir() and (path.is_file() or is_table(path) or bool(flags))


def _fit_table(options: argparse.Namespace) -> int:
    from sizewise import console, laws
    from sizewise.laws.decisions import Questions, answer
    from sizewise.laws.fit import LEVEL
    from sizewise.laws.parameters import DRAWS

    named = {name: column for name in COLUMNS if (column := getattr(options, name))}
    columns = laws.Columns(**named, count=options.count)
    columns.check()
    for name in ("chance", "examples"):
        if getattr(options, name) is not None and not columns.score:
            raise UsageError(f"--{name} says more about a score, and none is given", hint="name its column as --score")
    report = _page_file(options.report) if options.report else None
    asked = Questions(options.budget, options.serve, options.target, options.next)
    asked.check(columns.variables)
    evidence = laws.read_table(options.study, columns)
    # Before the fit, so that a mistake in the points is told at once.
    points = laws.read_points(options.predict, columns) if options.predict else []
    draws = DRAWS if options.draws is None else options.draws
    law = laws.fit_evidence(evidence, form=options.form, delta=options.delta, draws=draws)
    level = options.level or LEVEL
    said = laws.predict(law, points, level=level)
    link = laws.link_of(evidence, chance=options.chance, examples=options.examples)
    scores = laws.through(law, link, points, level) if link else []
    decided = answer(law, asked, evidence=evidence, level=level)
    limits = laws.limits(law, evidence)
    records = {"law": law, "predictions": said, "findings": limits, "link": link, "scores": scores} | vars(decided)
    linked = [console.link(link, law, points, scores)] if link else []
    parts = [console.law(law, points, said), *linked, console.limits(limits), *console.decisions(decided)]
    if report:
        from sizewise.report.law_page import LawPage, write_page

        source, command = Path(options.study).name, _again(options)
        page = LawPage(source, named, law, evidence, points, said, decided, level, command, link, scores)
        write_page(page, report)
        records["report"] = str(report)
        parts.append(f"report: {report}")
    _show(options, records, "\n\n".join(filter(None, parts)))
    return 0 if law.status == "supported" and (link is None or link.status == "supported") else INSUFFICIENT


def _page_file(given: str) -> Path:
    """Where the page goes, told before the work if it cannot."""
    path = Path(given)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{given} cannot be written", hint="name a file, such as law.html, in a folder that exists")
    return path


def _again(options: argparse.Namespace) -> str:
    """The command that was given."""
    flags = (*COLUMNS, *_FIT_OPTIONS)
    given = [(f"--{name}", value) for name in flags if (value := getattr(options, name)) is not None]
    words = [word for name, value in given for word in (name, value if isinstance(value, str) else f"{value:.12g}")]
    # No cost of the next runs is the cost of the largest so far, which is kept as 0.
    words = [word for i, word in enumerate(words) if not (word == "0" and words[i - 1] == "--next")]
    return shlex.join(["sizewise", "fit", options.study, *words])


def _diagnose(options: argparse.Namespace) -> int:
    from sizewise import console

    with _opened(options) as space:
        findings = space.diagnose()
    return _show(options, findings, console.findings(findings))


def _choose(options: argparse.Namespace) -> int:
    from sizewise import choose, console

    with _opened(options) as space:
        choice = space.choose()
        met = choose.meets_min_score(choice, space.study.budget)
    _show(options, choice, console.choice(choice))
    return 0 if met and choice.status != "undetermined" else INSUFFICIENT


def _compress(options: argparse.Namespace) -> int:
    from sizewise import console

    with _opened(options) as space:
        compression = space.compress()
    return _show(options, compression, console.compression(compression))


def _measure(options: argparse.Namespace) -> int:
    from sizewise import console

    with _opened(options) as space:
        measurements, recommendation = space.measure()
    records = {"measurements": measurements, "recommendation": recommendation}
    _show(options, records, console.measurements(measurements, recommendation))
    return 0 if recommendation.met else INSUFFICIENT


def _export(options: argparse.Namespace) -> int:
    from sizewise import console

    with _opened(options) as space:
        exports = space.export(options.names)
        root = space.store.root
    return _show(options, exports, console.exports(exports, root))


def _report(options: argparse.Namespace) -> int:
    from sizewise.report.study_page import write

    with _opened(options) as space:
        path = write(space)
    return _show(options, {"report": str(path)}, f"report: {path}")


def _serve(options: argparse.Namespace) -> int:
    from sizewise.serve import announce, serve

    def on_ready(url: str, names: Sequence[str]) -> None:
        announce(url, names)
        if options.json:
            print(json.dumps({"url": url, "models": list(names)}), flush=True)

    folders = [Path(folder) for folder in options.folders]
    serve(folders, host=options.host, port=options.port, threads=options.threads, on_ready=on_ready)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from sizewise import config, console, study

    requested = config.structure(_overrides(options) | {"task": options.task}, "the command line")
    root = Path(options.out or f"runs/compare-{_name(options.task)}")
    with console.progress() as listener:
        listener.stage(f"train both sides into {root}")
        result = study.compare(requested, options.a, options.b, root, listener)
    _show(options, result, console.comparison(result))
    return 0 if result.verdict != "undetermined" else INSUFFICIENT


_HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "plan": _plan,
    "train": _train,
    "fit": _fit,
    "diagnose": _diagnose,
    "choose": _choose,
    "compress": _compress,
    "measure": _measure,
    "export": _export,
    "report": _report,
    "serve": _serve,
    "compare": _compare,
}


def _show(options: argparse.Namespace, records: object, text: str) -> int:
    """Print the records of a verb, as JSON or as text made from the same records."""
    from sizewise.records import to_json

    print(json.dumps(to_json(records), indent=1, allow_nan=False) if options.json else text)
    return 0


def _workspace(options: argparse.Namespace, listener: Listener) -> Workspace:
    """The study that STUDY and the flags describe: an existing one, continued or changed, or a new one."""
    from sizewise import config
    from sizewise.study import Workspace

    overrides = _overrides(options)
    given = Path(options.study)
    if (given / "study.toml").is_file():
        root, base = Path(options.out or given), config.read(given / "study.toml")
        if not overrides and root == given:
            return _noted(Workspace.open(root, listener))
    elif given.suffix == ".toml":
        root, base = Path(options.out or Path("runs") / given.stem), config.read(given)
    else:
        root, base = Path(options.out or Path("runs") / _name(options.study)), config.Study(task=options.study)
    return _noted(Workspace.create(_changed(base, overrides), root, listener))


def _noted(space: Workspace) -> Workspace:
    """The same, when the user was told what its data leaves out."""
    from sizewise import console

    for line in console.left_out(space.task.skipped):
        print(f"note: {line}", file=sys.stderr)
    return space


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The study keys that the flags set, nested as in study.toml."""
    nested: dict[str, Any] = {}
    flat = {key[4:]: value for key, value in vars(options).items() if key.startswith("set:") and value is not None}
    if getattr(options, "no_probes", False):
        flat["sweep.probes"] = False
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _changed(base: Study, overrides: dict[str, Any]) -> Study:
    from sizewise import config
    from sizewise.records import to_json

    merged = to_json(base)
    for key, value in overrides.items():
        merged[key] = merged[key] | value if isinstance(value, dict) else value
    return config.structure(merged, "the command line")


def _name(task: str) -> str:
    return Path(task).stem or "study"


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Workspace]:
    """The study in an existing folder, locked for writing, with its progress shown."""
    from sizewise import console
    from sizewise.study import Workspace

    given = Path(options.study)
    known = [path for path in (given, Path("runs") / given) if (path / "study.toml").is_file()]
    if not known:
        raise UsageError(f"there is no study in {given}", hint=f"make one first: sizewise run {given}")
    with console.progress() as listener:
        space = Workspace.open(known[0], listener)
        with space.store.lock():
            yield space


if __name__ == "__main__":
    sys.exit(main())
