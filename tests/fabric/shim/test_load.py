"""Many transactions at once, large ones, and what they cost."""

from __future__ import annotations

import asyncio

import pytest

from tokenmesh.fabric.gateway import Contract, connect_profile_async
from tokenmesh.fabric.network import Network
from tokenmesh_chaincode.shim import Server

from .conftest import NAME

TRANSACTIONS = 10_000
"""They take about half a minute on two free cores."""
CONCURRENCY = 256


def test_none_of_many_transactions_at_once_is_lost(network: Network, server: Server) -> None:
    """Every one, with three reads and three writes on keys of its own, is answered and committed."""

    async def run() -> tuple[int, list[bytes]]:
        async with connect_profile_async(network.profile) as gateway:
            contract = gateway.get_network("mesh").get_contract(NAME)
            left = iter(range(TRANSACTIONS))
            answers: list[int] = []

            async def caller() -> None:
                for number in left:
                    answer = await contract.submit_transaction("work", f"load-{number}")
                    assert answer == f"load-{number}".encode()
                    answers.append(number)

            await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
            found = [
                await contract.evaluate_transaction("get", f"load-{number}-2")
                for number in range(0, TRANSACTIONS, TRANSACTIONS // 100)
            ]
            return len(set(answers)), found

    answered, found = asyncio.run(run())
    assert answered == TRANSACTIONS
    assert set(found) == {b"1"}


@pytest.mark.parametrize("size", [5, 20])
def test_messages_of_many_mebibytes_go_through(contract: Contract, size: int) -> None:
    """Far beyond gRPC's usual 4 MiB, in and out, while small ones go on."""
    most = size * 2**20
    assert contract.evaluate_transaction("length", b"x" * most) == b"%d" % most
    assert len(contract.evaluate_transaction("large", str(most))) == most


def test_a_large_write_is_committed(contract: Contract) -> None:
    """20 MiB over 20 keys: more than is kept back for one message."""
    contract.submit_transaction("put_many", "large-", "20", str(2**20))
    assert len(contract.evaluate_transaction("get", "large-00019")) == 2**20


def test_an_answer_over_the_peers_limit_is_an_error_and_the_stream_lives(contract: Contract) -> None:
    """The peer would end the stream, and with it everything else under way."""
    with pytest.raises(Exception, match="is over the limit of 104857600"):
        contract.evaluate_transaction("large", str(101 * 2**20))
    assert contract.evaluate_transaction("length", "four") == b"4"
