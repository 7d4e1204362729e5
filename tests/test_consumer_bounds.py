"""The consumer's limits, and streams: what happens past each of them, by script and on a held clock."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from support.market import PAYEE, PAYER, Market
from support.scripted import (
    BODY,
    OFFER,
    URL,
    Answer,
    ScriptedPayee,
    Wire,
    dear,
    no_connection,
    plain,
    problem,
    voided,
    wire,
)
from support.serving import serve_wsgi
from support.wallets import Clock
from tokenmesh.clients import httpx as httpx_clients
from tokenmesh.clients import requests as requests_clients
from tokenmesh.consumer import OWN_BYTES_MAX, InResponse, answers, call, offers, receipts
from tokenmesh.consumer.receipts import digests_of
from tokenmesh.errors import ReceiptInvalid, Refused, Unreachable
from tokenmesh.retry import Policy, never
from tokenmesh_chaincode import documents


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def market(tmp_path: Path, clock: Clock) -> Iterator[Market]:
    market = Market(tmp_path, {PAYER: 1_000_000, PAYEE: 0, "other": 0}, clock=clock)
    yield market
    market.close()


@pytest.fixture
def shop(market: Market, clock: Clock) -> Wire:
    return wire(market, clock)


# Streams


def streamed(payee: ScriptedPayee, contract: Any) -> Answer:
    """A response without a receipt or a length, as one that is still being made."""
    payee.ended[contract.jti] = payee.answer(contract)
    return Answer(200, {}, BODY, streamed=True)


def receipt(payee: ScriptedPayee, _: Any) -> Answer:
    """What stands at the receipt's address."""
    (answer,) = payee.ended.values()
    return Answer(200, {"Content-Type": "application/jose"}, answer.headers["Token-Receipt"].encode())


def read(shop: Wire, response: InResponse, body: bytes = BODY) -> None:
    """Read the stream to its end, as a client would."""
    response.pending.digests.update(body)
    shop.run(shop.payer.consumer.conclude(response.pending))


def stream(shop: Wire, *asks: Any) -> InResponse:
    shop.payee.script.append(streamed)
    response = shop.call()
    shop.payee.asks.extend(asks)
    assert response.info is not None
    assert response.info.charged is None
    return response


def left(shop: Wire) -> int:
    return sum(each.left for each in shop.payer.treasury._accounts[PAYEE].allowances)


def test_a_streams_receipt_is_asked_for_at_its_end(shop: Wire) -> None:
    """Again while the payee is still at it; then the call is complete."""
    response = stream(shop, problem(409, "in_progress"), plain(404), receipt)
    read(shop, response)
    assert response.info is not None
    assert response.info.charged == 5
    jti = response.info.contract_id
    assert shop.asked[1:] == [f"{URL}/.well-known/tokenmesh/receipts/{jti}?payer={PAYER}"] * 3
    assert left(shop) == 5_000 - 5


@pytest.mark.parametrize("answer", [no_connection, plain(404), plain(503)])
def test_a_receipt_that_cannot_be_had_is_not_asked_for_for_ever(shop: Wire, answer: Any) -> None:
    """A few times, within half a second; the response stands, what it cost is not known."""
    response = stream(shop, *[answer] * 50)
    before = shop.clock()
    read(shop, response)
    assert len(shop.asked) == 1 + answers.RECEIPT_TRIES
    assert shop.clock() - before < 0.5
    assert response.info is not None
    assert response.info.charged is None
    assert left(shop) == 5_000 - 5, "the contract may have been taken"


def test_a_stream_that_is_not_what_was_signed_for_is_found_out(shop: Wire) -> None:
    response = stream(shop, receipt)
    with pytest.raises(ReceiptInvalid):
        read(shop, response, b"other bytes")
    assert left(shop) == 5_000 - 5


def test_a_stream_with_its_receipt_in_the_header_is_compared_at_its_end(shop: Wire) -> None:
    """A whole response that the caller reads as a stream: charged is known at once."""
    for body in (BODY, b"other bytes"):
        shop.payee.script.append(lambda payee, contract: payee.fulfil(contract)._replace(streamed=True))
        response = shop.call()
        assert response.info is not None
        assert response.info.charged == 5
        if body == BODY:
            read(shop, response, body)
        else:
            with pytest.raises(ReceiptInvalid):
                read(shop, response, body)
    assert len(shop.asked) == 1


def test_a_failed_stream_of_a_handler_may_be_read(shop: Wire) -> None:
    """Void, and not repeated: its body is the caller's."""
    shop.payee.script.append(lambda payee, contract: voided(500)(payee, contract)._replace(streamed=True))
    response = shop.call()
    read(shop, response, b"oops")
    assert left(shop) == 5_000


