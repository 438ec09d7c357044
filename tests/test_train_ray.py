"""Sweeps on a real Ray cluster of three nodes on this machine: what a cluster does to a sweep shows in no result."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from sizewise import tasks
from sizewise.errors import DataError, StoreError
from sizewise.loop import Data, Start
from sizewise.loop import run as loop_run
from sizewise.records import Reading, Recipe, Trial
from sizewise.store import Store
from sizewise.train import Source, train, untaught
from tests.builders import trial
from tests.test_durability import results

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SWEEP = ["train", "digits", "--widths", "2,4", "--seeds", "3", "--epochs", "3", "--no-probes"]


@pytest.fixture(scope="module")
def cluster(ray_alone: None) -> Iterator[Cluster]:
    """A head and two more nodes, a core each; workers find the tests' own modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
        head = {"num_cpus": 1, "include_dashboard": False}
        # Else processes that are to end it at exit may end this one when a node is removed.
        made = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        try:
            for _ in range(2):
                made.add_node(num_cpus=1)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def sizewise(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sizewise.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def source(fingerprint: str) -> Source:
    return Source("digits", None, Reading(), "accuracy", fingerprint)


def placed(made: Trial, store: Store, data: Data) -> Start:
    """Notes on which node a trial is trained."""
    (store / f"{made.key}.node").write_text(ray.get_runtime_context().get_node_id())
    return untaught(made, store, data)


def test_the_command_on_a_cluster_finds_what_it_finds_here(cluster: Cluster, tmp_path: Path) -> None:
    here = sizewise(*SWEEP, "--out", str(tmp_path / "here"), "--json")
    there = sizewise(*SWEEP, "--out", str(tmp_path / "there"), "--json", "--on", cluster.address)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert results(tmp_path / "there") == results(tmp_path / "here")
    runs: dict[str, list[Any]] = {name: json.loads(done.stdout) for name, done in (("here", here), ("there", there))}
    assert [run["trial"] for run in runs["there"]] == [run["trial"] for run in runs["here"]]
    assert f'on = "{cluster.address}"' in (tmp_path / "there" / "study.toml").read_text()


def test_every_node_trains_and_progress_is_told(cluster: Cluster, tmp_path: Path) -> None:
    task, told = tasks.load("digits", None), []
    recipe = Recipe(lr=0.01, batch_size=32, epochs=20)
    trials = [trial(task, width, seed, recipe=recipe) for seed in range(3) for width in (2, 3)]
    runs = train(
        trials,
        source(task.fingerprint),
        Store(tmp_path),
        workers=0,
        on=cluster.address,
        memory=lambda made: 10 << 20,
        prepare=placed,
        on_event=told.append,
    )
    assert [run.trial for run in runs] == trials
    assert len({path.read_text() for path in tmp_path.glob("*.node")}) == 3
    assert {event.key for event in told if event.share == 1.0} == {made.key for made in trials}
    assert any(0 < event.share < 1 for event in told)


def followed(made: Trial, store: Store, data: Data) -> Start:
    """Notes each start, on which node and whether from a checkpoint; there is one after every epoch."""
    loop_run.CHECKPOINT_SECONDS = 0.0
    with (store / "starts.txt").open("a") as file:
        file.write(f"{made.key} {ray.get_runtime_context().get_node_id()} {store.checkpoint(made.key).exists()}\n")
    return untaught(made, store, data)


def test_a_lost_nodes_trial_goes_on_elsewhere_from_its_checkpoint(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, there = tasks.load("digits", None), Store(tmp_path / "there")
    # Gradients in parts are computed in one way only, not in whichever was the fastest when it was tried.
    recipe = Recipe(lr=0.01, batch_size=32, epochs=15, accumulate=2)
    trials = [trial(task, 8, seed, recipe=recipe) for seed in range(3)]
    sweep = partial(train, trials, source(task.fingerprint), prepare=followed)

    def struck() -> tuple[str, Any] | None:
        """A trial under way on a node that may be lost, after its first checkpoint."""
        nodes = {node.node_id: node for node in cluster.worker_nodes}
        starts = (there / "starts.txt").read_text().splitlines() if (there / "starts.txt").exists() else []
        for key, node, _ in map(str.split, starts):
            if node in nodes and there.checkpoint(key).exists():
                return key, nodes[node]
        return None

    with ThreadPoolExecutor(1) as thread:
        under_way = thread.submit(sweep, there, workers=0, on=cluster.address)
        while (found := struck()) is None and not under_way.done():
            time.sleep(0.05)
        assert found is not None
        cluster.remove_node(found[1], allow_graceful=False)
        runs = under_way.result(timeout=300)
    cluster.add_node(num_cpus=1)
    assert [run.trial for run in runs] == trials
    starts = [line.split() for line in (there / "starts.txt").read_text().splitlines()]
    assert [start[2] for start in starts if start[0] == found[0]] == ["False", "True"]
    assert len(starts) == len(trials) + 1
    assert "warning: a node was lost; its trial goes on elsewhere" in capsys.readouterr().err
    sweep(Store(tmp_path / "here"), workers=2, prepare=untaught)
    assert results(there.root) == results(tmp_path / "here")


def test_what_fails_is_recorded_as_elsewhere(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Width 3 raises, width 4 takes its process along each time, more than any node has is asked for width 5."""
    task, store = tasks.load("digits", None), Store(tmp_path)
    recipe = Recipe(lr=0.01, epochs=2, batch_size=32)
    trials = [trial(task, width, family="tests.failing_family:build", recipe=recipe) for width in (2, 3, 4, 5)]
    memory = lambda made: 1 << 50 if made.width == 5 else 0  # noqa: E731
    runs = train(trials, source(task.fingerprint), store, workers=0, on=cluster.address, memory=memory)
    assert [run.trial.width for run in runs] == [2, 5]
    raised, died = (store.find_failure(made) for made in trials[1:3])
    assert raised is not None
    assert died is not None
    assert (raised.kind, died.kind) == ("error", "died")
    assert raised.reason == "ValueError: the user's own mistake"
    assert "tests/failing_family.py" in raised.trace
    assert "warning: width 4, seed 0: its process died each time" in capsys.readouterr().err


def test_what_stops_a_sweep_is_said_as_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    made = trial(tasks.load("digits", None), recipe=Recipe(epochs=1))
    with pytest.raises(DataError, match="the data of 'digits' changed while it was used") as caught:
        train([made], source("another"), Store(tmp_path), workers=0, on=cluster.address)
    assert type(caught.value) is DataError


def hide(made: Trial, store: Store, data: Data) -> Start:
    """Stands for a folder of the same name on another machine: what is written there is not seen here."""
    store.root = store.root / "of another machine"
    return untaught(made, store, data)


def test_a_folder_that_nodes_do_not_share_is_noticed(cluster: Cluster, tmp_path: Path) -> None:
    made = trial(tasks.load("digits", None), recipe=Recipe(epochs=1))
    with pytest.raises(StoreError, match=r"1 trials were finished, and .* does not have them\nhint: every node"):
        train([made], source(made.fingerprint), Store(tmp_path), workers=0, on=cluster.address, prepare=hide)


def test_a_cluster_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    done = sizewise(*SWEEP, "--out", str(tmp_path), "--on", "ray://127.0.0.1:1")
    assert done.returncode == 1, done.stderr
    assert re.search(r"error: no Ray cluster answers at 'ray://127.0.0.1:1'.*\nhint: start one", done.stderr)
    assert "Traceback" not in done.stderr
