"""Names of weights to files: a safetensors file, a folder that holds one, a hub's repository, or a study's runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from sizewise.errors import DataError, UsageError
from sizewise.records import Plan, Run
from sizewise.starts import hub
from sizewise.starts.starts import File, Starts
from sizewise.store import Store, sha256

SELECT, HUB = "select:", "hf:"
FORMS = "a .safetensors file, a folder with model.safetensors, hf:owner/name, a study's folder, or folder:trial"
WEIGHTS = "model.safetensors"


def find(name: str, fingerprint: str) -> Starts | None:
    """What a study's `start` names; None where it names nothing.

    Args:
        name: one of `FORMS`; with `select:` in front each width is cut from it, of a study from its largest width.
        fingerprint: of the study's own data, whose tokens another study may share.

    Raises:
        UsageError: it names nothing that is there.
        DataError: the weights cannot be had, or a study has no runs.
    """
    if not name:
        return None
    what = name.removeprefix(SELECT)
    cut = what != name
    if what.startswith(HUB):
        return Starts(name, cut, _one(hub.download(what.removeprefix(HUB))))
    folder, _, key = what.rpartition(":")
    if folder and (Path(folder) / "trials").is_dir():
        return Starts(name, cut, _run(Path(folder), key, fingerprint))
    if (Path(what) / "trials").is_dir():
        return Starts(name, cut, _study(Path(what), cut, fingerprint))
    path = Path(what) / WEIGHTS if Path(what).is_dir() else Path(what)
    if not path.is_file():
        raise UsageError(f"there are no weights to start from at {what!r}", hint=f"give {FORMS}")
    return Starts(name, cut, _one(path))


def _one(path: Path) -> Callable[[int, int], File]:
    found = File(path, sha256(path))
    return lambda width, seed: found


def _run(folder: Path, key: str, fingerprint: str) -> Callable[[int, int], File]:
    found = _file(Store(folder), Store(folder).run(key), fingerprint)
    return lambda width, seed: found


def _study(folder: Path, cut: bool, fingerprint: str) -> Callable[[int, int], File]:
    """Of each width the run of the same seed, or else the one that validates best."""
    store = Store(folder)
    runs = [run for trial in store.load("plan.json", Plan).trials if (run := store.find_run(trial))]
    if not runs:
        raise DataError(f"{folder} has no finished runs to start from", hint=f"sizewise train {folder}")
    widths = sorted({run.trial.width for run in runs})

    @cache
    def file(width: int, seed: int) -> File:
        wanted = max(widths) if cut else width
        if wanted not in widths:
            raise DataError(
                f"{folder} has no run of width {width} to start from; its widths are {', '.join(map(str, widths))}",
                hint=f"take these widths, or cut all from its largest: start = 'select:{folder}'",
            )
        group = [run for run in runs if run.trial.width == wanted]
        best = min(group, key=lambda run: (run.trial.seed != seed, run.validation.loss))
        return _file(store, best, fingerprint)

    return file


def _file(store: Store, run: Run, fingerprint: str) -> File:
    path = store.trial_folder(run.trial.key) / WEIGHTS
    return File(path, run.files[WEIGHTS], run.trial.fingerprint == fingerprint)
