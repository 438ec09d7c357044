"""Why a step stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UnavailableError(Exception):
    """This model cannot be traced or compiled here; the message says why. Never shown: it is recorded in the run."""


@contextmanager
def explained() -> Iterator[None]:
    """Whatever stops a faster way, of a user's module or a compiler, is a reason not to take it and no more."""
    try:
        yield
    except UnavailableError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise UnavailableError(f"{type(error).__name__}: {lines[0]}") from error
