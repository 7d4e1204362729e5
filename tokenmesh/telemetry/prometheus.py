"""Exemplars on a Prometheus endpoint: from the bucket of a histogram to the trace of a call that is in it.

OpenTelemetry's exporter for Prometheus leaves them out. :class:`PrometheusReader` is that exporter, and
``shown`` what it shows with them put in. It needs the extra ``otel``, and nothing else imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from tokenmesh.telemetry.names import SCOPE

_Labels = frozenset[tuple[str, str]]


class PrometheusReader(PrometheusMetricReader):
    """OpenTelemetry's reader for Prometheus, which keeps the exemplars of what it read last.

    ``start_http_server(port, addr="127.0.0.1", registry=reader.shown)`` shows all of Prometheus' default
    registry. Exemplars are part of OpenMetrics only, which Prometheus asks for by itself; it stores them with
    ``--enable-feature=exemplar-storage``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._read: dict[str, list[tuple[_Labels, list[Exemplar]]]] = {}
        self.shown = CollectorRegistry()
        self.shown.register(_Shown(self))

    def _receive_metrics(
        self, metrics_data: MetricsData | None, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        if metrics_data is not None:
            self._read = dict(_exemplars(metrics_data))
            super()._receive_metrics(metrics_data, timeout_millis, **kwargs)

    def added_to(self, family: Metric) -> Metric:
        """``family`` with the exemplars of the metric that it was made of, each in its bucket."""
        for name, points in self._read.items():
            if family.type == "histogram" and f"{family.name}_".startswith(f"{name}_"):
                family.samples = list(_with_exemplars(family.samples, points))
        return family


class _Shown(Collector):
    """The default registry, with exemplars."""

    def __init__(self, reader: PrometheusReader) -> None:
        self._reader = reader

    def collect(self) -> Iterable[Metric]:
        return map(self._reader.added_to, REGISTRY.collect())

    def describe(self) -> Iterable[Metric]:
        """Nothing: what is measured is not known before."""
        return ()


def _exemplars(data: MetricsData) -> Iterator[tuple[str, list[tuple[_Labels, list[Exemplar]]]]]:
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics if scope.scope.name == SCOPE else ():
                points = [one for one in metric.data.data_points if isinstance(one, HistogramDataPoint)]
                found = [(_labels(one.attributes or {}), _of(one)) for one in points]
                yield _plain(metric.name), [(labels, some) for labels, some in found if some]


def _of(point: HistogramDataPoint) -> list[Exemplar]:
    """A point's exemplars that have a trace, the newest first."""
    traced = [one for one in point.exemplars if one.trace_id and one.span_id]
    traced.sort(key=lambda one: one.time_unix_nano, reverse=True)
    return [
        Exemplar(
            {"trace_id": f"{one.trace_id:032x}", "span_id": f"{one.span_id:016x}"},
            one.value,
            one.time_unix_nano / 1e9,
        )
        for one in traced
    ]


def _with_exemplars(
    samples: Iterable[Sample], points: list[tuple[_Labels, list[Exemplar]]]
) -> Iterator[Sample]:
    above = float("-inf")
    for sample in samples:
        if not sample.name.endswith("_bucket"):
            yield sample
            continue
        bound = float(sample.labels["le"])
        low = above if above < bound else float("-inf")  # the next point's buckets begin
        above = bound
        labels = set(sample.labels.items())
        fitting = (some for of_point, some in points if of_point <= labels)
        within = (one for some in fitting for one in some if low < one.value <= bound)
        yield sample._replace(exemplar=next(within, None))


def _labels(attributes: Any) -> _Labels:
    return frozenset((_plain(key), str(value)) for key, value in attributes.items())


def _plain(name: str) -> str:
    """As Prometheus has names."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
