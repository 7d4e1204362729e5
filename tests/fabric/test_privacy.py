"""Private contracts on a channel with a third organisation: it cannot learn what was paid for, and verifies
all the same.

Governance and services endorse and keep what is private; observers have every block, and nothing else.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import flask
import pytest

from support.ledgers import GOVERNANCE, SUPPLY, Domain, now_of
from support.market import Market
from support.serving import serve_wsgi
from support.wallets import Wallets
from tokenmesh.cli.rules import CHAINCODE, deploy_rules
from tokenmesh.decorators import priced
from tokenmesh.fabric.blocks import ledger_info
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import Gateway, Tls, connect, connect_profile, read_identity, read_signer
from tokenmesh.fabric.network import Network
from tokenmesh.ledger.fabric import FabricLedger
from tokenmesh.ledger.fabric.verify import verify_fabric
from tokenmesh_chaincode.documents import canonical, digest, new_id, parse_contract
from tokenmesh_chaincode.rules import default_policy

CHANNEL = "mesh"
OBSERVERS, SERVICES = "observers", "services"
PAYER, PAYEE = "service-a", "service-b"
SHOP, SURGERY = "shop", "surgery"
BODY = b'{"diagnosis": "measles"}'
SECRET = {"op": "POST /patients/{id}/diagnosis", "htm": "POST", "htu": "/patients/4711/diagnosis"}
OPEN = {"op": "GET /weather/{town}", "htm": "GET", "htu": "/weather/Aachen"}
DENIED = {"payer": "*", "payee": "*", "operation": "DELETE *", "effect": "deny"}
FORBIDDEN = {"op": "DELETE /patients/{id}", "htm": "DELETE", "htu": "/patients/4711"}
PRIVATE, CHARGED = 4, 5


class Settled(NamedTuple):
    """A ledger with private contracts and an open one, settled; the last private one is forbidden."""

    network: Network
    domain: Domain
    private: list[str]
    disclosures: dict[str, str]
    open: str


@pytest.fixture(scope="module")
def settled(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    network = Network(tmp_path_factory.mktemp("privacy"), orgs=3, batch_timeout_ms=50)
    try:
        network.up()
        deploy_rules(network)
        domain = begin(network, tmp_path_factory.mktemp("wallets"))
        with closing(domain.ledger):
            yield settle(network, domain)
    finally:
        network.clean()


def begin(network: Network, directory: Path) -> Domain:
    """A ledger, begun by governance and used by services."""
    wallets = Wallets(directory)
    governance = wallets.new(GOVERNANCE, "governor")
    ledger = FabricLedger.create(
        connect_profile(network.profile),
        CHANNEL,
        CHAINCODE,
        ca=[wallets.authority.certificate_pem],
        governors={GOVERNANCE: governance.certificate_pem},
        policy={**default_policy(), "rules": [DENIED], "propagation_s": 0},
    )
    domain = Domain(ledger, wallets)
    domain.do(GOVERNANCE, "mint", {"tokens": SUPPLY})
    for name, tokens in {PAYER: 1_000, PAYEE: 0, SHOP: 1_000, SURGERY: 0}.items():
        domain.open_wallet(name, tokens)
    return domain


def settle(network: Network, domain: Domain) -> Settled:
    allowance = new_id()
    domain.do(PAYER, "open", {"id": allowance, "payee": PAYEE, "tokens": 500, "exp": domain.now + 3000})
    made = {"via": allowance, "lane": "l", "iat": domain.now + 2}
    private: list[str] = []
    disclosures: dict[str, str] = {}
    for seq in range(PRIVATE):
        terms = FORBIDDEN if seq == PRIVATE - 1 else SECRET
        text, own = domain.private_contract(PAYER, PAYEE, seq=seq, dig=digest(BODY), **terms, **made)
        private.append(text)
        disclosures |= own
    in_the_open = domain.contract(PAYER, PAYEE, seq=PRIVATE, **OPEN, **made)
    items = [[text, CHARGED] for text in (*private, in_the_open)]
    (result,) = domain.submit(domain.operation(PAYEE, "settle", {"items": items}), disclosures=disclosures)
    assert result.outcome.detail["settled"] == PRIVATE
    assert result.outcome.detail["private"] == {"contracts": PRIVATE, "forbidden": [PRIVATE - 1]}
    return Settled(network, domain, private, disclosures, in_the_open)


def digests(settled: Settled) -> list[str]:
    return [parse_contract(text).body.sd or "" for text in settled.private]


def secrets(settled: Settled) -> set[bytes]:
    """Everything that nobody else may learn, as it is and in the pieces that would give it away."""
    words = {*SECRET.values(), *FORBIDDEN.values()} - {"POST", "DELETE"} | {"patients", "diagnosis"}
    salts = {json.loads(decoded(one.encode()))[0] for one in settled.disclosures.values()}
    body = {digest(BODY), digest(BODY).partition(":")[2].strip(":")}
    return {text.encode() for text in (*words, *salts, *body, *settled.disclosures.values())}


def decoded(data: bytes) -> bytes:
    return base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))


def layers(data: bytes, depth: int = 4) -> Iterator[bytes]:
    """The data, and all that is base64 in it, decoded; and so on: documents lie within documents."""
    yield data
    if depth:
        for run in re.findall(rb"[A-Za-z0-9_+/-]{16,}", data):
            whole = run[: len(run) - (len(run) % 4 == 1)]
            yield from layers(decoded(whole.translate(bytes.maketrans(b"+/", b"-_"))), depth - 1)


def found_in(data: Iterable[bytes], wanted: Iterable[bytes]) -> set[bytes]:
    pieces = [layer for one in data for layer in layers(one)]
    return {secret for secret in wanted if any(secret in piece for piece in pieces)}


def blocks_of(network: Network, organisation: str) -> list[bytes]:
    """All blocks as the organisation's peer gives them, with their metadata: every byte of them."""
    with connect_profile(network.profile, organisation) as gateway:
        channel = gateway.get_network(CHANNEL)
        height = block_height(gateway)
        with channel.get_block_events(start_block=0) as events:
            found = [next(events).SerializeToString() for _ in range(height)]
    return found


