"""What a service writes down about itself: no key, no body, no signed document in a log, whatever happens."""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import flask
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.market import PAYEE, PAYER, Market
from support.serving import serve_wsgi
from tokenmesh.decorators import priced
from tokenmesh.errors import TokenmeshError
from tokenmesh.keyfiles import Identity

ASKED = "what-nobody-else-may-read"
TOLD = "nor-this-answer"


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


def secrets_of(identity: Identity) -> list[str]:
    """A private key in the spellings that a log could have it in."""
    number = identity.key.private_numbers().private_value
    raw = number.to_bytes(32, "big")
    pem = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return [
        str(number),
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).rstrip(b"=").decode(),
        *pem.split("\n")[1:-2],
        "PRIVATE KEY",
    ]


def test_no_log_has_a_key_a_body_or_a_document(market: Market, caplog: pytest.LogCaptureFixture) -> None:
    """Everything at its most talkative, through good calls and bad ones: a handler that fails, a contract
    that is rubbish, one that is not enough, a service that hangs up, a settlement."""
    caplog.set_level(logging.DEBUG)
    seller = market.seller()
    seen: list[str] = []
    app = flask.Flask("quotes")

    @app.post("/good")
    @priced(tokens=5, mesh=seller)
    def good() -> str:
        assert flask.request.data.decode() == ASKED
        seen.append(flask.request.headers["Token-Contract"])
        return TOLD

    @app.post("/bad")
    @priced(tokens=5, mesh=seller)
    def bad() -> str:
        raise ZeroDivisionError(TOLD[:3])

    @app.post("/dear")
    @priced(tokens=10**6, mesh=seller)
    def dear() -> str:
        return TOLD

    with serve_wsgi(app) as url:
        with market.payer(urls={PAYEE: url}).client(PAYEE) as client:
            response = client.post("/good", content=ASKED)
            assert response.text == TOLD
            seen.append(response.extensions["tokenmesh"].receipt_text)
            client.post("/bad", content=ASKED)
            with contextlib.suppress(TokenmeshError):
                client.post("/dear", content=ASKED)
            for rubbish in ("rubbish", seen[0][:-4] + "AAAA"):
                with contextlib.suppress(TokenmeshError):
                    client.post("/good", content=ASKED, headers={"Token-Contract": rubbish})
        seller.settle()
    with market.payer(urls={PAYEE: url}).client(PAYEE) as client, contextlib.suppress(TokenmeshError):
        client.post("/good", content=ASKED)  # nobody is there any more
    logged = "\n".join(
        f"{record.name} {record.getMessage()} {record.exc_text or ''} {record.args}"
        for record in caplog.records
        if not record.name.startswith("httpcore")  # which logs every header, if it is told to
    )
    assert logged
    signatures = [part for text in seen for part in text.split(".")[1:]]
    for secret in (
        ASKED,
        TOLD,
        *signatures,
        *secrets_of(market.domain[PAYER]),
        *secrets_of(market.domain[PAYEE]),
    ):
        assert secret not in logged
