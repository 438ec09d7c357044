"""What users have today for fitting scaling laws: the peers that `sizewise` is compared with.

    python benchmarks/laws_peers.py bootstrap --resamples 20 --json    the published bootstrap of the Chinchilla law
    python benchmarks/laws_peers.py grid --share 0.02 --json           the published grid of 4,500 starts
    python benchmarks/laws_peers.py package --json                     the PyPI package `chinchilla`
    python benchmarks/laws_peers.py curves --out FILE                  M1 to M4 on 53 learning curves

Sources, each read for its procedure and written anew:

- Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", arXiv:2203.15556: the law, the Huber loss in
  log space, the grid of starts.
- Besiroglu, Erdil, Barnett, You 2024, "Chinchilla Scaling: A replication attempt", arXiv:2404.10102: the data read off
  a figure, the sum instead of the mean, BFGS, the bootstrap.
- Alabdulmohsin, Neyshabur, Zhai 2022, "Revisiting Neural Scaling Laws in Language and Vision", arXiv:2209.06640: the
  learning-curve models M1 to M4, their fitting, the benchmark.
- Takano, the package `chinchilla` 0.2.0 and its documentation.

The peers never touch the dependencies of `sizewise`: the first run makes environments with pinned versions under
`benchmarks/.venvs/`, and the script runs itself again in there. Times are those of one core.

What shows that they are faithful: the standard errors of 4,000 resamples are 124.5 for A and 1,293 for B (published:
124.6 and 1,293), and the geometric means over the 53 curves are 0.096, 0.056, 0.041 and 0.027 for M1 to M4, those of
the authors' own code. M4 does the authors' steps with less overhead, so it is faster than their code.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from environments import ENVIRONMENTS, environment
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, nnls

Array = NDArray[np.float64]
Predictor = Callable[[ArrayLike], Array]
Method = Literal["BFGS", "L-BFGS-B"]

HERE = Path(__file__).resolve().parent
DATA_FOLDERS = (HERE.parent / "data" / "scaling", HERE.parent.parent / "shared" / "data" / "scaling")
REQUIREMENTS = {
    "laws": ("autograd==1.9.1", "numpy==2.4.6", "scipy==1.17.1"),
    "chinchilla": (
        "chinchilla==0.2.0",
        "matplotlib==3.11.2",
        "numpy==2.4.6",
        "pandas==3.1.1",
        "pydantic==2.14.3",
        "scipy==1.17.1",
        "seaborn==0.13.2",
    ),
}
PACKAGE_WORKER = "package-worker"

# The Chinchilla law: parameters in this order, a, b and e being logarithms.
ORDER = ("a", "b", "e", "alpha", "beta")
DELTA = 1e-3
OUTLIERS = 5
OPTIMUM = 0.0010182741
HOFFMANN = (6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)
GRID = (range(0, 30, 5), range(0, 30, 5), (-1.0, -0.5, 0.0, 0.5, 1.0), (0, 0.5, 1, 1.5, 2), (0, 0.5, 1, 1.5, 2))

# The alternating procedure of M2 and M4.
MARGIN = 1e-3
ROUNDS = 10_000
GRADIENT_ROUNDS = 100
GRADIENT_STEPS, GRADIENT_RATE = 1000, 1e-8
NEWTON_STEPS, NEWTON_RATE = 100, 0.1
STILL = 1e-10
FLAT = 1e-5
LEVELS = 10_000


def _one_core() -> dict[str, str]:
    """The process environment that keeps linear algebra on one core and figures off the screen."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "MPLBACKEND": "Agg"}


# ---- the Chinchilla law ---------------------------------------------------------------------------------------------


