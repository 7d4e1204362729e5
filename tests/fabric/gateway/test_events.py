"""Events on a real network: in order, from anywhere, and on behind a checkpoint or a break."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

from tokenmesh.fabric.gateway import Contract, FileCheckpointer, Gateway
from tokenmesh.fabric.network import Network


def test_chaincode_events_come_with_their_payload_and_where_they_are_from(
    gateway: Gateway, contract: Contract
) -> None:
    with gateway.get_network("mesh").get_chaincode_events("kv") as events:
        submitted = contract.submit_async("emit", ("name", "payload"))
        event = next(events)
    assert (event.event_name, event.payload, event.chaincode_name) == ("name", b"payload", "kv")
    assert event.transaction_id == submitted.transaction_id
    assert event.block_number == submitted.get_status().block_number


def test_transactions_that_are_not_valid_emit_nothing(gateway: Gateway, contract: Contract) -> None:
    with gateway.get_network("mesh").get_chaincode_events("kv") as events:
        one = contract.new_proposal("emit", ("invalid", ""), endorsing_organizations=["GovernanceMSP"])
        assert not one.endorse().submit().get_status().successful
        contract.submit_transaction("emit", "valid", "")
        assert next(events).event_name == "valid"


def test_reading_goes_on_behind_the_checkpoint(gateway: Gateway, contract: Contract, tmp_path: Path) -> None:
    network = gateway.get_network("mesh")
    first = [contract.submit_async("emit", (f"event-{number}", "")) for number in range(5)]
    start = min(one.get_status().block_number for one in first)
    names: list[str] = []
    for take in (1, 2, 2):  # each as if it were a new process
        checkpointer = FileCheckpointer(tmp_path / "at.json")
        with network.get_chaincode_events("kv", start_block=start, checkpoint=checkpointer) as events:
            for event in islice(events, take):
                names.append(event.event_name)
                checkpointer.checkpoint_chaincode_event(event)
    assert sorted(names) == [f"event-{number}" for number in range(5)]


def test_blocks_whole_filtered_and_with_private_data(gateway: Gateway, contract: Contract) -> None:
    network = gateway.get_network("mesh")
    submitted = contract.submit_async("put", ("block", "1"))
    number = submitted.get_status().block_number
    with network.get_block_events(start_block=number) as blocks:
        assert submitted.transaction_id.encode() in next(blocks).data.data[0]
    with network.get_filtered_block_events(start_block=number) as filtered:
        block = next(filtered)
        assert (block.number, block.channel_id) == (number, "mesh")
        assert submitted.transaction_id in [one.txid for one in block.filtered_transactions]
    with network.get_block_and_private_data_events(start_block=number) as private:
        assert next(private).block.header.number == number


def test_blocks_go_on_behind_the_checkpoint(gateway: Gateway, tmp_path: Path) -> None:
    checkpointer = FileCheckpointer(tmp_path / "at.json")
    network = gateway.get_network("mesh")
    seen = []
    for _ in range(3):
        with network.get_block_events(start_block=0, checkpoint=checkpointer) as blocks:
            number = next(blocks).header.number
        seen.append(number)
        checkpointer.checkpoint_block(number)
    assert seen == [0, 1, 2]


def test_closing_ends_the_iteration_in_another_thread(gateway: Gateway) -> None:
    events = gateway.get_network("mesh").get_chaincode_events("kv")
    ended = threading.Event()

    def read() -> None:
        for _ in events:
            pass
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    events.close()
    assert ended.wait(10)


def test_a_stream_goes_on_where_it_was_after_the_peer_was_restarted(
    kv: Network, gateway: Gateway, contract: Contract
) -> None:
    network = gateway.get_network("mesh")
    with (
        network.get_chaincode_events("kv") as events,
        network.get_filtered_block_events() as blocks,
    ):
        contract.submit_transaction("emit", "before", "")
        assert next(events).event_name == "before"
        number = next(blocks).number
        kv.kill("peer0.governance")
        kv.start("peer0.governance")
        contract.submit_transaction("emit", "after", "")
        assert next(events).event_name == "after"
        assert next(blocks).number == number + 1
