"""A Mesh of two domains on embedded ledgers; and ledgers that are not there, keys of their own, forks."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fastapi
import pytest

from support.domains_suite import FUNDS, PRICE, DomainsSuite, Town, get
from support.homes import Home, until
from support.serving import serve_asgi
from tokenmesh import charge, current_contract, priced
from tokenmesh.errors import ConfigError, IdentityError
from tokenmesh.provider import Provider


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    main = Home(tmp_path / "home")
    bank = Home(main.path, "bank.db")
    town = Town(main.path, main, bank)
    for realm in (main, bank):
        realm.open_wallet("quotes")
        realm.open_wallet("till", FUNDS)
    main.open_wallet("shop", FUNDS)
    bank.open_wallet("vault")
    yield town
    town.close()
    main.ledger.close()
    bank.ledger.close()


class TestEmbedded(DomainsSuite):
    @pytest.fixture
    def town(self, town: Town) -> Town:
        return town


def test_fastapi_takes_the_contracts_of_all_domains_too(town: Town) -> None:
    """Before the framework sees the request, in the handler, at the end: one provider does it all."""
    quotes = town.mesh("quotes", domains={"vault": town.bank.url})
    app = fastapi.FastAPI()

    @app.post("/echo/{n}")
    @priced(up_to=2 * PRICE, mesh=quotes)
    async def echo(n: int, request: fastapi.Request) -> str:
        charge(PRICE)
        contract = current_contract()
        assert contract is not None
        return f"{contract.iss} {(await request.body()).decode()}"

    till = town.mesh("till", domains={"quotes": town.bank.url})
    with serve_asgi(app) as url:
        for mesh in (town.mesh("shop"), till):
            with mesh.client("quotes", url=url) as client:
                response = client.post("/echo/1", content=b"says", idempotency_key="one")
                again = client.post("/echo/1", content=b"says", idempotency_key="one")
                refused = client.post("/echo/x", content=b"says")
            assert response.json() == again.json() == f"{mesh.service} says"
            assert refused.status_code == 422
            receipt = response.extensions["tokenmesh"].receipt
            assert (receipt.dom, receipt.tok) == (mesh.domain("quotes").id, PRICE)
            assert receipt.jti == again.extensions["tokenmesh"].receipt.jti
    quotes.close()
    assert [realm.total("quotes") for realm in (town.main, town.bank)] == [PRICE, PRICE]


# One domain, and which service is in which


def test_without_domains_nothing_stands_between_a_mesh_and_its_one_provider(town: Town) -> None:
    """The common case costs nothing: no second journal, no look at the contract's domain before its check."""
    mesh = town.mesh("quotes")
    assert type(mesh.provider) is Provider
    assert mesh.provider is mesh.domains[0].provider
    assert [path.name for path in town.home.glob("journal-*.db")] == ["journal-quotes.db"]


def test_a_pattern_to_the_own_ledger_is_an_exception_from_those_behind_it(town: Town) -> None:
    mesh = town.mesh("quotes", domains={"bank-help": town.main.url, "bank-*": town.bank.url})
    assert mesh.domain("bank-help") is mesh.domain("shop") is mesh.domains[0]
    assert mesh.domain("bank-rates") is mesh.domains[1]
    assert len(mesh.domains) == 2


def test_two_patterns_for_one_ledger_are_one_domain(town: Town) -> None:
    """Opened once, with one journal; also when the ledger is named in two ways."""
    bank = Path(town.bank.url.removeprefix("sqlite:///"))
    alias = bank.with_name("alias.db")
    alias.symlink_to(bank)
    mesh = town.mesh("quotes", domains={"a": town.bank.url, "b": town.bank.url, "c": f"sqlite:///{alias}"})
    assert mesh.domain("a") is mesh.domain("b")
    _, offers = get(f"{town.serve(mesh)}/.well-known/tokenmesh/offers")
    assert offers["domains"] == [town.main.ledger.domain, town.bank.ledger.domain]


