"""The history of a ledger on Fabric: an index of the peer's blocks, which is never wrong for long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from ledger.suite_tools import PAYEE, PAYER, place_hold, settle, transfer

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import GOVERNANCE, Domain, now_of
from support.wallets import Clock
from tokenmesh.errors import LedgerUnavailable
from tokenmesh.fabric.blocks import ledger_info, read_blocks, read_envelope, read_transaction
from tokenmesh.fabric.gateway import Gateway, connect, connect_profile, read_identity, read_signer
from tokenmesh.fabric.gateway.options import Tls
from tokenmesh.fabric.network import Network
from tokenmesh.ledger.base import Transaction
from tokenmesh.ledger.fabric import history as history_module
from tokenmesh.ledger.fabric.history import CATCH_UP_S_MAX, History, history_path
from tokenmesh.ledger.fabric.index import Index, IndexedBlock
from tokenmesh_chaincode.contract import Stub, TokenmeshContract
from tokenmesh_chaincode.documents import thumbprint


@pytest.fixture(scope="module")
def domain(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    domain = make_fabric_domain(rules, tmp_path_factory.mktemp("domain"), clock=Clock())
    for _ in range(3):
        hold = place_hold(domain)
        settle(domain, (domain.contract(PAYER, PAYEE, jti=hold), 3))
    yield domain
    domain.ledger.close()


@pytest.fixture(scope="module")
def gateway(rules: Rules) -> Iterator[Gateway]:
    with rules.connect() as gateway:
        yield gateway


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return history_path(tmp_path / "home", "mesh", "rules/of it")


def history(gateway: Gateway, domain: Domain, path: Path | None = None) -> closing[History]:
    return closing(History(gateway, domain.ledger.channel, domain.ledger.chaincode, path))


def acts(transactions: list[Transaction]) -> list[str]:
    return [one.act for transaction in transactions for one in transaction.operations]


def test_transactions_are_numbered_by_the_ledgers_own(gateway: Gateway, domain: Domain, path: Path) -> None:
    """Genesis is 0 and not listed; then 1, 2, 3, … whatever else is on the channel; the carrier signs."""
    with history(gateway, domain, path) as past:
        found = past.transactions(limit=1_000)
        assert [one.number for one in found] == list(range(1, len(found) + 1))
        assert acts(found)[:2] == ["mint", "register"]
        assert {one.signer for one in found} == {"admin"}
        assert past.transaction("nothing") is None
    assert path.is_file()


def test_the_first_transaction_is_the_genesis_document(gateway: Gateway, domain: Domain) -> None:
    """It is found by its id, with the document that the domain's id is the digest of."""
    blocks = read_blocks(gateway.get_network(domain.ledger.channel))
    tx_id = next(
        envelope.tx_id
        for block in blocks
        for envelope in map(read_envelope, block.data)
        if envelope.is_transaction
        and read_transaction(envelope).chaincode == domain.ledger.chaincode
        and read_transaction(envelope).arguments[0] == b"genesis"
    )
    with history(gateway, domain) as past:
        first = past.transaction(tx_id)
    assert first is not None
    (recorded,) = first.operations
    assert (first.number, recorded.act, recorded.id) == (0, "genesis", domain.ledger.domain)
    assert thumbprint((recorded.document or "").encode()) == domain.ledger.domain


def test_whoever_asks_sees_what_was_committed_before(gateway: Gateway, domain: Domain, path: Path) -> None:
    """A result, and then a question: its transaction is in the answer, from every index."""
    with history(gateway, domain, path) as one, history(gateway, domain) as other:
        for _ in range(3):
            (result,) = domain.submit(transfer(domain))
            for past in (one, other):
                newest = past.transactions(newest_first=True, limit=1)[0]
                assert newest.tx_id == result.tx_id
                assert past.transaction(result.tx_id) == newest


def test_an_index_is_kept_for_the_next_process(gateway: Gateway, domain: Domain, path: Path) -> None:
    """What is in the file is not read from the peer again."""
    with history(gateway, domain, path) as past:
        before = past.transactions(limit=1_000)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE transactions SET signer = 'from the file'")
    with history(gateway, domain, path) as past:
        again = past.transactions(limit=1_000)
    assert {one.signer for one in again} == {"from the file"}
    assert [one.tx_id for one in again] == [one.tx_id for one in before]


def test_many_may_build_the_same_index(gateway: Gateway, domain: Domain, path: Path) -> None:
    """Each with a connection of its own, as processes have; everybody gets the same answers."""
    expected = now_of(domain.ledger.transactions(limit=1_000))

    def build(_: int) -> list[Transaction]:
        with history(gateway, domain, path) as past:
            return past.transactions(limit=1_000)

    with ThreadPoolExecutor(6) as pool:
        assert all(found == expected for found in pool.map(build, range(12)))


