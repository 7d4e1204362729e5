"""One stream of filtered blocks tells each who waits, once, and nothing is missed when it breaks."""

from __future__ import annotations

import gc

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2

from tokenmesh.fabric.gateway import Identity
from tokenmesh.fabric.gateway.flows import Caller, Verdict
from tokenmesh.fabric.gateway.statuses import StreamRefused, Watch

CALLER = Caller(Identity("Org1MSP", b"PEM"))


class Waiter:
    """Anything that can be held weakly."""


def block(number: int, *transactions: tuple[str, int]) -> bytes:
    filtered = events_pb2.FilteredBlock(
        number=number,
        filtered_transactions=[
            events_pb2.FilteredTransaction(txid=name, tx_validation_code=code) for name, code in transactions
        ],
    )
    return bytes(events_pb2.DeliverResponse(filtered_block=filtered).SerializeToString())


def start(watch: Watch[Waiter]) -> ab_pb2.SeekPosition:
    payload = common_pb2.Payload.FromString(watch.request(CALLER))
    return ab_pb2.SeekInfo.FromString(payload.data).start


def test_each_waiter_is_told_of_its_transaction_once() -> None:
    watch: Watch[Waiter] = Watch("mesh")
    one, two = Waiter(), Waiter()
    watch.add("one", one)
    watch.add("two", two)
    assert list(watch.take(block(3, ("other", 0), ("one", 11)))) == [(one, Verdict(11, 3))]
    assert list(watch.take(block(4, ("one", 9), ("two", 0)))) == [(two, Verdict(0, 4))]


def test_a_duplicate_in_the_same_block_does_not_hide_the_first() -> None:
    watch: Watch[Waiter] = Watch("mesh")
    waiter = Waiter()
    watch.add("one", waiter)
    assert list(watch.take(block(3, ("one", 0), ("one", 9)))) == [(waiter, Verdict(0, 3))]


def test_it_begins_with_the_newest_block_and_goes_on_behind_the_last_one_seen() -> None:
    watch: Watch[Waiter] = Watch("mesh")
    assert start(watch).WhichOneof("Type") == "newest"
    list(watch.take(block(7)))
    assert start(watch).specified.number == 8


def test_who_does_not_wait_any_more_is_forgotten() -> None:
    watch: Watch[Waiter] = Watch("mesh")
    waiter = Waiter()
    watch.add("one", waiter)
    del waiter
    gc.collect()
    assert watch.waiters() == []
    assert list(watch.take(block(3, ("one", 0)))) == []


def test_a_peer_that_refuses_is_not_asked_for_ever() -> None:
    watch: Watch[Waiter] = Watch("mesh")
    refusal = events_pb2.DeliverResponse(status=common_pb2.FORBIDDEN).SerializeToString()
    with pytest.raises(StreamRefused, match="FORBIDDEN"):
        list(watch.take(refusal))
    busy = events_pb2.DeliverResponse(status=common_pb2.SERVICE_UNAVAILABLE).SerializeToString()
    assert list(watch.take(busy)) == []
