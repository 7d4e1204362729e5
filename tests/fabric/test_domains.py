"""A Mesh of two domains on a real network: two channels, and wallets that the organisations' CAs enroll.

What every pair of ledgers must show is in the suite; each of its tests has chaincode definitions of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from support.cli import Cli
from support.domains_suite import FUNDS, PRICE, DomainsSuite, Realm, Town, get
from support.fabric_domain import Rules
from support.homes import until
from tokenmesh import Mesh
from tokenmesh.cli.rules import deploy_rules
from tokenmesh.fabric.network import Network
from tokenmesh.ledger import open_ledger

MAIN, BANK = "main", "bank"


class Channel:
    """The domain of one channel, begun and governed by the command line as its users would."""

    def __init__(self, cli: Cli, profile: Path, name: str) -> None:
        self.url = f"fabric:///{profile}?channel={name}"
        self._cli = cli
        cli("init", "--ledger", self.url)
        self.ledger = open_ledger(self.url, None)

    def open_wallet(self, name: str, tokens: int = 0, url: str | None = None) -> None:
        tokens_option = ["--tokens", str(tokens)] if tokens else []
        url_option = ["--url", url] if url else []
        self._cli("wallet", "create", name, "--ledger", self.url, *tokens_option, *url_option)

    def total(self, name: str) -> int:
        return sum(self.ledger.balance(name).result(30))


@pytest.fixture(scope="module")
def channels(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network with two channels."""
    network = Network(tmp_path_factory.mktemp("domains"), channels=(MAIN, BANK), batch_timeout_ms=20)
    try:
        network.up()
        yield network
    finally:
        network.clean()


@pytest.fixture(scope="module")
def rules(channels: Network) -> Iterator[list[Rules]]:
    """The rules as chaincode of each channel."""
    with Rules(channels, MAIN) as main, Rules(channels, BANK) as bank:
        yield [main, bank]


@contextmanager
def town_of(profile: Path, home: Path) -> Iterator[Town]:
    """The two channels of a profile as the suite wants them, with all keys in ``home``."""
    main, bank = (Channel(Cli(home), profile, name) for name in (MAIN, BANK))
    town = Town(home, main, bank)
    try:
        for realm in (main, bank):
            realm.open_wallet("quotes")
            realm.open_wallet("till", FUNDS)
        main.open_wallet("shop", FUNDS)
        bank.open_wallet("vault")
        yield town
    finally:
        town.close()
        main.ledger.close()
        bank.ledger.close()


def renamed(network: Network, chaincodes: dict[str, str], name: str) -> Path:
    """The network's profile with other chaincodes."""
    profile = yaml.safe_load(network.layout.profile.read_text())
    for channel, chaincode in chaincodes.items():
        profile["channels"][channel]["chaincode"] = chaincode
    path = network.layout.profile.with_name(name)
    path.write_text(yaml.safe_dump(profile))
    return path


class TestFabric(DomainsSuite):
    @pytest.fixture
    def town(self, channels: Network, rules: list[Rules], tmp_path: Path) -> Iterator[Town]:
        names = {each.channel: each.define() for each in rules}
        with town_of(renamed(channels, names, f"{tmp_path.name}.yaml"), tmp_path / "home") as town:
            yield town


def test_a_channel_whose_rules_are_down_stops_no_call_of_the_other(
    channels: Network, rules: list[Rules], tmp_path: Path
) -> None:
    """Its contracts have no verdict (503) meanwhile; all others are taken as ever."""
    away = Rules(channels, BANK)
    names = {MAIN: rules[0].define(), BANK: away.define()}
    with town_of(renamed(channels, names, f"{tmp_path.name}.yaml"), tmp_path / "home") as town:
        till = town.mesh("till", domains={"quotes": town.bank.url})
        contract = DomainsSuite().contract(till, town.bank.ledger.domain, payer="till")
        away.close()
        quotes = town.mesh("quotes", domains={"vault": town.bank.url}, ledger_wait_s=1)
        url = town.serve(quotes)
        with town.mesh("shop").client("quotes", url=url) as client:
            assert client.get("/quote/ACME").status_code == 200
            status, problem = get(f"{url}/quote/ACME", contract)
            assert (status, problem["code"]) == (503, "ledger_unavailable")
            assert client.get("/quote/ACME").status_code == 200
        until(lambda: town.main.total("quotes") == 2 * PRICE, "it is paid")


def test_the_whole_way_from_the_command_line_to_two_paid_channels(
    channels: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules served by the network itself; a key is rotated on both channels, and goes on paying."""
    deploy_rules(channels)
    with town_of(channels.layout.profile, tmp_path / "home") as town:
        till = town.mesh("till", domains={"vault": town.bank.url})
        shops = {
            "quotes": (town.serve(town.mesh("quotes")), town.main),
            "vault": (town.serve(town.mesh("vault", town.bank.url)), town.bank),
        }
        call_each(till, shops)
        old = till.wallet.x5t
        monkeypatch.setenv("TOKENMESH_DOMAINS", f'{{"vault": "{town.bank.url}"}}')
        assert "2 ledgers know it" in Cli(town.home)("wallet", "rotate", "till", "--ledger", town.main.url)
        until(lambda: till.wallet.reload() or till.wallet.x5t != old, "the service takes the key up")
        call_each(till, shops)
        for service, (_, realm) in shops.items():
            until(lambda s=service, r=realm: r.total(s) == 2 * PRICE, "it is paid")  # type: ignore[misc]
            assert realm.total("till") == FUNDS - 2 * PRICE


def call_each(payer: Mesh, services: Mapping[str, tuple[str, Realm]]) -> None:
    for service, (url, _) in services.items():
        with payer.client(service, url=url) as client:
            assert client.get("/quote/ACME").status_code == 200