def test_the_environment_maps_services_too(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMESH_DOMAINS", json.dumps({"vault": town.bank.url}))
    assert town.mesh("till").domain("vault").id == town.bank.ledger.domain


def test_nothing_of_a_domain_is_opened_before_it_is_needed(town: Town) -> None:
    """A payer opens the ledgers that it pays on, and no other."""
    mesh = town.mesh("till", domains={"vault": "sqlite:////nowhere/bank.db"})
    assert mesh.consumer.domain == town.main.ledger.domain
    with pytest.raises(ConfigError, match=r"/nowhere/bank\.db"):
        _ = mesh.domain("vault").consumer


# Keys


def test_a_domain_of_another_authority_has_keys_in_a_home_of_its_own(town: Town, tmp_path: Path) -> None:
    """A service is another wallet there, under the same name; its journal stays with the service."""
    abroad = Home(tmp_path / "abroad")
    abroad.open_wallet("quotes")
    abroad.open_wallet("till", FUNDS)
    there = {"ledger": abroad.url, "home": str(abroad.path)}
    quotes = town.mesh("quotes", domains={"vault": there})
    till = town.mesh("till", domains={"quotes": there})
    assert quotes.domain("vault").wallet.x5t != quotes.wallet.x5t
    with till.client("quotes", url=town.serve(quotes)) as client:
        assert client.get("/quote/ACME").extensions["tokenmesh"].receipt.dom == abroad.ledger.domain
    until(lambda: abroad.total("quotes") == PRICE, "it is paid")
    assert not list(abroad.path.glob("journal-*"))
    assert len(list(town.home.glob("journal-quotes*.db"))) == 2
    abroad.ledger.close()


def test_a_missing_key_or_ledger_is_said_before_any_call_is_taken(town: Town, tmp_path: Path) -> None:
    """What is wrong for good is an error, for all domains: a payee that runs with half of them looks well."""
    mesh = town.mesh("quotes", domains={"vault": {"ledger": town.bank.url, "home": str(tmp_path / "none")}})
    with pytest.raises(IdentityError, match="none"):
        _ = mesh.provider
    mesh = town.mesh("quotes", domains={"vault": f"sqlite:///{tmp_path}/none.db"})
    with pytest.raises(ConfigError, match=r"none\.db.*tokenmesh init"):
        _ = mesh.provider


# A ledger that is not there


@pytest.fixture
def broken(town: Town) -> Path:
    """Where the bank's ledger should be: something that is no ledger, until ``mend`` puts it back."""
    bank = Path(town.bank.url.removeprefix("sqlite:///"))
    path = bank.with_name("away.db")
    path.write_bytes(b"a disk that is not mounted yet, or so" * 100)
    return path


def mend(broken: Path, town: Town) -> None:
    broken.unlink()
    broken.symlink_to(town.bank.url.removeprefix("sqlite:///"))


def test_a_ledger_that_is_not_there_stops_nobody_elses_calls(
    town: Town, broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Contracts for it get 503 and no verdict; it is taken up as soon as it is there, by itself."""
    quotes = town.mesh("quotes", domains={"vault": f"sqlite:///{broken}"})
    url = town.serve(quotes)
    with town.mesh("shop").client("quotes", url=url) as client:
        assert client.get("/quote/ACME").status_code == 200
        till = town.mesh("till", domains={"quotes": town.bank.url})
        contract = DomainsSuite().contract(till, town.bank.ledger.domain, payer="till")
        status, problem = get(f"{url}/quote/ACME", contract)
        assert (status, problem["code"]) == (503, "ledger_unavailable")
        assert "away.db" in problem["detail"]
        _, offers = get(f"{url}/.well-known/tokenmesh/offers")
        assert {"domain", "domains"}.isdisjoint(offers), "nobody is to conclude that the bank is not served"
        mend(broken, town)
        until(lambda: get(f"{url}/quote/ACME", contract)[0] == 402, "the contract has its verdict")
        with till.client("quotes", url=url) as other:
            assert other.get("/quote/ACME").status_code == 200
        assert client.get("/quote/ACME").status_code == 200
    said = [record.message for record in caplog.records if "no contracts for" in record.message]
    assert len(said) == 1, "one line, not one for every try"


def test_the_own_ledger_may_be_the_one_that_is_not_there(town: Town, broken: Path) -> None:
    """No domain is worth more than another once the service runs; what is free needs none."""
    quotes = town.mesh("quotes", ledger=f"sqlite:///{broken}", domains={"shop": town.main.url})
    url = town.serve(quotes)
    with town.mesh("shop").client("quotes", url=url) as client:
        assert client.get("/quote/ACME").status_code == 200


def test_with_no_ledger_at_all_only_what_is_free_is_served(town: Town, broken: Path) -> None:
    other = broken.with_name("away-too.db")
    other.write_bytes(broken.read_bytes())
    quotes = town.mesh("quotes", ledger=f"sqlite:///{broken}", domains={"x": f"sqlite:///{other}"})
    url = town.serve(quotes)
    assert get(f"{url}/quote/free") == (200, {"symbol": "free"})
    status, offers = get(f"{url}/.well-known/tokenmesh/offers")
    assert (status, offers["service"], "domain" in offers) == (200, "quotes", False)
    for path in ("/quote/ACME", "/.well-known/tokenmesh/receipts/x"):
        status, problem = get(url + path)
        assert (status, problem["code"]) == (503, "ledger_unavailable"), path


def test_a_ledger_that_hangs_does_not_take_the_others_time_when_the_mesh_closes(town: Town) -> None:
    """Each domain has its share of ``close_s_max``; what is not settled waits in its journal."""
    quotes = town.mesh(
        "quotes",
        domains={"vault": town.bank.url},
        settle_interval_s=3_600,
        close_s_max=3,
        ledger_busy_s_max=1,
    )
    url = town.serve(quotes)
    for mesh in (town.mesh("shop"), town.mesh("till", domains={"quotes": town.bank.url})):
        with mesh.client("quotes", url=url) as client:
            client.get("/quote/ACME")
    with closing(sqlite3.connect(town.bank.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        quotes.close()
        assert time.monotonic() - begun < 15
    assert town.main.total("quotes") == PRICE
    assert town.bank.total("quotes") == 0
    again = town.mesh("quotes", domains={"vault": town.bank.url})
    _ = again.provider
    until(lambda: town.bank.total("quotes") == PRICE, "the next run settles it")


def test_a_forked_child_opens_all_domains_anew(town: Town) -> None:
    script = (
        "import os\n"
        "from tokenmesh import default_mesh\n"
        "mesh = default_mesh()\n"
        "ledger, provider = mesh.domain('vault').ledger, mesh.provider\n"
        "child = os.fork()\n"
        "assert (mesh.domain('vault').ledger is ledger) == (child != 0)\n"
        "assert (mesh.provider is provider) == (child != 0)\n"
        "assert mesh.domain('vault').ledger.wallet('vault').result(30) is not None\n"
        "if child == 0:\n"
        "    mesh.close()\n"
        "    os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "assert mesh.domain('vault').ledger.wallet('vault').result(30).name == 'vault'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("TOKENMESH_")},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TOKENMESH_HOME": str(town.home),
            "TOKENMESH_SERVICE": "quotes",
            "TOKENMESH_DOMAINS": json.dumps({"vault": town.bank.url}),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
