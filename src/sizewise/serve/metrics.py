"""What the server counts and times, for Prometheus; the only file that knows its client library.

Times are in seconds and names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from sizewise.errors import extra

with extra("serve", needed_for="serving a model"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics", "ModelMetrics"]

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_MODEL = ("model", "version")


class ModelMetrics:
    """The metrics of one version of a model, with their labels filled in."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        self._request = metrics.request_seconds.labels(name, version)
        self._queue = metrics.queue_seconds.labels(name, version)
        self._inference = metrics.inference_seconds.labels(name, version)
        self._batch = metrics.batch_samples.labels(name, version)
        self.waiting = metrics.waiting.labels(name, version)

    def called(self, samples: int, seconds: float) -> None:
        """One call of the model has ended."""
        self._inference.observe(seconds)
        self._batch.observe(samples)

    def answered(self, queue_seconds: float, seconds: float) -> None:
        """One request was answered."""
        self._queue.observe(queue_seconds)
        self._request.observe(seconds)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "sizewise_requests", "Requests, by how they ended", ("protocol", "code"), registry=registry
        )
        self.loads = Counter("sizewise_model_loads", "Loads of a model's version", ("outcome",), registry=registry)
        self.ready = Gauge(
            "sizewise_ready", "1 when every model answers and the server is not going down", registry=registry
        )
        self.waiting = Gauge("sizewise_queue_requests", "Requests that wait for the model", _MODEL, registry=registry)
        self.request_seconds = Histogram(
            "sizewise_request_seconds",
            "From a request's last byte to its answer",
            _MODEL,
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "sizewise_queue_seconds", "Waiting for the model", _MODEL, buckets=SECONDS, registry=registry
        )
        self.inference_seconds = Histogram(
            "sizewise_inference_seconds", "One call of the model", _MODEL, buckets=SECONDS, registry=registry
        )
        self.batch_samples = Histogram(
            "sizewise_batch_samples", "Samples in one call of the model", _MODEL, buckets=SAMPLES, registry=registry
        )

    def render(self) -> bytes:
        """The text that Prometheus reads, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)
