"""A collector for OTLP over HTTP: it passes spans on, keeps metrics, or behaves badly on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.dashboards import Metric

SPANS, METRICS = "/v1/traces", "/v1/metrics"
KIND = {"content-type": "application/x-protobuf"}
PASS_ON_S_MAX = 30.0


class Collector:
    """Takes exports. ``status`` is what it answers; while ``answers`` is cleared it accepts and says nothing.

    ``to`` is another collector that gets the spans, which is asked before the exporter is answered.
    """

    def __init__(self, to: str | None = None) -> None:
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Semaphore(0)
        """Released once for every export of spans that has arrived, answered or not."""
        self.url = ""
        self._to = to
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._settled: dict[str, int] = {}
        self._metrics: dict[str, Metric] = {}
        self._client = httpx.Client(timeout=PASS_ON_S_MAX)

    def taken(self) -> list[str]:
        """The names of all spans that were taken: of exports that were answered with 200."""
        with self._lock:
            return list(self._names)

    def settled(self, contract_id: str) -> int | None:
        """What was answered to the export in which a settlement of this contract was; None: to none."""
        with self._lock:
            return self._settled.get(contract_id)

    def metrics(self) -> list[Metric]:
        """The metrics that were taken, each with all attributes that any point of it has had."""
        with self._lock:
            return list(self._metrics.values())

    def take(self, path: str, body: bytes) -> int:
        """One export; what it is answered with."""
        if path == SPANS:
            self.asked.release()
        self.answers.wait()
        if self.status != 200:
            return self.status
        if path == METRICS:
            self._keep(ExportMetricsServiceRequest.FromString(body))
        else:
            found = ExportTraceServiceRequest.FromString(body)
            spans = [
                span for one in found.resource_spans for scope in one.scope_spans for span in scope.spans
            ]
            with self._lock:
                self._names += [span.name for span in spans]
            status = 200
            if self._to is not None:
                status = self._client.post(self._to + path, content=body, headers=KIND).status_code
            with self._lock:
                self._settled |= dict.fromkeys(_contracts(spans), status)
            return status
        return 200

    def _keep(self, request: Any) -> None:
        measured = [
            metric
            for one in request.resource_metrics
            for scope in one.scope_metrics
            if scope.scope.name == "tokenmesh"
            for metric in scope.metrics
        ]
        with self._lock:
            for metric in measured:
                data = getattr(metric, metric.WhichOneof("data"))
                known = self._metrics.get(metric.name)
                attributes = set(known.attributes if known else ())
                attributes |= {pair.key for point in data.data_points for pair in point.attributes}
                kind = {"sum": "counter"}.get(metric.WhichOneof("data"), metric.WhichOneof("data"))
                self._metrics[metric.name] = Metric(metric.name, kind, metric.unit, tuple(sorted(attributes)))

    def mend(self) -> None:
        """Behave well from now on."""
        self.status = 200
        self.answers.set()

    def close(self) -> None:
        self.mend()
        self._client.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An exporter that has gone away is none of its concern."""


@contextmanager
def collecting(to: str | None = None) -> Iterator[Collector]:
    """A collector that listens at its ``url``."""
    collector = Collector(to)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(collector.take(self.path, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.close()
        server.shutdown()
        thread.join()
        server.server_close()


def _contracts(spans: list[Any]) -> Iterator[str]:
    """The contracts that are settled in these spans, by their ids."""
    for span in spans:
        for event in span.events:
            if event.name == "tokenmesh.settled":
                yield from (
                    pair.value.string_value
                    for pair in event.attributes
                    if pair.key == "tokenmesh.contract.id"
                )
