"""The study's configuration: `study.toml`, one-to-one with these dataclasses."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sizewise.cluster import nodes
from sizewise.errors import StoreError, UsageError
from sizewise.methods import parse
from sizewise.records import Budget, Cluster, Reading, Recipe, RuntimeName, Target, from_json, to_json
from sizewise.store import write_atomic

if TYPE_CHECKING:
    from sizewise.tasks import Task

Effort = Literal["quick", "standard", "thorough"]


@dataclass(frozen=True)
class Sweep:
    """Which sizes, seeds and variations are trained. A 0 or an empty list is filled in from the effort.

    Attributes:
        widths: the widths themselves, instead of a ladder.
        smallest, largest: ends of the ladder, in widths.
        sizes: rungs of the ladder, log-spaced in parameters.
        seeds: runs of each size.
        fractions: shares of the training split that are also trained at the probed widths.
        probes: also train a few sizes with other learning rates and twice the epochs, for the diagnosis.
        tune: before the sweep, check the learning rate at three widths by short runs, and scan it at all of them where
            the rule does not hold. None leaves it to the effort: not when it is quick.
        rates: factor of the rule's learning rate for each of `widths`, one each; () is 1 for all.
        time_seconds: wall time the sweep may take; the plan shrinks to fit.
        adaptive: train a few seeds of every size, and then only what the choice still needs, up to `seeds`.
        workers: trials at a time, one thread each; 0 is one a core.
        on: where trials are trained: "local" is this machine, "ray" the Ray cluster that it belongs to; else the
            address of one, such as `ray://host:10001`.
        share: a URL that all nodes of the cluster reach, such as `s3://bucket/study`, where they do not see the study's
            folder; "" is the folder.
    """

    effort: Effort = "quick"
    widths: tuple[int, ...] = ()
    smallest: int = 0
    largest: int = 0
    sizes: int = 0
    seeds: int = 0
    fractions: tuple[float, ...] = (0.5,)
    probes: bool = True
    tune: bool | None = None
    rates: tuple[float, ...] = ()
    time_seconds: float | None = None
    adaptive: bool = False
    workers: int = 0
    on: str = "local"
    share: str = ""


@dataclass(frozen=True)
class Compress:
    """What `compress` tries.

    Attributes:
        methods: kinds of compression; "bf16", "fp16" and "int8" are applied to every model the others made, too.
        chains: what is done to the chosen model besides, such as "prune=0.5:taylor+distil+int8", see `methods`.
        time_seconds: wall time that `compress` may take; above 0 it also searches for chains, and measures what it
            finds.
        runtimes: what every model is converted for; PyTorch, which all are compared with, is always one.
        steps: how many widths below the chosen one are pruned to and distilled into.
        seeds: runs of each pruned or distilled width, for the paired comparison with training small.
        epochs: epochs of fine-tuning or distillation, as a share of the recipe's.
        goal: what the recommended candidate is best at.
        max_drop: score the recommended candidate may lose against the chosen model, in the metric's unit; 0 is 0.6 of
            the margin.
    """

    methods: tuple[Literal["prune", "distil", "bf16", "fp16", "int8"], ...] = ("prune", "distil", "int8")
    chains: tuple[str, ...] = ()
    time_seconds: float = 0.0
    runtimes: tuple[RuntimeName, ...] = ("torch", "onnxruntime", "openvino")
    steps: int = 2
    seeds: int = 3
    epochs: float = 0.6
    goal: Literal["throughput", "latency", "size", "memory"] = "throughput"
    max_drop: float = 0.0


OPEN = Recipe(epochs=0, batch_size=0)
"""How a study trains that says nothing of it: epochs and batch are filled in, and what a model was compiled with
takes the place of the rest."""


@dataclass(frozen=True)
class Study:
    """Everything the user decides.

    Attributes:
        task: a built-in task, or a path to data of one's own.
        data: where the task's files lie, when the task does not say it already.
        family: built-in family or `package.module:function`; "" is the first that fits the task.
        start: trained weights to start from: a safetensors file, a folder that holds one, `hf:owner/name`, a study's
            folder or one of its runs (`folder:trial`); with `select:` in front smaller widths take their part of larger
            tensors. "" is random weights.
        metric: the score that sizes are chosen by; "" is the problem's usual one.
        margin: score that may be given up for a smaller size, in the metric's unit; 0 is the metric's own.
    """

    task: str
    data: str | None = None
    reading: Reading = field(default_factory=Reading)
    family: str = ""
    start: str = ""
    metric: str = ""
    margin: float = 0.0
    recipe: Recipe = OPEN
    sweep: Sweep = field(default_factory=Sweep)
    budget: Budget = field(default_factory=Budget)
    compress: Compress = field(default_factory=Compress)
    target: Target = field(default_factory=Target)
    cluster: Cluster = field(default_factory=Cluster)


@dataclass(frozen=True)
class Preset:
    """What an effort stands for.

    Attributes:
        growth: largest width, in those of a quick study of the family.
        steps: optimizer steps that a run gets at least, within `epochs`.
    """

    sizes: int
    growth: int
    seeds: int
    steps: int
    epochs: tuple[int, int]


PRESETS: dict[str, Preset] = {
    "quick": Preset(sizes=7, growth=1, seeds=5, steps=3000, epochs=(4, 30)),
    "standard": Preset(sizes=9, growth=2, seeds=5, steps=8000, epochs=(8, 80)),
    "thorough": Preset(sizes=12, growth=3, seeds=10, steps=20000, epochs=(15, 150)),
}

DROP = 0.6
"""Of the margin, what compression may lose unless the study says otherwise."""

ALONE = ("file:", "local:", "memory:")
"""Beginnings of URLs that reach one machine, or one process."""

SMALL_TASK = 10_000
"""Training samples below which a batch is 32 and not 64, so that a model gets enough steps, and the seeds and the
widest model are doubled: small tasks scatter more, and their runs are cheap."""


def resolve(study: Study, task: Task) -> Study:
    """Fill in what the user left open."""
    from sizewise import families  # here, since PyTorch comes with it, and a table of runs needs none

    preset, sweep, samples = PRESETS[study.sweep.effort], study.sweep, len(task.train)
    recipe, own = study.recipe, families.recipe_of(study.family)
    if replace(recipe, epochs=0, batch_size=0) == OPEN:
        recipe = replace(own, epochs=recipe.epochs, batch_size=recipe.batch_size or own.batch_size)
    scale = 2 if samples < SMALL_TASK else 1
    batch = recipe.batch_size or 64 // scale
    low, high = preset.epochs
    epochs = recipe.epochs or max(low, min(high, -(-preset.steps * batch // samples)))
    family, margin = study.family or families.suited(task.signature), study.margin or task.metric.margin
    smallest, largest = families.ladder_of(family)
    return replace(
        study,
        family=family,
        metric=task.metric.name,
        margin=margin,
        recipe=replace(recipe, batch_size=batch, epochs=epochs),
        sweep=replace(
            sweep,
            sizes=sweep.sizes or preset.sizes,
            smallest=sweep.smallest or smallest,
            largest=sweep.largest or min(largest * preset.growth * scale, families.widest(family)),
            seeds=sweep.seeds or preset.seeds * scale,
            tune=sweep.effort != "quick" if sweep.tune is None else sweep.tune,
        ),
        compress=replace(study.compress, max_drop=study.compress.max_drop or DROP * margin),
    )


def read(path: Path) -> Study:
    """Read a `study.toml`.

    Raises:
        UsageError: not TOML, an unknown key (with the nearest known one), or a value of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}", hint="give a study.toml, a task or a study folder") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint="fix the line it names") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", hint="check the path and its permissions") from error
    return structure(data, str(path))


