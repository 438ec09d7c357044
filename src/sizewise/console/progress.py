"""How far long work is, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sizewise.console.text import duration

if TYPE_CHECKING:
    from sizewise.study import Listener
    from sizewise.train import Event

PLAIN_SECONDS = 10.0
"""Seconds between progress lines when stderr is not a terminal."""

INSTANT = 1.0
"""Seconds within which what is told was done before."""


@contextmanager
def progress() -> Iterator[Listener]:
    """A listener that draws a live bar with an ETA on a terminal, and prints a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from sizewise.study import Listener

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        watch = _Watch(bar, plain=not console.is_terminal)
        yield Listener(watch.stage, watch.planned, watch.event, watch.share)


class _Watch:
    """Adds up the progress of trials, each weighed by its predicted time."""

    def __init__(self, bar: object, *, plain: bool) -> None:
        from rich.progress import Progress

        assert isinstance(bar, Progress)
        self.bar, self.plain = bar, plain
        self.task = bar.add_task("", total=1.0, visible=False)
        self.weights: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.name, self.told = "", 0.0
        self._begin()

    def stage(self, sentence: str) -> None:
        if not self.plain:
            self.bar.console.print(f"[dim]·[/] {sentence}", highlight=False)
        else:
            print(f"· {sentence}", file=sys.stderr, flush=True)
        self.name = sentence.partition(" ")[0]
        self._begin()
        self.bar.reset(self.task, total=1.0, visible=False, description=self.name)

    def planned(self, seconds: dict[str, float]) -> None:
        total = sum(seconds.values()) or 1.0
        self.weights = {key: value / total for key, value in seconds.items()}
        self.done = {}
        self._begin()

    def _begin(self) -> None:
        self.began = self.told = time.monotonic()
        self.first: tuple[float, float] | None = None

    def event(self, event: Event) -> None:
        self.done[event.key] = max(event.share, self.done.get(event.key, 0.0))
        finished = sum(share == 1.0 for share in self.done.values())
        share = sum(self.weights.get(key, 0.0) * share for key, share in self.done.items())
        self.share(share, f" {finished}/{len(self.weights)} trials")

    def share(self, share: float, detail: str = "") -> None:
        self.bar.update(self.task, completed=share, visible=True, description=f"{self.name}{detail}")
        now = time.monotonic()
        if self.first is None and now - self.began > INSTANT:
            self.first = (now, share)
        if self.plain and share > 0 and now - self.told > PLAIN_SECONDS:
            self.told = now
            print(f"  {self.name}{detail}: {share:.0%}{self._left(now, share)}", file=sys.stderr, flush=True)

    def _left(self, now: float, share: float) -> str:
        """The time left, by the pace since the first progress: start and earlier work say nothing of it."""
        if self.first is None or share <= self.first[1]:
            return ""
        since, before = self.first
        return f", {duration((now - since) * (1 - share) / (share - before))} left"
