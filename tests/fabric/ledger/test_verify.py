"""verify on Fabric: a ledger that holds, and tampering, which is found and its transaction named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from ledger.suite_tools import PAYEE, PAYER, THIRD, contracts, open_allowance, place_hold, settle, transfer

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import GOVERNANCE, Domain, now_of
from support.wallets import Clock
from tokenmesh.errors import ConfigError
from tokenmesh.fabric.blocks import Block, read_blocks, read_envelope, read_transaction, write_blocks
from tokenmesh.fabric.blocks.block import TRANSACTIONS_FILTER, data_hash
from tokenmesh.fabric.blocks.reader import read_block_files
from tokenmesh.fabric.gateway import connect_profile
from tokenmesh.fabric.network import Network
from tokenmesh.ledger.fabric.verify import Verified, verify_blocks, verify_fabric
from tokenmesh.ledger.findings import Report
from tokenmesh_chaincode.contract import Stub, TokenmeshContract
from tokenmesh_chaincode.documents import canonical, parse_operation


class Chain(NamedTuple):
    """A channel's blocks, and which of its chaincodes keeps the ledger."""

    blocks: list[Block]
    chaincode: str
    domain: str
    transactions: int

    def verify(self, blocks: list[Block] | None = None) -> Report:
        return verify_blocks(self.blocks if blocks is None else blocks, self.chaincode).report

    def place_of(self, act: str) -> tuple[int, int]:
        """Block and place of the ledger's last transaction with an operation of this kind."""
        for at in range(len(self.blocks) - 1, -1, -1):
            for index, octets in enumerate(self.blocks[at].data):
                if self.acts(octets, act):
                    return at, index
        raise AssertionError(f"there is no {act}")

    def acts(self, octets: bytes, act: str) -> bool:
        envelope = read_envelope(octets)
        if not envelope.is_transaction:
            return False
        transaction = read_transaction(envelope)
        return transaction.chaincode == self.chaincode and act.encode() in acts_of(transaction.arguments)

    def with_data(self, at: int, data: list[bytes], *, resealed: bool = False) -> list[Block]:
        block = replace(self.blocks[at], data=tuple(data))
        if resealed:
            block = replace(block, data_hash=data_hash(data))
        return [*self.blocks[:at], block, *self.blocks[at + 1 :]]


def acts_of(arguments: tuple[bytes, ...]) -> list[bytes]:
    if arguments[:1] != (b"apply",):
        return []
    return [parse_operation(text.decode()).body.act.encode() for text in arguments[1:]]


PRIVATE = [(1, "GET /quote/{symbol}"), (2, "POST /loans/{id}")]
DENIED = {"payer": "*", "payee": "*", "operation": "POST /loans/*", "effect": "deny"}


def live(domain: Domain) -> None:
    """Some of everything that happens on a ledger."""
    clock = domain.clock
    assert isinstance(clock, Clock)
    domain.open_wallet(THIRD, 100)
    once = transfer(domain)
    domain.submit(once, once, transfer(domain), domain.operation(PAYER, "transfer", {"to": "x", "tokens": 1}))
    domain.submit(once)
    hold = place_hold(domain)
    allowance = open_allowance(domain)
    settle(
        domain,
        (domain.contract(PAYER, PAYEE, jti=hold), 3),
        *((one, 5) for one in contracts(domain, allowance, 20)),
        (domain.contract(THIRD, PAYEE, via=allowance, lane="x", seq=0), 5),
    )
    again = domain.operation(
        PAYEE, "settle", {"items": [[one, 5] for one in contracts(domain, allowance, 2, first=30)]}
    )
    domain.submit(again, again)
    private = [
        domain.private_contract(PAYER, PAYEE, via=allowance, lane="p", seq=seq, op=op) for seq, op in PRIVATE
    ]
    settlement = domain.operation(PAYEE, "settle", {"items": [[text, 5] for text, _ in private]})
    known = {sd: one for _, found in private for sd, one in found.items()}
    (result,) = now_of(domain.ledger.submit([settlement], disclosures=known))
    assert result.outcome.detail["private"] == {"contracts": 2, "forbidden": [1]}
    domain.do(PAYER, "refill", {"id": allowance, "tokens": 50})
    domain.do(GOVERNANCE, "freeze", {"name": THIRD})
    forgotten = place_hold(domain)
    domain.do(PAYER, "close", {"id": allowance})
    clock.forward(2_000)
    domain.do(PAYEE, "expire", {"holds": [[PAYER, forgotten]], "allowances": [allowance]})
    domain.do(GOVERNANCE, "burn", {"tokens": 7})


