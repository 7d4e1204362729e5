"""What no log, no span, no metric and no error may have in it: keys, signatures, signed documents, bodies.

One run with all that can go well and wrong, everything logged; then all of it is searched.
"""

from __future__ import annotations

import base64
import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import flask
import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan

from support.lines import Lines, logged
from support.market import PAYEE, PAYER, Market, Payer, Seller
from support.serving import Cut, serve_wsgi
from support.spans import Spans, instrumented, watched
from tokenmesh.decorators import priced
from tokenmesh.errors import LedgerUnavailable, TokenmeshError
from tokenmesh.retry import Policy, never
from tokenmesh.telemetry import instruments

ASKED, ANSWERED, RAISED = "mark-of-a-request", "mark-of-a-response", "mark-of-an-exception"
NONSENSE = "x.y.z"
OTHERS = "spans of the stock instrumentations"
OURS = "tokenmesh"


class Wire:
    """A WSGI application in front of another, which sees what goes past and can spoil receipts."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.documents: set[str] = set()
        self.spoils = False

    def __call__(self, environ: Any, start_response: Any) -> Any:
        contract = environ.get("HTTP_TOKEN_CONTRACT", NONSENSE)
        if contract != NONSENSE:
            self.documents.add(contract)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            seen = []
            for name, value in headers:
                if name == "Token-Receipt":
                    self.documents.add(value)
                    if self.spoils:
                        value = value[:-4] + ("AAAA" if value[-4:] != "AAAA" else "BBBB")  # noqa: PLW2901
                        self.documents.add(value)
                seen.append((name, value))
            return start_response(status, seen, *rest)

        return self._app(environ, start)


class Run:
    """What was written and raised, and what must not be in it."""

    def __init__(self, market: Market, wire: Wire, lines: Lines, spans: Spans, reader: InMemoryMetricReader):
        self.market = market
        self.wire = wire
        self.lines = lines
        self.spans = spans
        self.reader = reader
        self.errors: list[TokenmeshError] = []
        self.problems: list[str] = []

    def attempt(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except TokenmeshError as error:
            self.errors.append(error)

    def secrets(self) -> Iterator[str]:
        yield from (ASKED, ANSWERED, RAISED)
        for document in self.wire.documents:
            yield document
            yield document.rpartition(".")[2]  # the signature
        for name in (PAYER, PAYEE, "governance"):
            key = self.market.domain[name].key
            yield from self.market.domain[name].to_pem(None).decode().splitlines()[1:4]
            number = key.private_numbers().private_value
            yield base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")
            yield str(number)
            yield f"{number:x}"

    def written(self) -> dict[str, str]:
        """Everything, by where it stands."""
        errors = [
            (repr(one), repr(vars(one)), "".join(traceback.format_exception(one))) for one in self.errors
        ]
        return {
            "logs": self.lines.text,
            "spans": "\n".join(one.to_json() for one in self.spans.all() if _ours(one)),
            OTHERS: "\n".join(one.to_json() for one in self.spans.all() if not _ours(one)),
            "metrics": str(self.reader.get_metrics_data()),
            "errors": "\n".join(part for parts in errors for part in parts),
            "problems": "\n".join(self.problems),
        }


def _ours(span: ReadableSpan) -> bool:
    return span.instrumentation_scope is not None and span.instrumentation_scope.name == OURS


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    reader = InMemoryMetricReader()
    market = Market(tmp_path)
    instruments.meters_on(MeterProvider([reader], shutdown_on_exit=False))
    with logged(logging.DEBUG, OURS) as lines, watched() as spans:
        seller = market.seller()
        app = application(seller)
        run = Run(market, Wire(app), lines, spans, reader)
        cut = Cut()
        with instrumented(spans, app), serve_wsgi(run.wire, cut) as url:
            payer = market.payer(urls={PAYEE: url, "nowhere": "http://127.0.0.1:9"}, retry_attempts_max=2)
            calls(run, payer, cut, url)
            settle(run, seller)
        yield run
    market.close()
    instruments.meters_on()


def application(seller: Seller) -> flask.Flask:
    app = flask.Flask("quotes")
    app.logger.disabled = True  # an application's own log of its own exception is its own affair

    @app.post("/ok")
    @priced(tokens=5, mesh=seller)
    def ok() -> str:
        assert flask.request.get_data(as_text=True) == ASKED
        return ANSWERED

    @app.post("/fails")
    @priced(tokens=5, mesh=seller)
    def fails() -> str:
        raise ValueError(RAISED)

    return app


def calls(run: Run, payer: Payer, cut: Cut, url: str) -> None:
    """Paid, tried again, void, too dear, unreachable, refused in each way, and with a forged receipt."""
    with payer.client(PAYEE) as client, payer.client(PAYEE, retry=Policy(retry=never)) as once:
        assert client.post("/ok", content=ASKED).text == ANSWERED
        cut.next()
        assert client.post("/ok", content=ASKED).text == ANSWERED
        run.attempt(lambda: once.post("/fails", content=ASKED))
        (paid, *_) = run.wire.documents
        for contract in (None, NONSENSE, paid, paid[:-4] + "AAAA"):
            headers = {} if contract is None else {"Token-Contract": contract}
            answer = httpx.post(f"{url}/ok", content=ASKED + "!", headers=headers)
            assert 400 <= answer.status_code < 500
            run.problems.append(answer.text)
        run.wire.spoils = True
        run.attempt(lambda: once.post("/ok", content=ASKED))
        run.wire.spoils = False
    with payer.client(PAYEE, max_tokens=1) as client:
        run.attempt(lambda: client.post("/ok", content=ASKED))
    with payer.client("nowhere") as client:
        run.attempt(lambda: client.post("/ok", content=ASKED))


def settle(run: Run, seller: Seller) -> None:
    """After the ledger was away; one contract is refused there."""
    with closing(sqlite3.connect(run.market.directory / f"journal-{PAYEE}.db")) as journal, journal:
        journal.execute("UPDATE owed SET charged = 1000 WHERE n = 1")
    ledger, settlement = run.market.domain.ledger, seller.settlement
    submit, clock = ledger.submit, settlement._clock

    def away(*_: Any, **__: Any) -> Any:
        raise LedgerUnavailable("away")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger, "submit", away)
        wait_s = settlement.step().wait_s
        patched.setattr(ledger, "submit", submit)
        patched.setattr(settlement, "_clock", lambda: clock() + wait_s)
        assert settlement.step().lost == 1


def test_nothing_secret_is_written_or_raised(run: Run) -> None:
    """Not whole, and not the part of it that would be of use."""
    written = run.written()
    secrets = set(run.secrets())
    assert len(run.wire.documents) > 8
    found = [(place, secret) for place, text in written.items() for secret in secrets if secret in text]
    # What a handler raises is no secret of ours, and Flask's instrumentation writes it down.
    assert [one for one in found if one != (OTHERS, RAISED)] == []
    for place, text in written.items():
        assert "PRIVATE KEY" not in text, place
        assert "eyJ" not in text, f"{place}: the beginning of a signed document"


def test_the_search_is_worth_something(run: Run) -> None:
    """All that was to go wrong has, it was written down, and what is searched for would be found."""
    assert {type(one).__name__ for one in run.errors} == {"ReceiptInvalid", "OfferTooHigh", "Unreachable"}
    loggers = {line["logger"] for line in run.lines.all()}
    assert loggers == {"tokenmesh.consumer", "tokenmesh.provider", "tokenmesh.settlement"}
    names = {one.name for one in run.spans.all()}
    assert names >= {"tokenmesh call", "tokenmesh fulfil", "tokenmesh settle", "POST", "POST /ok"}
    assert all(len(text) > 100 for text in run.written().values())
    secret = next(iter(run.wire.documents))
    logging.getLogger("tokenmesh.provider").warning("look: %s", secret)
    assert secret in run.written()["logs"]
