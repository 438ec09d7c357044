"""The command line: `sizewise VERB STUDY --flag value`.

Data goes to stdout (`--json` on every verb), messages and progress to stderr. Exit codes: 0 done, 1 error, 2 usage,
3 finished but the budget is unmet or the evidence insufficient. Nothing heavy is imported before a verb needs it.

    values.py       what a flag says, as a value
    arguments.py    verbs, flags and what they mean
    studies.py      the study that a command is about
    verbs.py        what each verb does; fitting.py and serving.py the two that are not about a study alone
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sizewise.cli.arguments import VERBS, parser
from sizewise.cli.verbs import HANDLERS, launched
from sizewise.errors import INSUFFICIENT, SizewiseError, UsageError

__all__ = ["UNREAD", "VERBS", "main", "parser"]

INTERRUPTED = 130
UNREAD = 141
"""As of a process that wrote to a pipe that nobody reads any more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the process's exit code."""
    root = parser()
    options = root.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"sizewise {version('sizewise')}")
        return 0
    if options.verb is None:
        root.print_help()
        return UsageError.exit_code
    try:
        if launched() and options.verb != "train":
            raise UsageError(
                f"{options.verb} is not for several workers",
                hint=f"train under torchrun, and {options.verb} in one process: trained models are not trained again",
            )
        code = HANDLERS[options.verb](options)
        if code == INSUFFICIENT:
            print("note: exit code 3: the budget is unmet, or the evidence does not suffice to decide", file=sys.stderr)
        return code
    except SizewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
