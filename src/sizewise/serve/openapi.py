"""The server's own description, OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from typing import Any

from sizewise.serve.service import Service
from sizewise.serve.tensors import DATATYPES, TEXT
from sizewise.serve.wire import HEADER_LENGTH

Json = dict[str, Any]

SUMMARIES = {
    400: "the request is not one that the model can answer",
    401: "the token is missing or wrong",
    404: "there is no such model or version",
    405: "the address knows another method",
    408: "the request did not arrive in time",
    413: "the body is too large",
    503: "too many requests wait, or the server is going down; `Retry-After` says when to come back",
    504: "the answer did not come in time",
}


def document(service: Service) -> Json:
    """The OpenAPI document of a server with its models."""
    models = {"model": {"type": "string", "enum": list(service.names)}}
    versioned = models | {"version": {"type": "string", "pattern": "^[1-9][0-9]*$"}}
    paths = {
        "/v2": {"get": _operation("server metadata", "ServerMetadata")},
        "/v2/health/live": {"get": _operation("whether the server runs", "Live")},
        "/v2/health/ready": {"get": _operation("whether every model answers", "Ready", 503)},
        "/v2/repository/index": {"post": _operation("every version of every model", "Index")},
        "/metrics": {"get": _text("metrics, for Prometheus")},
    }
    for prefix, parameters in (
        ("/v2/models/{model}", models),
        ("/v2/models/{model}/versions/{version}", versioned),
    ):
        paths[prefix] = {"get": _operation("model metadata", "ModelMetadata", 404, parameters=parameters)}
        ready = _operation("whether a model answers", "ModelReady", 404, 503, parameters=parameters)
        paths[f"{prefix}/ready"] = {"get": ready}
        paths[f"{prefix}/infer"] = {"post": _infer(parameters)}
    secured: Json = {"security": [{"token": []}]} if service.options.token else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sizewise",
            "version": service.server_metadata()["version"],
            "description": "The Open Inference Protocol, version 2.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        **secured,
    }


def _operation(summary: str, schema: str, *refusals: int, parameters: Json | None = None) -> Json:
    answers = {"200": {"description": summary, "content": _json(schema)}}
    # Where only some methods are known, the others are refused in the same form.
    answers |= {str(status): _refusal(status, schema) for status in (*refusals, 401)}
    described = [{"name": name, "in": "path", "required": True, "schema": s} for name, s in (parameters or {}).items()]
    return {"summary": summary, "parameters": described, "responses": answers}


def _refusal(status: int, schema: str) -> Json:
    # A server or model that is not ready says so in the words of the protocol.
    states = status == 503 and schema in ("Ready", "ModelReady")
    return {"description": SUMMARIES[status], "content": _json(schema if states else "Error")}


def _text(summary: str) -> Json:
    ok = {"description": summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": ok, "401": _refusal(401, "")}}


def _infer(parameters: Json) -> Json:
    operation = _operation("ask a model", "InferenceResponse", 400, 404, 408, 413, 503, 504, parameters=parameters)
    length = {
        "name": HEADER_LENGTH,
        "in": "header",
        "description": "bytes of the JSON, where binary tensors follow it",
        "schema": {"type": "integer", "minimum": 0},
    }
    operation["parameters"] = [*operation["parameters"], length]
    operation["requestBody"] = {"required": True, "content": _json("InferenceRequest")}
    binary = {"schema": {"type": "string", "format": "binary"}}
    operation["responses"]["200"]["content"]["application/octet-stream"] = binary
    return operation


def _json(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _object(required: Json, **optional: Any) -> Json:
    return {"type": "object", "required": list(required), "properties": required | optional}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


_STRING, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_DATATYPE = {"type": "string", "enum": [*DATATYPES, TEXT]}
_DESCRIBED = _object({"name": _STRING, "datatype": _DATATYPE, "shape": _array(_WHOLE)})
_SIZED = _object({}, binary_data_size=_WHOLE)

SCHEMAS: Json = {
    "Error": _object({"error": _STRING}),
    "Live": _object({"live": _FLAG}),
    "Ready": _object({"ready": _FLAG}),
    "ServerMetadata": _object({"name": _STRING, "version": _STRING, "extensions": _array(_STRING)}),
    "ModelMetadata": _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _array(_DESCRIBED),
            "outputs": _array(_DESCRIBED),
        }
    ),
    "ModelReady": _object({"name": _STRING, "ready": _FLAG}),
    "Index": _array(_object({"name": _STRING, "version": _STRING, "state": _STRING, "reason": _STRING})),
    "InferenceRequest": _object(
        {
            "inputs": _array(
                _object(
                    {"name": _STRING, "shape": _array(_WHOLE), "datatype": _DATATYPE},
                    data={"type": "array"},
                    parameters=_SIZED,
                )
            )
        },
        id=_STRING,
        parameters=_object({}, binary_data_output=_FLAG),
        outputs=_array(_object({"name": _STRING}, parameters=_object({}, binary_data=_FLAG))),
    ),
    "InferenceResponse": _object(
        {
            "model_name": _STRING,
            "model_version": _STRING,
            "outputs": _array(
                _object(
                    {"name": _STRING, "datatype": _DATATYPE, "shape": _array(_WHOLE)},
                    data={"type": "array"},
                    parameters=_SIZED,
                )
            ),
        },
        id=_STRING,
    ),
}