@pytest.mark.parametrize("content", [b"no database at all" * 1_000, b""])
def test_a_damaged_index_is_made_anew(gateway: Gateway, domain: Domain, path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with history(gateway, domain, path) as past:
        assert past.transactions() == now_of(domain.ledger.transactions())


def test_an_index_of_another_version_is_made_anew(gateway: Gateway, domain: Domain, path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA user_version=99")
        file.execute("CREATE TABLE transactions (whatever TEXT)")
    with history(gateway, domain, path) as past:
        assert past.transactions() == now_of(domain.ledger.transactions())


def test_damage_within_an_index_is_found_out(gateway: Gateway, domain: Domain, path: Path) -> None:
    """Pages overwritten while nobody looked: the next question has it made anew, and answers."""
    with history(gateway, domain, path) as past:
        expected = past.transactions(limit=1_000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with history(gateway, domain, path) as past:
        assert past.transactions(limit=1_000) == expected


def test_where_nothing_can_be_written_a_temporary_file_does(
    gateway: Gateway, domain: Domain, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("a file, where the folder should be")
    with history(gateway, domain, history_path(tmp_path / "home", "mesh", "x")) as past:
        assert past.transactions() == now_of(domain.ledger.transactions())


def test_where_nothing_more_can_be_written_it_goes_on_in_a_temporary_file(
    gateway: Gateway, domain: Domain, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself is told that there is no room: it says what it says on a disk that is full."""

    class Narrow(Index):
        def __init__(self, path: Path | None) -> None:
            super().__init__(path)
            if path is not None:
                (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
                self.connection.execute(f"PRAGMA max_page_count = {pages}")
                with pytest.raises(sqlite3.OperationalError, match="full"):
                    self.take([IndexedBlock(0, b"x" * 100_000, b"", ())])

    monkeypatch.setattr(history_module, "Index", Narrow)
    with history(gateway, domain, path) as past:
        assert past.transactions() == now_of(domain.ledger.transactions())
        assert past.transactions() == now_of(domain.ledger.transactions())
    with sqlite3.connect(path) as left:
        assert left.execute("SELECT count(*) FROM transactions").fetchone() == (0,)
    monkeypatch.undo()
    with history(gateway, domain, path) as past:
        assert past.transactions() == now_of(domain.ledger.transactions()), "there is room again"


def test_an_index_of_another_network_is_made_anew(
    gateway: Gateway, domain: Domain, network: Network, path: Path
) -> None:
    """The same home with a network that was made anew: by the hashes of blocks it is seen to be another."""
    with history(gateway, domain, path) as past:
        expected = past.transactions()
    with connect_profile(network.profile) as elsewhere:
        with history(elsewhere, domain, path) as past:
            assert past.transactions() == []
        with history(gateway, domain, path) as past:
            assert past.transactions() == expected
            # And the other way round, while it is open: another peer, of another network.
            past.use(elsewhere)
            assert past.transactions() == []


def test_a_peer_that_is_behind(gateway: Gateway, domain: Domain) -> None:
    """A block that was seen to be committed is waited for, and not for ever; then another peer is asked."""
    late = iter([0.0, CATCH_UP_S_MAX / 2, CATCH_UP_S_MAX])
    channel, chaincode = domain.ledger.channel, domain.ledger.chaincode
    height = ledger_info(gateway.get_network(channel)).height
    with closing(History(gateway, channel, chaincode, clock=lambda: next(late))) as past:
        past.seen(height + 100)
        with pytest.raises(LedgerUnavailable, match="it is behind"):
            past.transactions()


def test_a_block_that_comes_in_time(gateway: Gateway, domain: Domain) -> None:
    """The block that is awaited is committed meanwhile: the answer includes it."""
    height = ledger_info(gateway.get_network(domain.ledger.channel)).height
    with ThreadPoolExecutor(1) as pool, history(gateway, domain) as past:
        past.seen(height)
        asked = pool.submit(past.transactions, newest_first=True, limit=1)
        (result,) = domain.submit(transfer(domain))
        assert asked.result(60)[0].tx_id == result.tx_id


def test_a_peer_that_is_gone(rules: Rules, domain: Domain) -> None:
    """An answer would leave something out, so there is none: LedgerUnavailable."""
    profile = rules.profile
    files = profile.client()
    identity, signer = read_identity(files.msp_id, files.certificate), read_signer(files.key)
    with (
        connect("127.0.0.1:1", identity, signer, tls=Tls.of(profile.peer(), files)) as gone,
        history(gone, domain) as past,
        pytest.raises(LedgerUnavailable, match="history cannot be read"),
    ):
        past.transactions()


def test_refused_batches_are_not_in_it(gateway: Gateway, domain: Domain) -> None:
    """Only what is recorded: not what was turned away without a record, nor what was done before."""
    once = transfer(domain)
    domain.submit(once)
    before = len(now_of(domain.ledger.transactions(limit=1_000)))
    other = domain.operation(GOVERNANCE, "burn", {"tokens": 1}, dom="another")
    new = transfer(domain)
    _, _, result = domain.submit(once, other, new)
    with history(gateway, domain) as past:
        found = past.transactions(after=before)
    assert [one.tx_id for one in found] == [result.tx_id]
    assert [one.document for one in found[0].operations] == [new]


def test_channels_of_one_name_on_two_networks_have_an_index_each(tmp_path: Path) -> None:
    """A service may be in two domains whose channels have one name; one profile always leads to one index."""
    paths = [
        history_path(tmp_path, "mesh", "tokenmesh", tmp_path / network / "profile.yaml")
        for network in ("a", "b", "a")
    ]
    assert paths[0] == paths[2] != paths[1]


class Rambling(TokenmeshContract):
    """Endorsers that agree on writing what is no state of a ledger."""

    def __call__(self, stub: Stub) -> bytes:
        if b"ramble" in stub.parameters:
            stub.put_state("rambled", b"no JSON")
            return b"no JSON"
        return super().__call__(stub)


def test_what_the_rules_do_not_write(rules: Rules, tmp_path: Path) -> None:
    """A history that cannot be understood is not shown in part: it says what to do."""
    domain = make_fabric_domain(rules, tmp_path, {}, clock=Clock(), contract=Rambling)
    with closing(domain.ledger), rules.connect() as gateway:
        gateway.get_network(domain.ledger.channel).get_contract(domain.ledger.chaincode).submit(
            "apply", ["ramble"]
        )
        with history(gateway, domain) as past, pytest.raises(LedgerUnavailable, match="tokenmesh verify"):
            past.transactions()
