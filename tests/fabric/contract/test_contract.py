"""The rules as chaincode on real peers: what they refuse, what they read and write, how much they take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import GOVERNANCE, Domain
from support.wallets import Clock
from tokenmesh.fabric.blocks import Namespace, ledger_info, read_blocks, read_envelope, read_transaction
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import (
    NO_RETRY,
    Contract,
    Gateway,
    Tls,
    connect,
    connect_profile,
    read_identity,
    read_signer,
)
from tokenmesh_chaincode.documents import canonical, new_id
from tokenmesh_chaincode.limits import APPLY_OPERATIONS_MAX, SETTLE_ITEMS_MAX, TX_TIME_SKEW_S_MAX
from tokenmesh_chaincode.rules import default_policy, genesis_document

PAYER, PAYEE = "service-a", "service-b"


@pytest.fixture(scope="module")
def domain(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    directory = tmp_path_factory.mktemp("domain")
    domain = make_fabric_domain(rules, directory, {PAYER: 100_000, PAYEE: 0}, clock=Clock())
    with closing(domain.ledger):
        yield domain


@pytest.fixture
def gateway(rules: Rules) -> Iterator[Gateway]:
    with rules.connect() as gateway:
        yield gateway


@pytest.fixture
def contract(gateway: Gateway, rules: Rules, domain: Domain) -> Contract:
    network = gateway.get_network(rules.channel)
    return network.get_contract(domain.ledger.chaincode, clock=domain.clock)


def document(domain: Domain, **changes: Any) -> bytes:
    first = genesis_document(
        ca=[domain.wallets.authority.certificate_pem],
        governors={GOVERNANCE: domain[GOVERNANCE].certificate_pem},
        policy=default_policy(),
        now=domain.now,
        nonce="another",
    )
    return canonical({**first, **changes})


def refusal(contract: Contract, function: str, *parameters: bytes | str) -> str:
    """Why the peers do not endorse a transaction."""
    with pytest.raises(FabricError) as caught:
        contract.submit(function, list(parameters), retry=NO_RETRY)
    return str(caught.value)


def connect_registrar(rules: Rules) -> Gateway:
    """As somebody of services who is no administrator, over an administrator's connection."""
    profile = rules.profile
    services = profile.organisations["services"]
    registrar = services.identity("registrar")
    peer = next(iter(services.peers.values()))
    return connect(
        peer.address,
        read_identity(registrar.msp_id, registrar.certificate),
        signer=read_signer(registrar.key),
        tls=Tls.of(peer, services.identity("admin")),
    )


def test_a_ledger_is_begun_by_an_administrator_only(rules: Rules, domain: Domain) -> None:
    """By what the organisation's certificate authority has written into the certificate, and nothing else."""
    name = rules.define(domain.clock)
    with connect_registrar(rules) as gateway:
        client = gateway.get_network(rules.channel).get_contract(name, clock=domain.clock)
        assert "not_administrator: " in refusal(client, "genesis", document(domain))
    with connect_profile(rules.profile, "services", "admin") as gateway:
        administrator = gateway.get_network(rules.channel).get_contract(name, clock=domain.clock)
        answer = json.loads(administrator.submit("genesis", [document(domain)]))
        assert json.loads(administrator.evaluate("ask", ["domain", "[]"])) == answer["domain"]
        assert "begun_already: " in refusal(administrator, "genesis", document(domain, nonce="third"))


def test_what_is_refused_says_why(contract: Contract, domain: Domain) -> None:
    """The message begins with a code, for programs; it names no file, no line and no trace."""
    refused = {
        "unknown_function": refusal(contract, "nothing"),
        "bad_argument": refusal(contract, "apply"),
        "bad_genesis": refusal(contract, "genesis", "{}"),
    }
    for code, message in refused.items():
        assert f"{code}: " in message
        assert "Traceback" not in message
        assert ".py" not in message
    with pytest.raises(FabricError, match="bad_argument: there is no question"):
        contract.evaluate("ask", ["nothing", "[]"])


@pytest.mark.parametrize("off", [-TX_TIME_SKEW_S_MAX - 1, TX_TIME_SKEW_S_MAX + 1])
def test_a_client_whose_clock_is_wrong(gateway: Gateway, rules: Rules, domain: Domain, off: int) -> None:
    network = gateway.get_network(rules.channel)
    skewed = network.get_contract(domain.ledger.chaincode, clock=lambda: domain.clock() + off)
    text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 1})
    assert f"clock_skewed: the proposal is from {domain.now + off}, " in refusal(skewed, "apply", text)


def namespace_of(gateway: Gateway, rules: Rules, chaincode: str, tx_id: str) -> Namespace:
    """What a committed transaction has read and written of the chaincode's state."""
    network = gateway.get_network(rules.channel)
    top = ledger_info(network).height - 1
    for block in read_blocks(network, max(0, top - 20), top):
        for data in block.data:
            envelope = read_envelope(data)
            if envelope.tx_id == tx_id:
                (found,) = (one for one in read_transaction(envelope).namespaces if one.name == chaincode)
                return found
    raise AssertionError("the transaction is in none of the newest blocks")


