"""A peer that answers rubbish: statuses, details, messages cut short; by a real gRPC server on loopback.

Whatever comes, the Gateway's client gives a result or raises an error of its own, in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import events_pb2, proposal_response_pb2
from fuzz.chance import Chance
from fuzz.target import Target
from fuzz.targets.blocks import real_blocks

from tokenmesh.fabric.blocks import ledger_info
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import NO_RETRY, Deadlines, Identity, connect
from tokenmesh.fabric.gateway.explain import read_details
from tokenmesh.fabric.gateway.statuses import StreamRefused, Watch
from tokenmesh.fabric.lifecycle import Lifecycle

STATUSES: Final = tuple(code for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
DEADLINES: Final = Deadlines(2.0, 2.0, 2.0, 2.0)
LOCAL_ONE_IN: Final = 3
"""So many inputs go over the wire; a round trip takes as long as reading dozens of messages."""


class Peer(grpc.GenericRpcHandler):
    """Answers everything with what stands in ``answers``, and a status if there is one."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.status: grpc.StatusCode | None = None
        self.details = ""
        self.trailers: list[tuple[str, bytes]] = []

    def service(self, call: Any) -> Any:
        if call.method.startswith("/protos.Deliver/"):
            return grpc.stream_stream_rpc_method_handler(self.stream)
        if call.method.endswith("ChaincodeEvents"):
            return grpc.unary_stream_rpc_method_handler(self.stream)
        return grpc.unary_unary_rpc_method_handler(self.unary)

    def unary(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self._maybe_abort(context)
        return self.answers.pop(0) if self.answers else b""

    def stream(self, _request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from self.answers
        self._maybe_abort(context)

    def _maybe_abort(self, context: grpc.ServicerContext) -> None:
        if self.status is not None:
            context.set_trailing_metadata(self.trailers)
            context.abort(self.status, self.details)


class OfGateway(Target):
    name: ClassVar[str] = "gateway"
    share: ClassVar[int] = 20

    def __init__(self, directory: Path) -> None:
        blocks = real_blocks(directory)
        self.peer = Peer()
        self.server = grpc.server(ThreadPoolExecutor(4), handlers=[self.peer])
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.gateway = connect(
            f"127.0.0.1:{port}",
            Identity("GovernanceMSP", b"certificate"),
            lambda digest: b"signature",
            deadlines=DEADLINES,
            retry=NO_RETRY,
            commit_stream=False,
        )
        self.network = self.gateway.get_network("mesh")
        self.contract = self.network.get_contract("rules")
        envelope = common_pb2.Envelope.FromString(blocks[-1].data[0])
        whole = common_pb2.Block.FromString(blocks[-1].to_bytes())
        answer = proposal_response_pb2.Response(status=200, payload=b"[]")
        self.good: dict[str, bytes] = {
            "evaluate": gateway_pb2.EvaluateResponse(result=answer).SerializeToString(),
            "endorse": gateway_pb2.EndorseResponse(prepared_transaction=envelope).SerializeToString(),
            "submit": b"",
            "status": gateway_pb2.CommitStatusResponse(result=0, block_number=7).SerializeToString(),
            "block": events_pb2.DeliverResponse(block=whole).SerializeToString(),
            "filtered": events_pb2.DeliverResponse(
                filtered_block=events_pb2.FilteredBlock(
                    number=7, filtered_transactions=[events_pb2.FilteredTransaction(txid="waited-for")]
                )
            ).SerializeToString(),
            "installed": proposal_response_pb2.ProposalResponse(response=answer).SerializeToString(),
        }

    def close(self) -> None:
        self.gateway.close()
        self.server.stop(None).wait()

    def one(self, chance: Chance) -> None:
        if not chance.one_in(LOCAL_ONE_IN):
            self.local(chance)
            return
        peer = self.peer
        peer.status = chance.pick(STATUSES) if chance.one_in(3) else None
        peer.details = chance.text().encode("utf-8", "replace").decode()
        details = gateway_pb2.ErrorDetail(address="peer:1", msp_id="X", message="no").SerializeToString()
        peer.trailers = [("grpc-status-details-bin", chance.spoil(details))] if chance.one_in(2) else []
        act = chance.below(5)
        with suppress(FabricError):
            if act == 0:
                peer.answers = [chance.spoil(self.good["evaluate"])]
                assert type(self.contract.evaluate_transaction("ask", "x")) is bytes
            elif act == 1:
                answers = [self.good[name] for name in ("endorse", "submit", "status")]
                at = chance.below(3)
                answers[at] = chance.spoil(answers[at])
                peer.answers = answers
                assert type(self.contract.submit_transaction("apply", "x")) is bytes
            elif act == 2:
                kind = chance.pick(("block", "filtered"))
                peer.answers = [chance.spoil(self.good[kind])]
                self.events(kind)
            elif act == 3:
                peer.answers = [chance.spoil(self.good["evaluate"])]
                ledger_info(self.network)
            else:
                peer.answers = [chance.spoil(self.good["installed"])]
                Lifecycle(self.gateway).query_installed()

    def events(self, kind: str) -> None:
        network = self.network
        ask = network.get_block_events if kind == "block" else network.get_filtered_block_events
        with ask(start_block=0, reconnect_s=0.0) as events:
            next(events, None)

    def local(self, chance: Chance) -> None:
        """The messages that are read without a call: a stream's blocks, and an error's details."""
        watch: Watch[Any] = Watch("mesh")
        waiter = Waiter()
        watch.add("waited-for", waiter)
        with suppress(StreamRefused, FabricError):
            for _, verdict in watch.take(chance.spoil(self.good["filtered"])):
                assert verdict.block_number >= 0
        read_details((("grpc-status-details-bin", chance.spoil(self.good["status"])),))


class Waiter:
    """Anything that can be held weakly."""
