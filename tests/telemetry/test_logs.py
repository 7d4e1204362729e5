"""Log records lead to the trace and to the contract: our own, and the application's if it wants that."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import queue
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import fastapi
import flask
import httpx
import pytest

from support.lines import Lines, logged
from support.market import PAYEE, PAYER, Market, Seller
from support.serving import Cut, serve_asgi, serve_wsgi
from support.spans import Spans, attributes, watched
from tokenmesh.decorators import priced
from tokenmesh.errors import LedgerUnavailable, OutcomeUnknown
from tokenmesh.retry import Policy, never
from tokenmesh.telemetry import log, switch
from tokenmesh.telemetry.logs import FIELDS, ContractIds, JsonFormatter

OPERATION = "GET /ok"
OF_CONTRACT = {"payer": PAYER, "payee": PAYEE, "operation": OPERATION}

_app = logging.getLogger("app")


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with logged() as lines:
        yield lines


@pytest.fixture
def spans() -> Iterator[Spans]:
    with watched() as spans:
        yield spans


def application(framework: str, seller: Seller) -> Any:
    """Handlers that log: one in the server's thread, one on the event loop, one that fails."""

    def ok() -> str:
        _app.info("at work", extra={"shelf": 7})
        return "ok"

    async def aok() -> str:
        await asyncio.sleep(0)
        _app.info("at work")
        return "ok"

    def fails() -> str:
        raise ValueError("no")

    if framework == "flask":
        app: Any = flask.Flask("quotes")
        app.config["PROPAGATE_EXCEPTIONS"] = False
    else:
        app = fastapi.FastAPI()
    app.get("/ok")(priced(tokens=5, mesh=seller)(ok))
    app.get("/async")(priced(tokens=5, mesh=seller, operation=OPERATION)(aok))
    app.get("/fails")(priced(tokens=5, mesh=seller)(fails))
    return app


def serve(framework: str, market: Market, cut: Cut | None = None) -> Any:
    app = application(framework, market.seller())
    return (serve_wsgi if framework == "flask" else serve_asgi)(app, cut or Cut())


@pytest.mark.parametrize("path", ["/ok", "/async"])
@pytest.mark.parametrize("framework", ["flask", "fastapi"])
def test_a_handlers_own_records_name_their_contract_and_trace(
    market: Market, spans: Spans, lines: Lines, framework: str, path: str
) -> None:
    """With what the application gave itself; outside of the handler there is nothing to name."""
    with serve(framework, market) as url, market.payer(urls={PAYEE: url}).client(PAYEE) as client:
        assert client.get(path).status_code == 200
        _app.info("afterwards")
    at_work, afterwards = lines.all("app")
    fulfil = spans.one("tokenmesh fulfil")
    assert (
        at_work.items()
        >= {
            **OF_CONTRACT,
            "message": "at work",
            "level": "INFO",
            "contract_id": attributes(fulfil)["tokenmesh.contract.id"],
            "trace_id": f"{fulfil.context.trace_id:032x}",
            "span_id": f"{fulfil.context.span_id:016x}",
        }.items()
    )
    assert at_work.get("shelf") == (7 if path == "/ok" else None)
    assert not set(FIELDS) & set(afterwards)


@pytest.mark.parametrize("framework", ["flask", "fastapi"])
def test_the_contract_is_named_without_any_sdk(market: Market, lines: Lines, framework: str) -> None:
    """Who wants ids in log records need not have spans."""
    with serve(framework, market) as url, market.payer(urls={PAYEE: url}).client(PAYEE) as client:
        info = client.get("/ok").extensions["tokenmesh"]
    record = lines.one("app")
    assert record.items() >= {**OF_CONTRACT, "contract_id": info.contract_id}.items()
    assert "trace_id" not in record