def block_height(gateway: Gateway) -> int:
    return ledger_info(gateway.get_network(CHANNEL)).height


def disk_of(network: Network, organisation: str) -> Iterator[bytes]:
    """All files of an organisation's peer: its blocks, its databases and their logs."""
    folder = network.layout.node(network.plan.node(f"peer0.{organisation}"))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes()


def ask(gateway: Gateway, settled: Settled, *organisations: str) -> dict[str, str]:
    contract = gateway.get_network(CHANNEL).get_contract(CHAINCODE)
    arguments = ("disclosures", canonical([digests(settled)]))
    answer = contract.evaluate("ask", arguments, endorsing_organizations=organisations)
    found: dict[str, str] = json.loads(answer)
    return found


def caught_up(settled: Settled, organisation: str) -> None:
    """Wait until the organisation's peer has the newest block that services' has."""
    with connect_profile(settled.network.profile, SERVICES) as gateway:
        height = block_height(gateway)
    with connect_profile(settled.network.profile, organisation) as gateway:
        events = gateway.get_network(CHANNEL).get_block_events(start_block=height - 1)
        with events:
            next(events)


def test_the_blocks_of_the_third_organisation_do_not_contain_it(settled: Settled) -> None:
    """Neither operation nor target, digest, salt or disclosure, in any document within any document; what is
    in the open is found by the same search, and so is all that concerns the tokens."""
    caught_up(settled, OBSERVERS)
    blocks = blocks_of(settled.network, OBSERVERS)
    assert found_in(blocks, secrets(settled)) == set()
    public = {OPEN["op"].encode(), OPEN["htu"].encode(), *(text.encode() for text in settled.private)}
    public |= {digest.encode() for digest in digests(settled)}
    assert found_in(blocks, public) == public


def test_its_peer_has_it_nowhere_on_its_disk(settled: Settled) -> None:
    """The databases and logs of the peer that was not told, byte for byte; a member's peer has it."""
    caught_up(settled, OBSERVERS)
    disclosures = {one.encode() for one in settled.disclosures.values()}
    for data in disk_of(settled.network, OBSERVERS):
        assert not any(secret in data for secret in disclosures)
    members = [data for data in disk_of(settled.network, SERVICES) if any(one in data for one in disclosures)]
    assert members


