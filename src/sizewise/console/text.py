"""Numbers, tables and lists as text."""

from __future__ import annotations

from collections.abc import Sequence

from sizewise.records import Estimate, Exclusion

TEXT_WIDTH = 120


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the right, the first to the left."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def headed(what: str, status: str, reason: str) -> str:
    """A question with its standing; the reason of a law that holds was given with the law."""
    return f"{what}: {status}" if status == "supported" else f"{what}: {status}\n{reason}"


def made(e: Estimate) -> str:
    """How an estimate was made, and from how many runs."""
    return f"{e.method}, {e.n:,} runs"


def interval(e: Estimate) -> str:
    """A value with its interval, if it has one."""
    return f"{e.value:.4g} {ends(e)}" if e.low == e.low else f"{e.value:.4g}"


def ends(e: Estimate) -> str:
    """An interval alone."""
    return f"[{e.low:.4g}, {e.high:.4g}]" if e.low == e.low else "none"


def percent(value: float) -> str:
    """A share."""
    return f"{value:.1%}" if value == value else "none"


def number(value: float) -> str:
    """A count for people, such as 7e+09 or 1234."""
    return f"{value:,.0f}" if 100 <= value < 1e6 and value == round(value) else f"{value:.4g}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def excluded_rows(e: Exclusion) -> str:
    """Which rows of a table were left out."""
    more = f" and {e.count - len(e.rows):,} more" if e.count > len(e.rows) else ""
    return f"row{'s' if e.count > 1 else ''} {', '.join(f'{row:,}' for row in e.rows)}{more}"
