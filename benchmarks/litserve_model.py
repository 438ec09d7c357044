"""The model that LitServe is given; its worker processes import it from here, and it reads the annotations."""

from typing import Any

import litserve
import numpy as np
from serve_peers import session


class Digits(litserve.LitAPI):
    """An ONNX model of one input, asked in JSON."""

    def __init__(self, model: str, **batching: Any) -> None:
        super().__init__(**batching)
        self.model, self.batched = model, batching["max_batch_size"] > 1

    def setup(self, device: str) -> None:
        self.session = session(self.model)
        self.image = self.session.get_inputs()[0].name

    def decode_request(self, request: dict[str, Any]) -> Any:
        return np.asarray(request["data"], np.float32).reshape(1, 28, 28)

    def predict(self, x: Any) -> Any:
        return self.session.run(None, {self.image: x if self.batched else x[None]})[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"logits": output.ravel().tolist()}
