"""Numbers as people write them in tables: 1.2e9, 7B, 300M, 1,234,567, 12 %."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import DataError

Array = NDArray[np.float64]
Cell = object
"""What a file holds in one place: bytes or text, a number, or None."""

SCALES = {"": 1.0, "%": 0.01, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
"""What may stand behind a number. B is a billion, never bytes: "7B" is the usual name of a model's size."""

_WRITTEN = ["", "%", "K", "M", "B", "G", "T"]
_PERCENT = _WRITTEN.index("%")
_SUFFIXED = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))\s*([KMBGT%])", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE)

EXAMPLES = 3
ABSURD = 1e3
"""A plain number below this, and as many times below the unit of the suffixes beside it, was written in that unit: 70
beside 7B. Larger ones may be what they say: 125000000 beside 7B."""


def parse(text: str) -> tuple[float, str]:
    """A number and the suffix behind it, already multiplied in; NaN when the text is no number.

    Accepted are what `float` writes, commas between thousands, one of K M B G T (thousand to trillion, upper or lower
    case, B and G the same), and %, which makes a share. Bytes (KB, MiB) and other units are not numbers.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text), ""
    if _GROUPED.fullmatch(text):
        return float(text.replace(",", "")), ""
    if found := _SUFFIXED.fullmatch(text):
        suffix = found[2].upper()
        return (float(found[1]) / 100 if suffix == "%" else float(found[1]) * SCALES[suffix]), suffix
    return math.nan, ""


@dataclass
class Numbers:
    """One column of numbers, added block by block.

    Attributes:
        name: the column's name in the file.
        outcome: whether it is a loss or an error: there % is a share, and a comma would be a decimal comma.
        strange: the first cells that are no numbers, as they were written.
    """

    name: str
    outcome: bool = False
    strange: list[str] = field(default_factory=list)
    _values: list[Array] = field(default_factory=list)
    _suffixes: list[NDArray[np.uint8] | None] = field(default_factory=list)

    def add(self, cells: Sequence[Cell] | NDArray[np.generic]) -> None:
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "iuf":
            self._keep(cells.astype(float), None)
            return
        try:
            if bool in set(map(type, cells)):
                raise TypeError("true is no number")
            self._keep(np.fromiter(map(float, cells), float, count=len(cells)), None)
        except (TypeError, ValueError, OverflowError):
            self._add_written(cells)

    def _add_written(self, cells: Iterable[Cell]) -> None:
        known: dict[Cell, tuple[float, str]] = {}
        found = []
        for cell in cells:
            if isinstance(cell, bool | list | dict):  # JSON's other values; a list has no hash
                found.append(self._odd(str(cell)))
                continue
            if cell not in known:
                known[cell] = self._read(cell)
            found.append(known[cell])
        suffixes = np.array([_WRITTEN.index(suffix) for _, suffix in found], dtype=np.uint8)
        self._keep(np.array([value for value, _ in found], dtype=float), suffixes if suffixes.any() else None)

    def _read(self, cell: Cell) -> tuple[float, str]:
        text = written(cell)
        value, suffix = parse(text)
        ill = "," in text if self.outcome else suffix == "%"
        return self._odd(text) if ill or math.isnan(value) else (value, suffix)

    def _odd(self, text: str) -> tuple[float, str]:
        if len(self.strange) < EXAMPLES:
            self.strange.append(text.strip()[:40])
        return math.nan, ""

    def _keep(self, values: Array, suffixes: NDArray[np.uint8] | None) -> None:
        self._values.append(values)
        self._suffixes.append(suffixes)

    def values(self) -> Array:
        """The column, (rows,); NaN where a cell is no number.

        Raises:
            DataError: two units are mixed.
        """
        values = np.concatenate(self._values) if self._values else np.zeros(0)
        sizes, self._values = [len(v) for v in self._values], [values]
        if any(s is not None for s in self._suffixes):
            pairs = zip(self._suffixes, sizes, strict=True)
            suffixes = [np.zeros(size, np.uint8) if s is None else s for s, size in pairs]
            self._check_units(values, np.concatenate(suffixes))
        return values

    def _check_units(self, values: Array, suffixes: NDArray[np.uint8]) -> None:
        plain = (suffixes == 0) & (values > 0)
        if self.outcome:
            if plain.any() and (suffixes == _PERCENT).any():
                raise self._mixed("with % in some rows and plain in others", values, suffixes == _PERCENT, plain)
            return
        smallest = min(SCALES[_WRITTEN[s]] for s in np.unique(suffixes) if s)
        absurd = plain & (values < min(ABSURD, smallest / ABSURD))
        if absurd.any():
            raise self._mixed("with and without a suffix, too far apart to be one unit", values, suffixes > 0, absurd)

    def _mixed(self, how: str, values: Array, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> DataError:
        places = [f"{values[rows.argmax()]:g} in row {rows.argmax() + 1:,}" for rows in (one, other)]
        rows = ", ".join(f"{row + 1:,}" for row in np.flatnonzero(other)[:10])
        return DataError(
            f"column {self.name!r} mixes units: numbers are written {how}, such as {places[0]} and {places[1]}",
            hint=f"write all of them in one unit; the rows to look at: {rows}",
        )


def written(cell: Cell) -> str:
    """A cell as text."""
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    return "" if cell is None else str(cell)
