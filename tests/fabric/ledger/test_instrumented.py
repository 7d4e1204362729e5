"""With gRPC's stock instrumentation on, the ledger on Fabric works as ever, and no span is doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient
from opentelemetry.trace import StatusCode

from support.fabric_domain import Rules, make_fabric_domain
from support.spans import Spans, watched

INSTRUMENTORS: tuple[Any, ...] = (GrpcInstrumentorClient, GrpcAioInstrumentorClient)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """tokenmesh's spans and gRPC's, whose instrumentation takes the process's provider and no other."""
    with watched() as spans:
        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", spans.provider)
        for kind in INSTRUMENTORS:
            kind().instrument()
        yield spans
        for kind in INSTRUMENTORS:
            kind().uninstrument()


def test_a_transaction_is_each_of_its_requests_once(rules: Rules, spans: Spans, tmp_path: Path) -> None:
    """Of the gateway's two requests there is one span each, but for those refused and sent again; of
    ours, outside of any call, there is none."""
    domain = make_fabric_domain(rules, tmp_path, {"service-a": 100, "service-b": 0})
    try:
        spans.clear()
        domain.do("service-a", "transfer", {"to": "service-b", "tokens": 7})
        assert domain.total("service-b") == 7
        (newest,) = domain.ledger.transactions(limit=1, newest_first=True).result(60)
    finally:
        domain.ledger.close()
    requests = [one for one in spans.all() if one.name.startswith("/gateway.Gateway/")]
    gateway = Counter(
        one.name.rpartition("/")[2] for one in requests if one.status.status_code is not StatusCode.ERROR
    )
    assert not {one.context.span_id for one in requests} & {
        one.parent.span_id for one in requests if one.parent is not None
    }, "one within another is the same request twice"
    assert [operation.act for operation in newest.operations] == ["transfer"]
    assert (gateway["Endorse"], gateway["Submit"]) == (1, 1)
    assert [one.name for one in spans.all() if one.name.startswith("tokenmesh")] == []
