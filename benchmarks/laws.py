"""sizewise's laws against published numbers and procedures, ours and the peer's timed in one run on one core.

    python benchmarks/laws.py published      the law of 240 language models, its standard errors, and how fast
    python benchmarks/laws.py curves         53 learning curves, extrapolated, beside M1 to M4
    python benchmarks/laws.py runs           public sets of language models, their largest runs hidden
    python benchmarks/laws.py rows           time and memory of tables of up to ten million rows
    python benchmarks/laws.py package        the PyPI package `chinchilla` beside ours

Coverage and refusal on known laws: `laws_synthetic.py`. The next run: `laws_design.py`. Peers: `laws_peers.py`.
Nothing in sizewise was chosen by looking at what the curves extrapolate to; see `LOG.md` for what was chosen on what.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from laws_peers import published_resamples
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sizewise.laws import Columns, Evidence, fit_evidence, predict, read_table, solve
from sizewise.laws.compete import centre_of
from sizewise.laws.forms import named

Array = NDArray[np.float64]
HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "shared" / "data" / "scaling"
TWO = ("params", "samples")
ORDER = ("A", "B", "E", "alpha", "beta")
PUBLISHED = {"A": 124.5, "B": 1293.0, "E": 0.026, "alpha": 0.0154, "beta": 0.0206}
DELTA = 1e-3
PEER_ORDER = ("A", "B", "E", "alpha", "beta")
HIDDEN = (3, 10, 30, 100)


def evidence(variables: tuple[str, ...], x: Array, y: Array) -> Evidence:
    rows = np.arange(len(y))
    _, setting = np.unique(x, axis=0, return_inverse=True)
    return Evidence("loss", variables, x, y, np.ones(len(y)), rows, setting.reshape(-1), rows + 1)


def chinchilla() -> Evidence:
    with (DATA / "chinchilla_fig4.csv").open() as file:
        rows = list(csv.DictReader(file))
    n, c, y = (np.array([float(r[name]) for r in rows]) for name in ("Model Size", "Training FLOP", "loss"))
    kept = np.sort(np.argsort(y, kind="stable")[:-5])
    return evidence(TWO, np.column_stack([n, c / (6 * n)])[kept], y[kept])


def peer(*arguments: str) -> dict[str, Any]:
    """What a peer answers, run in its own process and environment on one core."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answer.json"
        command = [sys.executable, str(HERE / "laws_peers.py"), *arguments, "--data", str(DATA), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        answer: dict[str, Any] = json.loads(out.read_text())
    return answer


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds of a call after one to warm up, and its last answer."""
    answer, seconds = work(), []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), answer


def published(options: argparse.Namespace) -> dict[str, Any]:
    """The additive law of 240 models: the optimum, 4,000 bootstraps, and the peer's on some of the same resamples."""
    found, form = chinchilla(), named("additive", TWO)
    centre = centre_of(found)
    x, ones = found.log_x - centre, np.ones((1, len(found.y)))
    fit_seconds, best = timed(lambda: solve.search(form, x, found.log_y, ones, DELTA), 21)
    indices = published_resamples(len(x), options.resamples)
    weights = np.stack([np.bincount(row, minlength=len(x)) for row in indices]).astype(float)
    seconds, drawn = timed(lambda: solve.refit(form, best.theta[0], x, found.log_y, weights, DELTA), 3)
    natural = form.natural(form.shifted(drawn.theta, -centre))
    fit = form.natural(form.shifted(best.theta, -centre))[0]
    places = [form.names.index(name) for name in ORDER]
    errors = dict(zip(ORDER, natural[:, places].std(axis=0, ddof=1).tolist(), strict=True))
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, indices[: options.peer])
        theirs = peer("bootstrap", "--indices", file.name)
    grid = peer("grid", "--share", str(options.grid))
    # Both objectives by one formula, at each side's answer; the peer's are logs of A, B and E, then the exponents.
    other = np.array(theirs["thetas"])[:, [PEER_ORDER.index(name) for name in form.names]]
    residual = form.value(other, found.log_x) - found.log_y
    some = weights[: len(other)]
    their_loss = solve.huber(residual, some, np.full(len(other), DELTA)) / some.sum(axis=1)
    our_loss = drawn.loss[: len(other)]
    return {
        "fit": dict(zip(ORDER, fit[places].tolist(), strict=True)),
        "objective": float(best.loss[0]),
        "fit_ms": 1e3 * fit_seconds,
        "standard_errors": errors,
        "published": PUBLISHED,
        "resamples": options.resamples,
        "seconds": seconds,
        "peer_resamples": len(other),
        "peer_seconds_for_4000": theirs["seconds_for_4000"],
        "ratio": theirs["seconds_each"] / (seconds / options.resamples),
        "worse_than_peer": int((our_loss > their_loss * (1 + 1e-6)).sum()),
        "better_than_peer": float((our_loss < their_loss * (1 - 1e-6)).mean()),
        "grid": {k: v for k, v in grid.items() if not isinstance(v, list)},
    }