def structure(data: dict[str, Any], where: str) -> Study:
    """The study that nested plain values describe.

    Raises:
        UsageError: an unknown key or a value of the wrong type; `where` names the source in the message.
    """
    _check_keys(Study, data, where, "")
    if "task" not in data:
        raise UsageError(f"{where} has no key 'task'", hint='add a line such as task = "digits"')
    default = to_json(Study(task=data["task"]))
    merged = {
        k: default[k] | v if isinstance(v, dict) and isinstance(default.get(k), dict) else v for k, v in data.items()
    }
    return from_json(Study, default | merged)


def write(study: Study, path: Path) -> None:
    """Write the study as TOML, atomically. TOML has no null, so absent values are left out."""
    import tomli_w

    write_atomic(path, tomli_w.dumps(_without_none(to_json(study))).encode())


def check(study: Study) -> None:
    """Refuse values outside their range.

    Raises:
        UsageError: with the key, its value and its range.
    """
    sweep = study.sweep
    rules = {
        "margin": (study.margin > 0, study.margin, "above 0: of accuracy, 0.005 is half a point"),
        "sweep.widths": (all(w >= 1 for w in sweep.widths), sweep.widths, "whole numbers of at least 1"),
        "sweep.smallest": (1 <= sweep.smallest <= sweep.largest, sweep.smallest, "between 1 and sweep.largest"),
        "sweep.sizes": (sweep.sizes >= 1, sweep.sizes, "at least 1"),
        "sweep.seeds": (sweep.seeds >= 1, sweep.seeds, "at least 1"),
        "sweep.fractions": (all(0 < f <= 1 for f in sweep.fractions), sweep.fractions, "in (0, 1]"),
        "sweep.rates": (
            not sweep.rates or (len(sweep.rates) == len(set(sweep.widths)) and min(sweep.rates) > 0),
            sweep.rates,
            "one number above 0 for each of sweep.widths",
        ),
        "sweep.workers": (sweep.workers >= 0, sweep.workers, "at least 0; 0 is one a core"),
        "sweep.on": (bool(sweep.on), sweep.on, "local, ray, or the address of a Ray cluster"),
        "sweep.share": (
            not sweep.share or (sweep.share.find("://") > 0 and not sweep.share.startswith(ALONE)),
            sweep.share,
            "a URL that several machines reach, such as s3://bucket/study; a folder that all see needs none",
        ),
        "compress.time_seconds": (
            study.compress.time_seconds >= 0,
            study.compress.time_seconds,
            "at least 0",
        ),
        "compress.steps": (study.compress.steps >= 0, study.compress.steps, "at least 0"),
        "compress.epochs": (study.compress.epochs > 0, study.compress.epochs, "above 0"),
        "compress.max_drop": (study.compress.max_drop >= 0, study.compress.max_drop, "at least 0"),
        "cluster.device_bytes": (study.cluster.device_bytes >= 0, study.cluster.device_bytes, "at least 0"),
        "target.threads": (study.target.threads >= 1, study.target.threads, "at least 1"),
        "target.batch": (study.target.batch >= 1, study.target.batch, "at least 1"),
        "budget.min_score": (
            (study.budget.min_score or 0) >= 0,
            study.budget.min_score,
            "a score, in the metric's unit",
        ),
    }
    for text in study.cluster.nodes:
        nodes.parse(text)
    for name in (f.name for f in fields(Budget) if f.name.startswith("max_")):
        value = getattr(study.budget, name)
        rules[f"budget.{name}"] = (value is None or value > 0, value, "above 0")
    if sweep.time_seconds is not None:
        rules["sweep.time_seconds"] = (sweep.time_seconds > 0, sweep.time_seconds, "above 0")
    for text in study.compress.chains:
        parse(text)
    for key, (valid, value, domain) in rules.items():
        if not valid:
            raise UsageError(f"{key} is {value}", hint=f"it must be {domain}")


