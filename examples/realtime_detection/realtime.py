"""A camera and its detector: which model of a finished study never misses a frame, and what happens at other rates.

Frames arrive at a fixed rate, from the test images in their order, each with a deadline. A frame waits while the one
before it is worked on. It is missed when its boxes come after the deadline; a frame whose deadline has passed before
its turn is dropped, as a driver needs none of the past, and counts as missed as well.

    sizewise run examples/realtime_detection/study.toml --out camera
    python examples/realtime_detection/realtime.py camera --fps 30

Every candidate runs for real, one frame after the other. The curve at other rates is a replay of the measured service
times, block by block, so that a slow moment of the machine stays one; the rate that was asked for is also played live.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise import runtimes, stats, tasks, words
from sizewise.config import read
from sizewise.records import Estimate, Measurement
from sizewise.report.svg import Chart
from sizewise.report.template import part
from sizewise.store import read_json, write_atomic
from sizewise.tasks.problems import Session
from sizewise.tasks.problems.problem import prepared

Seconds = NDArray[np.float64]

WARM_UP = 20
BLOCK = 50
"""Frames whose service times stay together when intervals are made: neighbours are slow together."""

RESAMPLES = 200
RATES = 16
NEVER = 0.01
"""The upper end of the interval of the missed share, above which a candidate is not said to keep the deadline: 300
frames without a miss cannot show less."""

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


@dataclass(frozen=True)
class Played:
    """One candidate on the stream.

    Attributes:
        service: seconds that each frame took to answer.
        missed: share of the frames that came too late at the rate that was asked for, played live.
    """

    measurement: Measurement
    service: Seconds
    missed: Estimate

    @property
    def name(self) -> str:
        return self.measurement.candidate.name

    def quantile_ms(self, share: float) -> float:
        """A quantile of the service times."""
        return 1e3 * float(np.quantile(self.service, share))

    @property
    def keeps(self) -> bool:
        """Whether no frame was missed, and enough of them were played to say so."""
        return self.missed.value == 0 and self.missed.high <= NEVER


def too_late(service: Seconds, interval: float, deadline: float) -> NDArray[np.bool_]:
    """Which frames are missed, if frame i arrives at i·`interval` and takes service[i] once it has its turn.

    Args:
        service: (frames,), seconds.
        interval, deadline: seconds between frames, and from a frame's arrival to the end of its use.
    """
    late, free = np.zeros(len(service), bool), 0.0
    for i, seconds in enumerate(service):
        arrived = i * interval
        start = max(free, arrived)
        if start >= arrived + deadline:
            late[i] = True  # dropped unseen: the detector is free for the next one
            continue
        free = start + seconds
        late[i] = free > arrived + deadline
    return late


def live(session: Session, frames: Sequence[NDArray[Any]], interval: float, deadline: float) -> NDArray[np.bool_]:
    """The same with a clock and a model: waits for each frame, and answers it if there is time."""
    late, began = np.zeros(len(frames), bool), time.perf_counter()
    for i, frame in enumerate(frames):
        arrived = began + i * interval
        while (left := arrived - time.perf_counter()) > 0:
            time.sleep(max(0.0, left - 5e-4))  # sleeping on to the end would oversleep
        if time.perf_counter() >= arrived + deadline:
            late[i] = True
            continue
        session(frame)
        late[i] = time.perf_counter() > arrived + deadline
    return late


def serve_times(session: Session, frames: Sequence[NDArray[Any]]) -> Seconds:
    """Seconds that each frame takes, one after the other, after a warm-up."""
    for frame in frames[:WARM_UP]:
        session(frame)
    times = np.empty(len(frames))
    for i, frame in enumerate(frames):
        began = time.perf_counter()
        session(frame)
        times[i] = time.perf_counter() - began
    return times


def curve(service: Seconds, rates: Seconds, frames_late: float, rng: np.random.Generator) -> list[Estimate]:
    """Missed share at each rate, with 95 % intervals by resampling blocks of service times.

    Args:
        frames_late: the deadline, in intervals between frames.
    """
    draws = [service, *(_resampled(service, rng) for _ in range(RESAMPLES))]
    shares = np.array([[too_late(d, 1 / r, frames_late / r).mean() for d in draws] for r in rates])
    low, high = np.quantile(shares[:, 1:], (0.025, 0.975), axis=1)
    method = f"block bootstrap over {BLOCK} frames"
    return [
        Estimate(float(v), float(min(a, v)), float(max(b, v)), 0.95, method, len(service))
        for v, a, b in zip(shares[:, 0], low, high, strict=True)
    ]


def _resampled(service: Seconds, rng: np.random.Generator) -> Seconds:
    blocks = np.array_split(service, max(1, len(service) // BLOCK))
    return np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))])


def pick(played: Sequence[Played]) -> Played | None:
    """The best one by validation score of those that keep the deadline; the test split decides nothing."""
    fitting = [p for p in played if p.keeps]
    return max(fitting, key=lambda p: p.measurement.validation_score.value, default=None)


def chart(curves: dict[str, list[Estimate]], rates: Seconds, fps: float) -> str:
    """The deadline-miss curve, one line a candidate."""
    drawing = Chart(
        "Share of frames missed against frame rate",
        (float(rates[0]), float(rates[-1])),
        (0.0, 1.0),
        "frames a second",
        "frames missed",
        log_x=True,
        width=640,
        height=400,
        percent_y=True,
    )
    for number, estimates in enumerate(curves.values()):
        drawing.band([(r, e.low, e.high) for r, e in zip(rates, estimates, strict=True)], f"c{number} area")
        drawing.line([(r, e.value) for r, e in zip(rates, estimates, strict=True)], f"c{number} curve")
    drawing.flag(fps, f"{fps:g} frames a second", "flag chosen")
    return drawing.render()


def page(svg: str, played: Sequence[Played], best: Played | None, title: str) -> str:
    """One page that needs nothing else."""
    colours = "".join(
        f".c{i}.curve{{fill:none;stroke:{c};stroke-width:2}}.c{i}.area{{fill:{c};opacity:.12}}"
        for i, c in enumerate(COLOURS)
    )
    rows = "".join(
        f"<tr{' class=picked' if p is best else ''}><td><b style='color:{COLOURS[i]}'>■</b> {p.name}</td>"
        f"<td>{words.score(p.measurement.test_score.value, p.measurement.test.metric)}</td>"
        f"<td>{p.quantile_ms(0.5):.2f}</td><td>{p.quantile_ms(0.99):.2f}</td>"
        f"<td>{p.missed.value:.2%} [{p.missed.low:.2%}, {p.missed.high:.2%}]</td></tr>"
        for i, p in enumerate(played)
    )
    metric = played[0].measurement.test.metric.name
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{part('page.css')}{colours}"
        f"</style><main><h1>{title}</h1><figure>{svg}<figcaption>Shaded: 95% intervals.</figcaption></figure>"
        f"<table><thead><tr><th>candidate<th>test {metric}<th>p50, ms<th>p99, ms<th>missed live</tr></thead>"
        f"<tbody>{rows}</tbody></table></main></html>"
    )


def shortlist(measurements: Sequence[Measurement], most: int) -> list[Measurement]:
    """The candidates that are worth a try: of the frontier, the best scores first."""
    frontier = [m for m in measurements if m.frontier]
    return sorted(frontier, key=lambda m: -m.validation_score.value)[:most]


def play(
    folder: Path, measurements: Sequence[Measurement], frames: Sequence[NDArray[Any]], options: Any
) -> list[Played]:
    """Each candidate on the stream, timed and live."""
    found = []
    for m in measurements:
        session = runtimes.load(folder / "candidates" / m.candidate.name, threads=m.target.threads)
        service = serve_times(session, frames)
        late = live(session, frames, 1 / options.fps, options.deadline / options.fps)
        found.append(Played(m, service, stats.proportion(int(late.sum()), len(late))))
        print(f"{m.candidate.name}: {found[-1].missed.value:.2%} of {len(late)} frames missed", file=sys.stderr)
    return found


def stream(folder: Path, count: int) -> list[NDArray[Any]]:
    """`count` frames from the test images of the study in `folder`, over and over."""
    study = read(folder / "study.toml")
    task = tasks.load(study.task, Path(study.data) if study.data else None, study.reading)
    return [prepared(task.test.x[i % len(task.test)][None], task.signature) for i in range(count)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the camera; 0 when a candidate never misses, 3 when none does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="folder of a finished study")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second (default: 30)")
    parser.add_argument("--deadline", type=float, default=1.0, help="in intervals between frames (default: 1)")
    parser.add_argument("--frames", type=int, default=600, help="frames played (default: 600)")
    parser.add_argument("--most", type=int, default=6, help="candidates tried (default: 6)")
    parser.add_argument("--out", type=Path, help="page (default: STUDY/realtime.html)")
    options = parser.parse_args(arguments)
    measurements = read_json(options.study / "measurements.json", tuple[Measurement, ...])
    frames = stream(options.study, options.frames)
    played = play(options.study, shortlist(measurements, min(options.most, len(COLOURS))), frames, options)
    typical = [float(np.median(p.service)) for p in played]
    fastest, slowest = max(1 / min(typical), options.fps), min(1 / max(typical), options.fps)
    rates = np.geomspace(slowest / 3, fastest * 3, RATES)
    rng = np.random.default_rng(0)
    curves = {p.name: curve(p.service, rates, options.deadline, rng) for p in played}
    best = pick(played)
    title = _sentence(best, options.fps, options.deadline)
    if best is None and any(p.missed.value == 0 for p in played):
        print("hint: some missed none, and too few frames were played to say so: give more --frames", file=sys.stderr)
    target = options.out or options.study / "realtime.html"
    write_atomic(target, page(chart(curves, rates, options.fps), played, best, title).encode())
    print(title)
    print(target)
    return 0 if best else 3


def _sentence(best: Played | None, fps: float, deadline: float) -> str:
    when = f"at {fps:g} frames a second, each due within {1e3 * deadline / fps:.1f} ms"
    if best is None:
        return f"No candidate is shown to keep every deadline {when}."
    score = words.score(best.measurement.validation_score.value, best.measurement.test.metric)
    return (
        f"{best.name} keeps every deadline {when}: 0 of {best.missed.n} frames missed, so at most "
        f"{best.missed.high:.2%} with 95% confidence; {score} validation {best.measurement.test.metric.name}."
    )


if __name__ == "__main__":
    sys.exit(main())