# Offers


def test_offers_past_their_number_are_not_read() -> None:
    """And none with a path without end."""
    many = [{**OFFER, "path": f"/{n}"} for n in range(offers.OFFERS_MAX + 5)]
    found = offers.parse_offers(json.dumps({"offers": many}).encode())
    assert len(list(found)) == offers.OFFERS_MAX
    assert found.match("GET", f"/{offers.OFFERS_MAX + 1}") is None
    assert offers.read_offers([{**OFFER, "path": "/" + "x" * offers.TEMPLATE_LENGTH_MAX}]) == []


def test_a_template_means_what_it_says() -> None:
    """No character of a path is special, and text around a parameter belongs to it."""
    paths = ["/a.b/{x}.json", "/a+b", "/caf\u00e9/{x:path}"]
    found = offers.Offers(offers.read_offers([{**OFFER, "path": path} for path in paths]))
    for path, offered in {
        "/a.b/1.json": True,
        "/axb/1.json": False,
        "/a.b/1xjson": False,
        "/a.b/1/2.json": False,
        "/a+b": True,
        "/caf%C3%A9/1/2": True,
        "/caf%C3%A9/": False,
    }.items():
        assert (found.match("GET", path) is not None) is offered, path


def _endless(environ: Any, start_response: Any) -> Iterator[bytes]:
    """Offers without an end."""
    start_response("200 OK", [("Content-Type", "application/json")])
    for _ in range(OWN_BYTES_MAX // 65_536 + 8):
        yield b"[" * 65_536


@pytest.mark.parametrize("library", ["httpx", "httpx2", "requests"])
def test_an_answer_without_end_is_not_read_to_its_end(market: Market, library: Any) -> None:
    """A service that sends no offers but noise counts as one that cannot be reached."""
    payer: Any = market.payer()
    once = Policy(retry=never)
    with serve_wsgi(_endless) as url:
        client: httpx.Client | requests.Session
        if library == "requests":
            client = requests_clients.session(payer, PAYEE, url=url, retry=once)
        else:
            client = httpx_clients.client(payer, PAYEE, url=url, retry=once, library=library)
        with client, pytest.raises(Unreachable, match="bytes"):
            client.get("/quote/ACME")


# Refusals without end


def test_refusals_that_could_be_put_right_are_followed_so_often_and_no_more(shop: Wire) -> None:
    """A payee that says every allowance is used up cannot make us set everything aside."""
    shop.payee.script.extend([problem(402, "sequence_used", offers=[OFFER])] * 100)
    with pytest.raises(Refused, match="sequence_used"):
        shop.call()
    assert len(shop.sent) == call.RESIGNS_MAX + 1
    assert len({contract.jti for contract in shop.sent if contract}) == 1


def test_offers_of_a_402_that_make_no_sense_change_nothing(shop: Wire) -> None:
    shop.payee.script.extend([problem(402, "too_few_tokens", offers="none")] * 100)
    with pytest.raises(Refused):
        shop.call()
    assert [contract.tok for contract in shop.sent if contract] == [5, 5, 5]
    shop.payee.script.clear()
    shop.payee.script.append(problem(402, "too_few_tokens", offers=[dear(6)]))
    assert shop.call().status == 200


# Receipts


def test_wallets_kept_for_receipts_are_bounded(market: Market, clock: Clock) -> None:
    """The one asked for first goes, and is asked for again when it is needed."""
    shop = wire(market, clock, wallet_cache_max=1)
    shop.call()
    checker = shop.payer.consumer.receipts
    shop.run(checker.prepare("other"))
    assert list(checker._wallets) == ["other"]
    assert shop.call().status == 200


def test_a_compressed_body_is_undone_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes may stand for very many: never all of them at once."""
    monkeypatch.setattr(receipts, "INFLATE_BYTES_MAX", 1_000)
    body = b"0" * 1_000_000
    compressed = gzip.compress(body)  # once: it has the time in it
    assert digests_of(compressed, "gzip").match(documents.digest(body))
    assert digests_of(compressed, "gzip").match(documents.digest(compressed))
    assert not digests_of(gzip.compress(body), "gzip").match(documents.digest(b""))


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "deflate"])
def test_what_cannot_be_undone_is_not_held_against_the_payee(coding: str) -> None:
    """Brotli and others, and deflate without its frame: only the bytes as sent are known."""
    digests = digests_of(b"\x00\x01\x02", coding)
    assert not digests.certain
    assert digests.match(documents.digest(b"\x00\x01\x02"))


def test_an_identity_coding_is_none() -> None:
    assert digests_of(b"x", "identity").certain
