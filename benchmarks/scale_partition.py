"""A node whose cable is pulled while it trains, and put back: of its trial there is one run.

    python benchmarks/scale_partition.py            nodes that see one folder
    python benchmarks/scale_partition.py --share    nodes that meet in a bucket (moto's)

Three Ray nodes, each in a network namespace of its own, joined by a bridge; root and iproute2 are needed. Cut off, a
node goes on with its trial, which Ray takes for lost and gives to the other. Both may end it; one of them publishes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from scale import LOG, bucket, driver, results, said

NETWORK = "10.117.0"
NAMES = tuple(f"sizewise{number}" for number in range(3))

QUICKLY = {
    "RAY_health_check_initial_delay_ms": "20000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node is given up after some twenty seconds, not after a minute."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(name: str) -> list[str]:
    """What a command is preceded by to run in a namespace."""
    return ["ip", "netns", "exec", name]


@contextmanager
def namespaces() -> Iterator[None]:
    """One namespace a node, at the addresses .1, .2 and .3, and a bridge at .254."""
    ip("link", "add", "sizewise", "type", "bridge")
    try:
        ip("addr", "add", f"{NETWORK}.254/24", "dev", "sizewise")
        ip("link", "set", "sizewise", "up")
        for number, name in enumerate(NAMES, 1):
            ip("netns", "add", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", name, "master", "sizewise", "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", "sizewise"], check=False)


@contextmanager
def node(number: int, home: Path) -> Iterator[None]:
    """A Ray node in a namespace; the first is the head, and trains nothing."""
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--node-ip-address={NETWORK}.{number}"]
    head = ["--head", "--port=6399", "--include-dashboard=false", "--num-cpus=0"]
    ray += head if number == 1 else [f"--address={NETWORK}.1:6399", "--num-cpus=1"]
    variables = os.environ | QUICKLY | {"SIZEWISE_CACHE": str(home / f"node{number}")}
    process = subprocess.Popen(
        [*inside(NAMES[number - 1]), *ray], env=variables, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        # One after the other: two that start at the same time would take the same socket.
        wait_for(lambda: b"raylet" in names_of(NAMES[number - 1]), process)
        time.sleep(5.0)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def names_of(name: str) -> set[bytes]:
    """Names of the processes in a namespace."""
    found = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True).stdout.split()
    return {path.read_bytes().strip() for pid in found if (path := Path(f"/proc/{pid}/comm")).exists()}


def network_of(name: str) -> str:
    """How a process of a namespace sees its network, as starts are noted."""
    command = [*inside(name), "readlink", "/proc/self/ns/net"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait_for(what: Callable[[], Any], process: subprocess.Popen[bytes], seconds: float = 120.0) -> Any:
    """The first true answer, while the sweep is under way."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("it did not come to that")
        time.sleep(0.2)
    return found


def starts(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def cut(options: argparse.Namespace, home: Path, url: str) -> dict[str, Any]:
    """Train one trial, and cut off the node that does."""
    log, root = home / "starts.jsonl", home / "struck"
    os.environ[LOG] = str(log)
    with ExitStack() as stack:
        for number in (1, 2, 3):
            stack.enter_context(node(number, home))
        process = driver(root, f"{NETWORK}.1:6399", url, options, inside(NAMES[0]))
        first = wait_for(lambda: starts(log), process)[0]
        (name,) = [name for name in NAMES[1:] if network_of(name) == first["network"]]
        time.sleep(2.0)
        ip("link", "set", name, "down")
        wait_for(lambda: "a node was lost" in said(root).read_text(), process)
        time.sleep(options.cut)
        ip("link", "set", name, "up")
        code = process.wait(300)
        time.sleep(options.cut)  # for the one that was cut off to end, too
    if code:
        raise RuntimeError(f"the sweep ended with {code}: {said(root).read_text()[-2000:]}")
    return {"starts": len(starts(log)), "nodes": len({start["network"] for start in starts(log)})}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", action="store_true", help="nodes that see no common folder, but a bucket")
    parser.add_argument("--epochs", type=int, default=60, help="of the trial")
    parser.add_argument(
        "--cut", type=float, default=5.0, help="seconds that the cable stays out when the loss is known"
    )
    options = parser.parse_args(arguments)
    options.trials = 1
    with (
        tempfile.TemporaryDirectory() as name,
        namespaces(),
        bucket(options.share, f"{NETWORK}.254") as (url, versions),
    ):
        home = Path(name)
        os.environ[LOG] = str(home / "undisturbed.jsonl")
        driver(home / "whole", "local", "", options).wait()
        answer = cut(options, home, url)
        answer |= {"same": results(home / "whole") == results(home / "struck"), "versions": versions()}
    print(json.dumps(answer, indent=1))
    return 0 if answer["same"] and all(count == 1 for count in answer["versions"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
