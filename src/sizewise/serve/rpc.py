"""The Open Inference Protocol over gRPC."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import UsageError, extra
from sizewise.serve.logs import log
from sizewise.serve.messages import MESSAGES, METHODS, PACKAGE, SERVICE
from sizewise.serve.refusals import Busy, Invalid, Refusal
from sizewise.serve.service import Options, Service
from sizewise.serve.tensors import DATATYPES, TEXT, Tensor, datatype, to_raw
from sizewise.serve.wire import Answer, Inference, Requested

with extra("serve", needed_for="serving over gRPC"):
    import grpc
    from google.protobuf.json_format import ParseDict

Call = Callable[[Any], Awaitable[Any]]

PUBLIC = ("ServerLive", "ServerReady")
"""Methods that need no token: probes have none."""

CONTENTS = {
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    TEXT: "bytes_contents",
}
"""Where a tensor's values are when they are not raw. FP16 is always raw."""


def make_server(service: Service) -> tuple[grpc.aio.Server, str]:
    """The server, not yet running, and its address. Call it where the event loop runs.

    Raises:
        UsageError: the address cannot be listened on, or certificate and key cannot be read.
    """
    options = service.options
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    methods = _Methods(service)
    handlers = {name: _handler(name, getattr(methods, name), service) for name in METHODS}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", handlers)])
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.grpc_port}"
    try:
        port = _listen(server, address, options)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"gRPC cannot listen on {address}: {error}", hint="choose another --grpc-port; port 0 picks a free one"
        ) from error
    return server, f"{host}:{port}"


def _listen(server: grpc.aio.Server, address: str, options: Options) -> int:
    if not (options.certificate and options.key):
        return int(server.add_insecure_port(address))
    ca = options.client_ca.read_bytes() if options.client_ca else None
    pair = (options.key.read_bytes(), options.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)
    return int(server.add_secure_port(address, credentials))


class _Methods:
    """One method for each of the protocol's, under its name."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ServerLive(self, request: Any) -> Any:  # noqa: N802
        return MESSAGES["ServerLiveResponse"](live=True)

    async def ServerReady(self, request: Any) -> Any:  # noqa: N802
        return MESSAGES["ServerReadyResponse"](ready=self._service.ready)

    async def ModelReady(self, request: Any) -> Any:  # noqa: N802
        self._service.repository.find(request.name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=self._service.ready)

    async def ServerMetadata(self, request: Any) -> Any:  # noqa: N802
        return MESSAGES["ServerMetadataResponse"](**self._service.server_metadata())

    async def ModelMetadata(self, request: Any) -> Any:  # noqa: N802
        metadata = self._service.model_metadata(request.name, request.version)
        return ParseDict(metadata, MESSAGES["ModelMetadataResponse"]())

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802
        answer, _ = await self._service.infer(request.model_name, request.model_version, _inference(request))
        return _response(answer)


def _handler(name: str, method: Call, service: Service) -> Any:
    counters = service.metrics.requests

    async def handle(request: Any, context: Any) -> Any:
        try:
            if name not in PUBLIC:
                service.authorize(dict(context.invocation_metadata()).get("authorization"))
            response = await method(request)
        except Refusal as refusal:
            counters.labels("grpc", refusal.code).inc()
            if isinstance(refusal, Busy):
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(1000 * refusal.retry_seconds)),))
            return await context.abort(grpc.StatusCode[refusal.code], refusal.message)
        except Exception as error:
            counters.labels("grpc", "INTERNAL").inc()
            log("request failed", logging.ERROR, error=error, method=name)
            return await context.abort(grpc.StatusCode.INTERNAL, f"the server failed: {type(error).__name__}: {error}")
        counters.labels("grpc", "OK").inc()
        return response

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=MESSAGES[f"{name}Request"].FromString,
        response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
    )


def _inference(request: Any) -> Inference:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Invalid(f"there are {len(request.inputs)} inputs and {len(raw)} raw contents; expected one for each")
    inputs = tuple(_tensor(tensor, raw[i] if raw else None) for i, tensor in enumerate(request.inputs))
    # As clients expect: what is asked in raw bytes is answered in raw bytes.
    outputs = tuple(Requested(output.name, bool(raw)) for output in request.outputs)
    return Inference(inputs, outputs, request.id or None, binary=bool(raw))


def _tensor(tensor: Any, raw: bytes | None) -> Tensor:
    if raw is not None:
        return Tensor(tensor.name, tensor.datatype, list(tensor.shape), raw=raw)
    if tensor.datatype in DATATYPES and tensor.datatype not in CONTENTS:
        raise Invalid(f"input {tensor.name!r} is {tensor.datatype}; send it as raw_input_contents")
    field = CONTENTS.get(tensor.datatype)
    data = list(getattr(tensor.contents, field)) if field else []
    return Tensor(tensor.name, tensor.datatype, list(tensor.shape), data=data)


def _response(answer: Answer) -> Any:
    response = MESSAGES["ModelInferResponse"](model_name=answer.model, model_version=answer.version, id=answer.id or "")
    for output in answer.outputs:
        values = answer.values[output.name]
        described = response.outputs.add(name=output.name, datatype=datatype(values), shape=values.shape)
        if output.binary:
            response.raw_output_contents.append(to_raw(values))
        else:
            getattr(described.contents, CONTENTS[datatype(values)]).extend(_encoded(values))
    return response


def _encoded(values: NDArray[Any]) -> list[Any]:
    flat = np.ravel(values).tolist()
    return [text.encode() for text in flat] if values.dtype == object else flat