def test_its_peer_cannot_answer_when_it_is_asked_directly(settled: Settled) -> None:
    caught_up(settled, OBSERVERS)
    with (
        connect_profile(settled.network.profile, OBSERVERS) as gateway,
        pytest.raises(FabricError) as refused,
    ):
        ask(gateway, settled, "ObserversMSP")
    assert not any(secret.decode() in str(refused.value) for secret in secrets(settled))


@pytest.mark.parametrize("member", ["GovernanceMSP", "ServicesMSP"])
def test_the_members_peers_do_not_tell_the_third_organisation(settled: Settled, member: str) -> None:
    """Neither through its own peer, nor when its client goes to theirs."""
    profile = settled.network.profile
    with (
        connect_profile(profile, OBSERVERS) as gateway,
        pytest.raises(FabricError, match="access permission"),
    ):
        ask(gateway, settled, member)
    files = profile.client(OBSERVERS)
    theirs = profile.peer(member.removesuffix("MSP").lower(), None)
    identity, signer = read_identity(files.msp_id, files.certificate), read_signer(files.key)
    with (
        connect(theirs.address, identity, signer, tls=Tls.of(theirs, files)) as gateway,
        pytest.raises(FabricError, match="access permission"),
    ):
        ask(gateway, settled)


@pytest.mark.parametrize("organisation", ["governance", SERVICES])
def test_the_members_know(settled: Settled, organisation: str) -> None:
    with connect_profile(settled.network.profile, organisation) as gateway:
        assert ask(gateway, settled) == settled.disclosures


def test_history_tells_members_what_for_and_others_how_much(settled: Settled) -> None:
    caught_up(settled, OBSERVERS)
    jti = parse_contract(settled.private[0]).body.jti
    for organisation, operation in (("governance", SECRET["op"]), (OBSERVERS, "")):
        gateway = connect_profile(settled.network.profile, organisation)
        with FabricLedger(gateway, CHANNEL, CHAINCODE, reading=True) as ledger:
            (record,) = now_of(ledger.contract(jti))
            assert (record.op, record.charged, record.code) == (operation, CHARGED, "ok")
            assert (record.payer, record.payee) == (PAYER, PAYEE)
            assert now_of(ledger.supply()).conserved
            assert now_of(ledger.balance(PAYEE)).credits == PRIVATE * CHARGED


def test_the_third_organisation_verifies_the_whole_ledger(settled: Settled) -> None:
    """From its own peer's blocks alone: every signature, endorsement and sum; and it says what it had to
    take as recorded."""
    caught_up(settled, OBSERVERS)
    with connect_profile(settled.network.profile, OBSERVERS) as gateway:
        verified = verify_fabric(gateway, CHANNEL, CHAINCODE)
    report = verified.report
    assert report.findings == []
    assert report.private == report.undisclosed >= PRIVATE
    assert report.transactions > 5


def test_a_private_call_is_paid_and_no_other_organisation_learns_of_it(
    settled: Settled, tmp_path: Path
) -> None:
    """From the client's request over HTTP to the payee's settlement, as services do it."""
    market = Market(tmp_path, domain=settled.domain)
    seller: Any = market.seller(SURGERY)
    app = flask.Flask(SURGERY)

    @app.post("/patients/<number>/diagnosis")
    @priced(tokens=CHARGED, private=True, mesh=seller)
    def diagnosis(number: str) -> dict[str, str]:
        return {"patient": number}

    with serve_wsgi(app) as url, market.payer(SHOP).client(SURGERY, url=url) as client:
        answer = client.post(SECRET["htu"], content=BODY)
    assert (answer.status_code, answer.json()) == (200, {"patient": "4711"})
    seller.settle()
    assert settled.domain.balance(SURGERY).credits == CHARGED
    jti = answer.extensions["tokenmesh"].contract_id
    caught_up(settled, OBSERVERS)
    blocks = blocks_of(settled.network, OBSERVERS)
    assert found_in(blocks, [*secrets(settled), jti.encode()]) == {jti.encode()}
    with FabricLedger(
        connect_profile(settled.network.profile, SERVICES), CHANNEL, CHAINCODE, reading=True
    ) as ledger:
        (record,) = now_of(ledger.contract(jti))
    assert (record.op, record.code) == ("POST /patients/{number}/diagnosis", "ok")
    seller.close()
