"""Private calls from end to end: what is paid for stays between payer, payee and the ledger's own host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fastapi
import flask
import httpx
import pytest

from support.ledgers import now_of
from support.market import PAYEE, PAYER, Market, Seller
from support.payee import Signing
from support.serving import serve_asgi, serve_wsgi
from tokenmesh import calls
from tokenmesh.clients import requests as requests_clients
from tokenmesh.consumer import Consumer
from tokenmesh.decorators import current_contract, priced
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.verify import verify_ledger
from tokenmesh_chaincode.documents import (
    Contract,
    conceal,
    digest,
    new_id,
    new_salt,
    parse_contract,
    parse_operation,
    present,
    sign,
    take_presented,
)

PRICE = 5
SECRET = "/diagnosis/measles"
FRAMEWORKS = ("flask", "fastapi")


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path, {PAYER: 10_000, PAYEE: 0})
    yield market
    market.close()


class Surgery:
    """A payee: ``/diagnosis/…`` is private, ``/weather`` is not. ``seen`` are the contracts it worked for."""

    def __init__(self, market: Market, framework: str) -> None:
        self.seller: Seller = market.seller()
        self.seen: list[Contract] = []
        serve: Callable[[Any], AbstractContextManager[str]] = (
            serve_wsgi if framework == "flask" else serve_asgi
        )
        self._served = serve(self._flask() if framework == "flask" else self._fastapi())
        self.url = ""

    def _work(self, what: str) -> dict[str, str]:
        contract = current_contract()
        assert contract is not None
        self.seen.append(contract)
        return {"found": what}

    def _flask(self) -> flask.Flask:
        app = flask.Flask("surgery")
        seller: Any = self.seller

        @app.get("/diagnosis/<what>")
        @priced(tokens=PRICE, private=True, mesh=seller)
        def diagnosis(what: str) -> dict[str, str]:
            return self._work(what)

        @app.get("/weather")
        @priced(tokens=PRICE, mesh=seller)
        def weather() -> dict[str, str]:
            return self._work("rain")

        return app

    def _fastapi(self) -> fastapi.FastAPI:
        app = fastapi.FastAPI()
        seller: Any = self.seller

        @app.get("/diagnosis/{what}")
        @priced(tokens=PRICE, private=True, mesh=seller)
        async def diagnosis(what: str) -> dict[str, str]:
            return self._work(what)

        @app.get("/weather")
        @priced(tokens=PRICE, mesh=seller)
        async def weather() -> dict[str, str]:
            return self._work("rain")

        return app

    def __enter__(self) -> Surgery:
        self.url = self._served.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._served.__exit__(*exc_info)


@pytest.fixture(params=FRAMEWORKS)
def surgery(request: pytest.FixtureRequest, market: Market) -> Iterator[Surgery]:
    with Surgery(market, request.param) as surgery:
        yield surgery


def settled(market: Market) -> list[Contract]:
    """The contracts that the ledger has settled, as everyone reads them."""
    transactions = now_of(market.domain.ledger.transactions())
    whole = [now_of(market.domain.ledger.transaction(one.tx_id)) for one in transactions]
    operations = [operation for one in whole if one is not None for operation in one.operations]
    return [
        parse_contract(text).body
        for operation in operations
        if operation.act == "settle"
        for text, _ in parse_operation(operation.document or "").body.arg["items"]
    ]


def test_a_private_operation_is_paid_and_says_in_public_only_how_much(
    market: Market, surgery: Surgery
) -> None:
    """The offer asks for it, the consumer does it by itself, and the handler knows what it was called for."""
    with market.payer().client(PAYEE, url=surgery.url) as client:
        answers = [client.get(SECRET) for _ in range(3)] + [client.get("/weather")]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [contract.htu for contract in surgery.seen] == [SECRET] * 3 + ["/weather"]
    surgery.seller.settle()
    assert market.domain.total(PAYEE) == 4 * PRICE
    contracts = settled(market)
    assert sorted(contract.htu for contract in contracts) == ["", "", "", "/weather"]
    assert all(contract.tok == PRICE and contract.iss == PAYER for contract in contracts)
    (record,) = now_of(market.domain.ledger.contract(answers[0].extensions["tokenmesh"].contract_id))
    assert (record.op.startswith("GET /diagnosis/"), record.code) == (True, "ok")
    ledger = market.domain.ledger
    assert isinstance(ledger, EmbeddedLedger)
    report = verify_ledger(ledger.path)
    assert (report.findings, report.private, report.undisclosed) == ([], 3, 0)


def test_the_offer_says_so(surgery: Surgery) -> None:
    offers = httpx.get(f"{surgery.url}/.well-known/tokenmesh/offers").json()["offers"]
    assert {offer["path"].partition("{")[0]: offer.get("private") for offer in offers} == {
        "/diagnosis/": True,
        "/weather": None,
    }


def test_a_payer_may_always_ask_for_it(market: Market, surgery: Surgery) -> None:
    """By the client, by the decorator, by a hold; in both libraries."""
    payer = market.payer()

    @calls(PAYEE, url=surgery.url, private=True, mesh=payer)  # type: ignore[arg-type]
    def by_decorator(service: Any) -> Any:
        return service.get("/weather")

    with (
        payer.client(PAYEE, url=surgery.url, private=True) as client,
        payer.client(PAYEE, url=surgery.url, private=True, via="hold") as by_hold,
        payer.client(PAYEE, url=surgery.url) as in_the_open,
        requests_clients.session(payer, PAYEE, url=surgery.url, private=True) as session,  # type: ignore[arg-type]
    ):
        for get in (client.get, by_hold.get, session.get, in_the_open.get):
            assert get("/weather").status_code == 200
        assert by_decorator().status_code == 200
    payer.close()
    surgery.seller.settle()
    assert market.domain.total(PAYEE) == 5 * PRICE
    assert sorted(contract.htu for contract in settled(market)) == ["", "", "", "", "/weather"]


def test_a_consumer_that_does_not_know_yet_is_told_and_pays_once(market: Market, surgery: Surgery) -> None:
    """Offers that are cached from before the operation became private are put right by the 402."""
    payer = market.payer()
    with payer.client(PAYEE, url=surgery.url) as client:
        client.get("/weather")
        shelf = payer.consumer.book.shelf(PAYEE, surgery.url)
        assert shelf.offers is not None
        stale = [offer._replace(private=False) for offer in shelf.offers]
        shelf.offers = type(shelf.offers)(stale, shelf.offers.domains)
        answer = client.get(SECRET)
        assert (answer.status_code, answer.extensions["tokenmesh"].tries) == (200, 1)
        assert client.get(SECRET).status_code == 200
    assert len(surgery.seen) == 3
    surgery.seller.settle()
    assert market.domain.total(PAYEE) == 3 * PRICE
    assert sorted(contract.htu for contract in settled(market)) == ["", "", "/weather"]


def test_a_retry_is_recognised_whatever_its_salt(market: Market, surgery: Surgery) -> None:
    """The same job after the consumer was killed: another disclosure, the same contract, done once."""
    answers = []
    for _ in range(2):
        with market.payer().client(PAYEE, url=surgery.url) as client:
            answers.append(client.get(SECRET, idempotency_key="order-17"))
    assert len(surgery.seen) == 1
    assert answers[0].json() == answers[1].json()
    ids = {answer.extensions["tokenmesh"].contract_id for answer in answers}
    assert len(ids) == 1
    surgery.seller.settle()
    assert market.domain.total(PAYEE) == PRICE


def test_another_process_of_the_payee_settles_what_this_one_has_worked_for(
    market: Market, surgery: Surgery
) -> None:
    """The journal has all that it takes, the disclosure too."""
    with market.payer().client(PAYEE, url=surgery.url) as client:
        client.get(SECRET)
    market.seller().settle()
    assert market.domain.total(PAYEE) == PRICE


# What a payee refuses


class Asker:
    """A payer that writes its contracts by hand."""

    def __init__(self, market: Market, url: str) -> None:
        self.market, self.url = market, url
        self.allowance = new_id()
        domain = market.domain
        terms = {"id": self.allowance, "payee": PAYEE, "tokens": 500, "exp": domain.now + 3000}
        domain.do(PAYER, "open", terms)
        self.numbers = iter(range(100))

    def contract(self, **claims: Any) -> Contract:
        now = self.market.domain.now
        body = Contract(
            dom=self.market.domain.ledger.domain,
            iss=PAYER,
            aud=PAYEE,
            op="GET /diagnosis/{what}" if "{" in self.operation else self.operation,
            htm="GET",
            htu=SECRET,
            dig=digest(b""),
            tok=PRICE,
            jti=new_id(),
            iat=now,
            exp=now + 60,
            via=self.allowance,
            lane="l",
            seq=next(self.numbers),
        )
        return body._replace(**claims)

    @property
    def operation(self) -> str:
        offers = httpx.get(f"{self.url}/.well-known/tokenmesh/offers").json()["offers"]
        return next(str(one["operation"]) for one in offers if one["path"].startswith("/diagnosis/"))

    def sign(self, contract: Contract) -> str:
        return sign(contract, Signing(self.market.domain[PAYER]))

    def ask(self, text: str, path: str = SECRET) -> tuple[int, str]:
        answer = httpx.get(f"{self.url}{path}", headers={"Token-Contract": text})
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["code"]


@pytest.fixture
def asker(market: Market, surgery: Surgery) -> Asker:
    return Asker(market, surgery.url)


def test_what_a_payee_says_to_private_contracts(asker: Asker, surgery: Surgery) -> None:
    body = asker.contract()
    concealed, disclosure = conceal(body, new_salt())
    text = asker.sign(concealed)
    assert asker.ask(text) == (400, "undisclosed")
    assert asker.ask(present(text, conceal(body, new_salt())[1])) == (400, "undisclosed")
    assert asker.ask(present(text, "x")) == (400, "bad_disclosure")
    assert asker.ask(present(text, disclosure + "A" * 8000)) == (400, "too_large")
    assert asker.ask(asker.sign(body)) == (402, "private_required")
    assert asker.ask(present(asker.sign(body), disclosure)) == (400, "bad_disclosure")
    assert surgery.seen == []
    assert asker.ask(present(text, disclosure)) == (200, "")
    assert asker.ask(present(text, disclosure), "/diagnosis/flu") == (422, "other_request")
    assert len(surgery.seen) == 1


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"htu": "/diagnosis/flu"}, 422, "other_request"),
        ({"htm": "POST"}, 422, "other_request"),
        ({"dig": digest(b"another")}, 422, "other_request"),
        ({"op": "GET /else"}, 402, "other_operation"),
        ({"tok": PRICE - 1}, 402, "too_few_tokens"),
    ],
)
def test_what_is_disclosed_binds_as_what_is_in_the_open(
    asker: Asker, claims: dict[str, Any], status: int, code: str
) -> None:
    concealed, disclosure = conceal(asker.contract(**claims), new_salt())
    assert asker.ask(present(asker.sign(concealed), disclosure)) == (status, code)


def test_a_changed_private_contract_does_not_hold(asker: Asker) -> None:
    concealed, disclosure = conceal(asker.contract(), new_salt())
    text = asker.sign(concealed)
    other, _ = take_presented(asker.sign(concealed._replace(tok=9)))
    forged = f"{other.rpartition('.')[0]}.{text.rpartition('.')[2]}"
    assert asker.ask(present(forged, disclosure)) == (401, "signature_invalid")


def test_a_salt_is_made_for_each_contract(market: Market) -> None:
    consumer: Consumer = market.payer().consumer
    body = market.domain.contract(PAYER, PAYEE, via="hold")
    signed = [consumer.sign(parse_contract(body).body, private=True) for _ in range(2)]
    assert len({take_presented(text)[1] for text in signed}) == 2