def read_chain(rules: Rules, domain: Domain) -> Chain:
    ledger = domain.ledger
    transactions = len(now_of(ledger.transactions(limit=1_000))) + 1
    with rules.connect() as gateway:
        blocks = list(read_blocks(gateway.get_network(rules.channel)))
    return Chain(blocks, ledger.chaincode, ledger.domain, transactions)


@pytest.fixture(scope="module")
def domain(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    path = tmp_path_factory.mktemp("verified")
    domain = make_fabric_domain(
        rules,
        path,
        {PAYER: 1_000, PAYEE: 0},
        clock=Clock(),
        policy={"rules": [DENIED], "propagation_s": 0},
    )
    domain.clock.forward(1)
    live(domain)
    yield domain
    domain.ledger.close()


@pytest.fixture(scope="module")
def chain(rules: Rules, domain: Domain) -> Chain:
    return read_chain(rules, domain)


def test_a_ledger_holds(chain: Chain) -> None:
    """Every transaction that changed the ledger is run again, and there is nothing to find."""
    assert chain.verify() == Report(chain.transactions, [], private=2, undisclosed=2)


def test_from_the_peer_with_another_as_witness(rules: Rules, domain: Domain) -> None:
    """The same by a peer's blocks; the hash of block 0 is told, and may be demanded; progress is shown."""
    ledger = domain.ledger
    seen: list[tuple[int, int]] = []
    with rules.connect() as gateway, connect_profile(rules.profile, "services") as other:
        verified = verify_fabric(
            gateway,
            ledger.channel,
            ledger.chaincode,
            lambda done, total: seen.append((done, total)),
            witnesses={"services": other},
        )
        again = verify_fabric(gateway, ledger.channel, ledger.chaincode, genesis=verified.genesis)
        with pytest.raises(ConfigError, match="another one than the one that is trusted"):
            verify_fabric(gateway, ledger.channel, ledger.chaincode, genesis="00" * 32)
    # This peer is a member of the collection: what the private contracts were for is verified too.
    assert verified.report == Report(verified.report.transactions, [], private=2, undisclosed=0)
    assert verified.witnesses == ("services",)
    assert again == verified._replace(witnesses=())
    assert seen[-1] == (verified.blocks, verified.blocks)


def test_a_peer_with_other_blocks_is_no_witness(rules: Rules, domain: Domain, network: Network) -> None:
    """A peer of another network has another block of that number, wherever its chain ends."""
    ledger = domain.ledger
    with rules.connect() as gateway, connect_profile(network.profile) as stranger:
        report = verify_fabric(
            gateway, ledger.channel, ledger.chaincode, witnesses={"stranger": stranger}
        ).report
    assert [(one.code, one.text.partition(": ")[2]) for one in report.findings] == [
        ("chain", "the peer stranger has another block of this number")
    ]


def test_from_a_file(chain: Chain, tmp_path: Path) -> None:
    """Blocks that were kept are as good as a peer; a file that ends too early says so."""
    file = tmp_path / "blocks"
    write_blocks(file, iter(chain.blocks))
    assert verify_blocks(read_block_files(file), chain.chaincode).report.ok
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ConfigError, match="ends within a block"):
        verify_blocks(read_block_files(file), chain.chaincode)


def tx_id(octets: bytes) -> str:
    return read_envelope(octets).tx_id


def found(report: Report) -> list[tuple[str, str]]:
    return [(one.code, one.tx_id) for one in report.findings]


def test_a_changed_amount(chain: Chain) -> None:
    """In a transaction's writes: its block's data are others, and nobody has signed that transaction."""
    at, index = chain.place_of("burn")
    data = [*chain.blocks[at].data]
    assert b'{"tokens":-7}' in data[index]
    data[index] = data[index].replace(b'{"tokens":-7}', b'{"tokens":-6}')
    findings = found(chain.verify(chain.with_data(at, data)))
    assert findings[0] == ("data", "")
    assert ("flag", tx_id(data[index])) in findings


def test_a_changed_amount_under_a_new_header(chain: Chain) -> None:
    """With a header that fits: no orderer has signed it, and the next block names another."""
    at, index = chain.place_of("burn")
    data = [*chain.blocks[at].data]
    data[index] = data[index].replace(b'{"tokens":-7}', b'{"tokens":-6}')
    report = chain.verify(chain.with_data(at, data, resealed=True))
    assert ("orderer", "") in found(report)
    assert ("flag", tx_id(data[index])) in found(report)


def test_a_removed_transaction(chain: Chain) -> None:
    at, index = chain.place_of("settle")
    data = [*chain.blocks[at].data]
    del data[index]
    assert ("data", "") in found(chain.verify(chain.with_data(at, data)))


