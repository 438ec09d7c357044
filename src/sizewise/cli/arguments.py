"""Verbs, flags and what they mean."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from sizewise.cli.values import (
    amount,
    chance,
    count,
    draws,
    duration,
    milliseconds,
    natural,
    numbers,
    pixels,
    positive,
    share,
    size,
    some_counts,
    spending,
    switch,
    whole_numbers,
    words,
)
from sizewise.errors import UsageError

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
    "serve": "serve exported model folders over HTTP and gRPC (Open Inference Protocol v2)",
    "compare": "compare two configurations over the same seeds",
    "simulate": "what training a large model on many machines would take; trains nothing",
    "tune": "search for a better recipe at a small size, and verify it at a larger one",
}

FLAGS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "data": ("data", str, "where the task's files lie"),
    "image-size": ("reading.size", pixels, "what images are brought to, such as 96x128: height, width"),
    "steps": ("reading.steps", int, "longest text, series or window"),
    "vocabulary": ("reading.vocabulary", int, "tokens of the tokenizer"),
    "text": ("reading.text", str, "column of the samples"),
    "target": ("reading.target", str, "column of what is to be learned"),
    "family": ("family", str, "built-in family, or your own package.module:function (default: what suits the task)"),
    "start": (
        "start",
        str,
        "trained weights to start from: a .safetensors file, hf:owner/name, a study's folder or folder:trial; with "
        "select: in front, smaller widths are cut from them",
    ),
    "effort": ("sweep.effort", str, "quick, standard or thorough"),
    "time": ("sweep.time_seconds", duration, "time for training the sweep, such as 10m; the plan shrinks to fit"),
    "widths": ("sweep.widths", whole_numbers, "the sizes themselves, such as 4,8,16,32"),
    "sizes": ("sweep.sizes", int, "number of sizes, log-spaced in parameters"),
    "smallest": ("sweep.smallest", int, "smallest width"),
    "largest": ("sweep.largest", int, "largest width"),
    "seeds": ("sweep.seeds", int, "runs of each size"),
    "fractions": ("sweep.fractions", numbers, "shares of the training data to probe, such as 0.25,0.5"),
    "workers": ("sweep.workers", int, "trials at a time, one thread each"),
    "on": (
        "sweep.on",
        str,
        "where trials are trained: local, ray, or a Ray cluster's address such as ray://host:10001",
    ),
    "share": ("sweep.share", str, "a URL such as s3://bucket/study for a cluster whose nodes do not see --out"),
    "epochs": ("recipe.epochs", int, "passes over the training data"),
    "lr": ("recipe.lr", float, "learning rate at width 32"),
    "batch-size": ("recipe.batch_size", int, "samples a step"),
    "optimizer": (
        "recipe.optimizer",
        str,
        "sgd, momentum, adam, adamw, muon or another of the manual",
    ),
    "weight-decay": ("recipe.weight_decay", float, "weight decay"),
    "schedule": ("recipe.schedule", str, "constant, linear, cosine or wsd (warm-up, stable, decay)"),
    "loss": ("recipe.loss", str, "cross_entropy (the problem's own), mse, half_sse, mae, huber or binary"),
    "label-smoothing": ("recipe.label_smoothing", float, "share of the target spread over all classes"),
    "clip": ("recipe.clip", float, "largest norm of the gradient; 0 is off"),
    "augment": ("recipe.augment", switch, "turn, shift and scale images and volumes at random: true or false"),
    "dropout": ("recipe.dropout", float, "share of values that layers of dropout leave out, where a family has any"),
    "accumulate": ("recipe.accumulate", int, "parts in which a batch's gradient is added up, to need less memory"),
    "precision": (
        "recipe.precision",
        str,
        "of matrix products while training: fp32, or bf16 where the processor has it",
    ),
    "average": ("recipe.average", str, "use an average of the weights: ema or swa; none is off"),
    "patience": ("recipe.patience", int, "stop after this many epochs without improvement; 0 is off"),
    "metric": ("metric", str, "the score that sizes are chosen by, such as accuracy, F1 or AUROC"),
    "margin": ("margin", float, "score that may be given up for a smaller size; of accuracy, 0.005 is half a point"),
    "max-params": ("budget.max_params", count, "most parameters, such as 50k"),
    "max-latency-ms": ("budget.max_latency_ms", float, "longest p50 latency of one request"),
    "max-size": ("budget.max_size_bytes", size, "most bytes on disk, such as 200kB"),
    "max-memory": ("budget.max_memory_bytes", size, "most memory of a serving process, such as 100MB"),
    "max-train-time": ("budget.max_train_seconds", duration, "longest training of one model"),
    "min-score": ("budget.min_score", float, "validation score to reach; an accuracy is in [0, 1]"),
    "methods": ("compress.methods", words, "what compress tries: prune,distil,bf16,int8"),
    "chains": (
        "compress.chains",
        words,
        "done to the chosen model besides, such as prune=0.5:taylor+distil+int8",
    ),
    "search-time": (
        "compress.time_seconds",
        duration,
        "time for a search for chains, measuring included, such as 10m",
    ),
    "runtimes": ("compress.runtimes", words, "what models are converted for: torch,onnxruntime,openvino,..."),
    "goal": ("compress.goal", str, "what to ship is best at: throughput, latency, size or memory"),
    "max-drop": ("compress.max_drop", float, "score compression may lose; of accuracy, 0.003 is 0.3 points"),
    "threads": ("target.threads", int, "threads the shipped model may use"),
    "nodes": (
        "cluster.nodes",
        words,
        "machines to plan for, as COUNTxWORKERS:SPEED@PRICE of an hour, such as 4x8@2.5,2x16:1.5@4",
    ),
    "currency": ("cluster.currency", str, "of prices (USD)"),
    "strategy": (
        "cluster.strategy",
        str,
        "how torchrun's workers share one model: ddp, whole on each, or fsdp2, in parts (default: what memory allows)",
    ),
    "device-memory": ("cluster.device_bytes", size, "memory of one worker, such as 80GB (default: what is free here)"),
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
    sub.add_argument(
        "--tune",
        action=argparse.BooleanOptionalAction,
        help="check the learning rate by short runs before the sweep (default: unless --effort quick)",
    )
    sub.add_argument(
        "--adaptive",
        action=argparse.BooleanOptionalAction,
        help="train only what the choice needs: few seeds where few suffice, none where nothing can change",
    )
    sub.add_argument("--no-probes", action="store_true", help="do not check tuning, training length and data")
    _study_flags(sub)


def _tune_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("study", metavar="STUDY", help="a task, a data folder or file, a study.toml or a study's folder")
    sub.add_argument("--out", metavar="DIR", help="the study's folder (default: runs/NAME)")
    sub.add_argument("--trials", type=natural, default=24, metavar="N", help="recipes to try (default: %(default)s)")
    sub.add_argument(
        "--at",
        type=some_counts,
        default=[],
        metavar="W,W",
        help="width to search at, and larger ones to verify at (default: two of the ladder)",
    )
    sub.add_argument(
        "--no-shape",
        action="store_true",
        help="keep the depth of the family; else others are tried at equal parameters",
    )
    sub.add_argument(
        "--objectives",
        choices=("loss", "loss,time"),
        default="loss",
        help="what recipes are searched for: with time, a frontier of validation loss and seconds of training",
    )
    sub.add_argument(
        "--halving",
        action="store_true",
        help="train each for a ninth of the epochs first, and only the better ones for longer",
    )
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
    group.add_argument(
        "--budget",
        type=spending,
        metavar="AMOUNT",
        help="the best size and data for this much training: 1e21 operations, 100h (or 4d), or 500USD",
    )
    group.add_argument("--speed", type=positive, metavar="FLOP/S", help="operations a second that training reaches")
    group.add_argument("--price", type=positive, metavar="X", help="what an hour of that speed costs")
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


def _compress_arguments(sub: argparse.ArgumentParser) -> None:
    _study_argument(sub)
    named = {"methods": "methods", "chains": "chains", "runtimes": "runtimes", "search-time": "time"}
    for name, flag in named.items():
        key, parse, text = FLAGS[name]
        sub.add_argument(f"--{flag}", dest=f"set:{key}", type=parse, metavar="X", help=text)


def _export_arguments(sub: argparse.ArgumentParser) -> None:
    _study_argument(sub)
    sub.add_argument("names", nargs="*", metavar="NAME", help="candidates (default: the recommended and the chosen)")


def _measure_arguments(sub: argparse.ArgumentParser) -> None:
    _study_argument(sub)
    group = sub.add_argument_group("search", "how the recommended model is best run on this machine")
    group.add_argument("--search", action="store_true", help="try every runtime, precision, thread count and batch")
    group.add_argument("--runtimes", type=words, default=[], metavar="NAMES", help="runtimes to try (default: all)")
    group.add_argument(
        "--threads", type=some_counts, default=[], metavar="N,N", help="thread counts to try (default: 1, 2, 4 to all)"
    )
    group.add_argument(
        "--batches", type=some_counts, default=[1, 8, 64], metavar="N,N", help="samples a call (default: 1,8,64)"
    )
    group = sub.add_argument_group("scenarios", "MLPerf's load on the recommended model and on the chosen one")
    group.add_argument("--scenarios", type=words, metavar="NAMES", help="of single-stream,multi-stream,offline,server")
    group.add_argument(
        "--bound-ms", type=positive, default=10.0, metavar="MS", help="latency bound of server, of 99%% (default: 10)"
    )


def _serve_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="an exported model folder, or one with subfolders 1, 2, ... of them",
    )
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    sub.add_argument("--port", type=int, default=8000, help="port, 0 for any free one (default: %(default)s)")
    sub.add_argument("--grpc-port", type=int, metavar="N", help="also serve gRPC on this port (default: HTTP only)")
    sub.add_argument("--threads", type=int, default=1, help="threads of each model (default: %(default)s)")
    group = sub.add_argument_group("limits", "of each model; requests beyond them are refused with what to do")
    group.add_argument("--max-batch", type=natural, default=64, metavar="N", help="most samples answered together (64)")
    group.add_argument("--max-delay", type=milliseconds, default=0.0, metavar="MS", help="wait for a batch at most (0)")
    group.add_argument("--queue", type=natural, default=256, metavar="N", help="most requests that wait (256)")
    group.add_argument("--timeout", type=duration, default=30.0, metavar="TIME", help="longest wait (30s)")
    group.add_argument("--max-body", type=size, default=64 << 20, metavar="SIZE", help="largest request (64MiB)")
    group = sub.add_argument_group("access", "who may ask, and how it is kept private")
    group.add_argument("--token-file", metavar="FILE", help="clients must show the token in it (or: SIZEWISE_TOKEN)")
    group.add_argument("--tls-certificate", metavar="FILE", help="PEM certificate: serve over TLS")
    group.add_argument("--tls-key", metavar="FILE", help="PEM key of the certificate")
    group.add_argument("--tls-client-ca", metavar="FILE", help="PEM of who signs clients' certificates: ask for them")
    sub.add_argument(
        "--poll", type=duration, default=1.0, metavar="TIME", help="how often to look for new versions (1s)"
    )
    sub.add_argument("--log-requests", action="store_true", help="log every request, not only events")


def _compare_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("a", metavar="A", help="settings such as width=32 or width=32,optimizer=sgd,lr=0.1")
    sub.add_argument("b", metavar="B", help="the other settings")
    sub.add_argument("--task", default="digits", help="what to train on (default: %(default)s)")
    sub.add_argument("--out", metavar="DIR", help="where the runs are kept (default: runs/compare-TASK)")
    _study_flags(sub)


def _simulate_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("scenario", metavar="FILE", help="a .toml file of a model, machines and what is trained")


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "run": _planning_arguments,
    "plan": _planning_arguments,
    "train": _planning_arguments,
    "fit": _fit_arguments,
    "compress": _compress_arguments,
    "measure": _measure_arguments,
    "export": _export_arguments,
    "serve": _serve_arguments,
    "compare": _compare_arguments,
    "simulate": _simulate_arguments,
    "tune": _tune_arguments,
}
