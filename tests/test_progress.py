"""How long is left is told by the pace of what is done now."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from sizewise import console
from sizewise.train import Event


def test_neither_what_was_done_before_nor_starting_up_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(sys.modules["sizewise.console.progress"], "time", SimpleNamespace(monotonic=lambda: clock.now))
    with console.progress() as listener:
        listener.stage("train 4 trials")
        listener.planned(dict.fromkeys("abcd", 100.0))
        listener.event(Event("a", 1.0))  # by an earlier command
        for clock.now, share in ((100.0, 0.5), (150.0, 1.0)):
            listener.event(Event("b", share))
    assert capsys.readouterr().err.splitlines() == [
        "· train 4 trials",
        "  train 1/4 trials: 38%",
        "  train 2/4 trials: 50%, 3.3 min left",
    ]
