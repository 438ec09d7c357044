"""The protocol's gRPC messages, made from the table below when this file is imported: no generated code.

Names, numbers and types are those of `open_inference_grpc.proto`,
https://github.com/open-inference/open-inference-protocol. Nested messages are written side by side, which is the same
on the wire. They live in a pool of their own, so that a client in the same process may bring its own.
"""

from __future__ import annotations

from typing import Any

from sizewise.errors import extra

with extra("serve", needed_for="serving over gRPC"):
    from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClassesForFiles

PACKAGE, SERVICE = "inference", "GRPCInferenceService"

METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Each takes a message `...Request` and answers with one `...Response`."""

PARAMETERS = "map InferParameter"

TABLE: dict[str, dict[str, str]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": "bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": "bool"},
    "ModelReadyRequest": {"name": "string", "version": "string"},
    "ModelReadyResponse": {"ready": "bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {"name": "string", "version": "string", "extensions": "repeated string"},
    "ModelMetadataRequest": {"name": "string", "version": "string"},
    "ModelMetadataResponse": {
        "name": "string",
        "versions": "repeated string",
        "platform": "string",
        "inputs": "repeated TensorMetadata",
        "outputs": "repeated TensorMetadata",
    },
    "TensorMetadata": {"name": "string", "datatype": "string", "shape": "repeated int64"},
    "InferParameter": {"bool_param": "bool", "int64_param": "int64", "string_param": "string"},
    "InferTensorContents": {
        "bool_contents": "repeated bool",
        "int_contents": "repeated int32",
        "int64_contents": "repeated int64",
        "uint_contents": "repeated uint32",
        "uint64_contents": "repeated uint64",
        "fp32_contents": "repeated float",
        "fp64_contents": "repeated double",
        "bytes_contents": "repeated bytes",
    },
    "InferInputTensor": {
        "name": "string",
        "datatype": "string",
        "shape": "repeated int64",
        "parameters": PARAMETERS,
        "contents": "InferTensorContents",
    },
    "InferRequestedOutputTensor": {"name": "string", "parameters": PARAMETERS},
    "InferOutputTensor": {
        "name": "string",
        "datatype": "string",
        "shape": "repeated int64",
        "parameters": PARAMETERS,
        "contents": "InferTensorContents",
    },
    "ModelInferRequest": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": PARAMETERS,
        "inputs": "repeated InferInputTensor",
        "outputs": "repeated InferRequestedOutputTensor",
        "raw_input_contents": "repeated bytes",
    },
    "ModelInferResponse": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": PARAMETERS,
        "outputs": "repeated InferOutputTensor",
        "raw_output_contents": "repeated bytes",
    },
}
"""Message, and the type of each of its fields, which are numbered from 1."""

ONE_OF = {"InferParameter": "parameter_choice"}
"""Messages of whose fields one is set."""


def _message(name: str, fields: dict[str, str]) -> DescriptorProto:
    message = DescriptorProto(name=name, oneof_decl=[{"name": ONE_OF[name]}] if name in ONE_OF else [])
    for number, (field, kind) in enumerate(fields.items(), 1):
        *label, type_name = kind.split()
        if label == ["map"]:
            message.nested_type.append(_entry(type_name))
            label, type_name = ["repeated"], f"{name}.ParametersEntry"
        described = message.field.add(name=field, number=number, **_type(type_name))
        described.label = FieldDescriptorProto.LABEL_REPEATED if label else FieldDescriptorProto.LABEL_OPTIONAL
        if name in ONE_OF:
            described.oneof_index = 0
    return message


def _entry(value: str) -> DescriptorProto:
    """What a map is on the wire: a repeated message of key and value."""
    entry = _message("ParametersEntry", {"key": "string", "value": value})
    entry.options.map_entry = True
    return entry


def _type(name: str) -> dict[str, Any]:
    if name[0].isupper():
        return {"type": FieldDescriptorProto.TYPE_MESSAGE, "type_name": f".{PACKAGE}.{name}"}
    return {"type": FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")}


def _build() -> dict[str, Any]:
    file = FileDescriptorProto(name="open_inference_grpc.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_message(name, fields) for name, fields in TABLE.items())
    pool = DescriptorPool()
    pool.Add(file)
    classes = GetMessageClassesForFiles([file.name], pool)
    return {name.removeprefix(f"{PACKAGE}."): kind for name, kind in classes.items()}


MESSAGES: dict[str, Any] = _build()
"""The classes, by name."""
