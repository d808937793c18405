"""Figures of the server in Prometheus' text format, at /metrics; labels are names of models, paths and states only."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one server."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tohum_requests", "Requests by path and status", ["path", "status"], registry=self._registry
        )
        self.tokens = Counter("tohum_tokens", "Tokens by model and kind", ["model", "kind"], registry=self._registry)
        self.seconds = Histogram(
            "tohum_request_seconds", "Duration of requests", ["path"], buckets=_SECONDS, registry=self._registry
        )
        self.first_token = Histogram(
            "tohum_first_token_seconds", "Time to the first token", ["model"], buckets=_SECONDS, registry=self._registry
        )
        self.answers = Gauge("tohum_answers", "Answers in progress or waiting", registry=self._registry)
        self.cut = Counter("tohum_cut", "Connections closed by the server", ["reason"], registry=self._registry)
        self.journal = Counter(
            "tohum_journal_entries", "Entries of the journal by kind and whether they were kept", ["kind", "kept"],
            registry=self._registry,
        )  # fmt: skip
        self.swaps = Counter("tohum_swaps", "Champions swapped in", ["model"], registry=self._registry)
        self.model = Gauge(
            "tohum_model", "1 for each model that answers", ["model", "version", "standing"], registry=self._registry
        )

    def text(self) -> bytes:
        """All figures."""
        return generate_latest(self._registry)
