"""An HTTP server for exported models. It speaks version 2 of the Open Inference Protocol, with binary tensors.

A model has one input, named after what a sample is: `image`, `volume`, `series` or `tokens`, raw values in any numeric
datatype. Instead of `tokens`, a model that comes with its tokenizer takes `text`, BYTES (n,) or (n, 1). It has one
output of numbers, see `runtimes.OUTPUTS`, and where these stand for words one more, BYTES (n, 1): `label`, the name of
the class with the largest logit, or `text`, what was transcribed or translated. Numbers that are not finite are null in
JSON, which has no word for them; as binary tensors they are exact.

Protocol: https://github.com/open-inference/open-inference-protocol; the binary extension is the one of Triton.
"""

from __future__ import annotations

import json
import math
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sizewise import runtimes
from sizewise.errors import UsageError, extra
from sizewise.records import Signature, to_json
from sizewise.runtimes import OUTPUTS, Config
from sizewise.runtimes.worded import Tokenised, tokenised, worded
from sizewise.tasks.problems import Session

with extra("serve", needed_for="serving a model"):
    import uvicorn
    from anyio import CapacityLimiter, to_thread
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

T = TypeVar("T")
Json = dict[str, Any]

MAX_BODY_BYTES = 64 << 20
GRACE_SECONDS = 10
"""How long requests that are being answered may take to finish after SIGTERM."""

VERSION = "1"
"""The only version of every model: a new export has a new name."""

TEXT = "text"
"""Name of the input that is given instead of tokens."""

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
PLATFORMS = {"torch": "pytorch_safetensors", "onnxruntime": "onnxruntime_onnx", "openvino": "openvino_ir"}


def announce(url: str, names: Sequence[str]) -> None:
    """Say on stderr where the models are served, and how to try one."""
    print(f"serving {', '.join(names)} at {url}; try: curl {url}/v2/models/{names[0]}", file=sys.stderr, flush=True)


def serve(
    folders: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 1,
    on_ready: Callable[[str, Sequence[str]], None] = announce,
) -> None:
    """Answer requests until SIGTERM or Ctrl+C, then finish those that have begun. Call it from the main thread.

    Args:
        folders: exported folders; each is served under its model's name.
        port: 0 picks a free one.
        threads: how many threads one inference may use.
        on_ready: called with the URL and the models' names once requests are taken.

    Raises:
        IntegrityError: a folder is not what its manifest says; nothing is served.
        UsageError: the address cannot be listened on, or two folders hold a model of the same name.
    """
    application = app(folders, threads=threads)
    listener = _listen(host, port)
    config = uvicorn.Config(
        application, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=GRACE_SECONDS
    )
    # Once drained, uvicorn raises the signal again for whoever listened before it: make that a quiet return.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            on_ready(_url(listener), application.state.names)
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous)
        listener.close()


def app(folders: Sequence[Path], *, threads: int = 1) -> Starlette:
    """The ASGI application that `serve` runs. Every folder is verified before any model is loaded.

    Raises:
        IntegrityError: a folder is not what its manifest says.
        UsageError: there is no folder, or two hold a model of the same name.
    """
    configs = [runtimes.verify(folder) for folder in folders]
    names = [config.name for config in configs]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"the models to serve are {names}", hint="give at least one folder, and each model's name only once"
        )
    sessions = [runtimes.load(folder, threads=threads) for folder in folders]
    endpoints = _Endpoints(
        {
            c.name: _Model(c, session, worded(c, folder), tokenised(c, folder), CapacityLimiter(1))
            for c, session, folder in zip(configs, sessions, folders, strict=True)
        }
    )
    application = Starlette(routes=endpoints.routes(), exception_handlers={HTTPException: _refused, Exception: _failed})
    application.state.names = names
    return application


@dataclass(frozen=True)
class _Model:
    config: Config
    session: Session
    words: Callable[[NDArray[Any]], NDArray[Any]]
    tokens: Tokenised | None
    turn: CapacityLimiter
    """Of one: a session takes one call at a time, and requests wait their turn without holding a thread."""


