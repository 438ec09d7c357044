"""A server for exported models: the Open Inference Protocol, version 2, over HTTP and gRPC.

    tensors, wire       what clients send, to arrays and back
    models              one version of one model, loaded
    repository          all of them, and how a new version takes an old one's place
    batcher             the queue before a model: requests that wait are answered together
    service             what the server does, whichever protocol asks
    rest, rpc           HTTP and gRPC, which translate; messages, openapi, page, http stand beside them
    metrics, logs       what it tells those who run it
    run                 from folders to a running server, and from a signal to its end

Protocol: https://github.com/open-inference/open-inference-protocol; the binary extension is the one of Triton.
"""

from sizewise.serve.batcher import Limits
from sizewise.serve.run import Ready, announce, app, serve
from sizewise.serve.service import Options

__all__ = ["Limits", "Options", "Ready", "announce", "app", "serve"]