def curves(options: argparse.Namespace) -> dict[str, Any]:
    """Fit `Training` = 1, predict 0: root mean squared log error, coverage of 90 % intervals, time."""
    groups: dict[tuple[str, ...], list[tuple[float, float, int]]] = {}
    with (DATA / "learning_curves.csv").open() as file:
        for row in csv.DictReader(file):
            key = (row["Domain"], row["Task"], row["Model"])
            groups.setdefault(key, []).append((float(row["Seen Examples"]), float(row["Loss"]), int(row["Training"])))
    rows = []
    for key, values in groups.items():
        table = np.array(values)
        seen, hidden = table[table[:, 2] == 1], table[table[:, 2] == 0]
        found = evidence(("samples",), seen[:, :1], seen[:, 1])
        seconds, law = timed(lambda found=found: fit_evidence(found, draws=0), options.repeats)  # type: ignore[misc]
        said = predict(law, [{"samples": float(v)} for v in hidden[:, 0]])
        value, low, high = (np.array([getattr(e, name) for e in said]) for name in ("value", "low", "high"))
        rows.append(
            {
                "curve": list(key),
                "rmsle": float(np.sqrt(np.mean(np.log(value / hidden[:, 1]) ** 2))),
                "covered": float(np.mean((low <= hidden[:, 1]) & (hidden[:, 1] <= high))),
                "half_width": float(np.median(np.log(high / low) / 2)),
                "ms": 1e3 * seconds,
                "status": law.status,
            }
        )
    answer: dict[str, Any] = {"ours": summary(rows), "curves": rows}
    if options.models:
        theirs = peer("curves", "--models", options.models)
        answer["peers"] = theirs["means"]
        answer["better_than_m4"] = against(rows, theirs["curves"])
    return answer


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    errors = np.array([r["rmsle"] for r in rows])
    covered = np.array([r["covered"] for r in rows])
    return {
        "curves": len(rows),
        "geometric_mean": float(np.exp(np.log(errors).mean())),
        "mean": float(errors.mean()),
        "coverage": float(covered.mean()),
        "median_half_width": float(np.median([r["half_width"] for r in rows])),
        "median_ms": float(np.median([r["ms"] for r in rows])),
        "largest_ms": max(r["ms"] for r in rows),
        "supported": float(np.mean([r["status"] == "supported" for r in rows])),
    }


