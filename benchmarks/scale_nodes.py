"""The nodes of a Ray cluster on one machine, and what can happen to them.

Each node is in a network namespace of its own, joined by a bridge, so that its cable can be pulled. That needs Linux,
root and iproute2; elsewhere Ray's own cluster of processes stands in, whose nodes can be killed and leave, as is said.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

NETWORK = "10.117.0"
BRIDGE = f"{NETWORK}.254"
HERE = "127.0.0.1"
NAMES = tuple(f"sizewise{number}" for number in range(4))
"""Namespaces: of the head, of two workers, and of one more that may come."""

QUICKLY = {
    "RAY_health_check_initial_delay_ms": "20000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node is given up after some twenty seconds, not after a minute."""


class Nodes(Protocol):
    """A cluster whose head stays.

    Attributes:
        kind: what it is, for people.
        address: of the head.
        before: what a command is preceded by to run beside the head.
        cables: whether they can be pulled.
    """

    kind: str
    address: str
    before: tuple[str, ...]
    cables: bool

    def running(self) -> list[str]:
        """Names of the nodes there are, the head left out."""
        ...

    def add(self) -> bool:
        """One more node of one core, with a cache of its own, as on another machine; False if there is no room."""
        ...

    def remove(self, name: str, *, killed: bool) -> None:
        """A node leaves, or dies without a word."""
        ...

    def cable(self, name: str, *, plugged: bool) -> None:
        """Cut a node off, or join it again."""
        ...


class Separate:
    """Nodes in namespaces, at the addresses .1, .2 and so on, and a bridge at .254."""

    kind, address, cables = "a network namespace each", f"{NETWORK}.1:6399", True
    before = ("ip", "netns", "exec", NAMES[0])

    def __init__(self, home: Path, workers: int, head_cores: int) -> None:
        self.home, self.processes = home, dict[str, subprocess.Popen[bytes]]()
        command = ["--head", "--port=6399", "--include-dashboard=false", f"--num-cpus={head_cores}"]
        self._start(NAMES[0], command)
        for _ in range(workers):
            self.add()

    def running(self) -> list[str]:
        return [name for name in NAMES[1:] if name in self.processes and self.processes[name].poll() is None]

    def add(self) -> bool:
        free = [name for name in NAMES[1:] if name not in self.running()]
        if free:
            self.cable(free[0], plugged=True)
            self._start(free[0], [f"--address={self.address}", "--num-cpus=1"])
        return bool(free)

    def remove(self, name: str, *, killed: bool) -> None:
        if killed:
            kill(name)
        else:
            self.processes[name].terminate()
        self.processes[name].wait()

    def cable(self, name: str, *, plugged: bool) -> None:
        ip("link", "set", name, "up" if plugged else "down")

    def _start(self, name: str, words: list[str]) -> None:
        """A node in an empty namespace. One after the other: two that start together would take the same socket."""
        kill(name)
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block"]
        ray += [f"--node-ip-address={NETWORK}.{NAMES.index(name) + 1}", *words]
        variables = os.environ | QUICKLY | {"SIZEWISE_CACHE": str(self.home / name)}
        log = (self.home / f"{name}.txt").open("ab")
        self.processes[name] = subprocess.Popen(
            [*inside(name), *ray], env=variables, stdout=log, stderr=log, start_new_session=True
        )
        wait_for(lambda: "raylet" in {_word(pid) for pid in pids(name)}, self.processes[name])
        time.sleep(3.0)  # the head learns of it

    def close(self) -> None:
        for name in NAMES:
            kill(name)
        for process in self.processes.values():
            process.wait()


class Together:
    """Ray's own cluster: nodes are processes that share the network of this machine."""

    kind, before, cables = "processes of one network", (), False

    def __init__(self, home: Path, workers: int, head_cores: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": head_cores, "include_dashboard": False}
        # Else processes that are to end it at exit may end this one when a node is removed.
        self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.home, self.address, self.known = home, self.cluster.address, dict[str, Any]()
        for _ in range(workers):
            self.add()

    def running(self) -> list[str]:
        return [name for name, node in self.known.items() if node in self.cluster.worker_nodes]

    def add(self) -> bool:
        name = f"node{len(self.known)}"
        home = {"SIZEWISE_CACHE": str(self.home / name)}
        self.known[name] = self.cluster.add_node(num_cpus=1, env_vars=home)
        return True

    def remove(self, name: str, *, killed: bool) -> None:
        self.cluster.remove_node(self.known[name], allow_graceful=not killed)

    def cable(self, name: str, *, plugged: bool) -> None:
        raise ValueError(f"{name} has no cable of its own: these nodes share one network")

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()


@contextmanager
def cluster(workers: int, head_cores: int = 1, host: str = HERE) -> Iterator[Nodes]:
    """A head and workers, in the `network` that has that address. They inherit the variables that are set by now."""
    with tempfile.TemporaryDirectory() as home:
        made = (Separate if host == BRIDGE else Together)(Path(home), workers, head_cores)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def network() -> Iterator[str]:
    """Namespaces and the bridge that joins them, where there can be any. Yields where all reach a server of this
    machine."""
    _tear_down()  # what a run that was killed left
    try:
        _set_up()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"note: no network namespaces here ({error}); the nodes share one network", file=sys.stderr)
        _tear_down()
        yield HERE
        return
    try:
        yield BRIDGE
    finally:
        _tear_down()


def _set_up() -> None:
    ip("link", "add", "sizewise", "type", "bridge")
    ip("addr", "add", f"{BRIDGE}/24", "dev", "sizewise")
    ip("link", "set", "sizewise", "up")
    for number, name in enumerate(NAMES, 1):
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", "sizewise", "up")
        ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")


def _tear_down() -> None:
    for words in (*(("netns", "del", name) for name in NAMES), ("link", "del", "sizewise")):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            ip(*words)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def inside(name: str) -> tuple[str, ...]:
    """What a command is preceded by to run in a namespace."""
    return "ip", "netns", "exec", name


def pids(name: str) -> list[int]:
    """Processes of a namespace."""
    found = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True)
    return list(map(int, found.stdout.split()))


def kill(name: str) -> None:
    """End all processes of a namespace."""
    while found := pids(name):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _word(pid: int) -> str:
    """The name of a process, if it is still there."""
    path = Path(f"/proc/{pid}/comm")
    return path.read_text().strip() if path.exists() else ""


def network_of(name: str) -> str:
    """How a process of a namespace sees its network."""
    command = [*inside(name), "readlink", "/proc/self/ns/net"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait_for(what: Callable[[], Any], process: subprocess.Popen[bytes], seconds: float = 120.0) -> Any:
    """The first true answer, while a process is alive."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("it did not come to that")
        time.sleep(0.2)
    return found