def test_a_removed_block(chain: Chain) -> None:
    at, _ = chain.place_of("settle")
    report = chain.verify([*chain.blocks[:at], *chain.blocks[at + 1 :]])
    assert report.findings[0].code == "chain"
    assert report.findings[0].tx_n == at + 1


def test_a_swapped_order(chain: Chain) -> None:
    at, _ = chain.place_of("settle")
    first, second = chain.blocks[at], chain.blocks[at + 1]
    report = chain.verify([*chain.blocks[:at], second, first, *chain.blocks[at + 2 :]])
    assert report.findings[0].code == "chain"


def test_a_forged_endorsement(chain: Chain) -> None:
    at, index = chain.place_of("settle")
    data = [*chain.blocks[at].data]
    signature = read_transaction(read_envelope(data[index])).endorsements[1].signature
    data[index] = data[index].replace(signature, signature[:-2] + b"\x00\x01")
    assert ("flag", tx_id(data[index])) in found(chain.verify(chain.with_data(at, data)))


@pytest.mark.parametrize("act", ["settle", "burn"])
def test_a_flipped_flag(chain: Chain, act: str) -> None:
    """Nothing signs what a peer notes about a transaction: it is found by deciding it anew."""
    at, index = chain.place_of(act)
    block = chain.blocks[at]
    metadata = [*block.metadata]
    codes = bytearray(metadata[TRANSACTIONS_FILTER])
    codes[index] = 11
    metadata[TRANSACTIONS_FILTER] = bytes(codes)
    blocks = [*chain.blocks[:at], replace(block, metadata=tuple(metadata)), *chain.blocks[at + 1 :]]
    assert found(chain.verify(blocks)) == [("flag", tx_id(block.data[index]))]


def damaged(chain: Chain, random: Random) -> list[Block]:
    """A few bytes of one transaction are others, or missing; half the time with a header that fits."""
    at = random.randrange(1, len(chain.blocks))
    data = [*chain.blocks[at].data]
    index = random.randrange(len(data))
    octets = bytearray(data[index])
    for _ in range(random.choice([1, 3, 20])):
        octets[random.randrange(len(octets))] ^= random.randrange(1, 256)
    data[index] = bytes(octets[: random.choice([len(octets), random.randrange(len(octets))])])
    return chain.with_data(at, data, resealed=random.random() < 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_any_damage_is_found(chain: Chain, seed: int) -> None:
    """And never a crash, whatever stands in a certificate, a signature, a message or a document."""
    random = Random(seed)
    for _ in range(6):
        try:
            report = chain.verify(damaged(chain, random))
        except ConfigError:
            continue
        assert not report.ok


class Cheating(TokenmeshContract):
    """Endorsers that agree on rules of their own: there is a function that writes whatever one wants."""

    def __call__(self, stub: Stub) -> bytes:
        if stub.function == "cheat":
            key, value = stub.parameters
            stub.put_state(key.decode(), value)
            return b"[]"
        return super().__call__(stub)


@pytest.fixture(scope="module")
def cheated(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    path = tmp_path_factory.mktemp("cheated")
    domain = make_fabric_domain(rules, path, {PAYER: 1_000, PAYEE: 0}, clock=Clock(), contract=Cheating)
    yield domain
    domain.ledger.close()


def test_endorsers_that_agree_to_cheat(rules: Rules, cheated: Domain) -> None:
    """All signatures are right and both organisations agree: the rules say otherwise, and it is named.

    Tokens out of nothing; then rubbish, on which the rules cannot go on; what follows is honest again.
    """
    ids = []
    with rules.connect() as gateway:
        contract = gateway.get_network(rules.channel).get_contract(cheated.ledger.chaincode)
        rubbish = canonical({"tokens": "many"})
        for value in (canonical({"tokens": 1_000_000}), rubbish, b"no JSON", canonical({"tokens": 0})):
            cheat = contract.submit_async("cheat", [f"balance/{PAYEE}", value])
            assert cheat.get_status().successful
            ids.append(cheat.transaction_id)
    cheated.do(PAYER, "transfer", {"to": PAYEE, "tokens": 1})
    report = read_chain(rules, cheated).verify()
    assert found(report) == [(code, tx_id) for tx_id in ids for code in ("outcome", "conservation")]


def test_no_ledger_in_a_chaincode(chain: Chain) -> None:
    """A chaincode that keeps no ledger, or none at all, is no ledger that holds."""
    verified: Verified = verify_blocks(chain.blocks, "nothing")
    assert found(verified.report) == [("missing", "")]