def chinchilla_points(path: Path) -> tuple[Array, Array, Array]:
    """Parameters, tokens and loss of the runs read off Hoffmann et al.'s figure 4, without the five largest losses.

    Tokens are FLOP / (6 × parameters), as in Besiroglu et al. 2024.
    """
    with path.open(newline="") as lines:
        rows = [(r["Model Size"], r["Training FLOP"], r["loss"]) for r in csv.DictReader(lines)]
    params, flop, loss = np.array(rows, dtype=np.float64).T
    kept = loss < np.sort(loss)[-OUTLIERS]
    return params[kept], (flop / (6 * params))[kept], loss[kept]


def published_resamples(points: int, count: int, seed: int = 42) -> NDArray[np.int64]:
    """Resamples with replacement as the replication draws them: NumPy's legacy generator, seed 42."""
    draw = np.random.RandomState(seed)
    return np.array([draw.randint(0, points, size=points) for _ in range(count)], dtype=np.int64).reshape(-1, points)


def _huber_sum(xp: Any) -> Callable[..., Any]:
    """The objective of Besiroglu et al. 2024, in the given NumPy: the sum, not the mean, of log-space Huber losses."""

    def objective(theta: Any, n: Array, d: Array, y: Array) -> Any:
        a, b, e, alpha, beta = theta
        gap = y - xp.log(xp.exp(a - alpha * n) + xp.exp(b - beta * d) + xp.exp(e))
        size = xp.abs(gap)
        return xp.sum(xp.where(size <= DELTA, 0.5 * gap**2, DELTA * (size - 0.5 * DELTA)))

    return objective


def huber_sum(theta: Sequence[float] | Array, params: Array, tokens: Array, loss: Array) -> float:
    """The objective at one theta (a, b, e, alpha, beta)."""
    return float(_huber_sum(np)(theta, np.log(params), np.log(tokens), np.log(loss)))


def _with_gradient() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The objective and its gradient by the package `autograd`, the replication's choice."""
    objective = _huber_sum(importlib.import_module("autograd.numpy"))
    return objective, importlib.import_module("autograd").grad(objective)


