"""Tensors as clients send them, to arrays and back: JSON arrays, binary tensors, strings behind their lengths.

Datatypes and layouts are those of the Open Inference Protocol, version 2, and its binary tensor extension:
https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.serve.refusals import Invalid

DATATYPES = {
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
"""Numbers, all of them little-endian."""

TEXT = "BYTES"


@dataclass(frozen=True)
class Tensor:
    """What a client sent, not yet looked into.

    Attributes:
        raw: its values as bytes; None where they are in `data`.
        data: its values as a list, flat or nested.
    """

    name: str
    datatype: str
    shape: Sequence[Any]
    raw: bytes | None = None
    data: Sequence[Any] | None = None

    def numbers(self) -> NDArray[Any]:
        """The values as an array of the tensor's shape.

        Raises:
            Invalid: they are no numbers of the tensor's datatype, or not as many as its shape holds.
        """
        if self.datatype not in DATATYPES:
            raise Invalid(f"input {self.name!r} has datatype {self.datatype!r}; expected one of {', '.join(DATATYPES)}")
        values = self._from_raw(self.raw) if self.raw is not None else self._from_list(self.data or ())
        if values.size != math.prod(self.shape):
            held = f"its shape {list(self.shape)} holds {math.prod(self.shape)}"
            raise Invalid(f"input {self.name!r} has {values.size} values; {held}")
        return values.reshape(self.shape)

    def texts(self) -> list[str]:
        """The strings of a tensor of BYTES, shape (n,) or (n, 1).

        Raises:
            Invalid: it is no such tensor, or one of them is empty.
        """
        texts = [self._text(item, number) for number, item in enumerate(self._strings())]
        if not all(map(_is_text, texts)):
            raise Invalid(f"input {self.name!r} must hold texts, none of them empty")
        return texts

    def contents(self) -> list[bytes]:
        """The files in a tensor of BYTES, shape (n,) or (n, 1): as they are, or as base64 in JSON.

        Raises:
            Invalid: it is no such tensor.
        """
        data = self._strings()
        try:
            return [item if isinstance(item, bytes) else base64.b64decode(item, validate=True) for item in data]
        except (TypeError, ValueError) as error:
            raise Invalid(f"input {self.name!r} is not base64: {error}") from error

    def _strings(self) -> list[Any]:
        """The members of a tensor of BYTES, at least one."""
        shape = list(self.shape)
        if self.datatype != TEXT or not all(type(size) is int for size in shape) or shape[1:] not in ([], [1]):
            raise Invalid(f"input {self.name!r} is {self.datatype} {shape}; expected BYTES [n] or [n, 1]")
        data = self._from_length_prefixed(self.raw) if self.raw is not None else _flat(self.data or ())
        if len(data) != shape[0] or not data:
            raise Invalid(f"input {self.name!r} has {len(data)} members and shape {shape}; expected at least one")
        return data

    def _from_raw(self, raw: bytes) -> NDArray[Any]:
        if len(raw) % np.dtype(DATATYPES[self.datatype]).itemsize:
            raise Invalid(f"input {self.name!r} is {len(raw)} bytes of {self.datatype}, not a whole number of values")
        return np.frombuffer(raw, DATATYPES[self.datatype])

    def _from_list(self, data: Sequence[Any]) -> NDArray[Any]:
        try:
            values = np.array(data)
        except ValueError as error:
            expected = "expected a flat array, or one nested as its shape"
            raise Invalid(f"the data of input {self.name!r} is ragged; {expected}") from error
        if values.dtype.kind not in "iuf":
            raise Invalid(f"the data of input {self.name!r} holds something other than numbers")
        with np.errstate(invalid="ignore", over="ignore"):
            converted = values.astype(DATATYPES[self.datatype])
        if converted.dtype.kind != "f" and not np.array_equal(converted, values):
            raise Invalid(f"the data of input {self.name!r} holds numbers that are not {self.datatype}")
        return converted

    def _from_length_prefixed(self, raw: bytes) -> list[bytes]:
        members, start = [], 0
        while start < len(raw):
            end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
            if end > len(raw):
                raise Invalid(f"input {self.name!r} ends within a member")
            members.append(raw[start + 4 : end])
            start = end
        return members

    def _text(self, item: Any, number: int) -> Any:
        try:
            return item.decode() if isinstance(item, bytes) else item
        except UnicodeDecodeError as error:
            raise Invalid(f"text {number} of input {self.name!r} is not UTF-8: {error}") from error


def datatype(values: NDArray[Any]) -> str:
    """The datatype that an answer is sent in."""
    return TEXT if values.dtype == object else "INT64" if values.dtype.kind == "i" else "FP32"


def to_raw(values: NDArray[Any]) -> bytes:
    """An answer's bytes; strings each behind their length."""
    if values.dtype != object:
        return values.astype(DATATYPES[datatype(values)]).tobytes()
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in map(str.encode, values.ravel().tolist()))


def listed(values: NDArray[Any]) -> list[Any] | NDArray[Any]:
    """An answer's values for JSON, flat. Numbers that are not finite become null there, for which JSON has no word."""
    return values.ravel().tolist() if values.dtype == object else np.ascontiguousarray(values).ravel()


def _is_text(value: Any) -> bool:
    """Whether it is a string that says something. JSON can write half a character, which no encoding has."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= char <= "\udfff" for char in value)


def _flat(data: Sequence[Any]) -> list[Any]:
    """Values of a list of lists."""
    return [value for row in data for value in (row if isinstance(row, list) else [row])]
