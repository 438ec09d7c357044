"""What sending trials to others costs, and whether a sweep survives what happens to machines.

    python benchmarks/scale.py overhead                 200 trials of one second on two cores, by each executor
    python benchmarks/scale.py faults                   a sweep on a Ray cluster of three nodes, with 20 random faults
    python benchmarks/scale.py faults --share           the same, its nodes seeing no folder but a bucket (moto's)
    python benchmarks/scale.py faults --faults 6 --trials 12

The trials of `overhead` sleep, so what is measured is the executor: starting processes, sending, telling, ending.

The sweep of `faults` trains small CNNs on the digits. Nodes are killed, leave and come; trials' processes and the
command itself are killed, and the command is started again. Then it must hold what the same sweep holds that ran
undisturbed on this machine, to the bit: every trial, each published once, none begun again after that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sizewise import tasks
from sizewise.loop import Data, Start
from sizewise.loop import run as loop_run
from sizewise.records import Reading, Recipe, Trial
from sizewise.shared import Shared
from sizewise.store import Store
from sizewise.train import Source, processes, train, untaught
from sizewise.train.worker import Executor

LOG = "SIZEWISE_SCALE_LOG"
"""Variable with the file where every start of a trial is noted."""

PAUSE = (2.0, 8.0)
"""Seconds between two faults."""

FAULTS = ("node killed", "node killed", "node left", "trial killed", "trial killed", "command killed")
"""What happens, each as likely as the others."""


@dataclass(frozen=True)
class Sleep:
    """Work that takes its time and nothing else."""

    seconds: float

    def __call__(self, trial: Trial, tell: Callable[[float], None]) -> None:
        time.sleep(self.seconds)


def made(count: int, epochs: int = 1) -> list[Trial]:
    """Trials of the digits at four widths. Gradients are added up in parts, which is done in one way only: else the
    clock would choose among several, and results of two sweeps would differ by rounding."""
    task = tasks.load("digits")
    recipe = Recipe(lr=0.01, batch_size=32, epochs=epochs, accumulate=2)
    return [Trial(task.name, task.fingerprint, "cnn", (2, 4, 8, 12)[n % 4], 1.0, recipe, n // 4) for n in range(count)]


def overhead(count: int, seconds: float, cores: int) -> dict[str, Any]:
    """Seconds that each executor takes, those before the first trial ended, and how many times the ideal that is. The
    cluster is there already, and is connected to within its time."""
    from sizewise.train import on_ray

    ideal = count * seconds / cores
    local = timed(lambda: processes.run, count, seconds, cores)
    with cluster(cores, 0) as there:
        ray = timed(lambda: on_ray.executor(there.address, lambda trial: 0), count, seconds, 0)
    return {
        name: {"seconds": took[-1], "times_the_ideal": took[-1] / ideal, "first_after": took[0]}
        for name, took in (("local", local), ("ray", ray))
    }


def timed(executor: Callable[[], Executor], count: int, seconds: float, workers: int) -> list[float]:
    """When trials were answered for, in seconds from before anything was started."""
    trials = made(count)
    done: dict[Trial, float] = {}
    began = time.perf_counter()
    left = executor()(
        trials,
        Sleep(seconds),
        workers=workers,
        on_event=lambda event: None,
        on_done=lambda trial, failure: done.update({trial: time.perf_counter() - began}),
    )
    assert not left
    assert set(done) == set(trials)
    return [*done.values(), time.perf_counter() - began]


@contextmanager
def cluster(head_cores: int, nodes: int) -> Iterator[Any]:
    """A Ray cluster on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": head_cores, "include_dashboard": False}
    # Else processes that are to end it at exit may end this one when a node is removed.
    made_cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    try:
        for number in range(nodes):
            add(made_cluster, number)
        yield made_cluster
    finally:
        ray.shutdown()
        made_cluster.shutdown()


def add(made_cluster: Any, number: int) -> None:
    """One more node of one core, with a cache of its own, as on another machine."""
    home = Path(tempfile.gettempdir()) / f"sizewise-scale-{os.getpid()}" / str(number)
    made_cluster.add_node(num_cpus=1, env_vars={"SIZEWISE_CACHE": str(home)})