@dataclass(frozen=True)
class _Endpoints:
    models: dict[str, _Model]

    def routes(self) -> list[Route]:
        routes = [
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(prefix, self.model),
                Route(f"{prefix}/ready", self.model_ready),
                Route(f"{prefix}/infer", self.infer, methods=["POST"]),
            ]
        return routes

    async def server(self, request: Request) -> Response:
        return JSONResponse({"name": "sizewise", "version": version("sizewise"), "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def model(self, request: Request) -> Response:
        model = self._find(request)
        return JSONResponse(_metadata(model.config, text=model.tokens is not None))

    async def model_ready(self, request: Request) -> Response:
        return JSONResponse({"name": self._find(request).config.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        model = self._find(request)
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is left to read it
        length = request.headers.get(HEADER_LENGTH)
        return await to_thread.run_sync(_answer, model, body, length, limiter=model.turn)

    def _find(self, request: Request) -> _Model:
        name, asked = request.path_params["model"], request.path_params.get("version", VERSION)
        if name not in self.models:
            raise HTTPException(404, f"unknown model {name!r}; served: {', '.join(self.models)}")
        if asked != VERSION:
            raise HTTPException(404, f"model {name!r} has no version {asked!r}; it has {VERSION!r}")
        return self.models[name]


def _metadata(config: Config, *, text: bool = False) -> Json:
    signature = config.signature
    first, *rest = signature.input_shape
    datatype = "INT64" if signature.vocabulary else "FP32"
    shape = [-1, -1 if signature.dynamic else first, *rest]
    return {
        "name": config.name,
        "versions": [VERSION],
        "platform": PLATFORMS[config.runtime],
        "inputs": [
            {"name": signature.layout, "datatype": datatype, "shape": shape},
            *([{"name": TEXT, "datatype": "BYTES", "shape": [-1, 1]}] if text else []),
        ],
        "outputs": [
            {"name": OUTPUTS[signature.problem], "datatype": _datatype(signature), "shape": _output_shape(config)},
            *({"name": name, "datatype": "BYTES", "shape": [-1, 1]} for name in _worded(signature)),
        ],
    }


def _datatype(signature: Signature) -> str:
    return "INT64" if signature.problem == "translation" else "FP32"


def _output_shape(config: Config) -> list[int]:
    match config.signature.problem:
        case "classification" | "regression":
            return [-1, config.signature.outputs]
        case "translation":
            return [-1, -1]
        case "detection":
            return [-1, -1, 6]
        case _:
            return [-1, -1, config.signature.outputs]


def _worded(signature: Signature) -> tuple[str, ...]:
    """Names of the outputs that say in words what the numbers stand for."""
    words = {"classification": ("label",), "transcription": ("text",), "translation": ("text",)}
    return words.get(signature.problem, ())


async def _body(request: Request) -> bytes:
    """The whole body. One that is too large is read to its end but not kept: then every client gets the answer."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
    if size > MAX_BODY_BYTES:
        raise HTTPException(413, f"the body has {size} bytes; at most {MAX_BODY_BYTES} are accepted")
    return b"".join(chunks)


def _answer(model: _Model, body: bytes, header_length: str | None) -> Response:
    request, binary = _split(body, header_length)
    signature = model.config.signature
    samples = _samples(request, binary, model)
    names = (OUTPUTS[signature.problem], *_worded(signature))
    requested = _requested(request, names)
    answers = model.session(samples)
    words = [model.words(answers)] if len(names) > 1 else []
    values = dict(zip(names, (answers, *words), strict=True))
    tensors = [_encode(name, values[name], binary=as_binary) for name, as_binary in requested]
    header = {"model_name": model.config.name, "model_version": VERSION, "outputs": [tensor for tensor, _ in tensors]}
    if "id" in request:
        header["id"] = _member(request, "id", str)
    return _response(header, [raw for _, raw in tensors if raw is not None])


def _split(body: bytes, header_length: str | None) -> tuple[Json, bytes]:
    """The JSON part of a request and the bytes that follow it."""
    length = len(body) if header_length is None else int(header_length) if header_length.isdecimal() else -1
    if not 0 <= length <= len(body):
        raise _bad(f"{HEADER_LENGTH} is {header_length!r}; expected 0 to {len(body)}, the length of the body")
    try:
        request = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise _bad(f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise _bad(f"the request is a JSON {_JSON_TYPES.get(type(request), 'null')}; expected an object")
    return request, body[length:]


def _samples(request: Json, binary: bytes, model: _Model) -> NDArray[Any]:
    signature = model.config.signature
    tensor = _input(request, signature, text=model.tokens is not None)
    if model.tokens and tensor["name"] == TEXT:
        return model.tokens(_texts(tensor, binary))
    shape = _shape(tensor, signature)
    values = _values(tensor, binary, signature.layout)
    if values.size != math.prod(shape):
        raise _bad(f"input {signature.layout!r} has {values.size} values; its shape {shape} holds {math.prod(shape)}")
    if signature.vocabulary:
        return _tokens(values.reshape(shape), signature)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and the model decides
        return values.reshape(shape).astype(np.float32)


def _tokens(values: NDArray[Any], signature: Signature) -> NDArray[np.int64]:
    if not ((values >= 0) & (values < signature.vocabulary) & (values == np.floor(values))).all():
        raise _bad(f"input 'tokens' holds numbers that are no ids; expected 0 to {signature.vocabulary - 1}")
    return values.astype(np.int64)


def _texts(tensor: Json, binary: bytes) -> list[str]:
    """Texts of a tensor of BYTES, from JSON or each behind its length."""
    shape, datatype = _member(tensor, "shape", list), _member(tensor, "datatype", str)
    if datatype != "BYTES" or not all(type(size) is int for size in shape) or shape[1:] not in ([], [1]):
        raise _bad(f"input {TEXT!r} is {datatype} {shape}; expected BYTES [n] or [n, 1]")
    size = _member(_member(tensor, "parameters", dict, {}), "binary_data_size", int, 0)
    if size != len(binary):
        raise _bad(f"input {TEXT!r} is {size} bytes; {len(binary)} bytes follow the JSON")
    data = _from_length_prefixed(binary) if size else np.ravel(np.array(_member(tensor, "data", list), object)).tolist()
    if len(data) != shape[0] or not data or not all(isinstance(text, str) and text.strip() for text in data):
        raise _bad(f"input {TEXT!r} must hold {shape[0]} texts, at least one, none of them empty")
    return data


def _from_length_prefixed(raw: bytes) -> list[str]:
    texts, start = [], 0
    while start < len(raw):
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        if end > len(raw):
            raise _bad(f"input {TEXT!r} ends within a text")
        try:
            texts.append(raw[start + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise _bad(f"text {len(texts)} of input {TEXT!r} is not UTF-8: {error}") from error
        start = end
    return texts


def _input(request: Json, signature: Signature, *, text: bool = False) -> Json:
    names = [_member(tensor, "name", str) for tensor in _member(request, "inputs", list)]
    if names != [signature.layout] and not (text and names == [TEXT]):
        raise _bad(f"the inputs are {names}; expected [{signature.layout!r}]" + (f" or [{TEXT!r}]" if text else ""))
    tensor: Json = request["inputs"][0]
    return tensor


def _shape(tensor: Json, signature: Signature) -> list[int]:
    shape = _member(tensor, "shape", list)
    longest, *rest = signature.input_shape
    fits = all(type(size) is int for size in shape) and len(shape) == 2 + len(rest) and shape[0] >= 1
    steps = range(1, longest + 1) if signature.dynamic else (longest,)
    if not fits or shape[1] not in steps or shape[2:] != rest:
        first = f"1 to {longest}" if signature.dynamic else str(longest)
        expected = ", ".join([first, *map(str, rest)])
        raise _bad(f"input {signature.layout!r} has shape {shape}; expected [n, {expected}] with n of at least 1")
    return shape


def _values(tensor: Json, binary: bytes, name: str) -> NDArray[Any]:
    datatype = _member(tensor, "datatype", str)
    if datatype not in DATATYPES:
        raise _bad(f"input {name!r} has datatype {datatype!r}; expected one of {', '.join(DATATYPES)}")
    size = _member(_member(tensor, "parameters", dict, {}), "binary_data_size", int, 0)
    if size != len(binary) or size % np.dtype(DATATYPES[datatype]).itemsize:
        raise _bad(f"input {name!r} is {size} bytes of {datatype}; {len(binary)} bytes follow the JSON")
    return (
        np.frombuffer(binary, DATATYPES[datatype])
        if size
        else _from_json(_member(tensor, "data", list), datatype, name)
    )


def _from_json(data: list[Any], datatype: str, name: str) -> NDArray[Any]:
    """Numbers of a flat or nested JSON array, which must be ones that the datatype has."""
    try:
        values = np.array(data)
    except ValueError as error:
        raise _bad(
            f"the data of input {name!r} is ragged; expected a flat array, or one nested as its shape"
        ) from error
    if values.dtype.kind not in "iuf":
        raise _bad(f"the data of input {name!r} holds something other than numbers")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = values.astype(DATATYPES[datatype])
    if converted.dtype.kind != "f" and not np.array_equal(converted, values):
        raise _bad(f"the data of input {name!r} holds numbers that are not {datatype}")
    return converted


def _requested(request: Json, known: Sequence[str]) -> list[tuple[str, bool]]:
    """Names of the outputs asked for, each with whether to send it as binary; all of them when none is named."""
    default = _member(_member(request, "parameters", dict, {}), "binary_data_output", bool, False)
    outputs = _member(request, "outputs", list, []) or [{"name": name} for name in known]
    names = [_member(output, "name", str) for output in outputs]
    if unknown := set(names) - set(known):
        raise _bad(f"unknown outputs {sorted(unknown)}; expected {list(known)}")
    parameters = [_member(output, "parameters", dict, {}) for output in outputs]
    return [(name, _member(p, "binary_data", bool, default)) for name, p in zip(names, parameters, strict=True)]


def _encode(name: str, values: NDArray[Any], *, binary: bool) -> tuple[Json, bytes | None]:
    """The description of an output tensor and, unless its data is in there, its bytes."""
    text, whole = values.dtype == object, values.dtype.kind == "i"
    datatype = "BYTES" if text else "INT64" if whole else "FP32"
    tensor = {"name": name, "datatype": datatype, "shape": list(values.shape)}
    if not binary:
        return tensor | {"data": to_json(values.ravel().tolist())}, None
    raw = _length_prefixed(values.ravel().tolist()) if text else values.astype(DATATYPES[datatype]).tobytes()
    return tensor | {"parameters": {"binary_data_size": len(raw)}}, raw


def _length_prefixed(texts: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts))


def _response(header: Json, tensors: list[bytes]) -> Response:
    head = json.dumps(header).encode()
    if not tensors:
        return Response(head, media_type="application/json")
    body = head + b"".join(tensors)
    return Response(body, media_type="application/octet-stream", headers={HEADER_LENGTH: str(len(head))})


_JSON_TYPES = {dict: "object", list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def _member(record: Any, key: str, kind: type[T], default: T | None = None) -> T:
    """A member of a JSON object, if it has the type that it must have."""
    if not isinstance(record, dict):
        raise _bad(f"{record!r:.60} should be an object with the member {key!r}")
    value = record.get(key, default)
    if not isinstance(value, kind):
        given = f"is {value!r:.60}" if key in record else "is missing"
        raise _bad(f"the member {key!r} {given}; expected a JSON {_JSON_TYPES[kind]}")
    return value


def _bad(message: str) -> HTTPException:
    return HTTPException(400, message)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"the server failed: {type(error).__name__}: {error}"}, 500)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}, port {port}: {error}", hint="choose another port; port 0 picks a free one"
        ) from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
