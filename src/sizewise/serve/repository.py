"""The models of a server, each in one or more versions, and how a new version takes the place of an old one.

A folder that `sizewise export` wrote is one model in version 1. A folder of such folders, named by whole numbers, is
one model in those versions: `digits/1`, `digits/2`. What is asked for without a version goes to the highest.

Swapping needs no command: put a new version beside the old one, or another export in its place. It is verified, loaded
and warmed up while the old one answers; then new requests go to it, and the old one ends when those it has begun are
answered. A version that cannot be loaded is logged and the old one stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sizewise.errors import SizewiseError, UsageError
from sizewise.runtimes import Config
from sizewise.serve import models
from sizewise.serve.batcher import Batcher, Limits
from sizewise.serve.logs import log
from sizewise.serve.metrics import Metrics, ModelMetrics
from sizewise.serve.models import Model
from sizewise.serve.refusals import NotFound

FIRST = "1"
MANIFEST = "manifest.json"

Stamp = tuple[int, int, int]
"""What changes when a folder is exported anew: its manifest's inode, size and time."""


@dataclass(frozen=True)
class Place:
    """Where one version of a model lies."""

    name: str
    version: str
    folder: Path

    @property
    def stamp(self) -> Stamp | None:
        """None where nothing is, or not yet all of it: the manifest is what an export writes last."""
        try:
            status = (self.folder / MANIFEST).stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(eq=False)
class Served:
    """A loaded version, with the queue before it.

    Attributes:
        users: requests that were promised this version and have no answer yet.
    """

    model: Model
    batcher: Batcher
    metrics: ModelMetrics
    stamp: Stamp | None
    users: int = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the version from being retired."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1


class Repository:
    """All models of one server. Requests and swaps belong to one event loop.

    Args:
        folders: exported folders, or folders of their versions.
        threads: how many threads one inference may use.

    Raises:
        IntegrityError: a folder is not what its manifest says; nothing is served.
        UsageError: there is no folder, or two hold a model of the same name.
    """

    def __init__(self, folders: Sequence[Path], limits: Limits, metrics: Metrics, *, threads: int = 1) -> None:
        self._roots = {_name(folder): folder for folder in folders}
        if not folders or len(self._roots) < len(folders):
            raise UsageError(
                f"the models to serve are {[_name(folder) for folder in folders]}",
                hint="give at least one folder, and each model's name only once",
            )
        self._limits, self._metrics, self._threads = limits, metrics, threads
        self._failed: dict[tuple[str, str], Stamp] = {}
        self._models: dict[str, dict[str, Served]] = {}
        for name, root in self._roots.items():
            self._models[name] = {place.version: self._load(place) for place in _places(name, root)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all models."""
        return tuple(self._models)

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of one model, the lowest first."""
        return tuple(sorted(self._models[name], key=int))

    def find(self, name: str, version: str = "") -> Served:
        """The model that answers, in its highest version where none is asked for.

        Raises:
            NotFound: there is no such model or version.
        """
        if name not in self._models:
            raise NotFound(f"unknown model {name!r}; served: {', '.join(self._models)}")
        versions = self._models[name]
        if version and version not in versions:
            known = ", ".join(map(repr, self.versions(name)))
            raise NotFound(f"model {name!r} has no version {version!r}; it has {known}")
        return versions[version or max(versions, key=int)]

    async def refresh(self) -> None:
        """Look for new, changed and removed versions, and swap them in and out."""
        for name, root in self._roots.items():
            places = {place.version: place for place in _places(name, root)}
            for place in places.values():
                await self._renew(place)
            gone = [version for version in self._models[name] if version not in places]
            for version in gone if set(self._models[name]) - set(gone) else ():
                await self._retire(self._models[name].pop(version))

    async def _renew(self, place: Place) -> None:
        versions, stamp = self._models[place.name], place.stamp
        old = versions.get(place.version)
        if stamp is None or (old and old.stamp == stamp) or self._failed.get((place.name, place.version)) == stamp:
            return
        try:
            new = await asyncio.to_thread(self._load, place)
        except (SizewiseError, OSError) as error:
            self._failed[place.name, place.version] = stamp
            self._metrics.loads.labels("failed").inc()
            log("version not loaded", logging.ERROR, model=place.name, version=place.version, reason=str(error))
            return
        versions[place.version] = new
        log("version loaded", model=place.name, version=place.version, folder=str(place.folder))
        if old:
            await self._retire(old)

    async def _retire(self, served: Served) -> None:
        """Let a version answer those who wait for it, and end."""
        while served.users:
            await asyncio.sleep(0.01)
        await served.batcher.close()
        log("version retired", model=served.model.name, version=served.model.version)

    def _load(self, place: Place) -> Served:
        stamp = place.stamp  # before the files are read: a later change is then seen as one
        model = models.load(place.name, place.version, place.folder, threads=self._threads)
        metrics = ModelMetrics(self._metrics, place.name, place.version)
        batcher = Batcher(model.run, model.kind, self._limits, metrics.called)
        metrics.waiting.set_function(batcher.__len__)
        self._metrics.loads.labels("loaded").inc()
        return Served(model, batcher, metrics, stamp)

    async def close(self) -> None:
        """Answer all who wait."""
        for versions in self._models.values():
            for served in versions.values():
                await served.batcher.close()

    def index(self) -> list[Mapping[str, str]]:
        """Every version of every model, as the protocol's repository extension lists them."""
        return [
            {"name": name, "version": version, "state": "READY", "reason": ""}
            for name in self._models
            for version in self.versions(name)
        ]


def _name(folder: Path) -> str:
    """A folder of versions gives its model its own name; an exported one is called what it was exported as."""
    if any(_numbered(folder)):
        return folder.resolve().name
    return Config.read(folder).name


def _places(name: str, root: Path) -> list[Place]:
    numbered = [Place(name, path.name, path) for path in _numbered(root)]
    return sorted(numbered, key=lambda place: int(place.version)) or [Place(name, FIRST, root)]


def _numbered(root: Path) -> Iterable[Path]:
    """Subfolders that hold a version."""
    if (root / MANIFEST).is_file() or not root.is_dir():
        return []
    return [path for path in root.iterdir() if _is_version(path.name) and (path / MANIFEST).is_file()]


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")
