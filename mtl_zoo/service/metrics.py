"""What Prometheus is told. No label has values that a client chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# From a millisecond to ten seconds.
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._prometheus = prometheus
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        of: dict[str, Any] = {"namespace": "mtl_zoo", "registry": self.registry}
        self.requests = prometheus.Counter("requests", "Requests by route and status.", ["route", "status"], **of)
        self.seconds = prometheus.Histogram(
            "request_seconds", "From a request's first byte to its answer.", ["route"], buckets=_SECONDS, **of
        )
        self.refused = prometheus.Counter("refused", "Requests without scores, by reason.", ["reason"], **of)
        self.batches = prometheus.Histogram("batch_requests", "Requests of a call of the model.", buckets=_SIZES, **of)
        self.rows = prometheus.Histogram("batch_rows", "Rows of a call of the model.", buckets=_SIZES, **of)
        self.model_seconds = prometheus.Histogram("model_seconds", "A call of the model.", buckets=_SECONDS, **of)
        self.waiting = prometheus.Gauge("waiting_requests", "Requests that wait for the model.", **of)
        self.open = prometheus.Gauge("open_requests", "Requests that are worked on.", **of)
        self.version = prometheus.Gauge("served_version", "The version that answers by default, or -1.", **of)
        self.loads = prometheus.Counter("version_loads", "Versions that were loaded or failed.", ["outcome"], **of)
        self.version.set(-1)

    def request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def batch(self, jobs: Sequence[Any], seconds: float) -> None:
        self.batches.observe(len(jobs))
        self.rows.observe(sum(getattr(job.work, "count", 1) for job in jobs))
        self.model_seconds.observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """What `/metrics` answers, and its content type."""
        return self._prometheus.generate_latest(self.registry), self._prometheus.CONTENT_TYPE_LATEST
