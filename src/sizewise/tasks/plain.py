"""Text files as strings, whoever wrote them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from sizewise.errors import DataError
from sizewise.records import Exclusion


def read(path: Path, *, latin: bool = False) -> tuple[str, bool]:
    """The text of a file, in Unicode's composed form (NFC), without a byte order mark, lines ended by a line feed.

    Args:
        latin: read what is not UTF-8 as Latin-1, in which every byte is a character.

    Returns:
        the text, and whether it had to be read as Latin-1.

    Raises:
        DataError: it cannot be read, holds bytes that no text has, or is not UTF-8; the byte is named.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    if (at := raw.find(b"\0")) >= 0:
        raise DataError(f"{path} is no text: byte {at:,} is 0", hint="save it as UTF-8 text, or leave it out")
    try:
        return _tidy(raw.decode("utf-8-sig")), False
    except UnicodeDecodeError as error:
        if latin:
            return _tidy(raw.decode("latin-1")), True
        raise DataError(
            f"{path} is not UTF-8: byte {error.start:,} is 0x{raw[error.start]:02x}",
            hint="save it as UTF-8, for example: iconv -f latin1 -t utf-8",
        ) from error


def as_latin(path: Path, lines: int) -> Exclusion:
    """The note on a file of so many lines that was read as Latin-1."""
    return Exclusion(f"lines of {path.name} kept, but read as Latin-1: it is not UTF-8", lines, ())


def _tidy(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
