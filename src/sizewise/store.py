"""The study folder: content-addressed trials, atomic writes, one writer at a time.

Every file appears whole or not at all: it is written beside its place, flushed to the disk and renamed. A trial is
finished exactly when its `run.json` exists, and that file holds the sha256 of every other file of the trial.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sizewise.errors import IntegrityError, StoreError, UsageError
from sizewise.records import Failure, Point, Run, Trial, from_json, to_json

T = TypeVar("T")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Whoever makes a file that others would make too holds this meanwhile; they wait."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        yield


def write_atomic(path: Path, data: bytes | Callable[[Path], None]) -> None:
    """Put `data` (bytes, or a function that writes a file at the path it is given) at `path`, whole or not at all.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            if callable(data):
                data(temporary)
            else:
                temporary.write_bytes(data)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a StoreError that names the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}",
            hint="free some space or choose another folder with --out; finished trials are kept",
        ) from error


def write_json(path: Path, record: Any) -> None:
    """Write a record, or a container of records, as indented JSON, atomically."""
    write_atomic(path, (json.dumps(to_json(record), indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, kind: type[T]) -> T:
    """Read a record of class `kind`.

    Raises:
        IntegrityError: the file is not the JSON of such a record.
    """
    try:
        return from_json(kind, json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise
    except Exception as error:  # cattrs raises groups of whatever the fields raised
        raise IntegrityError(
            f"{path} is damaged: {type(error).__name__}: {str(error).splitlines()[0]}",
            hint="delete the file and run the same command again; what it held will be made anew",
        ) from error


class Store:
    """One study folder.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def __reduce__(self) -> tuple[Any, ...]:
        # In the process that it travels to, another folder may be the current one.
        return type(self), (self.root.absolute(),)

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard event files."""
        return self.root / "tensorboard"

    def trial_folder(self, key: str) -> Path:
        """Folder of one trial."""
        return self.root / "trials" / key

    def checkpoint(self, key: str) -> Path:
        """Where a trial under way is kept."""
        return self.trial_folder(key) / "checkpoint.safetensors"

    def weights(self, digest: str) -> Path:
        """The study's own copy of trained weights that trials start from."""
        return self.root / "starts" / f"{digest}.safetensors"

    def trunk_folder(self, key: str) -> Path:
        """Folder of the states that runs of different lengths branch off."""
        return self.root / "trunks" / key

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing. The operating system releases it when the process ends, however it ends.

        Raises:
            StoreError: another process holds it, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        with writable(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            guard = FileLock(self.root / ".lock", timeout=0)
            try:
                guard.acquire()
            except Timeout as error:
                raise StoreError(
                    f"another sizewise process is writing to {self.root}",
                    hint="wait for it to end, or choose another folder with --out",
                ) from error
        try:
            self._tidy()
            yield
        finally:
            guard.release()

    def _tidy(self) -> None:
        """Remove what a killed process was in the middle of writing; nobody else writes while the lock is held."""
        for path in self.root.rglob(".tmp-*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def load(self, name: str, kind: type[T]) -> T:
        """Read the record of a stage, for example `store.load("law.json", Law)`.

        Raises:
            UsageError: that stage has not run in this study.
            IntegrityError: the file is damaged.
        """
        try:
            return read_json(self.root / name, kind)
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.root} has no {name}",
                hint="run the stage that makes it first; `sizewise run` runs all stages in order",
            ) from error

    def save(self, name: str, record: Any) -> None:
        """Write the record of a stage, atomically."""
        write_json(self.root / name, record)

    def save_run(self, run: Run) -> None:
        """Publish a finished trial. The other files of its folder must be in place already."""
        folder = self.trial_folder(run.trial.key)
        lines = "".join(json.dumps(to_json(point)) + "\n" for point in run.curve)
        write_atomic(folder / "curves.jsonl", lines.encode())
        write_json(folder / "trial.json", run.trial)
        files = {name: sha256(folder / name) for name in ("trial.json", "curves.jsonl", *run.files)}
        record = to_json(run) | {"files": files, "curve": []}
        write_json(folder / "run.json", record)

    def save_failure(self, failure: Failure) -> None:
        """Keep why a trial has no run."""
        write_json(self.trial_folder(failure.trial.key) / "failure.json", failure)

    def find_failure(self, trial: Trial) -> Failure | None:
        """Why a trial has no run, as far as it was tried."""
        path = self.trial_folder(trial.key) / "failure.json"
        return read_json(path, Failure) if path.exists() else None

    def clear_failure(self, trial: Trial) -> None:
        """Forget it, since the trial is tried again."""
        (self.trial_folder(trial.key) / "failure.json").unlink(missing_ok=True)

    def find_run(self, trial: Trial) -> Run | None:
        """The finished run of a trial, or None. A damaged folder is set aside, named on stderr, and counts as None."""
        folder = self.trial_folder(trial.key)
        if not (folder / "run.json").exists():
            return None
        try:
            run = self._read_run(folder)
            if run.trial != trial:
                raise IntegrityError(f"{folder} holds another trial", hint="it was changed by hand")
        except (IntegrityError, OSError) as error:
            self._set_aside(folder, error)
            return None
        return run

    def run(self, key: str) -> Run:
        """The finished run with this key.

        Raises:
            IntegrityError: the folder is missing or damaged.
        """
        try:
            return self._read_run(self.trial_folder(key))
        except FileNotFoundError as error:
            raise IntegrityError(
                f"{self.root} has no finished trial {key}",
                hint=f"`sizewise train {self.root}` trains what is missing",
            ) from error

    def runs(self) -> tuple[Run, ...]:
        """Every finished run of the study, damaged ones set aside."""
        found = []
        for folder in sorted((self.root / "trials").glob("*")):
            if (folder / "run.json").exists() and "damaged" not in folder.name:
                try:
                    found.append(self._read_run(folder))
                except (IntegrityError, OSError) as error:
                    self._set_aside(folder, error)
        return tuple(found)

    def _read_run(self, folder: Path) -> Run:
        data = read_json(folder / "run.json", dict[str, Any])
        for name, expected in data.get("files", {}).items():
            if not (folder / name).exists() or sha256(folder / name) != expected:
                raise IntegrityError(f"{folder / name} is damaged or missing", hint="the trial will be trained again")
        curve = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
        try:
            return from_json(Run, data | {"curve": [to_json(from_json(Point, point)) for point in curve]})
        except Exception as error:
            raise IntegrityError(f"{folder / 'run.json'} is damaged", hint="the trial will be trained again") from error

    def _set_aside(self, folder: Path, error: Exception) -> None:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
            number += 1
        folder.rename(aside)
        print(f"warning: {str(error).splitlines()[0]}; set aside as {aside}", file=sys.stderr)

    def keep(self, path: Path, state: bytes) -> None:
        """Keep the state of a run under way, for whoever goes on with it."""
        write_atomic(path, state)

    def drop(self, path: Path) -> None:
        """Forget a state that nobody needs any more."""
        path.unlink(missing_ok=True)

    def once(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """The record `name`, made by the first who asks for it; others wait meanwhile and get the same."""
        place = self.root / name
        with one_at_a_time(place):
            if not place.exists():
                write_json(place, make())
            return read_json(place, kind)

    def reserved(self, key: str) -> AbstractContextManager[None]:
        """Held by whoever trains a trial. A second process, perhaps of a machine thought lost, waits for the first."""
        return one_at_a_time(self.root / "locks" / key)

    # What a folder that all processes see does not need, and `Shared`, whose processes do not, does.

    def offer(self, trials: Sequence[Trial]) -> None:
        """Give workers what these trials start from."""

    def bring(self, trial: Trial) -> None:
        """Fetch, in a worker, what there is of a trial and what it starts from."""

    def collect(self, *keys: str) -> None:
        """Take these trials into the folder, as far as workers finished them."""

    def offer_data(self, name: str, path: Path) -> None:
        """Give workers the user's data, a file or a folder."""

    def bring_data(self, name: str) -> Path | None:
        """Where a worker finds the data that was offered; None if none was."""
        return None

    def clear_trial(self, key: str) -> None:
        """Remove a trial folder, if there is one."""
        shutil.rmtree(self.trial_folder(key), ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
