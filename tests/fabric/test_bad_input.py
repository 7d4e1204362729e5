"""What is said when something is wrong: by the Gateway client, by the ledger, and on the command line.

Everything is wrong for once on a real network: whose certificate, which name, what is down or full, and the
clock. Each error says what happened, why, and what to do; on the command line in a line or two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.cli import Cli
from support.ledgers import now_of
from support.spoilt_profiles import Spoil, Spoilt, expired
from tokenmesh.cli.rules import CHAINCODE, deploy_rules
from tokenmesh.errors import ConfigError, LedgerUnavailable
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import (
    NO_RETRY,
    Gateway,
    GatewayError,
    Retry,
    connect_profile,
    connect_profile_async,
)
from tokenmesh.fabric.gateway.flows import Status, Submitted, commit_status, status_request
from tokenmesh.fabric.gateway.messages import Prepared
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.profile import load_profile
from tokenmesh.identity import Wallet, wallet_path
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger import open_ledger
from tokenmesh.ledger.base import Balance, Ledger, Result
from tokenmesh.ledger.fabric import FabricLedger
from tokenmesh.ledger.fabric import ledger as fabric_ledger
from tokenmesh_chaincode.documents import Operation, new_id, sign

PLACES = 8
"""Calls that a peer's gateway serves at once."""
IMPATIENT = Retry(attempts=3, budget_s=1.0)

WRONG: list[tuple[Spoil, str]] = [
    (Spoilt.tls_ca_of_another, "the peer's TLS certificate is not of the CA you gave (a profile's tls_ca)"),
    (Spoilt.without_tls_pair, "it demands a client certificate of a CA that it knows"),
    (Spoilt.tls_pair_of_another, "it demands a client certificate of a CA that it knows"),
    (Spoilt.expired_tls_pair, "our TLS certificate expired on 20"),
    (Spoilt.tls_key_that_does_not_fit, "tls.crt cannot be used: our certificate and key for TLS do not"),
    (Spoilt.tls_pair_that_is_none, "tls.crt cannot be used: our certificate and key for TLS cannot be read"),
    (Spoilt.expired_certificate, "certificate has expired: enroll it anew"),
    (Spoilt.certificate_of_another_ca, "the certificate is of another CA than that organisation's"),
    (Spoilt.certificate_of_another_organisation, "the certificate is of another CA than that organisation's"),
    (Spoilt.key_that_does_not_fit, "or its key is another one's"),
    (Spoilt.unknown_msp, "either none has its MSP id"),
    (Spoilt.unknown_channel, "the peer does not know this channel: check its name"),
    (Spoilt.unknown_chaincode, "check its name, that it is deployed, and running"),
    (Spoilt.nobody_listens, "the peer could not be reached"),
    (Spoilt.no_such_host, "there is no host of this name: check the peer's address"),
    (Spoilt.an_orderers_port, "this peer has no gateway service"),
    (Spoilt.not_a_fabric_port, "what listens there is no peer: check its address"),
]


