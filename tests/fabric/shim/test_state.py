"""State on a real peer: reads, writes, ranges, pages, composite keys, history."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from support.shim_chaincode import chaincode
from tokenmesh.fabric.errors import EndorseError
from tokenmesh.fabric.gateway import Contract, Gateway, connect_profile
from tokenmesh.fabric.network import Network
from tokenmesh_chaincode.shim import Options, Server, StreamEnded, Stub

from .conftest import NAME, Ask, deploy_shim


def test_what_is_written_is_read_and_what_is_deleted_is_gone(contract: Contract) -> None:
    """Put, get, delete, get."""
    contract.submit_transaction("put", "plain", "value")
    assert contract.evaluate_transaction("get", "plain") == b"value"
    contract.submit_transaction("delete", "plain")
    assert contract.evaluate_transaction("get", "plain") == b""


def test_a_transaction_does_not_read_its_own_writes(contract: Contract) -> None:
    """As everywhere in Fabric: the state is that of before."""
    assert contract.submit_transaction("own_writes") == b""
    assert contract.submit_transaction("own_writes") == b"written"


def test_an_empty_value_is_refused_as_it_would_delete(contract: Contract) -> None:
    """Fabric takes an empty value for a deletion; nobody who writes one means that."""
    with pytest.raises(EndorseError, match="to Fabric an empty value is a deletion"):
        contract.submit_transaction("put", "empty", "")


def test_more_keys_than_one_message_may_hold(contract: Contract, ask: Ask) -> None:
    """2,500 writes and 2,600 reads: the peer takes 1,000 a message. The keys that are missing are known."""
    contract.submit_transaction("put_many", "many-", "2500", "3")
    keys = [f"many-{number:05}" for number in range(2600)]
    assert ask("get_many", *keys) == [3] * 2500 + [-1] * 100


def test_a_range_is_fetched_as_it_is_read(contract: Contract, ask: Ask) -> None:
    """More keys than the peer sends at once (100), in order, the end left out; and a range left early."""
    contract.submit_transaction("put_many", "range-", "350", "1")
    found = ask("ranged", "range-", "range-00340")
    assert [key for key, _ in found] == [f"range-{number:05}" for number in range(340)]
    assert contract.evaluate_transaction("first_of_range", "range-", "range-~") == b"A"


def test_pages_lead_to_each_other_by_bookmarks(contract: Contract, ask: Ask) -> None:
    """Ten keys in pages of four."""
    contract.submit_transaction("put_many", "page-", "10", "1")
    pages, found, bookmark = [], [], ""
    while True:
        keys, bookmark = ask("paged", "page-", "page-~", "4", bookmark)
        pages.append(len(keys))
        found += keys
        if not bookmark:
            break
    assert pages == [4, 4, 2]
    assert found == [f"page-{number:05}" for number in range(10)]


def test_composite_keys_are_found_by_their_first_parts_and_by_no_plain_range(
    contract: Contract, ask: Ask
) -> None:
    """``sort~red~1`` is found by ``sort`` and by ``sort~red``; not by ``sort~re``, nor by a range of all."""
    for colour, number in [("red", "1"), ("red", "2"), ("blue", "3")]:
        contract.submit_transaction("put_composite", "sort", colour, number)
    assert ask("by_composite", "sort") == [
        ["sort", ["blue", "3"]],
        ["sort", ["red", "1"]],
        ["sort", ["red", "2"]],
    ]
    assert ask("by_composite", "sort", "red") == [["sort", ["red", "1"]], ["sort", ["red", "2"]]]
    assert ask("by_composite", "sort", "re") == []
    assert not [key for key, _ in ask("ranged", "", "") if "sort" in key]


def test_the_history_of_a_key_tells_each_change(contract: Contract, ask: Ask) -> None:
    """Written twice, then deleted: the newest first, with transaction ids and times."""
    before = time.time()
    ids = []
    for function, arguments in [("put", ("past", "1")), ("put", ("past", "2")), ("delete", ("past",))]:
        submitted = contract.submit_async(function, arguments)
        assert submitted.get_status().successful
        ids.append(submitted.transaction_id)
    changes = ask("history", "past")
    assert [(tx, value, gone) for tx, value, _, gone in changes] == [
        (ids[2], "", True),
        (ids[1], "2", False),
        (ids[0], "1", False),
    ]
    assert before - 1 <= changes[-1][2] <= changes[0][2] <= time.time() + 1


def test_a_refused_transaction_has_written_nothing(contract: Contract) -> None:
    """The chaincode wrote and then refused: its message and status come back, the write does not."""
    with pytest.raises(EndorseError, match="chaincode response 403, not today"):
        contract.submit_transaction("refuse")
    assert contract.evaluate_transaction("get", "refused") == b""


def test_a_stub_kept_beyond_its_invocation_is_of_no_use(network: Network, gateway: Gateway) -> None:
    """What a chaincode keeps of an invocation cannot meddle with the next one."""
    kept: list[Stub] = []

    def keeps(stub: Stub) -> bytes:
        kept.append(stub)
        return b""

    server = Server(keeps, Options())
    try:
        deploy_shim(network, server, "keeper")
        gateway.get_network("mesh").get_contract("keeper").evaluate_transaction("anything")
        with pytest.raises(StreamEnded, match="the invocation is over"):
            kept[0].get_state("key")
        with pytest.raises(StreamEnded, match="the invocation is over"):
            kept[0].put_state("key", b"value")
    finally:
        server.stop()


def test_a_peer_that_offers_neither_batches_nor_many_keys(home: Path) -> None:
    """A peer of Fabric 2.5 offers nothing in its READY; neither does one of 3.1 that is told not to."""
    settings = {
        "chaincode.runtimeParams.useWriteBatch": False,
        "chaincode.runtimeParams.useGetMultipleKeys": False,
    }
    older = Network(home, peer_settings=settings)
    older.up()
    server = Server(chaincode, Options())
    try:
        deploy_shim(older, server)
        with connect_profile(older.profile) as gateway:
            contract = gateway.get_network("mesh").get_contract(NAME)
            contract.submit_transaction("put_many", "old-", "20", "3")
            keys = [f"old-{number:05}" for number in range(22)]
            assert json.loads(contract.evaluate_transaction("get_many", *keys)) == [3] * 20 + [-1] * 2
            contract.submit_transaction("delete", "old-00000")
            contract.submit_transaction("set_policy", "guarded", "ServicesMSP")
            assert b"ServicesMSP" in contract.evaluate_transaction("get_policy", "guarded")
            contract.submit("put_private", ("private", "key"), transient_data={"value": "secret"})
            assert contract.evaluate_transaction("get_private", "private", "key") == b"secret"
            contract.submit_transaction("purge_private", "private", "key")
            assert contract.evaluate_transaction("get_private", "private", "key") == b""
    finally:
        server.stop()