def test_a_call_that_is_tried_again_says_so(market: Market, spans: Spans, lines: Lines) -> None:
    """With the contract that goes out again, and the trace that the retry is in."""
    cut = Cut()
    with serve("flask", market, cut) as url, market.payer(urls={PAYEE: url}).client(PAYEE) as client:
        cut.next()
        assert client.get("/ok").status_code == 200
    record = lines.one("tokenmesh.consumer")
    call = spans.one("tokenmesh call")
    assert record["message"] == f"{PAYEE} is asked again: OutcomeUnknown"
    assert (
        record.items()
        >= {
            **OF_CONTRACT,
            "contract_id": attributes(call)["tokenmesh.contract.id"],
            "trace_id": f"{call.context.trace_id:032x}",
        }.items()
    )


def test_what_a_payee_refuses_and_what_fails_is_said(market: Market, spans: Spans, lines: Lines) -> None:
    """A request without a contract; a handler that raised. What it raised is the application's to log."""
    with serve("flask", market) as url:
        assert httpx.get(f"{url}/ok").status_code == 402
        with market.payer(urls={PAYEE: url}).client(PAYEE, retry=Policy(retry=never)) as client:
            failed = client.get("/fails")
    refused, void = lines.all("tokenmesh.provider")
    assert refused["message"] == "a call of GET /ok is refused: contract_required"
    assert "contract_id" not in refused
    assert void["message"] == "a call of GET /fails is void: the handler raised ValueError"
    assert void["contract_id"] == failed.extensions["tokenmesh"].contract_id
    assert void["trace_id"] == f"{spans.one('tokenmesh call').context.trace_id:032x}"


