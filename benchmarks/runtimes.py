"""Six models in every runtime and precision, against the machine's measured peak.

    python benchmarks/runtimes.py                      all six, on one thread
    python benchmarks/runtimes.py keywords lstm        these only
    python benchmarks/runtimes.py --runtimes torch,onnxruntime,openvino --threads 2

Each model is trained on its example study's data, for `--epochs` passes, so that scores mean something, and measured as
a study measures its candidates: every one in alternation with eager PyTorch. The peak is what large matrix products
reach on as many threads; a share of it counts the model's own operations, padding not taken off.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sizewise import compress, config, recipe, runtimes, stats, tasks, words
from sizewise.config import Study
from sizewise.loop import Data, Start, train_one
from sizewise.measure import measure
from sizewise.records import Estimate, Measurement, Precision, Run, Trial, to_json
from sizewise.store import Store
from sizewise.tasks import Task

EXAMPLES = Path(__file__).parents[1] / "examples"
SIDE, PRODUCTS = 1536, 9
"""Rows and columns of the matrices whose products give the peak, and how many of these are timed."""


@dataclass(frozen=True)
class Model:
    """A family at one width, on the data of an example study."""

    study: str
    family: str
    width: int


MODELS = {
    "mnist_cnn": Model("mnist", "cnn", 32),
    "residual_cnn": Model("mnist", "resnet", 16),
    "keywords": Model("keywords", "cnn1d", 32),
    "lstm": Model("news", "lstm", 64),
    "transformer": Model("news", "transformer", 64),
    "detector": Model("detection", "detector", 16),
}


def trained(model: Model, epochs: int, store: Store) -> tuple[Study, Task, Run]:
    """The study, its task, and one trained run."""
    asked = config.read(EXAMPLES / model.study / "study.toml")
    asked = replace(asked, family=model.family, recipe=replace(asked.recipe, epochs=epochs))
    data = Path(asked.data) if asked.data else None
    task = tasks.load(asked.task, data, asked.reading).scored_by(asked.metric)
    study = config.resolve(asked, task)
    at_width = recipe.at_width(study.recipe, model.width)
    trial = Trial(task.name, task.fingerprint, study.family, model.width, 1.0, at_width, 0)
    known = store.find_run(trial)
    return study, task, known or train_one(trial, Data.of(task), store, Start())


def peak(precision: Precision, threads: int) -> Estimate:
    """Floating-point operations a second of matrix products, with the interval of their median."""
    torch.set_num_threads(threads)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(SIDE, SIDE).to(kind), torch.randn(SIDE, SIDE).to(kind)
    rates = []
    for _ in range(PRODUCTS + 1):
        began = time.perf_counter()
        a @ b
        rates.append(2 * SIDE**3 / (time.perf_counter() - began))
    return stats.quantile(np.array(rates[1:]), 0.5)


def measured(
    name: str, names: Sequence[str], threads: int, epochs: int, root: Path
) -> tuple[Run, tuple[Measurement, ...]]:
    """One model, as a study measures it."""
    store = Store(root / name)
    study, task, run = trained(MODELS[name], epochs, store)
    known = [runtime for runtime in runtimes.RUNTIMES if runtime in names]
    options = replace(study.compress, runtimes=tuple(known), methods=("bf16", "int8"))
    candidates, skipped = compress.build(replace(study, compress=options), (run,), task, store)
    for reason in skipped:
        print(f"skipped {name}: {reason}", flush=True)
    target = replace(study.target, threads=threads)
    found = measure(candidates, candidates[0], task, store, target)
    (root / name / "measurements.json").write_text(json.dumps(to_json(found)))
    return run, found


def rows(name: str, run: Run, found: Sequence[Measurement], peaks: dict[Precision, Estimate]) -> Iterator[str]:
    """Lines of the table, fastest first."""
    for m in sorted(found, key=lambda m: -m.throughput.value):
        share = m.throughput.value * run.flops / peaks["fp32"].value
        ratio, p50, rate = m.throughput_ratio, m.latency_p50_ms, m.throughput
        cells = (
            name,
            f"{run.params:,}",
            runtimes.RUNTIMES[m.candidate.runtime].label,
            m.candidate.precision,
            f"{words.score(m.test_score.value, m.test.metric)} [{words.difference(m.test_drop, m.test.metric)} lost]",
            f"{1e3 * p50.value:.0f} [{1e3 * p50.low:.0f}, {1e3 * p50.high:.0f}]",
            f"{rate.value:,.0f} [{rate.low:,.0f}, {rate.high:,.0f}]",
            f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
            f"{share:.1%}",
            f"{m.size_bytes / 1e3:,.0f}",
            f"{m.peak_memory_bytes / 1e6:,.0f}",
        )
        yield f"| {' | '.join(cells)} |"


HEADER = (
    "| model | parameters | runtime | precision | test score | p50 at batch 1, µs | samples/s at batch 64 | ratio to "
    "PyTorch | of the fp32 peak | kB | peak MB |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    options.add_argument("--runtimes", default=",".join(runtimes.RUNTIMES))
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--out", type=Path, default=Path("runs/runtimes"))
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    for missing, hint in runtimes.missing().items():
        print(f"missing: {missing}: {hint}", flush=True)
    peaks: dict[Precision, Estimate] = {"fp32": peak("fp32", given.threads), "bf16": peak("bf16", given.threads)}
    for precision, rate in peaks.items():
        print(f"peak {precision}: {rate.value / 1e9:.0f} [{rate.low / 1e9:.0f}, {rate.high / 1e9:.0f}] GFLOP/s")
    print(HEADER)
    for name in given.models or MODELS:
        run, found = measured(name, given.runtimes.split(","), given.threads, given.epochs, given.out)
        print("\n".join(rows(name, run, found, peaks)), flush=True)


if __name__ == "__main__":
    main()
