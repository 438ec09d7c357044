"""The exception tree. Every message says what happened, with the values; every `hint` says what to do.

SizewiseError            exit 1
├── UsageError           exit 2   the command line or the configuration is wrong
├── DataError            exit 1   the data cannot be learned from as it is
├── StoreError           exit 1   the study folder cannot be read or written
├── IntegrityError       exit 1   a file is not what its manifest says it is
├── ParityError          exit 1   an exported model disagrees with the model it came from
├── ConversionError      exit 1   a runtime does not take a model as it is
├── MissingExtraError    exit 1   an optional dependency is not installed
└── BudgetError          exit 3   nothing measured can satisfy the budget
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

INSUFFICIENT = 3
"""Exit code of a command that did its work, where the budget is unmet or the evidence does not suffice."""


class SizewiseError(Exception):
    """Base of every error sizewise raises on purpose.

    Args:
        message: what happened, with the offending values.
        hint: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive pickling by default, and these cross process boundaries.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[SizewiseError], message: str, hint: str) -> SizewiseError:
    return kind(message, hint=hint)


class UsageError(SizewiseError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class DataError(SizewiseError):
    """The data cannot be learned from as it is."""


class StoreError(SizewiseError):
    """The study folder cannot be read or written."""


class IntegrityError(SizewiseError):
    """A file is not what its manifest says it is."""


class ParityError(SizewiseError):
    """An exported model disagrees with the model it came from."""


class ConversionError(SizewiseError):
    """A runtime does not take a model as it is."""


class MissingExtraError(SizewiseError):
    """An optional dependency is not installed."""


class BudgetError(SizewiseError):
    """Nothing measured can satisfy the budget."""

    exit_code = INSUFFICIENT


@contextmanager
def extra(name: str, *, needed_for: str) -> Iterator[None]:
    """Turn an ImportError inside the block into the pip line that fixes it.

    Args:
        name: the extra in `pip install 'sizewise[name]'`.
        needed_for: what the user was trying to do, for the message.
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or str(error)
        raise MissingExtraError(
            f"{needed_for} needs the package {missing!r}, which is not installed",
            hint=f"pip install 'sizewise[{name}]'",
        ) from error