def test_a_settlement_names_its_transaction(
    market: Market, spans: Spans, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it waits for the ledger. A contract that is lost is named, in its call's trace."""
    seller = market.seller()
    transport = httpx.WSGITransport(app=application("flask", seller))
    with market.payer(urls={PAYEE: "http://quotes"}).client(PAYEE, transport=transport) as client:
        paid, lost = (client.get("/ok").extensions["tokenmesh"] for _ in range(2))
    with closing(sqlite3.connect(market.directory / f"journal-{PAYEE}.db")) as journal, journal:
        journal.execute("UPDATE owed SET charged = 1000 WHERE jti = ?", (lost.contract_id,))
    submit = market.domain.ledger.submit

    def away(*_: Any, **__: Any) -> Any:
        raise LedgerUnavailable("away")

    monkeypatch.setattr(market.domain.ledger, "submit", away)
    wait_s = seller.settlement.step().wait_s
    monkeypatch.setattr(market.domain.ledger, "submit", submit)
    market_clock = seller.settlement._clock
    monkeypatch.setattr(seller.settlement, "_clock", lambda: market_clock() + wait_s)
    assert seller.settlement.step().lost == 1

    waits, settled, refused = lines.all("tokenmesh.settlement")
    settle = spans.one("tokenmesh settle")
    (record,) = market.domain.ledger.contract(paid.contract_id).result()
    trace = f"{settle.context.trace_id:032x}"
    assert waits["message"] == "settlement waits, and tries again: away"
    assert waits.items() >= {"payee": PAYEE, "level": "WARNING", "trace_id": trace}.items()
    assert settled["message"] == "settled: 1 contracts, 5 tokens"
    assert settled.items() >= {"payee": PAYEE, "tx_id": record.tx_id, "trace_id": trace}.items()
    call = spans.all("tokenmesh call")[-1]
    assert (
        refused.items()
        >= {
            **OF_CONTRACT,
            "level": "WARNING",
            "contract_id": lost.contract_id,
            "tx_id": record.tx_id,
            "trace_id": f"{call.context.trace_id:032x}",
            "span_id": f"{call.context.span_id:016x}",
        }.items()
    )


def test_an_error_that_is_logged_names_its_contract(lines: Lines) -> None:
    """Wherever it is caught: long after the call, in another thread."""
    error = OutcomeUnknown("no answer", service=PAYEE, contract_id="some-id", tx_id="some-tx")
    _app.error("paying failed", exc_info=error)
    record = lines.one("app")
    assert (record["contract_id"], record["tx_id"], record["payee"]) == ("some-id", "some-tx", PAYEE)
    assert record["exception"].endswith("OutcomeUnknown: no answer")


def test_what_a_record_says_itself_goes_before(lines: Lines, spans: Spans) -> None:
    with spans.provider.get_tracer("app").start_as_current_span("work"):
        _app.info("about another", extra={"trace_id": "given", "contract_id": "mine"})
        log("tokenmesh.consumer").info("ours", extra={"trace_id": "given"})
    assert [(line["trace_id"], line.get("contract_id")) for line in lines.all()] == [
        ("given", "mine"),
        ("given", None),
    ]
    assert all(line["span_id"] for line in lines.all())


def test_our_own_records_have_the_ids_without_any_filter(spans: Spans) -> None:
    """As attributes, which any other formatter or exporter finds."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler, logger = Keep(), logging.getLogger("tokenmesh.consumer")
    logger.addHandler(handler)
    try:
        with spans.provider.get_tracer("app").start_as_current_span("work") as work:
            log("tokenmesh.consumer").warning("look")
    finally:
        logger.removeHandler(handler)
    (record,) = records
    assert vars(record)["trace_id"] == f"{work.get_span_context().trace_id:032x}"
    assert record.funcName == "test_our_own_records_have_the_ids_without_any_filter"


def test_every_record_has_every_field_for_a_format_of_ones_own() -> None:
    """So that a format may name them, also where there is no contract."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(ContractIds())
    handler.setFormatter(
        logging.Formatter("[" + " ".join(f"%({name})s" for name in FIELDS) + "] %(message)s")
    )
    handler.handle(logging.makeLogRecord({"msg": "hello", "contract_id": "x"}))
    assert stream.getvalue() == "[  x    ] hello\n"


def test_records_that_travel_keep_their_ids(spans: Spans) -> None:
    """Through a queue to another thread, with the filter where they are made."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = QueueHandler(waiting)
    handler.addFilter(ContractIds())
    _app.addHandler(handler)
    try:
        with spans.provider.get_tracer("app").start_as_current_span("work") as work:
            _app.warning("look")
    finally:
        _app.removeHandler(handler)
    line = json.loads(JsonFormatter().format(waiting.get_nowait()))
    assert line["trace_id"] == f"{work.get_span_context().trace_id:032x}"


def test_a_record_is_one_line_of_json_whatever_is_in_it(lines: Lines) -> None:
    """Line ends, other alphabets, values that JSON does not know; nothing passes for a field of ours."""
    _app.warning('two\nlines, "quoted" %s', "été", extra={"where": Path("/x"), "time": "never", "n": 1})
    assert len(lines.text.splitlines()) == 1
    record = lines.one("app")
    assert record["message"] == 'two\nlines, "quoted" été'
    assert (record["where"], record["n"]) == ("/x", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])


def test_ids_are_in_the_context_only_as_long_as_somebody_wants_them() -> None:
    """Without SDK and filter a call carries nothing along."""
    gc.collect()
    assert not switch.ids_in_logs()
    one, other = ContractIds(), ContractIds()
    del one
    assert switch.ids_in_logs()
    del other
    gc.collect()
    assert not switch.ids_in_logs()


def test_there_is_one_tree_and_nothing_configures_it() -> None:
    """Importing everything adds no handler, sets no level, and changes no record's making."""
    script = (
        "import importlib, logging, pkgutil\n"
        "factory = logging.getLogRecordFactory()\n"
        "import tokenmesh, tokenmesh_chaincode\n"
        "for package in (tokenmesh, tokenmesh_chaincode):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if '__main__' not in found.name and '.demo' not in found.name:\n"
        "            importlib.import_module(found.name)\n"
        "ours = [name for name in logging.root.manager.loggerDict if name.startswith('tokenmesh')]\n"
        "assert len(ours) > 5 and all(name.split('.')[0] == 'tokenmesh' for name in ours), ours\n"
        "for one in [logging.getLogger(name) for name in ('tokenmesh', *ours)]:\n"
        "    assert not (one.handlers or one.level or one.filters) and one.propagate, one\n"
        "assert not logging.root.handlers and logging.root.level == logging.WARNING\n"
        "assert logging.getLogRecordFactory() is factory\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