def _check_keys(kind: type, data: dict[str, Any], where: str, prefix: str) -> None:
    known = typing.get_type_hints(kind)
    for key, value in data.items():
        if key not in known:
            raise UsageError(f"{where} has an unknown key {prefix + key!r}", hint=_suggest(key, prefix, list(known)))
        if is_dataclass(known[key]):
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {prefix + key} is {value!r}", hint=f"it must be a table: [{prefix + key}]")
            _check_keys(typing.cast(type, known[key]), value, where, f"{prefix}{key}.")
        elif not _fits(value, known[key]):
            expected = (
                getattr(known[key], "__name__", str(known[key])) if isinstance(known[key], type) else str(known[key])
            )
            expected = expected.replace("typing.", "").replace("Literal", "one of ")
            raise UsageError(f"{where}: {prefix + key} is {value!r}", hint=f"it must be {expected}")


def _suggest(key: str, prefix: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {prefix + near[0]!r}?" if near else f"known keys here: {', '.join(known)}"


def _fits(value: Any, kind: Any) -> bool:
    """Whether a plain TOML value is one of the type `kind`; an int may stand for a float."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in arguments)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return (kind is type(None) and value is None) or isinstance(value, kind)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


__all__ = [
    "Compress", "Effort", "Preset", "Study", "Sweep", "check", "read", "resolve", "structure", "write",
]  # fmt: skip