def noted(trial: Trial, store: Store, data: Data) -> Start:
    """What a trial starts from, after its start was noted. Checkpoints are written at every epoch's end."""
    loop_run.CHECKPOINT_SECONDS = 0.0
    network = os.readlink("/proc/self/ns/net")  # of the node, where nodes have their own
    resumed = store.checkpoint(trial.key).exists()
    line = {"key": trial.key, "resumed": resumed, "time": time.time(), "network": network}
    with open(os.environ[LOG], "a") as file:
        file.write(json.dumps(line) + "\n")
    return untaught(trial, store, data)


def drive(root: Path, on: str, share: str, count: int, epochs: int) -> None:
    """The command that is killed: one sweep, from its beginning or from where it stopped."""
    trials = made(count, epochs)
    source = Source("digits", None, Reading(), "accuracy", trials[0].fingerprint)
    store = Shared(root, share) if share else Store(root)
    with store.lock():
        train(trials, source, store, workers=2 if on == "local" else 0, on=on, prepare=noted)


def driver(
    root: Path,
    on: str,
    share: str,
    options: argparse.Namespace,
    before: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """The command, preceded by words such as `ip netns exec NAME`. It leads a group of processes of its own, since Ray
    ends the group of a driver that was killed."""
    command = [sys.executable, __file__, "drive", "--root", str(root), "--on", on, "--share-url", share]
    command += ["--trials", str(options.trials), "--epochs", str(options.epochs)]
    with said(root).open("ab") as file:
        return subprocess.Popen([*before, *command], stderr=file, start_new_session=True)


def said(root: Path) -> Path:
    """Where a sweep's messages are kept."""
    return root.with_suffix(".txt")


def results(root: Path) -> dict[str, Any]:
    """What a sweep found, without the seconds it took."""
    found = {}
    for path in root.glob("trials/*/run.json"):
        record = json.loads(path.read_text())
        curve = [json.loads(line) for line in (path.parent / "curves.jsonl").read_text().splitlines()]
        losses = [(point["train_loss"], point["validation_loss"]) for point in curve]
        files = {name: digest for name, digest in record["files"].items() if name != "curves.jsonl"}
        found[path.parent.name] = (record["validation"], record["train_loss"], files, losses)
    return found


@dataclass
class Chaos:
    """A cluster under a sweep, and what is done to it.

    Attributes:
        published: identity of each `run.json` when it was first seen; one that is written again has another.
    """

    cluster: Any
    root: Path
    start: Callable[[], subprocess.Popen[bytes]]
    rng: random.Random
    number: int = 2
    struck: Counter[str] = field(default_factory=Counter)
    published: dict[str, tuple[int, int]] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)

    def run(self, faults: int) -> None:
        """Strike so often, if the sweep lasts that long, and let it end."""
        process = self.start()
        while process.poll() != 0:
            if process.poll() is not None:
                process = self._again(process)
            if sum(self.struck.values()) < faults:
                self._wait(process, self.rng.uniform(*PAUSE))
                process = self._strike(process) if process.poll() is None else process
            else:
                self._wait(process, 1.0)
            if len(self.cluster.worker_nodes) < 2 and self.rng.random() < 0.7:
                add(self.cluster, self.number)
                self.number += 1
        self._look()

    def _again(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """The command anew, when a signal ended it."""
        if process.returncode > 0:
            raise RuntimeError(f"the sweep ended with {process.returncode}: {said(self.root).read_text()[-2000:]}")
        self.struck["command ended"] += 1
        return self.start()

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            self._look()
            time.sleep(0.2)

    def _look(self) -> None:
        for path in self.root.glob("trials/*/run.json"):
            about = path.stat()
            identity = (about.st_ino, about.st_mtime_ns)
            if self.published.setdefault(path.parent.name, identity) != identity:
                self.again.add(path.parent.name)

    def _strike(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        nodes = sorted(self.cluster.worker_nodes, key=lambda node: node.node_id)
        kind = self.rng.choice(FAULTS)
        if kind.startswith("node") and nodes:
            self.cluster.remove_node(self.rng.choice(nodes), allow_graceful=kind == "node left")
        elif kind == "trial killed" and (found := workers()):
            os.kill(self.rng.choice(found), signal.SIGKILL)
        elif kind == "command killed":
            process.kill()
            process.wait()
            self.struck[kind] += 1
            return self.start()
        else:
            return process
        self.struck[kind] += 1
        return process


def workers() -> list[int]:
    """Processes of this cluster that train a trial, as Ray names them."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process.pid] if "".join(process.cmdline()).startswith("ray::_do") else []
    return sorted(found)


@contextmanager
def bucket(wanted: bool, host: str = "127.0.0.1") -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
    """The URL of a bucket that keeps every version of its objects, and how many each finished trial has."""
    if not wanted:
        yield "", dict
        return
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel("ERROR")
    server = ThreadedMotoServer(host, 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"})
    client = boto3.client("s3")
    client.create_bucket(Bucket="studies")
    client.put_bucket_versioning(Bucket="studies", VersioningConfiguration={"Status": "Enabled"})

    def versions() -> dict[str, int]:
        pages = client.get_paginator("list_object_versions").paginate(Bucket="studies", Prefix="digits/trials/")
        names = (version["Key"] for page in pages for version in page.get("Versions", ()))
        return dict(Counter(name for name in names if name.endswith(".tar")))

    try:
        yield "s3://studies/digits", versions
    finally:
        server.stop()


def faults(options: argparse.Namespace) -> dict[str, Any]:
    """A sweep with faults beside one without."""
    with tempfile.TemporaryDirectory() as name, bucket(options.share) as (url, versions):
        whole, struck, log = Path(name) / "whole", Path(name) / "struck", Path(name) / "starts.jsonl"
        os.environ[LOG] = str(log.with_name("undisturbed.jsonl"))
        began = time.perf_counter()
        if code := driver(whole, "local", "", options).wait():
            raise RuntimeError(f"the undisturbed sweep ended with {code}")
        undisturbed = time.perf_counter() - began
        os.environ[LOG] = str(log)
        with cluster(1, 2) as made_cluster:
            began = time.perf_counter()
            start = lambda: driver(struck, made_cluster.address, url, options)  # noqa: E731
            chaos = Chaos(made_cluster, struck, start, random.Random(options.seed))
            chaos.run(options.faults)
            seconds = time.perf_counter() - began
        starts = [json.loads(line) for line in log.read_text().splitlines()]
        late = [s for s in starts if s["time"] > (struck / "trials" / s["key"] / "run.json").stat().st_mtime]
        expected, found = results(whole), results(struck)
        return {
            "trials": len(expected),
            "faults": dict(chaos.struck),
            "starts": len(starts),
            "resumed": sum(s["resumed"] for s in starts),
            "lost": len(expected.keys() - found.keys()),
            "other_results": sum(found.get(key) != value for key, value in expected.items()),
            "published_again": len(chaos.again) + sum(count > 1 for count in versions().values()),
            "begun_after_publishing": len(late),
            "seconds": seconds,
            "seconds_undisturbed_local": undisturbed,
        }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "faults", "drive"))
    parser.add_argument("--trials", type=int, help="default: 200 of overhead, 48 of faults")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a trial of overhead sleeps")
    parser.add_argument("--cores", type=int, default=2, help="of overhead")
    parser.add_argument("--epochs", type=int, default=12, help="of the trials of faults")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--share", action="store_true", help="nodes that see no common folder, but a bucket")
    for name in ("--root", "--on", "--share-url"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.trials = options.trials or (200 if options.what == "overhead" else 48)
    if options.what == "drive":
        drive(Path(options.root), options.on, options.share_url, options.trials, options.epochs)
        return 0
    if options.what == "overhead":
        answer: dict[str, Any] = overhead(options.trials, options.seconds, options.cores)
    else:
        answer = faults(options)
    print(json.dumps(answer, indent=1))
    wrong = ("lost", "other_results", "published_again", "begun_after_publishing")
    return 1 if any(answer.get(name) for name in wrong) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
