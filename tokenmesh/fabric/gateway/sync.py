"""The Gateway client for threads: connect → Gateway → Network → Contract → Proposal → Transaction → Commit.

The names are those of Fabric's own clients, in Python's spelling. :mod:`tokenmesh.fabric.gateway.aio` is the
same for asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.peer import events_pb2

from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import messages, retrying
from tokenmesh.fabric.gateway._session import Events, Session
from tokenmesh.fabric.gateway.checkpoint import Checkpoint
from tokenmesh.fabric.gateway.events import (
    RECONNECT_S,
    ChaincodeEvent,
    EventsRequestData,
    Feed,
    NewestFeed,
    PositionedFeed,
    SignedFeed,
    new_block_feed,
    new_chaincode_feed,
    read_block_request,
    read_chaincode_request,
)
from tokenmesh.fabric.gateway.flows import Caller, Clock, Endorsers, Invocation, Status, Submitted
from tokenmesh.fabric.gateway.identity import Hash, Identity, Signer, hash_sha256, read_identity, read_signer
from tokenmesh.fabric.gateway.messages import Argument
from tokenmesh.fabric.gateway.options import MESSAGE_BYTES_MAX, Deadlines, Retry, Tls
from tokenmesh.fabric.gateway.retrying import Wanted
from tokenmesh.fabric.gateway.signables import (
    CommitData,
    ProposalData,
    TransactionData,
    read_commit,
    read_proposal,
    read_transaction,
)
from tokenmesh.fabric.gateway.transport import open_channel
from tokenmesh.fabric.profile import Profile

Item = TypeVar("Item")


def connect(
    target: str | grpc.Channel,
    identity: Identity,
    signer: Signer | None = None,
    *,
    tls: Tls | None = None,
    hash: Hash = hash_sha256,  # noqa: A002 - Fabric's own name for it
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    retry: Retry = Retry(),  # noqa: B008 - frozen
    commit_stream: bool = True,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
) -> Gateway:
    """Connect to the Gateway of a peer (``"peer0.org1:7051"``, or a gRPC channel of your own, which you
    close).

    The connection is made at the first call. Without a ``signer`` everything has to be signed elsewhere.
    ``commit_stream=False`` asks the gateway for every single commit, as Fabric's own clients do.
    gRPC does not survive ``fork``: connect after it.
    """
    caller = Caller.over(tls, identity, signer, hash=hash, deadlines=deadlines, retry=retry)
    channel = open_channel(target, tls, message_bytes_max) if isinstance(target, str) else target
    session = Session(channel, caller, owned=isinstance(target, str), commit_stream=commit_stream)
    return Gateway(session)


def connect_profile(
    profile: Profile,
    organisation: str | None = None,
    identity: str | None = None,
    *,
    peer: str | None = None,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    retry: Retry = Retry(),  # noqa: B008 - frozen
    commit_stream: bool = True,
) -> Gateway:
    """Connect as one of a profile's identities, to a peer of its organisation (the first, unless named)."""
    files = profile.client(organisation, identity)
    node = profile.peer(organisation, peer)
    return connect(
        node.address,
        read_identity(files.msp_id, files.certificate),
        read_signer(files.key),
        tls=Tls.of(node, files),
        deadlines=deadlines,
        retry=retry,
        commit_stream=commit_stream,
    )