def against(rows: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    """Share of the curves on which our error is below M4's."""
    other = {(r["domain"], r["task"], r["model"]): r["rmsle"]["m4"] for r in theirs}
    return float(np.mean([r["rmsle"] < other[tuple(r["curve"])] for r in rows]))


def runs(options: argparse.Namespace) -> dict[str, Any]:
    """Public run sets with everything above a fraction of the largest compute hidden."""
    sets = {"chinchilla": (chinchilla().x, chinchilla().y)}
    for path in sorted((DATA / "runs").glob("*.csv")):
        with path.open() as file:
            table = np.array([[float(r[name]) for name in ("params", "tokens", "loss")] for r in csv.DictReader(file)])
        sets[path.stem] = (table[:, :2], table[:, 2])
    rows = []
    for name, (x, y) in sets.items():
        compute = x.prod(axis=1)
        for factor in HIDDEN:
            seen = compute <= compute.max() / factor
            if np.unique(x[seen], axis=0).shape[0] < 5:
                continue
            law = fit_evidence(evidence(TWO, x[seen], y[seen]), draws=0)
            said = predict(law, [dict(zip(TWO, map(float, row), strict=True)) for row in x[~seen]])
            value, low, high = (np.array([getattr(e, k) for e in said]) for k in ("value", "low", "high"))
            rows.append(
                {
                    "set": name,
                    "factor": factor,
                    "seen": int(seen.sum()),
                    "covered": float(np.mean((low <= y[~seen]) & (y[~seen] <= high))),
                    "half_width": float(np.median(np.log(high / low) / 2)),
                    "miss": float(np.median(np.abs(np.log(value / y[~seen])))),
                    "status": law.status,
                }
            )
    by = {f: [r for r in rows if r["factor"] == f] for f in HIDDEN}
    means = {
        f: {k: float(np.mean([r[k] for r in some])) for k in ("covered", "half_width", "miss")}
        for f, some in by.items()
    }
    return {"means": means, "rows": rows}


def rows(options: argparse.Namespace) -> dict[str, Any]:
    """A table read and fitted with everything it reports, by number of rows: seconds, and the largest memory so far."""
    columns, found = Columns(params="params", samples="samples", loss="loss"), []
    with tempfile.TemporaryDirectory() as folder:
        for count in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
            path = table(Path(folder) / "runs.csv", count)
            start = time.perf_counter()
            read = read_table(path, columns)
            reading = time.perf_counter() - start
            law = fit_evidence(read)
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found.append({"rows": count, "reading": reading, "seconds": seconds, "peak_mb": peak, "status": law.status})
    return {"by_rows": found}


def table(path: Path, count: int) -> Path:
    """So many runs of an additive law as CSV."""
    rng, form = np.random.default_rng(0), named("additive", TWO)
    theta = form.theta(np.array([[1.8, 480.0, 2100.0, 0.35, 0.37]]))
    with path.open("w") as file:
        file.write("params,samples,loss\n")
        for at in range(0, count, 100_000):
            x = 10 ** rng.uniform([6, 8], [9, 11], size=(min(100_000, count - at), 2))
            y = np.exp(form.value(theta, np.log(x))[0] + 0.02 * rng.normal(size=len(x)))
            np.savetxt(file, np.column_stack([x, y]), fmt="%.6g", delimiter=",")
    return path


def package(options: argparse.Namespace) -> dict[str, Any]:
    """The PyPI package's fit of the same 240 runs beside ours, both scored by Huber's loss on log residuals."""
    seconds, law = timed(lambda: fit_evidence(chinchilla(), form="additive", delta=DELTA), 3)
    lead = law.forms[0]
    ours = {name: [e.value, e.low, e.high] for name, e in lead.parameters.items()}
    return {"ours": {"seconds": seconds, "objective": lead.objective, "parameters": ours}, "package": peer("package")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("published", "curves", "runs", "rows", "package"))
    parser.add_argument("--resamples", type=int, default=4000)
    parser.add_argument("--peer", type=int, default=200, help="resamples that the published procedure fits too")
    parser.add_argument("--grid", type=float, default=0.02, help="share of the published grid's 4,500 starts to run")
    parser.add_argument("--models", default="m1,m2,m3,m4", help="peers on the learning curves; empty for none")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats a curve")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    verbs = {"published": published, "curves": curves, "runs": runs, "rows": rows, "package": package}
    with threadpool_limits(1):
        answer = verbs[options.what](options)
    if options.out:
        options.out.write_text(json.dumps(answer, indent=1))
    print(json.dumps({k: v for k, v in answer.items() if k not in ("curves", "rows")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
