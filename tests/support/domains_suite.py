"""What a Mesh of two domains must show, on whatever ledgers: inherit :class:`DomainsSuite` and give ``town``.

``quotes`` is paid on ``main`` by everyone, but on ``bank`` by the till, whose Mesh maps it there. ``vault``
is paid on ``bank`` only. All are real services: Meshes, HTTP servers, and clients.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import flask
import pytest

from support.homes import until
from support.serving import serve_wsgi
from tokenmesh import Mesh, calls, priced
from tokenmesh.errors import NotFunded, OtherDomain
from tokenmesh_chaincode import documents

PRICE = 5
FUNDS = 1_000


class Realm(Protocol):
    """One domain: its ledger, and who governs it."""

    url: str
    ledger: Any

    def open_wallet(self, name: str, tokens: int = 0, url: str | None = None) -> Any:
        """Put a wallet on this ledger, with the key that its home has for it."""

    def total(self, name: str) -> int:
        """All tokens of a wallet, wherever they are."""


class Town:
    """Two domains whose wallets have their keys in one home, and services that run until the test ends."""

    def __init__(self, home: Path, main: Realm, bank: Realm) -> None:
        self.home = home
        self.main = main
        self.bank = bank
        self._open = ExitStack()

    def mesh(self, service: str, ledger: str | None = None, **settings: Any) -> Mesh:
        settings = {"settle_interval_s": 0.05, "home": self.home, **settings}
        return self._open.enter_context(Mesh(service, ledger=ledger or self.main.url, **settings))

    def serve(self, mesh: Mesh) -> str:
        """A service with ``GET /quote/{symbol}`` for 5 tokens; its url."""
        return self._open.enter_context(serve_wsgi(quotes(mesh)))

    def close(self) -> None:
        self._open.close()


def quotes(mesh: Mesh) -> flask.Flask:
    app = flask.Flask(mesh.service)

    @app.get("/quote/<symbol>")
    @priced(tokens=PRICE, exempt_when=lambda request: "free" in request.target, mesh=mesh)
    def quote(symbol: str) -> dict[str, str]:
        return {"symbol": symbol}

    @app.get("/hours")
    def hours() -> str:
        return "always"

    return app


def get(url: str, contract: str | None = None) -> tuple[int, dict[str, Any]]:
    """What a plain request gets: status and JSON."""
    headers = {} if contract is None else {"Token-Contract": contract}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class DomainsSuite:
    """``town`` has ``quotes`` and ``till`` on both ledgers, ``shop`` on main only, ``vault`` on bank only."""

    @pytest.fixture
    def town(self) -> Iterator[Town]:
        raise NotImplementedError

    @pytest.fixture
    def quotes(self, town: Town) -> Mesh:
        return town.mesh("quotes", domains={"vault": town.bank.url})

    def test_a_service_in_two_domains_is_paid_in_each(self, town: Town, quotes: Mesh) -> None:
        """By the contract's domain: two ledgers, two journals, two settlements, receipts that say which."""
        url = town.serve(quotes)
        shop, till = town.mesh("shop"), town.mesh("till", domains={"quot*": town.bank.url})
        for payer, realm in ((shop, town.main), (till, town.bank)):
            with payer.client("quotes", url=url) as client:
                infos = [client.get(f"/quote/{n}").extensions["tokenmesh"] for n in range(3)]
            assert [info.charged for info in infos] == [PRICE] * 3
            assert {info.receipt.dom for info in infos} == {realm.ledger.domain}
        for realm in (town.main, town.bank):
            until(lambda realm=realm: realm.total("quotes") == 3 * PRICE, "what is owed is settled")  # type: ignore[misc]
            assert realm.ledger.supply().result(30).conserved
        assert [town.main.total("till"), town.bank.total("till")] == [FUNDS, FUNDS - 3 * PRICE]
        assert [town.main.total("shop"), town.bank.total("shop")] == [FUNDS - 3 * PRICE, 0]
        own, other = (domain.journal.stats() for domain in quotes.domains)
        assert (own.claims, other.claims) == (3, 3)
        assert len(list(town.home.glob("journal-quotes*.db"))) == 2

    def test_a_service_pays_where_its_target_is_paid_and_with_what_it_earned_there(
        self, town: Town, quotes: Mesh
    ) -> None:
        """The map decides, for clients and decorators alike; ``vault`` is found by its wallet there."""
        vault = town.serve(town.mesh("vault", town.bank.url))
        till = town.mesh("till", domains={"quotes": town.bank.url})
        with till.client("quotes", url=town.serve(quotes)) as client:
            client.get("/quote/ACME")
        until(lambda: town.bank.total("quotes") == PRICE, "it is paid")

        @calls("vault", mesh=quotes, url=vault)
        def look(service: Any) -> Any:
            return service.get("/quote/GOLD").extensions["tokenmesh"]

        assert look().receipt.dom == town.bank.ledger.domain
        until(lambda: town.bank.total("vault") == PRICE, "it is paid")
        assert town.bank.total("quotes") == 0
        assert town.main.total("quotes") == 0

    def test_offers_name_the_domains_and_receipts_are_had_from_either(self, town: Town, quotes: Mesh) -> None:
        url = town.serve(quotes)
        _, offers = get(f"{url}/.well-known/tokenmesh/offers")
        domains = [realm.ledger.domain for realm in (town.main, town.bank)]
        assert (offers["domain"], offers["domains"]) == (domains[0], domains)
        assert {offer["tokens"] for offer in offers["offers"]} == {PRICE}
        till = town.mesh("till", domains={"quotes": town.bank.url})
        for mesh in (town.mesh("shop"), till):
            with mesh.client("quotes", url=url) as client:
                contract = client.get("/quote/ACME").extensions["tokenmesh"].contract_id
            where = f"{url}/.well-known/tokenmesh/receipts/{contract}?payer={mesh.service}"
            with urllib.request.urlopen(where, timeout=30) as response:
                receipt = documents.parse_receipt(response.read().decode()).body
            assert (receipt.jti, receipt.dom) == (contract, mesh.domain("quotes").id)
        status, problem = get(f"{url}/.well-known/tokenmesh/receipts/{documents.new_id()}?payer=shop")
        assert (status, problem["code"]) == (404, "receipt_unknown")

    def test_a_call_on_the_wrong_ledger_fails_before_anything_is_set_aside(self, town: Town) -> None:
        """The offers say where a payee is paid; the error names both domains and the setting."""
        vault = town.serve(town.mesh("vault", town.bank.url))
        town.main.open_wallet("vault")
        with town.mesh("shop").client("vault", url=vault) as client:
            with pytest.raises(OtherDomain, match="TOKENMESH_DOMAINS") as caught:
                client.get("/quote/GOLD")
            assert town.bank.ledger.domain in str(caught.value)
            assert town.main.ledger.domain in str(caught.value)
            assert client.get("/hours").text == "always"
        assert town.main.ledger.balance("shop").result(30).allowed == 0

    def test_a_contract_for_a_domain_that_is_not_served_is_refused(self, town: Town, quotes: Mesh) -> None:
        """401, with the domains that are; what costs nothing stays free, whatever comes with it."""
        url = town.serve(quotes)
        elsewhere = documents.digest(b"elsewhere")[9:].rstrip("=:").replace("+", "-").replace("/", "_")
        contract = self.contract(town.mesh("shop"), elsewhere)
        status, problem = get(f"{url}/quote/ACME", contract)
        assert (status, problem["code"]) == (401, "other_domain")
        for domain in (elsewhere, town.main.ledger.domain, town.bank.ledger.domain):
            assert domain in problem["detail"]
        assert get(f"{url}/quote/free", contract) == (200, {"symbol": "free"})

    def test_a_contract_holds_in_its_own_domain_only(self, town: Town, quotes: Mesh) -> None:
        """An allowance of one domain pays nothing in another, whoever signs."""
        url = town.serve(quotes)
        till = town.mesh("till", domains={"quotes": town.bank.url})
        with till.client("quotes", url=url) as client:
            client.get("/quote/ACME")
        (allowance,) = town.bank.ledger.allowances("till").result(30)
        contract = self.contract(till, town.main.ledger.domain, payer="till", via=allowance.id)
        status, problem = get(f"{url}/quote/ACME", contract)
        assert (status, problem["code"]) == (402, "allowance_unknown")

    def test_a_payer_that_has_no_wallet_there_is_told_so(self, town: Town, quotes: Mesh) -> None:
        shop = town.mesh("shop", domains={"quotes": town.bank.url})
        with (
            shop.client("quotes", url=town.serve(quotes)) as client,
            pytest.raises(NotFunded, match=r"has no wallet 'shop'.*wallet create shop --ledger"),
        ):
            client.get("/quote/ACME")

    def test_what_is_owed_in_both_domains_is_settled_when_the_mesh_closes(self, town: Town) -> None:
        """Also by the next run of the service, which finds each journal again by its domain."""
        quotes = town.mesh("quotes", domains={"vault": town.bank.url}, settle_interval_s=3_600)
        url = town.serve(quotes)
        till = town.mesh("till", domains={"quotes": town.bank.url})
        for mesh in (town.mesh("shop"), till):
            with mesh.client("quotes", url=url) as client:
                client.get("/quote/ACME")
        quotes.close()
        for realm in (town.main, town.bank):
            assert realm.total("quotes") == PRICE

    def contract(self, mesh: Mesh, dom: str, payer: str = "shop", **claims: Any) -> str:
        """A contract of ``payer`` for one quote, in any domain."""
        now = int(time.time())
        body = documents.Contract(
            dom=dom,
            iss=payer,
            aud="quotes",
            op="GET /quote/{symbol}",
            htm="GET",
            htu="/quote/ACME",
            dig=documents.digest(b""),
            tok=PRICE,
            jti=documents.new_id(),
            iat=now,
            exp=now + 60,
            via=documents.new_id(),
            lane="a",
            seq=1,
        )
        return documents.sign(body._replace(**claims), mesh.wallet)
