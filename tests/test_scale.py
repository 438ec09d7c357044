"""A sweep on a cluster whose nodes and cables fail at random ends as one that nothing befell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_random_faults_lose_nothing_and_publish_nothing_twice(ray_alone: None) -> None:
    """Nodes are in network namespaces of their own, where there can be any; twenty faults are the benchmark's."""
    command = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), "faults"]
    command += ["--faults", "5", "--trials", "12", "--epochs", "4"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    print(result.stderr)  # it says so where nodes share one network
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout[result.stdout.index("{\n") :])
    assert found["trials"] == 12
    assert found["faults_in_all"] >= 1
    assert not any(found[name] for name in ("lost", "other_results", "published_again", "begun_after_publishing"))