@pytest.fixture(scope="module")
def network(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network of this module's own, with the rules on it, whose peers serve few gateway calls at once."""
    network = Network(
        tmp_path_factory.mktemp("fabric"),
        batch_timeout_ms=20,
        peer_settings={"peer.limits.concurrency.gatewayService": PLACES},
    )
    try:
        network.up()
        deploy_rules(network)
        yield network
    finally:
        network.clean()


@pytest.fixture(scope="module")
def cli(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A domain on it, with the wallet ``shop``."""
    cli = Cli(tmp_path_factory.mktemp("home"))
    cli("init", "--ledger", url_of(network.profile.path))
    cli("wallet", "create", "shop", "--tokens", "10", "--ledger", url_of(network.profile.path))
    return cli


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledgers that soon give up."""
    monkeypatch.setattr(fabric_ledger, "ASK_RETRY", IMPATIENT)
    monkeypatch.setattr(fabric_ledger, "SUBMIT_RETRY", IMPATIENT)


def url_of(profile: Path) -> str:
    return f"fabric:///{profile}"


def ask_domain(profile: Path, retry: Retry = NO_RETRY) -> bytes:
    """By the Gateway client alone."""
    given = load_profile(profile)
    (channel,) = given.channels.values()
    with connect_profile(given) as gateway:
        contract = gateway.get_network(channel.name).get_contract(channel.chaincode)
        return contract.evaluate("ask", ("domain", "[]"), retry=retry)


async def ask_domain_async(profile: Path) -> bytes:
    given = load_profile(profile)
    (channel,) = given.channels.values()
    async with connect_profile_async(given) as gateway:
        contract = gateway.get_network(channel.name).get_contract(channel.chaincode)
        return await contract.evaluate("ask", ("domain", "[]"), retry=NO_RETRY)


def submit_genesis(profile: Path) -> bytes:
    """What no chaincode would take; with something wrong on the way it does not come to that."""
    given = load_profile(profile)
    (channel,) = given.channels.values()
    with connect_profile(given) as gateway:
        contract = gateway.get_network(channel.name).get_contract(channel.chaincode)
        return contract.submit("genesis", ("{}",), retry=NO_RETRY)


def said_by(kind: type[Exception], run: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        run()
    return str(caught.value)


def test_a_copy_of_the_profile_is_good(network: Network, cli: Cli, tmp_path: Path) -> None:
    """Or the others here would show nothing."""
    profile = Spoilt(network, tmp_path).path
    assert ask_domain(profile) == asyncio.run(ask_domain_async(profile))
    with open_ledger(url_of(profile), None) as ledger:
        assert ledger.domain.encode() in ask_domain(profile)
    assert "shop" in cli("balance", "--ledger", url_of(profile))


@pytest.mark.parametrize(("spoil", "said"), WRONG, ids=[spoil.__name__ for spoil, _ in WRONG])
def test_what_is_wrong_is_said_wherever_it_is_met(
    network: Network, cli: Cli, tmp_path: Path, impatient: None, spoil: Spoil, said: str
) -> None:
    """The same words from the Gateway client, for threads and asyncio, the ledger and the command line."""
    profile = spoil(Spoilt(network, tmp_path))
    assert said in said_by(FabricError, lambda: ask_domain(profile))
    assert said in said_by(FabricError, lambda: asyncio.run(ask_domain_async(profile)))
    if spoil not in (Spoilt.unknown_channel, Spoilt.unknown_chaincode):
        assert said in said_by(FabricError, lambda: submit_genesis(profile))
    else:
        assert "no such chaincode is committed on this channel" in said_by(
            FabricError, lambda: submit_genesis(profile)
        )
    expected = (LedgerUnavailable, ConfigError)
    assert said in said_by(expected, lambda: open_ledger(url_of(profile), None))
    since = time.monotonic()
    assert said in cli.refused("balance", "--ledger", url_of(profile))
    assert time.monotonic() - since < 5


@pytest.mark.parametrize("command", [["init"], ["verify"], ["history"], ["wallet", "create", "other"]])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Spoilt.tls_ca_of_another, "not of the CA you gave"),
        (Spoilt.unknown_channel, "the peer does not know this channel"),
        (Spoilt.unknown_msp, "either none has its MSP id"),
    ],
)
def test_every_command_says_so(
    network: Network, cli: Cli, tmp_path: Path, impatient: None, spoil: Spoil, said: str, command: list[str]
) -> None:
    """And whatever it made before it came to that is taken up by the next run."""
    profile = spoil(Spoilt(network, tmp_path))
    assert said in cli.refused(*command, "--ledger", url_of(profile))
    assert not wallet_path(cli.home, "other").exists()


def test_a_stream_that_cannot_be_is_an_error_at_once(network: Network, tmp_path: Path) -> None:
    """It is opened again and again while a peer is gone, but not where the CA is the wrong one."""
    since = time.monotonic()
    with connect_profile(load_profile(Spoilt(network, tmp_path).tls_ca_of_another())) as gateway:
        said = said_by(GatewayError, gateway.get_network("mesh").get_block_events)
    assert "not of the CA you gave" in said
    assert time.monotonic() - since < 5


def test_a_stream_says_that_the_certificate_has_expired(network: Network, tmp_path: Path) -> None:
    """The peer only says FORBIDDEN; the client knows why."""
    with connect_profile(load_profile(Spoilt(network, tmp_path).expired_certificate())) as gateway:
        said = said_by(GatewayError, gateway.get_network("mesh").get_block_events)
    assert "FORBIDDEN" in said
    assert "this identity's certificate expired on 20" in said


def test_a_wallet_whose_certificate_has_expired(network: Network, cli: Cli) -> None:
    """Its process and its commands hear it, and how to mend it; a governor does, and then all is well."""
    url = url_of(network.profile.path)
    cli("wallet", "create", "late", "--ledger", url)
    path = wallet_path(cli.home, "late")
    key = Identity.read(path, lambda: None).key
    ended = Identity(key, expired(network, "services", "late", key.public_key()))
    path.write_bytes(ended.to_pem(None))
    said = "this identity's certificate expired on 20"
    assert said in said_by(LedgerUnavailable, lambda: open_ledger(url, ended))
    update = ("wallet", "update", "late", "--url", "http://127.0.0.1:1", "--as", "late", "--ledger", url)
    refused = cli.refused(*update)
    assert said in refused
    assert "'tokenmesh wallet rotate late --as governance' renews it" in refused
    cli("wallet", "rotate", "late", "--as", "governance", "--ledger", url)
    cli(*update)


@pytest.mark.parametrize(
    ("off_s", "said"), [(-120, "clock_skewed: the proposal is from"), (3_600, "set the clock")]
)
def test_a_clock_that_is_wrong(
    network: Network, cli: Cli, monkeypatch: pytest.MonkeyPatch, off_s: int, said: str
) -> None:
    """By minutes the chaincode refuses what is submitted, by an hour the peer refuses everything."""

    def clock() -> float:
        return time.time() + off_s

    url = url_of(network.profile.path)
    before = cli.json("balance", "shop", "--ledger", url)["total"]
    assert said in said_by(
        LedgerUnavailable, lambda: submit_transfer(cli, connect_profile(network.profile), clock)
    )
    # The command line has no option for it: there it is the clock of the machine.
    monkeypatch.setitem(FabricLedger.__init__.__kwdefaults__, "clock", clock)
    assert said in cli.refused("grant", "shop", "1", "--ledger", url)
    monkeypatch.undo()
    assert cli.json("balance", "shop", "--ledger", url)["total"] == before