class Gateway:
    """A connection to a peer as one identity. Close it, or use it with ``with``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def identity(self) -> Identity:
        return self._session.caller.identity

    def get_network(self, channel_name: str) -> Network:
        """The network that a channel's members make up."""
        return Network(self._session, channel_name)

    def new_proposal(self, octets: bytes) -> Proposal:
        """A proposal again, from its bytes."""
        draft, channel, organizations, signature = read_proposal(octets)
        return Proposal(self._session, draft, channel, organizations, signature)

    def new_signed_proposal(self, octets: bytes, signature: bytes) -> Proposal:
        """A proposal with a signature of its digest that was made elsewhere."""
        draft, channel, organizations, _ = read_proposal(octets)
        return Proposal(self._session, draft, channel, organizations, signature)

    def new_transaction(self, octets: bytes) -> Transaction:
        """A transaction again, from its bytes."""
        return Transaction(self._session, *read_transaction(octets))

    def new_signed_transaction(self, octets: bytes, signature: bytes) -> Transaction:
        """A transaction with a signature of its digest that was made elsewhere."""
        return Transaction(self._session, read_transaction(octets)[0], signature)

    def new_commit(self, octets: bytes) -> Commit:
        """A commit again, from its bytes."""
        return Commit(self._session, *read_commit(octets))

    def new_signed_commit(self, octets: bytes, signature: bytes) -> Commit:
        """A commit with a signature of its digest that was made elsewhere."""
        submitted, request, _ = read_commit(octets)
        return Commit(self._session, submitted, request, signature)

    def new_signed_chaincode_events_request(
        self, octets: bytes, signature: bytes
    ) -> EventsRequest[ChaincodeEvent]:
        """A request for chaincode events with a signature of its digest that was made elsewhere."""
        feed, request = read_chaincode_request(octets)
        return EventsRequest(self._session, SignedFeed(feed, request), request, signature)

    def new_signed_block_events_request(
        self, octets: bytes, signature: bytes
    ) -> EventsRequest[common_pb2.Block]:
        """A request for blocks with a signature of its digest that was made elsewhere."""
        feed, request = read_block_request("block", octets)
        return EventsRequest(self._session, SignedFeed(feed, request), request, signature)

    def new_signed_filtered_block_events_request(
        self, octets: bytes, signature: bytes
    ) -> EventsRequest[events_pb2.FilteredBlock]:
        """A request for filtered blocks with a signature of its digest that was made elsewhere."""
        feed, request = read_block_request("filtered", octets)
        return EventsRequest(self._session, SignedFeed(feed, request), request, signature)

    def new_signed_block_and_private_data_events_request(
        self, octets: bytes, signature: bytes
    ) -> EventsRequest[events_pb2.BlockAndPrivateData]:
        """A request for blocks with private data with a signature of its digest that was made elsewhere."""
        feed, request = read_block_request("private", octets)
        return EventsRequest(self._session, SignedFeed(feed, request), request, signature)

    def close(self) -> None:
        """End the streams, and the connection unless its gRPC channel was handed in."""
        self._session.close()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Network:
    """A channel: its contracts, and its events."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.name = name

    def get_contract(
        self,
        chaincode_name: str,
        contract_name: str | None = None,
        *,
        clock: Clock | None = None,
        remember_endorsers: bool = False,
    ) -> Contract:
        """A chaincode on this channel; ``contract_name`` where a chaincode holds several contracts.

        ``clock`` gives the time that proposals bear, which is the transaction's time to the chaincode. With
        ``remember_endorsers`` transactions are endorsed by the organisations that have endorsed the one
        before, all at once, which is quicker; for a chaincode whose transactions all need the same ones.
        """
        return Contract(
            self._session,
            self.name,
            chaincode_name,
            contract_name,
            clock,
            Endorsers() if remember_endorsers else None,
        )

    def get_chaincode_events(
        self,
        chaincode_name: str,
        *,
        start_block: int | None = None,
        checkpoint: Checkpoint | None = None,
        reconnect_s: float = RECONNECT_S,
    ) -> Events[ChaincodeEvent]:
        """A chaincode's events: behind the checkpoint, from ``start_block`` on, or from now on.

        A stream that breaks goes on where it was, for ``reconnect_s`` seconds of trying.
        """
        feed = new_chaincode_feed(self.name, chaincode_name, start_block, checkpoint)
        return self._from_now_on(feed, reconnect_s)

    def get_block_events(
        self,
        *,
        start_block: int | None = None,
        checkpoint: Checkpoint | None = None,
        reconnect_s: float = RECONNECT_S,
    ) -> Events[common_pb2.Block]:
        """Whole blocks, as they are committed."""
        return self._blocks("block", start_block, checkpoint, reconnect_s)

    def get_filtered_block_events(
        self,
        *,
        start_block: int | None = None,
        checkpoint: Checkpoint | None = None,
        reconnect_s: float = RECONNECT_S,
    ) -> Events[events_pb2.FilteredBlock]:
        """Blocks with the ids and validation codes of their transactions, and no content."""
        return self._blocks("filtered", start_block, checkpoint, reconnect_s)

    def get_block_and_private_data_events(
        self,
        *,
        start_block: int | None = None,
        checkpoint: Checkpoint | None = None,
        reconnect_s: float = RECONNECT_S,
    ) -> Events[events_pb2.BlockAndPrivateData]:
        """Whole blocks with the private data that this identity may see."""
        return self._blocks("private", start_block, checkpoint, reconnect_s)

    def new_chaincode_events_request(
        self, chaincode_name: str, *, start_block: int | None = None, checkpoint: Checkpoint | None = None
    ) -> EventsRequest[ChaincodeEvent]:
        """A request for a chaincode's events, to be signed elsewhere."""
        feed = new_chaincode_feed(self.name, chaincode_name, start_block, checkpoint)
        return self._request(feed)

    def new_block_events_request(
        self, *, start_block: int | None = None, checkpoint: Checkpoint | None = None
    ) -> EventsRequest[common_pb2.Block]:
        """A request for whole blocks, to be signed elsewhere."""
        return self._request(new_block_feed("block", self.name, start_block, checkpoint))

    def new_filtered_block_events_request(
        self, *, start_block: int | None = None, checkpoint: Checkpoint | None = None
    ) -> EventsRequest[events_pb2.FilteredBlock]:
        """A request for filtered blocks, to be signed elsewhere."""
        return self._request(new_block_feed("filtered", self.name, start_block, checkpoint))

    def new_block_and_private_data_events_request(
        self, *, start_block: int | None = None, checkpoint: Checkpoint | None = None
    ) -> EventsRequest[events_pb2.BlockAndPrivateData]:
        """A request for blocks with private data, to be signed elsewhere."""
        return self._request(new_block_feed("private", self.name, start_block, checkpoint))

    def _blocks(
        self, kind: str, start_block: int | None, checkpoint: Checkpoint | None, reconnect_s: float
    ) -> Events[events_pb2.DeliverResponse]:
        return self._from_now_on(new_block_feed(kind, self.name, start_block, checkpoint), reconnect_s)

    def _request(self, feed: Feed[Item]) -> EventsRequest[Item]:
        request = feed.request(self._session.caller)
        return EventsRequest(self._session, SignedFeed(feed, request), request)

    def _from_now_on(self, feed: PositionedFeed[Item], reconnect_s: float) -> Events[Item]:
        """Where no start is given, it is the next block as of now: known, so a break cannot leave any out."""
        if feed.start_block is None:
            with self._session.events(NewestFeed(self.name), None, 0) as newest:
                feed.start_block = int(next(newest).number) + 1
        return self._session.events(feed, None, reconnect_s)


