"""A study whose workers see no common folder: they meet at a URL, such as that of a bucket.

Names at the URL are those of the study's folder, but for a finished trial, which is one object: the files of its folder
as an archive, `trials/<key>.tar`. It is put there on the condition that there is none yet (`If-None-Match: *`, in S3's
words), so that of two workers that trained the same trial, one because the other was thought lost, one publishes.
Checkpoints are replaced at will. The only file that knows fsspec, which reaches what the URL says.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from sizewise.cache import cache_folder
from sizewise.errors import MissingExtraError, SizewiseError, StoreError, UsageError
from sizewise.recipe import trunk_of
from sizewise.records import Run, Trial
from sizewise.store import Store, one_at_a_time, read_json, write_atomic

T = TypeVar("T")

FEW = 4
"""Objects that are asked for one by one; of more it is first found out which there are."""


class Shared(Store):
    """A study's folder on this machine, and the URL where workers on others leave what they make.

    In a worker it is another folder, in the user's cache, with what that machine needs of the study.

    Args:
        root: the folder.
        url: anything that fsspec knows and several machines reach, such as `s3://bucket/study`. Addresses and
            credentials are those of the environment, as the library behind it expects them.
    """

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        self.url = url.rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_worker, (self.url,)

    def keep(self, path: Path, state: bytes) -> None:
        """Keep the state of a run under way, for whoever goes on with it, wherever."""
        super().keep(path, state)
        self._put(self._name(path), state)

    def drop(self, path: Path) -> None:
        """Forget a state that nobody needs any more."""
        super().drop(path)
        with self._reached(), _absent_allowed():
            self._files.rm_file(self._at(self._name(path)))

    def once(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """The record `name`; where several machines make one, the first that was left at the URL counts for all."""
        self._fetch(name)
        super().once(name, kind, make)
        if not self._create(name, (self.root / name).read_bytes()):
            self._fetch(name)
        return read_json(self.root / name, kind)

    def save_run(self, run: Run) -> None:
        """Publish a finished trial, unless one was published before, which then is the one that counts."""
        super().save_run(run)
        self._publish(run.trial.key)
        self.clear_trial(run.trial.key)

    def offer(self, trials: Sequence[Trial]) -> None:
        """Give workers what these trials start from: trained weights, and runs of this folder."""
        self._put("reached", b"")  # a place that cannot be written to is known before anything is trained
        for key in {key for trial in trials for key in trial.parents}:
            if not self._exists(_archive(key)):
                self._publish(key)
        for path in {self.weights(trial.start.sha256) for trial in trials if trial.start}:
            if not self._exists(self._name(path)):
                self._put(self._name(path), path.read_bytes())

    def bring(self, trial: Trial) -> None:
        """Fetch, in a worker, what there is of a trial and what it starts from."""
        self.collect(trial.key, *trial.parents)
        self._fetch(self._name(self.checkpoint(trial.key)))
        self._fetch(f"engine/{trial.size}.json")
        if trial.start and not self.weights(trial.start.sha256).exists():
            self._fetch(self._name(self.weights(trial.start.sha256)))
        if trunk := trunk_of(trial):
            for name in self._listed(f"trunks/{trunk}"):
                self._fetch(f"trunks/{trunk}/{name}")

    def collect(self, *keys: str) -> None:
        """Take these trials into the folder, as far as workers finished them."""
        missing = [key for key in keys if not (self.trial_folder(key) / "run.json").exists()]
        if len(missing) > FEW:
            there = set(self._listed("trials"))
            missing = [key for key in missing if f"{key}.tar" in there]
        for key in missing:
            if (data := self._get(_archive(key))) is not None:
                self._unpack(key, data)

    def offer_data(self, name: str, path: Path) -> None:
        """Give workers the user's data, a file or a folder, once."""
        if self._exists(f"data/{name}.tar"):
            return
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(path, path.name)
            file.seek(0)
            with self._reached(), self._files.open(self._at(f"data/{name}.tar"), "wb") as there:
                shutil.copyfileobj(file, there, 1 << 24)

    def bring_data(self, name: str) -> Path | None:
        """Where this machine keeps the data that was offered; None if none was."""
        place = self.root / "data" / name
        with one_at_a_time(place):
            if not place.exists() and self._exists(f"data/{name}.tar"):
                coming = Path(tempfile.mkdtemp(dir=place.parent, prefix=".tmp-"))
                with self._reached(), self._files.open(self._at(f"data/{name}.tar"), "rb") as there:  # noqa: SIM117
                    with tarfile.open(fileobj=there, mode="r|") as archive:
                        archive.extractall(coming, filter="data")
                coming.rename(place)
        return next(place.iterdir()) if place.exists() else None

    @cached_property
    def _files(self) -> Any:
        """The file system behind the URL. What it lists is not remembered: others write there."""
        from fsspec import get_filesystem_class

        protocol = self.url.partition("://")[0]
        try:
            kind = get_filesystem_class(protocol)
        except ImportError as error:
            hint = "pip install 'sizewise[s3]' for s3://, or the package that it names; here and on every node"
            raise MissingExtraError(f"{self.url} cannot be reached: {error}", hint=hint) from error
        except ValueError as error:
            raise UsageError(
                f"nothing reaches URLs of the kind {protocol!r}", hint="try s3://, gs:// or az://"
            ) from error
        return kind(use_listings_cache=False, skip_instance_cache=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _at(self, name: str) -> str:
        return f"{self.url}/{name}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever is wrong with the network or the rights there, as one error that says where."""
        try:
            yield
        except SizewiseError:
            raise
        except Exception as error:  # each library behind fsspec has errors of its own
            raise StoreError(
                f"cannot reach {self.url}: {type(error).__name__}: {error}",
                hint="check the address and the credentials on every machine; the same command goes on",
            ) from error

    def _get(self, name: str) -> bytes | None:
        with self._reached(), _absent_allowed():
            data: bytes = self._files.cat_file(self._at(name))
            return data
        return None

    def _put(self, name: str, data: bytes) -> None:
        with self._reached():
            self._files.pipe_file(self._at(name), data)

    def _create(self, name: str, data: bytes) -> bool:
        """Put `data` where nothing is yet; whether nothing was."""
        with self._reached():
            try:
                self._files.pipe_file(self._at(name), data, mode="create")
            except OSError:  # servers say in several ways that something is there
                if self._files.exists(self._at(name)):
                    return False
                raise
        return True

    def _exists(self, name: str) -> bool:
        with self._reached():
            return bool(self._files.exists(self._at(name)))

    def _listed(self, folder: str) -> list[str]:
        with self._reached(), _absent_allowed():
            return [PurePosixPath(path).name for path in self._files.ls(self._at(folder), detail=False)]
        return []

    def _fetch(self, name: str) -> None:
        """Bring one file of the study to this machine as it is now, if it is there."""
        if (data := self._get(name)) is not None:
            write_atomic(self.root / name, data)

    def _publish(self, key: str) -> None:
        folder, packed = self.trial_folder(key), io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name in (*json.loads((folder / "run.json").read_bytes())["files"], "run.json"):
                archive.add(folder / name, name)
        self._create(_archive(key), packed.getvalue())

    def _unpack(self, key: str, data: bytes) -> None:
        """As everywhere in a study, a trial is finished when its `run.json` appears."""
        folder = self.trial_folder(key)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:  # `run.json` was packed last
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None, "an archive of files"
                write_atomic(folder / PurePosixPath(member.name).name, content.read())


def _of_worker(url: str) -> Shared:
    """The study as a worker on any machine has it."""
    folder = cache_folder("studies") / hashlib.sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return Shared(folder, url)


def _archive(key: str) -> str:
    return f"trials/{key}.tar"


@contextmanager
def _absent_allowed() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return


__all__ = ["Shared"]
