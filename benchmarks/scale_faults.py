"""A sweep on a cluster whose nodes, links and processes fail at random, and one node that is cut off.

Nodes are killed, leave, come and are cut off for a while, longer or shorter than it takes to be given up; processes of
trials and the command itself are killed, and the command is started again. Then the study must hold what the same sweep
holds that ran undisturbed on this machine, to the bit: every trial, each published once, none begun again after that.
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

from scale_nodes import Nodes, cluster, network, network_of, wait_for

from sizewise import tasks
from sizewise.loop import Data, Start
from sizewise.loop import run as loop_run
from sizewise.records import Reading, Recipe, Trial
from sizewise.shared import Shared
from sizewise.store import Store
from sizewise.train import Source, train, untaught

LOG = "SIZEWISE_SCALE_LOG"
"""Variable with the file where every start of a trial is noted."""

PAUSE = (2.0, 8.0)
"""Seconds between two faults."""

AFTER = 5.0
"""Seconds that a node stays cut off after it was given up."""

CUT = (2.0, 40.0)
"""Seconds that a cable stays out. A node is given up after some twenty."""

FAULTS = ("node killed", "node killed", "node left", "trial killed", "trial killed", "command killed")
CABLES = ("cable pulled", "cable pulled")
"""What happens, each as likely as the others; cables are pulled where nodes have their own."""

WORKERS = 2
"""Nodes beside the head. Where there are fewer, one may come."""


def made(count: int, epochs: int = 1) -> list[Trial]:
    """Trials of the digits at four widths. Gradients are added up in parts, which is done in one way only: else the
    clock would choose among several, and results of two sweeps would differ by rounding."""
    task = tasks.load("digits")
    recipe = Recipe(lr=0.01, batch_size=32, epochs=epochs, accumulate=2)
    return [Trial(task.name, task.fingerprint, "cnn", (2, 4, 8, 12)[n % 4], 1.0, recipe, n // 4) for n in range(count)]


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
    log: Path | None = None,
) -> subprocess.Popen[bytes]:
    """The command, preceded by words such as `ip netns exec NAME`. It leads a group of processes of its own, since Ray
    ends the group of a driver that was killed."""
    command = [sys.executable, str(Path(__file__).with_name("scale.py")), "drive"]
    command += ["--root", str(root), "--on", on, "--share-url", share]
    command += ["--trials", str(options.trials), "--epochs", str(options.epochs)]
    with said(root).open("ab") as file:
        variables = os.environ | ({LOG: str(log)} if log else {})
        return subprocess.Popen([*before, *command], env=variables, stderr=file, start_new_session=True)


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
        cut: cables that are out, and until when.
        published: identity of each `run.json` when it was first seen; one that is written again has another.
    """

    nodes: Nodes
    root: Path
    start: Callable[[], subprocess.Popen[bytes]]
    rng: random.Random
    struck: Counter[str] = field(default_factory=Counter)
    came: int = 0
    cut: dict[str, float] = field(default_factory=dict)
    published: dict[str, tuple[int, int]] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)

    def run(self, faults: int) -> None:
        """Strike so often, if the sweep lasts that long, and let it end."""
        process = self.start()
        while process.poll() != 0:
            if process.poll() is not None:
                process = self._again(process)
            striking = self.struck.total() < faults
            self._wait(process, self.rng.uniform(*PAUSE) if striking else 1.0)
            if striking and process.poll() is None:
                process = self._strike(process)
            self._mend()
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

    def _joined(self) -> list[str]:
        return [name for name in self.nodes.running() if name not in self.cut]

    def _strike(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """One fault, if there is what it would befall; the command that goes on."""
        kind = self.rng.choice(FAULTS + (CABLES if self.nodes.cables else ()))
        if kind == "command killed":
            process.kill()
            process.wait()
            process = self.start()
        elif kind == "trial killed" and (training := workers()):
            os.kill(self.rng.choice(training), signal.SIGKILL)
        elif kind != "trial killed" and (joined := self._joined()):
            self._befall(kind, self.rng.choice(joined))
        else:
            return process
        self.struck[kind] += 1
        return process

    def _befall(self, kind: str, name: str) -> None:
        if kind == "cable pulled":
            self.nodes.cable(name, plugged=False)
            self.cut[name] = time.monotonic() + self.rng.uniform(*CUT)
        else:
            self.nodes.remove(name, killed=kind == "node killed")

    def _mend(self) -> None:
        """Cables are plugged in when it is time, and now and then a node comes where there are too few."""
        for name in [name for name, until in self.cut.items() if time.monotonic() > until]:
            self.nodes.cable(name, plugged=True)
            del self.cut[name]
        if len(self._joined()) < WORKERS and self.rng.random() < 0.7:
            self.came += self.nodes.add()


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


@contextmanager
def ready(options: argparse.Namespace) -> Iterator[tuple[Path, str, Callable[[], dict[str, int]], str]]:
    """What must be there before nodes start: a folder where they note what they begin, the network, and a bucket."""
    with (
        tempfile.TemporaryDirectory() as name,
        network() as host,
        bucket(options.share, host) as (url, versions),
    ):
        os.environ[LOG] = str(Path(name) / "starts.jsonl")
        yield Path(name), url, versions, host


def faults(options: argparse.Namespace) -> dict[str, Any]:
    """A sweep with faults beside one without."""
    with ready(options) as (folder, url, versions, host), cluster(WORKERS, host=host) as nodes:
        whole, struck, log = folder / "whole", folder / "struck", folder / "starts.jsonl"
        undisturbed = alone(whole, options)
        began = time.perf_counter()
        start = lambda: driver(struck, nodes.address, url, options, nodes.before)  # noqa: E731
        chaos = Chaos(nodes, struck, start, random.Random(options.seed))
        chaos.run(options.faults)
        seconds = time.perf_counter() - began
        begun = starts(log)
        late = [s for s in begun if s["time"] > (struck / "trials" / s["key"] / "run.json").stat().st_mtime]
        expected, found = results(whole), results(struck)
        return {
            "nodes": nodes.kind,
            "trials": len(expected),
            "faults": dict(chaos.struck),
            "faults_in_all": chaos.struck.total(),
            "nodes_that_came": chaos.came,
            "starts": len(begun),
            "resumed": sum(s["resumed"] for s in begun),
            "lost": len(expected.keys() - found.keys()),
            "other_results": sum(found.get(key) != value for key, value in expected.items()),
            "published_again": len(chaos.again) + sum(count > 1 for count in versions().values()),
            "begun_after_publishing": len(late),
            "seconds": seconds,
            "seconds_undisturbed_local": undisturbed,
        }


def alone(root: Path, options: argparse.Namespace) -> float:
    """Seconds of the sweep undisturbed, on this machine."""
    began = time.perf_counter()
    if code := driver(root, "local", "", options, log=root.with_name("undisturbed.jsonl")).wait():
        raise RuntimeError(f"the undisturbed sweep ended with {code}")
    return time.perf_counter() - began


def starts(log: Path) -> list[dict[str, Any]]:
    """What `noted` wrote."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def cut(options: argparse.Namespace) -> dict[str, Any]:
    """One trial, whose node is cut off and joined again when it has been given up: of the trial there is one run."""
    with ready(options) as (folder, url, versions, host), cluster(WORKERS, head_cores=0, host=host) as nodes:
        if not nodes.cables:
            return {"skipped": "a cable can be pulled only where nodes have networks of their own"}
        whole, struck, log = folder / "whole", folder / "struck", folder / "starts.jsonl"
        alone(whole, options)
        process = driver(struck, nodes.address, url, options, nodes.before)
        first = wait_for(lambda: starts(log), process)[0]
        (training,) = [node for node in nodes.running() if network_of(node) == first["network"]]
        time.sleep(2.0)
        nodes.cable(training, plugged=False)
        wait_for(lambda: "a node was lost" in said(struck).read_text(), process)
        time.sleep(AFTER)
        nodes.cable(training, plugged=True)
        if code := process.wait(300):
            raise RuntimeError(f"the sweep ended with {code}: {said(struck).read_text()[-2000:]}")
        time.sleep(AFTER)  # for the one that was cut off to end, too
        begun, again = starts(log), sum(count > 1 for count in versions().values())
        return {
            "starts": len(begun),
            "nodes": len({start["network"] for start in begun}),
            "other_results": int(results(whole) != results(struck)),
            "published_again": again,
        }