class Contract:
    """A chaincode's functions."""

    def __init__(
        self,
        session: Session,
        channel: str,
        chaincode_name: str,
        contract_name: str | None,
        clock: Clock | None = None,
        endorsers: Endorsers | None = None,
    ) -> None:
        self._session = session
        self._channel = channel
        self.chaincode_name = chaincode_name
        self.contract_name = contract_name
        self._clock = clock
        self._endorsers = endorsers

    def evaluate_transaction(self, name: str, *args: Argument) -> bytes:
        """Run a function on one peer and give its answer; nothing is written to the ledger."""
        return self.evaluate(name, args)

    def submit_transaction(self, name: str, *args: Argument) -> bytes:
        """Run a function on the peers that have to endorse it, and wait until what it wrote is committed."""
        return self.submit(name, args)

    def evaluate(
        self,
        transaction_name: str,
        arguments: Sequence[Argument] = (),
        *,
        transient_data: Mapping[str, Argument] | None = None,
        endorsing_organizations: Sequence[str] = (),
        retry: Retry | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """As :meth:`evaluate_transaction`, with transient data and a choice of whose peers are asked."""
        what = self._invocation(transaction_name, arguments, transient_data, endorsing_organizations)
        caller = self._session.caller
        return self._session.drive(
            retrying.evaluate_with_retry(caller, what, retry or caller.retry, timeout_s)
        )

    def submit(
        self,
        transaction_name: str,
        arguments: Sequence[Argument] = (),
        *,
        transient_data: Mapping[str, Argument] | None = None,
        endorsing_organizations: Sequence[str] = (),
        retry: Retry | None = None,
        endorse_timeout_s: float | None = None,
        is_wanted: Wanted | None = None,
        on_commit: Callable[[Status], None] | None = None,
        on_retry: Callable[[FabricError], None] | None = None,
    ) -> bytes:
        """As :meth:`submit_transaction`, with transient data and a choice of whose peers endorse.

        Raises EndorseError (nothing happened), SubmitError, CommitStatusError (it may yet be committed) or
        CommitError (it was found invalid). What is tried again meanwhile: :class:`Retry`.

        What is not endorsed within ``endorse_timeout_s`` is proposed anew, with a later time; without it,
        what is not endorsed within the gateway's deadline has failed. ``is_wanted(transaction_id, answer)``
        says of what was endorsed whether to hand it in at all; if not, the chaincode's answer is all there
        is, and the ledger stays as it is. ``on_commit`` is told of the transaction that took effect, before
        this returns; ``on_retry`` of every failure that is tried again.
        """
        what = self._invocation(
            transaction_name, arguments, transient_data, endorsing_organizations, endorse_timeout_s
        )
        caller = self._session.caller
        return self._session.drive(
            retrying.submit_and_wait(caller, what, retry or caller.retry, is_wanted, on_commit, on_retry)
        )

    def submit_async(
        self,
        transaction_name: str,
        arguments: Sequence[Argument] = (),
        *,
        transient_data: Mapping[str, Argument] | None = None,
        endorsing_organizations: Sequence[str] = (),
        retry: Retry | None = None,
    ) -> SubmittedTransaction:
        """Return as soon as the transaction is handed in for ordering, with its result; wait for it later."""
        what = self._invocation(transaction_name, arguments, transient_data, endorsing_organizations)
        caller = self._session.caller
        submitted = self._session.drive(retrying.endorse_and_submit(caller, what, retry or caller.retry))
        return SubmittedTransaction(self._session, submitted)

    def new_proposal(
        self,
        transaction_name: str,
        arguments: Sequence[Argument] = (),
        *,
        transient_data: Mapping[str, Argument] | None = None,
        endorsing_organizations: Sequence[str] = (),
    ) -> Proposal:
        """A proposal, to be evaluated or endorsed step by step, or signed elsewhere."""
        what = self._invocation(transaction_name, arguments, transient_data, endorsing_organizations)
        draft = what.draft(self._session.caller)
        return Proposal(self._session, draft, self._channel, endorsing_organizations)

    def _invocation(
        self,
        name: str,
        arguments: Sequence[Argument],
        transient: Mapping[str, Argument] | None,
        organizations: Sequence[str],
        endorse_timeout_s: float | None = None,
    ) -> Invocation:
        full = name if self.contract_name is None else f"{self.contract_name}:{name}"
        return Invocation(
            self._channel,
            self.chaincode_name,
            (full, *arguments),
            transient,
            organizations,
            self._clock,
            self._endorsers,
            endorse_timeout_s,
        )


class Proposal(ProposalData):
    """What is to be run, before anyone has endorsed it."""

    def __init__(
        self,
        session: Session,
        draft: messages.Draft,
        channel: str,
        organizations: Sequence[str] = (),
        signature: bytes | None = None,
    ) -> None:
        super().__init__(session.caller, draft, channel, organizations, signature)
        self._session = session

    def evaluate(self, *, timeout_s: float | None = None) -> bytes:
        """Run it on one peer and give its answer."""
        return self._session.drive(self._evaluation(timeout_s))

    def endorse(self, *, timeout_s: float | None = None) -> Transaction:
        """Have it endorsed by the peers that the chaincode's policy demands."""
        return Transaction(self._session, self._session.drive(self._endorsement(timeout_s)))


class Transaction(TransactionData):
    """What was endorsed, before it is handed in."""

    def __init__(self, session: Session, prepared: messages.Prepared, signature: bytes | None = None) -> None:
        super().__init__(session.caller, prepared, signature)
        self._session = session

    def submit(self, *, timeout_s: float | None = None) -> SubmittedTransaction:
        """Hand it in for ordering."""
        return SubmittedTransaction(self._session, self._session.drive(self._submission(timeout_s)))


class Commit(CommitData):
    """What was handed in."""

    def __init__(
        self,
        session: Session,
        submitted: Submitted,
        request: bytes | None = None,
        signature: bytes | None = None,
    ) -> None:
        super().__init__(session.caller, submitted, request, signature)
        self._session = session

    def get_status(self, *, timeout_s: float | None = None) -> Status:
        """Wait until it is committed, and say whether it is valid."""
        return self._session.drive(self._status(timeout_s))


class SubmittedTransaction(Commit):
    """A commit that also knows what the chaincode answered."""

    @property
    def result(self) -> bytes:
        """What the chaincode answered. It counts once the transaction is committed."""
        return messages.result_of(self._submitted.prepared.payload)


class EventsRequest(EventsRequestData[Item], Generic[Item]):
    """A request for events, which can be signed elsewhere."""

    def __init__(
        self, session: Session, feed: Feed[Item], request: bytes, signature: bytes | None = None
    ) -> None:
        super().__init__(session.caller, feed, request, signature)
        self._session = session

    def get_events(self) -> Events[Item]:
        """The events. A request is signed once, so this stream does not reconnect."""
        return self._session.events(self._feed, self._signature, 0)
