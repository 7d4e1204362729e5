"""What docs/dashboards asks of Prometheus, and the metrics that docs/reference/metrics.md says there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

DOCS = Path(__file__).parent.parent.parent / "docs"
DASHBOARD = DOCS / "dashboards" / "grafana.json"
ALERTS = DOCS / "dashboards" / "alerts.yaml"
METRICS = DOCS / "reference" / "metrics.md"
SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus adds to everything it fetches."""
ON_BAD_DAYS = frozenset(
    {
        ("tokenmesh_hold_open", ""),
        ("tokenmesh_ledger_conflicts_total", ""),
        ("tokenmesh_ledger_refusals_total", ""),
        ("tokenmesh_ledger_retries_total", ""),
        ("tokenmesh_ledger_query_duration_seconds_count", "error_type"),
        ("tokenmesh_ledger_submit_duration_seconds_count", "error_type"),
        ("tokenmesh_settle_contracts_total", "tokenmesh_code"),
        ("tokenmesh_settle_duration_seconds_bucket", "error_type"),
        ("tokenmesh_settle_duration_seconds_count", "error_type"),
    }
)
"""What is not there as long as the ledger is well, and no hold is open when somebody looks."""
KINDS = ("counter", "gauge", "histogram")


class Metric(NamedTuple):
    """A metric as the reference has it."""

    name: str
    kind: str
    unit: str
    attributes: tuple[str, ...]


class Selector(NamedTuple):
    """Series that a query asks for: their name, and label, operator and value of each matcher."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


class Query(NamedTuple):
    """A query, where it stands, and the labels that what shows its result speaks of."""

    place: str
    expr: str
    shown: frozenset[str]

    @property
    def parsed(self) -> promql_parser.Expr:
        """Raises ValueError if it is no PromQL. What Grafana puts into it is a time."""
        return promql_parser.parse(self.expr.replace("$__rate_interval", "5m"))

    def selectors(self) -> list[Selector]:
        """All that it asks for."""
        found: list[Selector] = []

        def visit(node: Any) -> None:
            if isinstance(node, promql_parser.MatrixSelector):
                node = node.vector_selector
            if isinstance(node, promql_parser.VectorSelector):
                matchers = tuple((one.name, str(one.op), one.value) for one in node.matchers.matchers)
                if (selector := Selector(str(node.name), matchers)) not in found:
                    found.append(selector)

        promql_parser.walk(self.parsed, visit)
        return found

    def groupings(self) -> set[str]:
        """The labels by which it sums up or matches."""
        found: set[str] = set()

        def visit(node: Any) -> None:
            modifier = getattr(node, "modifier", None)
            modifier = getattr(modifier, "matching", None) or modifier
            found.update(getattr(modifier, "labels", None) or ())

        promql_parser.walk(self.parsed, visit)
        return found


def metrics() -> list[Metric]:
    """The metrics of the reference, in its order."""
    row = re.compile(r"^\| `(tokenmesh[\w.]+)` \| (\w+) \| `(.*?)` \| (.*?) \|", re.MULTILINE)
    return [
        Metric(name, kind, unit, tuple(re.findall(r"`([\w.]+)`", attributes)))
        for name, kind, unit, attributes in row.findall(METRICS.read_text())
    ]


def queries() -> list[Query]:
    """The queries of the dashboard and of the alerts."""
    return [*_of_dashboard(), *_of_alerts()]


def _of_dashboard() -> Iterator[Query]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield Query(panel["title"], target["expr"], _braced(target["legendFormat"]))


def _of_alerts() -> Iterator[Query]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            texts = " ".join(rule["annotations"].values())
            shown = frozenset(re.findall(r"\$labels\.(\w+)", texts))
            yield Query(rule["alert"], rule["expr"], shown)


def _braced(legend: str) -> frozenset[str]:
    return frozenset(re.findall(r"{{\s*(\w+)\s*}}", legend))


def exported(metrics: list[Metric]) -> Mapping[str, frozenset[str]]:
    """The series that OpenTelemetry's exporter makes of these metrics for Prometheus, with their labels."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry)
    provider = MeterProvider([reader], resource=Resource({}), shutdown_on_exit=False)
    meter = provider.get_meter("tokenmesh")
    for metric in metrics:
        attributes = dict.fromkeys(metric.attributes, "value")
        match metric.kind:
            case "counter":
                meter.create_counter(metric.name, metric.unit).add(1, attributes)
            case "gauge":
                meter.create_gauge(metric.name, metric.unit).set(1, attributes)
            case "histogram":
                meter.create_histogram(metric.name, metric.unit).record(1, attributes)
            case other:
                raise AssertionError(f"{metric.name} is a {other}: it must be one of {KINDS}")
    found = series(registry)
    provider.shutdown()
    return found


def unanswered(there: Mapping[str, frozenset[str]]) -> set[tuple[str, str]]:
    """What the dashboard and the alerts ask for and these series do not have: a series and a label of it, or
    ``""`` if all of it is missing."""
    possible = exported(metrics())
    missing: set[tuple[str, str]] = set()
    for query in queries():
        for selector in query.selectors():
            asked = {label for label, _, _ in selector.matchers} | query.groupings()
            wanted = asked & possible[selector.name]
            found = there.get(selector.name)
            missing |= {(selector.name, label) for label in ({""} if found is None else wanted - found)}
    return missing


def series(registry: CollectorRegistry) -> Mapping[str, frozenset[str]]:
    """The series of a registry, with all labels that any of them has."""
    return _series(registry.collect())


def read_series(text: str) -> Mapping[str, frozenset[str]]:
    """The same of what Prometheus is given to read."""
    return _series(text_string_to_metric_families(text))


def _series(families: Iterable[Family]) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for family in families:
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, frozenset()) | set(sample.labels)
    return found
