"""Every example study from data to report, and what its best size reaches on the test split, over all its seeds.

    python benchmarks/tasks.py                   run all of examples/*/study.toml into runs/tasks, print the table
    python benchmarks/tasks.py mnist keywords    these only
    python benchmarks/tasks.py --table           print the table of what has been run

A study's own measurement reads the test split for one model a size; here every seed of the best size is scored on it,
after everything was decided. The best size is the one with the best mean on the validation split.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sizewise import stats, words
from sizewise.compress.candidates import deployable
from sizewise.records import Choice, Estimate, Law, Run
from sizewise.runtimes import eager
from sizewise.study import Workspace

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = "seconds.json"
HEADER = (
    "study", "family", "sizes", "best size", "test score over seeds", "chosen size", "law of the loss",
    "law of the error", "min",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One study in the table."""

    name: str
    space: Workspace
    best: Sequence[Run]
    test: Estimate
    others: dict[str, float]
    choice: Choice
    laws: Sequence[Law]
    seconds: float


def studies(names: Sequence[str]) -> list[Path]:
    """The example studies, all or those named."""
    found = sorted(EXAMPLES.glob("*/study.toml"))
    return [path for path in found if not names or path.parent.name in names]


def run(study: Path, folder: Path) -> None:
    """Run one study by the command that users type, and keep how long it took in all."""
    made = study.parent / "make.py"
    if made.exists():
        subprocess.run([sys.executable, str(made)], check=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "sizewise.cli", "run", str(study), "--effort", "quick", "--out", str(folder)]
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):
        raise SystemExit(f"{study} ended with exit code {code}")
    took = folder / SECONDS
    before = json.loads(took.read_text()) if took.exists() else 0.0
    took.write_text(json.dumps(before + time.monotonic() - began))


def row(folder: Path) -> Row:
    """What a finished study reaches on the test split."""
    torch.set_num_threads(1)
    space = Workspace.open(folder)
    task, sizes = space.task, space.sizes()
    means = {width: float(np.mean([run.validation.score for run in runs])) for width, runs in sizes.items()}
    best = sizes[max(means, key=lambda width: task.metric.gain(means[width], 0))]
    sessions = (eager.session(deployable(run, task, space.store), task.signature) for run in best)
    judged = [task.problem.judge(task.problem.answers(session, task.test), task.test) for session in sessions]
    values = {name: np.array([one.values[name] for one in judged]) for name in judged[0].values}
    return Row(
        name=folder.name,
        space=space,
        best=best,
        test=stats.mean(values.pop(task.metric.name)),
        others={name: float(found.mean()) for name, found in values.items()},
        choice=space.store.load("choice.json", Choice),
        laws=space.store.load("law.json", tuple[Law, ...]),
        seconds=json.loads((folder / SECONDS).read_text()) if (folder / SECONDS).exists() else float("nan"),
    )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows in Markdown."""
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    for r in rows:
        metric, sizes = r.space.task.metric, r.space.sizes()
        params = [runs[0].params for runs in sizes.values()]
        low, high = (words.score(v, metric) for v in (r.test.low, r.test.high))
        cells = (
            r.name,
            f"`{r.space.study.family}`",
            f"{len(sizes)}, {params[0]:,} to {params[-1]:,}",
            f"{r.best[0].trial.width} ({r.best[0].params:,})",
            f"{metric.name} **{words.score(r.test.value, metric)}** [{low}, {high}], {r.test.n} seeds",
            f"{r.choice.width} ({r.choice.params:,}), {r.choice.status}",
            *(f"{law.status}{_formula(law)}" for law in r.laws),
            f"{r.seconds / 60:.1f}",
        )
        yield f"| {' | '.join(cells)} |"


def _formula(law: Law) -> str:
    if law.status != "supported":
        return f": {law.reason}"
    values = ", ".join(
        f"{name} {e.value:.3g} [{e.low:.3g}, {e.high:.3g}]" for name, e in law.forms[0].parameters.items()
    )
    return f": {law.forms[0].formula}, {values}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="studies (default: all)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tasks"), help="where they are kept (default: %(default)s)"
    )
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    chosen = studies(options.names)
    if not options.table:
        for study in chosen:
            run(study, options.out / study.parent.name)
    folders = [options.out / study.parent.name for study in chosen]
    rows = [row(folder) for folder in folders if (folder / "recommendation.json").exists()]
    print("\n".join(table(rows)))
    for r in rows:
        print(f"{r.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in r.others.items()))


if __name__ == "__main__":
    main()