def test_a_chaincode_that_is_down_is_said_and_taken_up_again(
    network: Network, cli: Cli, impatient: None
) -> None:
    """To who has the ledger open: nothing happened; once the chaincode is back the same ledger works."""
    services = [node.name for node in network.plan.everything if node.name.startswith("chaincode.")]
    with open_ledger(url_of(network.profile.path), Wallet.load(cli.home, "shop")) as ledger:
        for name in services:
            network.stop(name)
        try:
            said = said_by(LedgerUnavailable, lambda: now_of(ledger.balance("shop")))
            assert "chaincode" in said
            assert "given up after 3 attempts" in said
        finally:
            for name in services:
                network.start(name)
        assert until_answered(ledger, "shop") is not None


def until_answered(ledger: Ledger, name: str) -> Balance | None:
    """The peers reach a chaincode again some moments after it has come back."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(LedgerUnavailable):
            return now_of(ledger.balance(name))
    return None


@contextmanager
def full(network: Network) -> Iterator[None]:
    """Every place at the first peer's gateway is taken, by who waits for a transaction that never comes."""
    with ThreadPoolExecutor(PLACES * 4) as pool, connect_profile(network.profile) as gateway:
        session, never = gateway._session, Submitted(Prepared("0" * 64, "mesh", b""), None)
        request = status_request(session.caller, never.prepared)
        waiting: list[Future[Status]] = []
        while not is_full(network.profile.path):
            assert len(waiting) < PLACES * 4, "the gateway does not get full"
            flow = commit_status(session.caller, never, request, None, None)
            waiting.append(pool.submit(session.drive, flow))
        yield
        assert not any(one.done() for one in waiting[:PLACES])


def is_full(profile: Path) -> bool:
    try:
        ask_domain(profile)
    except GatewayError as error:
        return "too many requests" in str(error)
    return False


def submit_transfer(cli: Cli, gateway: Gateway, clock: Callable[[], float] = time.time) -> Result:
    """A token for ``shop``, its operation signed now, its transaction of the time by ``clock``."""
    with FabricLedger(gateway, "mesh", CHAINCODE, clock=clock) as ledger:
        now, argument = int(time.time()), {"to": "shop", "tokens": 1}
        operation = Operation(ledger.domain, "governance", new_id(), now, now + 60, "transfer", argument)
        (result,) = now_of(ledger.submit([sign(operation, Wallet.load(cli.home, "governance"))]))
        return result


def test_a_gateway_that_is_full_is_waited_for_and_said(
    network: Network, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever gives up, with how often it was tried; who has patience gets through when there is room."""
    url = url_of(network.profile.path)
    said = "call it less at once, or raise that limit"
    with ThreadPoolExecutor(1) as pool:
        with full(network):
            alone = said_by(GatewayError, lambda: ask_domain(network.profile.path, IMPATIENT))
            with monkeypatch.context() as patched:
                patched.setattr(fabric_ledger, "ASK_RETRY", IMPATIENT)
                opened = said_by(LedgerUnavailable, lambda: open_ledger(url, None))
                command = cli.refused("balance", "--ledger", url)
            patient = pool.submit(ask_domain, network.profile.path, Retry(attempts=1_000, budget_s=60))
            assert not patient.done()
        for text in (alone, opened, command):
            assert said in text
            assert "given up after 3 attempts" in text
        assert patient.result(60)


def test_many_callers_get_through_a_gateway_of_few_places(network: Network, cli: Cli) -> None:
    """Four times as many callers as places, by one ledger each: nobody sees the limit."""
    url = url_of(network.profile.path)
    waiting = cli.json("balance", "shop", "--ledger", url)["credits"]

    def ask(_: int) -> int:
        with open_ledger(url, None) as ledger:
            return now_of(ledger.balance("shop")).credits

    with ThreadPoolExecutor(PLACES * 4) as pool:
        assert set(pool.map(ask, range(PLACES * 4))) == {waiting}


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("folder", "is a folder: name the profile in it"),
        ("text", "is to have the fields version, client, channels, organisations"),
        ("broken", "cannot be read as YAML"),
        ("octets", "cannot be read as YAML"),
        ("circle", "cannot be read"),
        ("nowhere", "there is no profile"),
    ],
)
def test_a_profile_that_is_none(cli: Cli, tmp_path: Path, profile: str, said: str) -> None:
    """Of the ledger it is a ConfigError, on the command line one line, whatever the command."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("just a word")
    (tmp_path / "broken").write_text("a: [1")
    (tmp_path / "octets").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    url = url_of(tmp_path / profile)
    assert said in said_by(ConfigError, lambda: open_ledger(url, None))
    for command in (["balance"], ["init"], ["verify"], ["wallet", "create", "other"], ["grant", "shop", "1"]):
        assert said in cli.refused(*command, "--ledger", url)
