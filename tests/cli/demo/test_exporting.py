"""A collector that is down, slow or refuses: calls go on at once, what is kept is bounded, processes end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import flask
import pytest
from opentelemetry.sdk.trace import TracerProvider

from support.collector import Collector, collecting
from support.market import PAYEE, Market
from support.servers import free_port
from support.serving import serve_wsgi
from tokenmesh.cli.demo import exporting
from tokenmesh.cli.demo.exporting import BATCH_MAX, QUEUE_MAX, VARIABLE, leaving, providers, takes_spans
from tokenmesh.decorators import priced
from tokenmesh.telemetry import instruments, switch

CALLS = 20
EVENT_S_MAX = 30
BAD = ("down", "slow", "503", "400")


@contextmanager
def misbehaving(how: str) -> Iterator[tuple[str, Collector]]:
    """A collector of that kind, and where it is; ``down``: where none is."""
    with collecting() as collector:
        if how == "slow":
            collector.answers.clear()
        elif how != "down":
            collector.status = int(how)
        yield f"http://127.0.0.1:{free_port()}" if how == "down" else collector.url, collector


@contextmanager
def exporting_to(endpoint: str) -> Iterator[TracerProvider]:
    """This process exports as one of the demo's does."""
    spans, measurements = providers("exporter", endpoint)
    switch.switch_on(spans)
    instruments.meters_on(measurements)
    leave = leaving(spans.shutdown, measurements.shutdown)
    try:
        yield spans
    finally:
        switch.switch_on()
        instruments.meters_on()
        leave()


def paid_calls(folder: Path) -> list[int]:
    """Twenty real ones over HTTP, and their settlement."""
    market = Market(folder)
    seller = market.seller()
    app = flask.Flask("quotes")

    @app.get("/quote")
    @priced(tokens=5, mesh=seller)
    def quote() -> str:
        return "quote"

    with serve_wsgi(app) as url, market.payer(urls={PAYEE: url}).client(PAYEE) as client:
        statuses = [client.get("/quote").status_code for _ in range(CALLS)]
    seller.settle()
    earned = market.domain.ledger.balance(PAYEE).result()
    assert sum(earned) == 5 * CALLS
    market.close()
    return statuses


@pytest.mark.parametrize("how", BAD)
def test_calls_are_paid_whatever_the_collector_does(tmp_path: Path, how: str) -> None:
    """They do not wait for it: the slow one has answered nothing when all of them are over."""
    with misbehaving(how) as (endpoint, collector), exporting_to(endpoint) as spans:
        spans.get_tracer("test").start_span("first").end()
        if how != "down":
            assert collector.asked.acquire(timeout=EVENT_S_MAX), "nothing was exported"
        assert paid_calls(tmp_path) == [200] * CALLS
        assert collector.taken() == []
        collector.mend()


def test_what_waits_for_a_slow_collector_is_bounded() -> None:
    """Three times what fits: the oldest are dropped, the newest arrive once it answers."""
    with collecting() as collector:
        collector.answers.clear()
        spans, _ = providers("flood", collector.url)
        tracer = spans.get_tracer("test")
        tracer.start_span("first").end()
        assert collector.asked.acquire(timeout=EVENT_S_MAX), "nothing was exported"
        for _ in range(3 * QUEUE_MAX):
            tracer.start_span("flood").end()
        tracer.start_span("last").end()
        on_their_way = 1
        while collector.asked.acquire(blocking=False):
            on_their_way += 1
        collector.answers.set()
        spans.shutdown()
        taken = collector.taken()
    assert len(taken) <= QUEUE_MAX + on_their_way * BATCH_MAX < 3 * QUEUE_MAX
    assert len(taken) >= QUEUE_MAX
    assert taken[-1] == "last"


def test_a_process_does_not_wait_for_long_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is waited for, if it is quick; what is never sent is not."""
    sent = threading.Event()
    leaving(sent.set)()
    assert sent.is_set()
    never = threading.Event()
    monkeypatch.setattr(exporting, "LEAVE_S_MAX", 0.01)
    leaving(never.wait)()
    assert not never.is_set()
    never.set()


PROGRAM = """
import httpx
from opentelemetry import trace
from tokenmesh.cli.demo import exporting
exporting.begin("program")
with trace.get_tracer("test").start_as_current_span("work"):
    pass
print("over")
"""


def test_processes_end_whatever_the_collector_does() -> None:
    """And with nothing said about it that would hide what matters."""
    with ExitStack() as stack:
        running = {}
        for how in (*BAD, "200"):
            endpoint, collector = stack.enter_context(misbehaving(how))
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                env={**os.environ, VARIABLE: endpoint},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running[how] = stack.enter_context(process), collector
        for how, (process, collector) in running.items():
            out, said = process.communicate(timeout=EVENT_S_MAX)
            assert (process.returncode, out) == (0, "over\n"), said
            assert "Traceback" not in said
            assert collector.taken() == (["work"] if how == "200" else [])


def test_whether_a_collector_takes_spans() -> None:
    with misbehaving("200") as (endpoint, collector):
        assert takes_spans(endpoint)
        assert takes_spans(endpoint + "/")
        assert collector.taken() == []
    with misbehaving("401") as (endpoint, _):
        assert takes_spans(endpoint), "it may take them from who has its password"
    for how in ("down", "503", "400"):
        with misbehaving(how) as (endpoint, _):
            assert not takes_spans(endpoint)


def test_one_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PROBE_S_MAX", 0.01)
    with misbehaving("slow") as (endpoint, _):
        assert not takes_spans(endpoint)