def published_bootstrap(
    params: Array, tokens: Array, loss: Array, resamples_indices: NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """The bootstrap of Besiroglu et al. 2024: thetas, objectives and seconds, one row per resample.

    Every resample is fitted by SciPy's BFGS with its default settings, with gradients by `autograd`, from one start:
    the unrounded estimates of Hoffmann et al. 2022. Whatever BFGS returns is kept, converged or not. The published
    code takes the logarithms of the data in every evaluation; here they are taken once, in the peer's favour.
    """
    objective, gradient = _with_gradient()
    n, d, y = np.log(params), np.log(tokens), np.log(loss)
    thetas, objectives, seconds = [], [], []
    for rows in resamples_indices:
        begin = time.perf_counter()
        found = minimize(objective, np.array(HOFFMANN), (n[rows], d[rows], y[rows]), jac=gradient, method="BFGS")
        seconds.append(time.perf_counter() - begin)
        thetas.append(found.x)
        objectives.append(float(found.fun))
    return np.array(thetas).reshape(-1, len(ORDER)), np.array(objectives), np.array(seconds)


@dataclass(frozen=True)
class GridFit:
    """What a grid of starts, or a random share of it, came to."""

    theta: list[float]
    objective: float
    starts: int
    of: int
    seconds: float
    seconds_all: float
    reference: float
    tolerance: float
    reached: float
    objectives: list[float]


def published_grid_fit(
    params: Array,
    tokens: Array,
    loss: Array,
    *,
    share: float = 1.0,
    method: Method = "L-BFGS-B",
    exact_gradient: bool = True,
    seed: int = 0,
    tolerance: float = 1e-3,
    reference: float | None = None,
) -> GridFit:
    """The fit of Hoffmann et al. 2022 from their grid of 4,500 starts, with the sum of Huber's loss.

    They ran L-BFGS from a, b in {0, 5, …, 25}, e in {-1, -0.5, …, 1} and alpha, beta in {0, 0.5, …, 2} and kept the
    best. `share` runs that share of the starts, drawn at random, and scales the time up. `reached` is the share of
    the starts run that ended within `tolerance`, relative, of `reference`: without one, the best objective found here.
    `exact_gradient=False` leaves the gradient to SciPy's finite differences.
    """
    objective, gradient = _with_gradient() if exact_gradient else (_huber_sum(np), None)
    starts = np.array(list(itertools.product(*GRID)), dtype=np.float64)
    count = max(1, round(share * len(starts)))
    picked = np.random.default_rng(seed).choice(len(starts), count, replace=False)
    data = (np.log(params), np.log(tokens), np.log(loss))
    begin = time.perf_counter()
    with np.errstate(all="ignore"):
        found = [minimize(objective, starts[i], data, jac=gradient, method=method) for i in picked]
    seconds = time.perf_counter() - begin
    values = [float(f.fun) if np.isfinite(f.fun) else math.inf for f in found]
    best = int(np.argmin(values))
    target = values[best] if reference is None else reference
    return GridFit(
        theta=[float(v) for v in found[best].x],
        objective=values[best],
        starts=count,
        of=len(starts),
        seconds=seconds,
        seconds_all=seconds * len(starts) / count,
        reference=target,
        tolerance=tolerance,
        reached=float(np.mean([v <= target * (1 + tolerance) for v in values])),
        objectives=values,
    )


# ---- the package `chinchilla` ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PackageFit:
    """What the package `chinchilla` found; `objective` is the sum of Huber's loss, as for the other peers."""

    parameters: dict[str, float]
    objective: float
    seconds: float
    loss: str
    starts: int


def chinchilla_package_fit(
    params: Array, tokens: Array, loss: Array, *, objective: str = "default", points: int = 5, timeout: float = 3600
) -> PackageFit | str:
    """The package `chinchilla` on these runs, called as its documentation says; or, as text, why it could not be.

    Takano's README: write `df.csv` with C, N, D and loss, give a grid of `points` values for each of five parameters
    and call `fit`, which runs BFGS with numerical gradients in extended precision from every start. `objective` is
    "default", the package's asymmetric absolute error, which fits the floor of the losses, or "huber", its `log_huber`
    with the delta of Hoffmann et al. 2022. On one core; the package would start one process for every core.
    """
    runs = {"N": params.tolist(), "D": tokens.tolist(), "loss": loss.tolist()}
    question = json.dumps({"runs": runs, "objective": objective, "points": points})
    try:
        command = [
            str(environment("chinchilla", REQUIREMENTS["chinchilla"])),
            str(Path(__file__).resolve()),
            PACKAGE_WORKER,
        ]
        done = subprocess.run(
            command, input=question, capture_output=True, text=True, timeout=timeout, env=_one_core(), check=True
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {timeout:g} seconds"
    except subprocess.CalledProcessError as error:
        return f"failed: {str(error.stderr).strip()[-500:]}"
    except (RuntimeError, OSError) as error:
        return str(error)
    answer = json.loads(done.stdout.splitlines()[-1])
    p = answer["parameters"]
    theta = [math.log(p["A"]), math.log(p["B"]), math.log(p["E"]), p["alpha"], p["beta"]]
    return PackageFit(p, huber_sum(theta, params, tokens, loss), answer["seconds"], objective, points**5)


def _package_worker() -> None:
    """Inside the package's environment: one fit, asked for on standard input and answered in the last line."""
    question = json.loads(sys.stdin.read())
    module = importlib.import_module("chinchilla")
    log_huber = importlib.import_module("chinchilla._metrics").log_huber
    points = question["points"]
    settings: dict[str, Any] = {}
    if question["objective"] == "huber":

        def chinchilla_huber(y_true: Any, y_pred: Any) -> Any:
            return log_huber(y_true, y_pred, delta=DELTA)

        settings["loss_fn"] = chinchilla_huber
    with tempfile.TemporaryDirectory() as folder:
        _package_table(Path(folder) / "df.csv", question["runs"])
        grid = {name: np.linspace(low, high, points) for name, low, high in PACKAGE_GRID}
        fitter = module.Chinchilla(folder, param_grid=grid, log_level=50, **settings)
        begin = time.perf_counter()
        fitter.fit(parallel=False)
        seconds = time.perf_counter() - begin
    print("\n" + json.dumps({"parameters": fitter.params, "seconds": seconds}))


PACKAGE_GRID = (("E", 1, 2), ("a", 1, 10), ("b", 1, 10), ("alpha", 0.1, 0.7), ("beta", 0.1, 0.7))


def _package_table(path: Path, runs: dict[str, list[float]]) -> None:
    """The table that the package reads: C, N, D, loss."""
    with path.open("w", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(("C", "N", "D", "loss"))
        table.writerows((6 * n * d, n, d, y) for n, d, y in zip(runs["N"], runs["D"], runs["loss"], strict=True))


# ---- learning curves ------------------------------------------------------------------------------------------------


def m1(x: Array, y: Array) -> Predictor:
    """M1 of Alabdulmohsin et al. 2022, y = beta x^c: least squares of log y on log x."""
    log_beta, c = _line(np.log(x), np.log(y))
    return lambda at: np.exp(log_beta + c * np.log(np.asarray(at, dtype=np.float64)))


def m2(x: Array, y: Array) -> Predictor:
    """M2 of Alabdulmohsin et al. 2022, y = beta x^c + floor: squared error in log space, alternating.

    In turn: beta and c by least squares, the floor by steps down the gradient in the first 100 rounds and by damped
    Newton steps after; the floor stays between 0 and just below the smallest y.
    """
    law = _alternate(y, _LineStep(np.log(x)), top=math.inf, ceiling=None)
    return lambda at: law.floor + law.power(np.asarray(at, dtype=np.float64))


def m3(x: Array, y: Array) -> Predictor:
    """M3 of Alabdulmohsin et al. 2022, y = beta (1/x + gamma)^c: squared error in log space, alternating.

    It has no separate floor: it levels off at beta gamma^c. In turn: beta and c by least squares, with c not below 0;
    gamma from a grid, namely the values that solve the equation exactly at one of the points, when one is better.
    """
    gamma, log_beta, c, before = 0.0, 0.0, 0.0, 1.0
    for _ in range(ROUNDS):
        log_beta, c = _line(np.log(1 / x + gamma), np.log(y))
        c = max(0.0, c)
        gamma = _best_gamma(x, y, log_beta, c, gamma)
        beta, before = before, math.exp(log_beta)
        if abs(before - beta) < STILL:
            break
    return lambda at: np.exp(log_beta + c * np.log(1 / np.asarray(at, dtype=np.float64) + gamma))


def _best_gamma(x: Array, y: Array, log_beta: float, c: float, gamma: float) -> float:
    """The gamma of M3 with the least squared error among the present one and those exact at one point."""
    if c == 0:
        return gamma
    with np.errstate(over="ignore"):
        exact = np.exp((np.log(y) - log_beta) / c) - 1 / x
    candidates = np.concatenate([[gamma], exact[(exact >= 0) & np.isfinite(exact)]])
    gaps = np.log(y) - log_beta - c * np.log(1 / x + candidates[:, None])
    return float(candidates[np.argmin((gaps**2).sum(axis=1))])


def m4(x: Array, y: Array, ceiling: float | None = None) -> Predictor:
    """M4 of Alabdulmohsin et al. 2022, (y - floor) / (top - y)^alpha = beta x^c.

    Squared error in log space, alternating. In turn: beta, c and alpha by least squares with log beta, -c and alpha not
    negative; floor and top as the floor of M2. The top starts at 1 and may not pass `ceiling` (1 for error rates, none
    for log-losses). As the authors do, the regression keeps the top it started with, and a prediction is the best of
    10,000 levels between floor and top.
    """
    top = max(1.0, float(y.max()) + MARGIN)
    law = _alternate(y, _SigmoidStep(np.log(x), np.log(top - y)), top, ceiling)
    if law.alpha < FLAT:
        return lambda at: law.floor + law.power(np.asarray(at, dtype=np.float64))
    levels = np.linspace(0, law.top - law.floor, LEVELS)
    bent = (law.top - law.floor - levels) ** law.alpha

    def predict(at: ArrayLike) -> Array:
        powers = law.power(np.atleast_1d(np.asarray(at, dtype=np.float64)))
        return np.array([levels[np.argmin(np.abs(levels - p * bent))] for p in powers]) + law.floor

    return predict


def _line(u: Array, v: Array) -> tuple[float, float]:
    """Intercept and slope of v on u by least squares."""
    found, *_ = np.linalg.lstsq(np.stack([np.ones_like(u), u], axis=1), v)
    return float(found[0]), float(found[1])


@dataclass
class _Law:
    """The present estimates of M2 or M4."""

    floor: float
    top: float
    log_beta: float = 0.0
    c: float = 0.0
    alpha: float = 0.0

    def power(self, x: Array) -> Array:
        """beta x^c."""
        return np.asarray(np.exp(self.log_beta + self.c * np.log(x)))


class _LineStep:
    """The regression of M2: log(y - floor) on log x."""

    def __init__(self, log_x: Array) -> None:
        self.log_x = log_x

    def __call__(self, law: _Law, y: Array) -> None:
        law.log_beta, law.c = _line(self.log_x, np.log(y - law.floor))


class _SigmoidStep:
    """The regression of M4: log(y - floor) on log x and log(top - y), with no negative coefficient."""

    def __init__(self, log_x: Array, log_above: Array) -> None:
        self.log_x = log_x
        self.design = np.stack([np.ones_like(log_x), -log_x, log_above], axis=1)

    def __call__(self, law: _Law, y: Array) -> None:
        found, _ = nnls(self.design, np.log(y - law.floor))
        law.log_beta, law.c, law.alpha = float(found[0]), -float(found[1]), float(found[2])


def _alternate(y: Array, regress: _LineStep | _SigmoidStep, top: float, ceiling: float | None) -> _Law:
    """The authors' alternation: a regression, then steps of floor and top, until beta is still."""
    law = _Law(floor=max(0.0, float(y.min()) - MARGIN), top=top)
    highest = math.inf if ceiling is None else ceiling + MARGIN
    before = 1.0
    for turn in range(ROUNDS):
        regress(law, y)
        _move(law, y, law.log_beta + law.c * regress.log_x, turn >= GRADIENT_ROUNDS, highest)
        beta = math.exp(law.log_beta)
        if abs(beta - before) < STILL and turn > GRADIENT_ROUNDS + 1:
            break
        before = beta
    return law


def _move(law: _Law, y: Array, log_power: Array, newton: bool, highest: float) -> None:
    """Steps of floor and top, by the gradient or by damped Newton, kept where logarithms exist."""
    lowest_y, highest_y = float(y.min()) - MARGIN, float(y.max()) + MARGIN
    for _ in range(NEWTON_STEPS if newton else GRADIENT_STEPS):
        below, above = y - law.floor, law.top - y
        gap = np.log(below) - log_power
        if law.alpha:
            gap = gap - law.alpha * np.log(above)
        slopes = -float((gap / below).mean()), -law.alpha * float((gap / above).mean())
        floor_step, top_step = (GRADIENT_RATE * s for s in slopes)
        if newton:
            bends = float(((1 - gap) / below**2).mean()), law.alpha * float(((law.alpha + gap) / above**2).mean())
            damped = (NEWTON_RATE * s / b if abs(b) > FLAT else 0.0 for s, b in zip(slopes, bends, strict=True))
            floor_step, top_step = damped
        law.floor = min(max(law.floor - floor_step, 0.0), lowest_y)
        law.top = min(max(law.top - top_step, highest_y), highest)


CURVE_MODELS = ("m1", "m2", "m3", "m4")


def fit_curve(model: str, x: ArrayLike, y: ArrayLike, ceiling: float | None = None) -> Predictor:
    """Fit m1, m2, m3 or m4 of Alabdulmohsin et al. 2022 and return what predicts y; `ceiling` is for m4 only."""
    order = np.argsort(np.asarray(x, dtype=np.float64))
    u, v = np.asarray(x, dtype=np.float64)[order], np.asarray(y, dtype=np.float64)[order]
    if model == "m4":
        return m4(u, v, ceiling)
    return {"m1": m1, "m2": m2, "m3": m3}[model](u, v)


@dataclass(frozen=True)
class Curve:
    """One learning curve: what is fitted and what is predicted."""

    domain: str
    task: str
    model: str
    x: Array
    y: Array
    x_next: Array
    y_next: Array


def learning_curves(path: Path) -> Iterator[Curve]:
    """The curves of a table with Domain, Task, Model, Seen Examples, Loss and Training, in its order."""
    groups: dict[tuple[str, str, str], list[tuple[float, float, bool]]] = {}
    with path.open(newline="") as lines:
        for r in csv.DictReader(lines):
            point = float(r["Seen Examples"]), float(r["Loss"]), r["Training"] == "1"
            groups.setdefault((r["Domain"], r["Task"], r["Model"]), []).append(point)
    for name, points in groups.items():
        x, y, fitted = np.array(points, dtype=np.float64).T
        known = fitted == 1
        yield Curve(*name, x[known], y[known], x[~known], y[~known])


def evaluate_curves(path: Path, models: Sequence[str] = CURVE_MODELS) -> list[dict[str, Any]]:
    """For each curve: the root mean squared log error of every model where it was not fitted, and the seconds taken."""
    rows = []
    for curve in learning_curves(path):
        row: dict[str, Any] = {"domain": curve.domain, "task": curve.task, "model": curve.model}
        row |= {"fitted": len(curve.x), "predicted": len(curve.x_next), "rmsle": {}, "seconds": {}}
        for model in models:
            begin = time.perf_counter()
            predict = fit_curve(model, curve.x, curve.y, 1.0 if curve.domain == "IC" else None)
            gaps = np.log(predict(curve.x_next)) - np.log(curve.y_next)
            row["seconds"][model] = time.perf_counter() - begin
            row["rmsle"][model] = float(np.sqrt((gaps**2).mean()))
        rows.append(row)
        print(f"{len(rows)} {curve.task} {curve.model} {row['rmsle']}", file=sys.stderr, flush=True)
    return rows


def curve_means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Over curves: geometric and arithmetic mean of the error, mean seconds, and how many errors are not finite."""
    means = {}
    for model in rows[0]["rmsle"]:
        errors = np.array([r["rmsle"][model] for r in rows])
        finite = errors[np.isfinite(errors)]
        means[model] = {
            "geometric": float(np.exp(np.log(finite).mean())),
            "arithmetic": float(finite.mean()),
            "seconds": float(np.mean([r["seconds"][model] for r in rows])),
            "failed": float(len(errors) - len(finite)),
        }
    return means


# ---- command line ---------------------------------------------------------------------------------------------------


def _bootstrap(options: argparse.Namespace) -> dict[str, Any]:
    data = chinchilla_points(options.data / "chinchilla_fig4.csv")
    points = len(data[0])
    fit, objective, _ = published_bootstrap(*data, np.arange(points)[None])
    rows = np.load(options.indices) if options.indices else published_resamples(points, options.resamples, options.seed)
    thetas, objectives, seconds = published_bootstrap(*data, rows)
    return {
        "order": ORDER,
        "points": points,
        "fit": {"theta": fit[0].tolist(), "objective": float(objective[0])},
        "seconds_each": float(seconds.mean()),
        "seconds_for_4000": 4000 * float(seconds.mean()),
        "indices": rows.tolist(),
        "thetas": thetas.tolist(),
        "objectives": objectives.tolist(),
        "seconds": seconds.tolist(),
    }


def _grid(options: argparse.Namespace) -> dict[str, Any]:
    data = chinchilla_points(options.data / "chinchilla_fig4.csv")
    found = published_grid_fit(
        *data,
        share=options.share,
        method=options.method,
        exact_gradient=not options.numerical,
        seed=options.seed,
        tolerance=options.tolerance,
        reference=OPTIMUM,
    )
    return {"order": ORDER, "method": options.method, "exact_gradient": not options.numerical, **asdict(found)}


def _package(options: argparse.Namespace) -> dict[str, Any]:
    data = chinchilla_points(options.data / "chinchilla_fig4.csv")
    found = chinchilla_package_fit(*data, objective=options.objective, points=options.points, timeout=options.timeout)
    return {"failed": found} if isinstance(found, str) else asdict(found)


def _curves(options: argparse.Namespace) -> dict[str, Any]:
    rows = evaluate_curves(options.data / "learning_curves.csv", options.models.split(","))
    return {"means": curve_means(rows), "curves": rows}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    data = next((folder for folder in DATA_FOLDERS if folder.exists()), DATA_FOLDERS[0])
    common.add_argument("--data", type=Path, default=data, help="folder with the two tables")
    common.add_argument("--json", action="store_true", help="everything, as JSON on standard output")
    common.add_argument("--out", type=Path, help="everything, as JSON in this file")
    common.add_argument("--seed", type=int, default=42, help="of resamples and of the share of starts")
    verbs = parser.add_subparsers(required=True)
    bootstrap = verbs.add_parser("bootstrap", parents=[common])
    bootstrap.add_argument("--resamples", type=int, default=20)
    bootstrap.add_argument("--indices", type=Path, help="a .npy file of resamples to use instead, one a row")
    bootstrap.set_defaults(run=_bootstrap)
    grid = verbs.add_parser("grid", parents=[common])
    grid.add_argument("--share", type=float, default=0.02, help="of the 4,500 starts")
    grid.add_argument("--method", choices=("L-BFGS-B", "BFGS"), default="L-BFGS-B")
    grid.add_argument("--numerical", action="store_true", help="finite differences for the gradient")
    grid.add_argument("--tolerance", type=float, default=1e-3, help="relative, for having reached the optimum")
    grid.set_defaults(run=_grid)
    package = verbs.add_parser("package", parents=[common])
    package.add_argument("--objective", choices=("default", "huber"), default="default")
    package.add_argument("--points", type=int, default=5, help="of the grid for each of the five parameters")
    package.add_argument("--timeout", type=float, default=3600, help="seconds")
    package.set_defaults(run=_package)
    curves = verbs.add_parser("curves", parents=[common])
    curves.add_argument("--models", default=",".join(CURVE_MODELS))
    curves.set_defaults(run=_curves)
    return parser.parse_args(arguments)


def _plain(value: Any) -> Any:
    """The same without numbers that JSON does not know: null in their place."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary(answer: dict[str, Any]) -> str:
    """The short entries, one a line."""
    return "\n".join(f"{k}: {v}" for k, v in answer.items() if not (isinstance(v, list) and len(v) > len(ORDER)))


def main(arguments: Sequence[str]) -> int:
    if list(arguments) == [PACKAGE_WORKER]:
        _package_worker()
        return 0
    options = _options(arguments)
    if Path(sys.prefix).resolve() != (ENVIRONMENTS / "laws").resolve():
        command = [str(environment("laws", REQUIREMENTS["laws"])), str(Path(__file__).resolve()), *arguments]
        return subprocess.run(command, env=_one_core()).returncode
    answer = _plain(options.run(options))
    if options.out:
        options.out.write_text(json.dumps(answer, indent=1))
    print(json.dumps(answer) if options.json else _summary(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