def test_what_a_transaction_reads_and_writes(
    contract: Contract, gateway: Gateway, rules: Rules, domain: Domain
) -> None:
    """Never a range, never another wallet's balance; so the payer's holds and the payee's settlements of them
    do not conflict. The index is written without having been read."""
    hold = {"id": "h", "payee": PAYEE, "tokens": 5, "exp": domain.now + 600}
    text = domain.operation(PAYER, "hold", hold, jti="o")
    ((*_, tx_id, _),) = json.loads(contract.submit("apply", [text]))
    found = namespace_of(gateway, rules, domain.ledger.chaincode, tx_id)
    wallets = {f"wallet/{PAYER}", f"wallet/{PAYEE}", "domain", "policy"}
    own = {f"op/{PAYER}/o", f"hold/{PAYER}/h", f"balance/{PAYER}"}
    assert {read.key.decode() for read in found.reads} == wallets | own
    assert {write.key.decode() for write in found.writes} == own | {f"open/{PAYER}/hold/h"}
    items = [[domain.contract(PAYER, PAYEE, jti="h"), 3]]
    settle = domain.operation(PAYEE, "settle", {"items": items}, jti="s")
    ((*_, tx_id, _),) = json.loads(contract.submit("apply", [settle]))
    found = namespace_of(gateway, rules, domain.ledger.chaincode, tx_id)
    written = {f"op/{PAYEE}/s", f"hold/{PAYER}/h", f"credit/{PAYEE}/s", f"credit/{PAYER}/{PAYEE}:s"}
    assert {read.key.decode() for read in found.reads} == wallets | written
    assert {write.key.decode() for write in found.writes} == written | {f"open/{PAYER}/hold/h"}
    assert not found.range_queries
    (index,) = (write for write in found.writes if write.key.startswith(b"open/"))
    assert index.value is None


def test_the_record_says_in_which_transaction_it_was(contract: Contract, domain: Domain) -> None:
    """Asked again in another transaction, the first one is named; and nothing more is written."""
    text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 1})
    ((ok, _, _, first, time),) = json.loads(contract.submit("apply", [text]))
    assert ok
    assert time == domain.clock()
    transaction = contract.new_proposal("apply", arguments=[text]).endorse()
    assert json.loads(transaction.result)[0][3:] == [first, time]
    assert transaction.transaction_id != first


def test_one_operation_endorsed_twice_counts_once(contract: Contract, domain: Domain) -> None:
    """Both are endorsed before either is ordered: the second one is invalid, and changes nothing."""
    text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 1})
    both = [contract.new_proposal("apply", arguments=[text]).endorse() for _ in range(2)]
    before = domain.total(PAYER)
    statuses = [transaction.submit().get_status() for transaction in both]
    assert [status.code for status in statuses] == ["VALID", "MVCC_READ_CONFLICT"]
    assert domain.total(PAYER) == before - 1


def test_the_largest_batch_and_the_largest_settlement(contract: Contract, domain: Domain) -> None:
    """A thousand holds in one transaction; two thousand contracts, nearly two megabytes, in another."""
    exp = domain.now + 600
    holds = [
        domain.operation(PAYER, "hold", {"id": new_id(), "payee": PAYEE, "tokens": 1, "exp": exp})
        for _ in range(APPLY_OPERATIONS_MAX)
    ]
    results = json.loads(contract.submit("apply", holds))
    assert [result[0] for result in results] == [True] * APPLY_OPERATIONS_MAX
    assert len({result[3] for result in results}) == 1
    allowance = new_id()
    domain.do(PAYER, "open", {"id": allowance, "payee": PAYEE, "tokens": 50_000, "exp": exp})
    items = [
        [domain.contract(PAYER, PAYEE, via=allowance, lane="l", seq=seq), 5]
        for seq in range(SETTLE_ITEMS_MAX)
    ]
    text = domain.operation(PAYEE, "settle", {"items": items})
    assert len(text) > 1.5 * 10**6
    ((_, _, detail, _, _),) = json.loads(contract.submit("apply", [text]))
    assert detail == {"settled": SETTLE_ITEMS_MAX, "tokens": 5 * SETTLE_ITEMS_MAX, "refused": {}}
    assert "bad_argument: apply takes 1 to" in refusal(contract, "apply", *["x"] * (APPLY_OPERATIONS_MAX + 1))


def test_two_who_write_one_key_at_once(contract: Contract, domain: Domain) -> None:
    """Endorsed on the same state, one of two transfers of one wallet is invalid: Fabric's own conflict, which
    the client meets by a new proposal, and never a wrong balance."""
    texts = [domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 1}) for _ in range(2)]
    before = domain.total(PAYER)
    both = [contract.new_proposal("apply", arguments=[text]).endorse() for text in texts]
    statuses = [transaction.submit().get_status() for transaction in both]
    assert [status.code for status in statuses] == ["VALID", "MVCC_READ_CONFLICT"]
    contract.submit("apply", [texts[1]])
    assert domain.total(PAYER) == before - 2
