"""The model that MLServer is told of: what its documentation calls a custom inference runtime."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from serve_peers import session


class Digits(MLModel):
    """An ONNX model of one input."""

    async def load(self) -> bool:
        self.session = session(self.settings.parameters.uri)
        self.image = self.session.get_inputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        logits = self.session.run(None, {self.image: x})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])
