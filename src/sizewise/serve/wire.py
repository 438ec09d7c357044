"""The protocol's requests and answers in JSON, with or without binary tensors behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

from sizewise.errors import extra
from sizewise.serve.refusals import Invalid
from sizewise.serve.tensors import Tensor, datatype, listed, to_raw

with extra("serve", needed_for="serving a model"):
    import orjson

T = TypeVar("T")
Json = dict[str, Any]

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header that says where the JSON ends and binary tensors begin."""


@dataclass(frozen=True)
class Requested:
    """An output that is asked for, and whether as bytes."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Inference:
    """What a client asks of a model, whichever way it came.

    Attributes:
        id: what the client calls it; None where it does not.
        outputs: what to answer; everything when empty.
        binary: whether an output that is not in `outputs` is sent as bytes.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Requested, ...] = ()
    id: str | None = None
    binary: bool = False

    def requested(self, known: Sequence[str]) -> tuple[Requested, ...]:
        """The outputs to answer, of those that the model has.

        Raises:
            Invalid: one is asked for that it has not.
        """
        if unknown := {output.name for output in self.outputs} - set(known):
            raise Invalid(f"unknown outputs {sorted(unknown)}; expected {list(known)}")
        return self.outputs or tuple(Requested(name, self.binary) for name in known)


@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Attributes:
        values: of each output asked for, by name.
    """

    model: str
    version: str
    id: str | None
    outputs: tuple[Requested, ...]
    values: Mapping[str, NDArray[Any]]


def parse(body: bytes, header_length: str | None) -> Inference:
    """A request's body, with the value of its header `HEADER_LENGTH`.

    Raises:
        Invalid: it is no request of the protocol; whether the model can answer it is another question.
    """
    request, binary = _split(body, header_length)
    default = _member(_member(request, "parameters", dict, {}), "binary_data_output", bool, False)
    inputs = tuple(_tensor(tensor, binary) for tensor in _member(request, "inputs", list))
    outputs = tuple(_requested(output, default) for output in _member(request, "outputs", list, []))
    identity = _member(request, "id", str) if "id" in request else None
    return Inference(inputs, outputs, identity, default)


def render(answer: Answer) -> tuple[bytes, int | None]:
    """An answer's body, and the length of its JSON where bytes follow it."""
    tensors, raws = [], []
    for output in answer.outputs:
        values = answer.values[output.name]
        tensor: Json = {"name": output.name, "datatype": datatype(values), "shape": list(values.shape)}
        if output.binary:
            raws.append(to_raw(values))
            tensors.append(tensor | {"parameters": {"binary_data_size": len(raws[-1])}})
        else:
            tensors.append(tensor | {"data": listed(values)})
    identity = {} if answer.id is None else {"id": answer.id}
    header = {"model_name": answer.model, "model_version": answer.version, **identity, "outputs": tensors}
    head = orjson.dumps(header, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join((head, *raws)), len(head) if raws else None


def json_length(body: bytes, header_length: str | None) -> int:
    """Bytes of a request's JSON by the value of its header `HEADER_LENGTH`; -1 where that is no number."""
    if header_length is None:
        return len(body)
    return int(header_length) if _is_number(header_length) else -1


def _split(body: bytes, header_length: str | None) -> tuple[Json, bytes]:
    """The JSON part of a request and the bytes that follow it."""
    length = json_length(body, header_length)
    if not 0 <= length <= len(body):
        raise Invalid(f"{HEADER_LENGTH} is {header_length!r}; expected 0 to {len(body)}, the length of the body")
    try:
        request = _json(body[:length])
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise Invalid(f"the request is a JSON {_JSON_TYPES.get(type(request), 'null')}; expected an object")
    return request, body[length:]


def _json(text: bytes) -> Any:
    """What clients in Python write for numbers that are not finite is no JSON, and understood."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _is_number(text: str) -> bool:
    # More digits than any length has would be refused by `int` itself.
    return text.isascii() and text.isdecimal() and len(text) < 20


def _tensor(tensor: Any, binary: bytes) -> Tensor:
    """One input. Models have one, so all bytes behind the JSON are its own."""
    name, kind = _member(tensor, "name", str), _member(tensor, "datatype", str)
    shape = _member(tensor, "shape", list)
    size = _member(_member(tensor, "parameters", dict, {}), "binary_data_size", int, 0)
    if size != len(binary):
        raise Invalid(f"input {name!r} is {size} bytes of {kind}; {len(binary)} bytes follow the JSON")
    if size:
        return Tensor(name, kind, shape, raw=binary)
    return Tensor(name, kind, shape, data=_member(tensor, "data", list))


def _requested(output: Any, default: bool) -> Requested:
    name = _member(output, "name", str)
    return Requested(name, _member(_member(output, "parameters", dict, {}), "binary_data", bool, default))


_JSON_TYPES = {dict: "object", list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def _member(record: Any, key: str, kind: type[T], default: T | None = None) -> T:
    """A member of a JSON object, if it has the type that it must have."""
    if not isinstance(record, dict):
        raise Invalid(f"{record!r:.60} should be an object with the member {key!r}")
    value = record.get(key, default)
    if not isinstance(value, kind):
        given = f"is {value!r:.60}" if key in record else "is missing"
        raise Invalid(f"the member {key!r} {given}; expected a JSON {_JSON_TYPES[kind]}")
    return value
