"""The study that a command is about, and its answer on standard output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.errors import IntegrityError, StoreError, UsageError

if TYPE_CHECKING:
    from sizewise.config import Study
    from sizewise.study import Listener, Workspace


def show(options: argparse.Namespace, records: object, text: str) -> int:
    """Print the records of a verb, as JSON or as text made from the same records."""
    from sizewise.records import to_json

    print(json.dumps(to_json(records), indent=1, allow_nan=False) if options.json else text)
    return 0


def workspace(options: argparse.Namespace, listener: Listener) -> Workspace:
    """The study that STUDY and the flags describe: an existing one, continued or changed, or a new one."""
    from sizewise import config
    from sizewise.study import Workspace

    flags = overrides(options)
    given = Path(options.study)
    if (given / "study.toml").is_file():
        root, base = Path(options.out or given), config.read(given / "study.toml")
        if not flags and root == given:
            return _noted(Workspace.open(root, listener))
    elif given.suffix == ".toml":
        root, base = Path(options.out or Path("runs") / given.stem), config.read(given)
    else:
        root, base = Path(options.out or Path("runs") / study_name(options.study)), config.Study(task=options.study)
    return _noted(Workspace.create(changed(base, flags), root, listener))


def _noted(space: Workspace) -> Workspace:
    """The same, when the user was told what its data leaves out."""
    from sizewise import console

    for line in console.left_out(space.task.skipped):
        print(f"note: {line}", file=sys.stderr)
    return space


def remember(space: Workspace) -> None:
    """Leave the study's answer to later ones; a library that cannot be written is said, and no reason to stop."""
    try:
        space.remember()
    except (StoreError, IntegrityError) as error:
        print(f"note: not kept for later studies: {error.message}", file=sys.stderr)


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The study keys that the flags set, nested as in study.toml."""
    nested: dict[str, Any] = {}
    flat = {key[4:]: value for key, value in vars(options).items() if key.startswith("set:") and value is not None}
    for switch in ("tune", "adaptive"):
        if getattr(options, switch, None) is not None:
            flat[f"sweep.{switch}"] = getattr(options, switch)
    if getattr(options, "no_probes", False):
        flat["sweep.probes"] = False
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def changed(base: Study, flags: dict[str, Any]) -> Study:
    """A study with the keys of `overrides` set."""
    from sizewise import config
    from sizewise.records import to_json

    merged = to_json(base)
    for key, value in flags.items():
        merged[key] = merged[key] | value if isinstance(value, dict) else value
    return config.structure(merged, "the command line")


def study_name(task: str) -> str:
    """What the study of a task is called, if nothing else is said."""
    return Path(task).stem or "study"


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Workspace]:
    """The study in an existing folder, locked for writing, with its progress shown."""
    from sizewise import console
    from sizewise.study import Workspace

    given = Path(options.study)
    known = [path for path in (given, Path("runs") / given) if (path / "study.toml").is_file()]
    if not known:
        raise UsageError(f"there is no study in {given}", hint=f"make one first: sizewise run {given}")
    with console.progress() as listener:
        space = Workspace.open(known[0], listener)
        with space.store.lock():
            yield space
