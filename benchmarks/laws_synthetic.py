"""Do intervals hold what they promise, and is thin evidence refused? Known laws, drawn at random by the thousand.

    python benchmarks/laws_synthetic.py coverage --draws 1000
    python benchmarks/laws_synthetic.py refusal --draws 1000

Coverage: for each cell (form × noise × design) a law of that form is drawn, runs are made by the design, all of
sizewise's forms compete on them without being told which one is true, and one new run is predicted at each of three
places: within the evidence, and beyond it by 10 and by 100 times the compute (for one variable: 3 and 10 times).
Refusal: flat, one-decade, three-point and noise-only evidence, by the same designs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sizewise.laws import Evidence, fit_evidence, predict
from sizewise.laws.forms import named

Array = NDArray[np.float64]
ONE, TWO = ("params",), ("params", "samples")
NOISES = {ONE: (0.01, 0.05), TWO: (0.003, 0.01)}
"""Standard deviation of log y of single runs."""


@dataclass(frozen=True)
class Cell:
    """What is drawn: a form, how noisy its runs are, and where they lie."""

    form: str
    variables: tuple[str, ...]
    noise: float
    design: str

    @property
    def name(self) -> str:
        return f"{self.form}, {100 * self.noise:g} % noise, {self.design}"


def power_floor(rng: np.random.Generator) -> list[float]:
    """E, A, alpha: at 10^5 parameters the law lies 1.5 to 20 times above its floor."""
    alpha = rng.uniform(0.15, 0.8)
    floor = np.exp(rng.uniform(np.log(0.01), np.log(2.0)))
    return [floor, floor * rng.uniform(0.5, 19) * 1e5**alpha, alpha]


def power(rng: np.random.Generator) -> list[float]:
    return power_floor(rng)[1:]


def bounded(rng: np.random.Generator) -> list[float]:
    """E, C, beta, alpha, gamma: an error that leaves chance somewhere between 10^3 and 10^5."""
    alpha, gamma = rng.uniform(0.2, 0.7), rng.uniform(0.5, 2)
    return [rng.uniform(0.005, 0.2), rng.uniform(0.6, 1.0), (10 ** rng.uniform(3, 5)) ** alpha, alpha, gamma]


def broken(rng: np.random.Generator) -> list[float]:
    """E, A, c0, c1, d1, f1: an exponent that grows or shrinks within the evidence."""
    before, after = rng.uniform(0.1, 0.5, size=2)
    floor = np.exp(rng.uniform(np.log(0.005), np.log(0.2)))
    return [floor, floor * rng.uniform(2, 20) * 1e5**before, before, after - before, 10 ** rng.uniform(4, 6), 0.5]


def additive(rng: np.random.Generator) -> list[float]:
    """E, A, B, alpha, beta around those of language models: each term is 5 to 40 % of the loss at 10^8, 10^9."""
    alpha, beta, floor = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5), rng.uniform(1.0, 2.5)
    shares = floor * rng.uniform(0.08, 0.6, size=2)
    return [floor, shares[0] * 1e8**alpha, shares[1] * 1e9**beta, alpha, beta]


def tied(rng: np.random.Generator) -> list[float]:
    floor, a, b, alpha, beta = additive(rng)
    return [floor, a, b * 1e9 ** (alpha - beta), alpha]


def coupled(rng: np.random.Generator) -> list[float]:
    return [*additive(rng), rng.uniform(0.4, 1.0)]


def kaplan(rng: np.random.Generator) -> list[float]:
    """A, B, alpha, beta: exponents of 0.076 and 0.095 were published; the two shortages are alike somewhere near 10^8
    parameters and 10^9.5 samples, or the law would be one of a single variable."""
    alpha, beta = rng.uniform(0.06, 0.25), rng.uniform(0.06, 0.25)
    level = rng.uniform(1, 3)
    return [level * 1e8**alpha, level * np.exp(beta * rng.uniform(-1.5, 1.5)) * 3e9**beta, alpha, beta]


LAWS: dict[tuple[str, ...], dict[str, Callable[[np.random.Generator], list[float]]]] = {
    ONE: {"power": power, "power+floor": power_floor, "bounded": bounded, "broken-1": broken},
    TWO: {"additive": additive, "tied": tied, "coupled": coupled, "kaplan": kaplan},
}


def ladder(rng: np.random.Generator) -> Array:
    """7 sizes over 2.4 decades, 5 seeds each."""
    return np.repeat(np.geomspace(2.8e3, 7e5, 7), 5)[:, None]


def scattered(rng: np.random.Generator) -> Array:
    """24 sizes over three decades, one run each."""
    return np.sort(10 ** rng.uniform(3, 6, 24))[:, None]


def grid(rng: np.random.Generator) -> Array:
    """6 sizes × 5 amounts of data."""
    sizes, data = np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(3e8, 3e10, 5))
    return np.column_stack([sizes.ravel(), data.ravel()])


def isoflop(rng: np.random.Generator) -> Array:
    """6 budgets of compute × 7 sizes around the usual optimum of each."""
    budgets = np.geomspace(6e17, 2e20, 6)
    sizes = np.sqrt(budgets / 120)[:, None] * np.geomspace(0.25, 4, 7)
    return np.column_stack([sizes.ravel(), (budgets[:, None] / (6 * sizes)).ravel()])


DESIGNS = {ONE: {"ladder": ladder, "scattered": scattered}, TWO: {"grid": grid, "isoflop": isoflop}}


def cells() -> Iterator[Cell]:
    for variables, laws in LAWS.items():
        for form in laws:
            for noise in NOISES[variables]:
                for design in DESIGNS[variables]:
                    yield Cell(form, variables, noise, design)


def evidence(variables: tuple[str, ...], x: Array, y: Array) -> Evidence:
    rows = np.arange(len(y))
    _, stratum = np.unique(x, axis=0, return_inverse=True)
    return Evidence("loss", variables, x, y, np.ones(len(y)), rows, stratum.reshape(-1), rows + 1)


def places(rng: np.random.Generator, x: Array) -> Array:
    """A run of the design, and the largest one, larger by 10 and 100 times in compute (3 and 10 in one variable)."""
    top = x[np.log(x).mean(axis=1).argmax()]
    return np.stack([x[rng.integers(len(x))], top * np.sqrt(10), top * 10])


def cover(cell: Cell, seed: int) -> dict[str, object]:
    """One draw: whether each place is covered, how wide its interval is (half width in log y), the miss, the status."""
    rng = np.random.default_rng([seed, *cell.name.encode()])
    form = named(cell.form, cell.variables)
    theta = form.theta(np.array([LAWS[cell.variables][cell.form](rng)]))
    x = DESIGNS[cell.variables][cell.design](rng)
    new = places(rng, x)
    log_y = form.value(theta, np.log(np.concatenate([x, new])))[0]
    log_y = log_y + cell.noise * rng.normal(size=len(log_y))
    law = fit_evidence(evidence(cell.variables, x, np.exp(log_y[: len(x)])), draws=0)
    said = predict(law, [dict(zip(cell.variables, map(float, row), strict=True)) for row in new])
    seen = np.exp(log_y[len(x) :])
    return {
        "held": [bool(e.low <= y <= e.high) for e, y in zip(said, seen, strict=True)],
        "half": [float(np.log(e.high / e.low) / 2) for e in said],
        "miss": [float(abs(np.log(e.value / y))) for e, y in zip(said, seen, strict=True)],
        "backtests": [(t.reach, t.covered) for t in law.backtests],
        "status": law.status,
        "reason": law.reason,
    }


def thin(kind: str, seed: int) -> str:
    """The status that a draw of thin evidence gets."""
    rng = np.random.default_rng([seed, *kind.encode()])
    what, _, design = kind.partition(", ")
    variables = ONE if design in DESIGNS[ONE] else TWO
    x = DESIGNS[variables][design](rng)
    form = named("power+floor" if variables == ONE else "additive", variables)
    theta = form.theta(np.array([LAWS[variables][form.name](rng)]))
    noise = NOISES[variables][int(rng.integers(2))]
    if what == "one decade":
        middle = np.log(x).mean(axis=0)
        spread = np.log(x) - middle
        scale = np.log(10) / np.ptp(spread.sum(axis=1))
        x = np.exp(middle + spread * scale)
    if what == "three points":
        x = x[np.linspace(0, len(x) - 1, 3).astype(int)]
    log_y = form.value(theta, np.log(x))[0]
    if what == "flat":
        log_y = np.full(len(x), log_y.mean())
    if what == "noise":
        log_y, noise = np.zeros(len(x)), 0.5
    return fit_evidence(evidence(variables, x, np.exp(log_y + noise * rng.normal(size=len(x)))), draws=0).status


THIN = tuple(
    f"{what}, {design}"
    for what in ("flat", "one decade", "three points", "noise")
    for designs in DESIGNS.values()
    for design in designs
)


def _cover(job: tuple[Cell, int]) -> dict[str, object]:
    return cover(*job)


def _thin(job: tuple[str, int]) -> str:
    return thin(*job)


def spread(work: Callable[..., object], jobs: list[object], workers: int) -> list[object]:
    """Every job's answer, with progress and an ETA on stderr."""
    start, answers = time.monotonic(), []
    with multiprocessing.Pool(workers, initializer=threadpool_limits, initargs=(1,)) as pool:
        for i, answer in enumerate(pool.imap(work, jobs, chunksize=20), 1):
            answers.append(answer)
            if i % 200 == 0 or i == len(jobs):
                left = (time.monotonic() - start) / i * (len(jobs) - i)
                print(f"\r{i:,} of {len(jobs):,}, {left / 60:.0f} min left ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return answers


def coverage(options: argparse.Namespace) -> dict[str, object]:
    chosen = [c for c in cells() if options.only in c.name]
    jobs = [(cell, options.first + i) for cell in chosen for i in range(options.draws)]
    found = spread(_cover, jobs, options.workers)
    table = {}
    for i, cell in enumerate(chosen):
        rows = found[i * options.draws : (i + 1) * options.draws]
        table[cell.name] = {
            "coverage": np.mean([r["held"] for r in rows], axis=0).round(3).tolist(),
            "half_width": np.median([r["half"] for r in rows], axis=0).round(4).tolist(),
            "miss": np.median([r["miss"] for r in rows], axis=0).round(4).tolist(),
            "backtests": round(float(np.mean([c for r in rows for _, c in r["backtests"]])), 3),
            "supported": float(np.mean([r["status"] == "supported" for r in rows])),
        }
        print(f"{cell.name:44} {table[cell.name]}", flush=True)
        if options.reasons:
            print("   ", [r["reason"] for r in rows if r["status"] != "supported"][:4])
    held = np.array([r["held"] for r in found])
    return {
        "draws": options.draws,
        "cells": table,
        "coverage": held.mean(axis=0).round(4).tolist(),
        "overall": round(float(held.mean()), 4),
        "lowest": min(float(np.mean(c["coverage"])) for c in table.values()),
        "highest": max(float(np.mean(c["coverage"])) for c in table.values()),
    }


def refusal(options: argparse.Namespace) -> dict[str, object]:
    chosen = [kind for kind in THIN if options.only in kind]
    found = spread(_thin, [(k, options.first + i) for k in chosen for i in range(options.draws)], options.workers)
    rates = {
        kind: float(np.mean([s != "supported" for s in found[i * options.draws : (i + 1) * options.draws]]))
        for i, kind in enumerate(chosen)
    }
    return {"draws": options.draws, "not supported": rates, "lowest": min(rates.values())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("coverage", "refusal"))
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="first of the draws' seeds; others than 0 are for tuning")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--reasons", action="store_true", help="also why laws were not supported")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    answer = {"coverage": coverage, "refusal": refusal}[options.what](options)
    if options.out:
        options.out.write_text(json.dumps(answer, indent=1))
    print(json.dumps({k: v for k, v in answer.items() if k != "cells"}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
