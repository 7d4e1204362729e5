"""The client for asyncio, on a real network: the same, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import (
    NO_RETRY,
    AsyncGateway,
    EndorseError,
    GatewayError,
    Tls,
    connect_async,
    connect_profile_async,
    read_identity,
    read_signer,
)
from tokenmesh.fabric.network import Network

T = TypeVar("T")


def on(network: Network, run: Callable[[AsyncGateway], Awaitable[T]]) -> T:
    async def main() -> T:
        async with connect_profile_async(network.profile) as gateway:
            return await run(gateway)

    return asyncio.run(main())


def test_submit_evaluate_and_submit_async(kv: Network) -> None:
    async def run(gateway: AsyncGateway) -> None:
        contract = gateway.get_network("mesh").get_contract("kv")
        assert await contract.submit_transaction("put", "awaited", "value") == b"value"
        assert await contract.evaluate_transaction("get", "awaited") == b"value"
        submitted = await contract.submit_async("put", ("awaited", "other"))
        assert submitted.result == b"other"
        assert (await submitted.get_status()).successful

    on(kv, run)


def test_many_at_once_are_each_answered(kv: Network) -> None:
    async def run(gateway: AsyncGateway) -> list[bytes]:
        contract = gateway.get_network("mesh").get_contract("kv")
        jobs = (contract.submit_transaction("put", f"at-once-{n}", str(n)) for n in range(256))
        return await asyncio.gather(*jobs)

    assert on(kv, run) == [str(n).encode() for n in range(256)]


def test_steps_and_signatures_made_elsewhere(kv: Network) -> None:
    files, peer = kv.profile.client(), kv.profile.peers[0]
    elsewhere = read_signer(files.key)

    async def main() -> None:
        identity = read_identity(files.msp_id, files.certificate)
        async with connect_async(peer.address, identity, tls=Tls.of(peer, files)) as gateway:
            contract = gateway.get_network("mesh").get_contract("kv")
            unsigned = contract.new_proposal("put", ("steps", "awaited"))
            proposal = gateway.new_signed_proposal(unsigned.bytes, elsewhere(unsigned.digest))
            endorsed = await proposal.endorse()
            transaction = gateway.new_signed_transaction(endorsed.bytes, elsewhere(endorsed.digest))
            submitted = await transaction.submit()
            commit = gateway.new_signed_commit(submitted.bytes, elsewhere(submitted.digest))
            assert (await commit.get_status()).successful

    asyncio.run(main())


def test_a_signer_may_be_awaited(kv: Network) -> None:
    files, peer = kv.profile.client(), kv.profile.peers[0]
    sign = read_signer(files.key)

    async def remote(digest: bytes, /) -> bytes:
        await asyncio.sleep(0)
        return sign(digest)

    async def main() -> bytes:
        identity = read_identity(files.msp_id, files.certificate)
        async with connect_async(peer.address, identity, remote, tls=Tls.of(peer, files)) as gateway:
            return (
                await gateway.get_network("mesh").get_contract("kv").submit_transaction("put", "k", "remote")
            )

    assert asyncio.run(main()) == b"remote"


def test_errors_are_the_same(kv: Network) -> None:
    async def run(gateway: AsyncGateway) -> None:
        contract = gateway.get_network("mesh").get_contract("kv")
        with pytest.raises(EndorseError, match="no function nothing") as caught:
            await contract.submit_transaction("nothing")
        assert caught.value.details[0].msp_id == "GovernanceMSP"
        with pytest.raises(GatewayError, match="DEADLINE_EXCEEDED"):
            await contract.evaluate("sleep", ("3",), timeout_s=0.2, retry=NO_RETRY)
        await gateway.close()
        with pytest.raises(FabricError, match="closed"):
            await contract.evaluate_transaction("get", "x")

    on(kv, run)


def test_a_call_that_is_cancelled_leaves_the_gateway_in_order(kv: Network) -> None:
    async def run(gateway: AsyncGateway) -> None:
        contract = gateway.get_network("mesh").get_contract("kv")
        await contract.submit_transaction("put", "before", "1")
        waiting = asyncio.create_task(contract.submit_transaction("put", "cancelled", "1"))
        await asyncio.sleep(0.03)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await contract.submit_transaction("put", "after", "1") == b"1"

    on(kv, run)


def test_events(kv: Network) -> None:
    async def run(gateway: AsyncGateway) -> None:
        network = gateway.get_network("mesh")
        contract = network.get_contract("kv")
        async with await network.get_chaincode_events("kv") as events:
            for name in ("one", "two"):
                await contract.submit_transaction("emit", name, f"payload of {name}")
            found = [await anext(events) for _ in range(2)]
        assert [(one.event_name, one.payload) for one in found] == [
            ("one", b"payload of one"),
            ("two", b"payload of two"),
        ]
        async with await network.get_block_events(start_block=0) as blocks:
            assert [(await anext(blocks)).header.number for _ in range(3)] == [0, 1, 2]
            blocks.close()
            assert [block async for block in blocks] == []

    on(kv, run)
