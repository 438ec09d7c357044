"""Records as JSON, and back."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any, TypeVar

from sizewise.methods import KINDS, Method, Training

T = TypeVar("T")


@cache
def _converter() -> Any:
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(float, lambda value, _: math.nan if value is None else float(value))
    for union in (Training, Method):
        converter.register_structure_hook(union, lambda value, _: converter.structure(value, KINDS[value["kind"]]))
    return converter


def to_json(record: Any) -> Any:
    """A record, or a container of records, as plain JSON values."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(v) for v in record]
    if isinstance(record, float) and not math.isfinite(record):
        return None  # JSON has no NaN: a value that does not exist is null, and null is read as NaN
    return record


def from_json(kind: type[T], data: Any) -> T:
    """The record of class `kind` that `to_json` wrote.

    Raises:
        Exception: cattrs' errors, when `data` has unknown, missing or ill-typed fields.
    """
    result: T = _converter().structure(data, kind)
    return result
