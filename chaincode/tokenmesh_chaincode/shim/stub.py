"""What one invocation of a chaincode may see and do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim

from . import keys
from .access import Access, paging, plain
from .conversation import Conversation, Message
from .errors import PeerError
from .identity import ClientIdentity
from .private import PrivateData
from .proposal import ProposalFacts
from .response import Response
from .results import KV, KeyModification, Page, Results, read_modification, read_page
from .workers import Workers


class Stub(PrivateData):
    """An invocation: its arguments, who asked, and the state. Its methods wait for the peer.

    As everywhere in Fabric, reads see the state before the transaction: never what it writes itself.
    """

    def __init__(self, talk: Conversation, payload: bytes, signed_proposal: Any, workers: Workers) -> None:
        super().__init__(talk)
        self._input: Any = chaincode_pb2.ChaincodeInput.FromString(payload)
        self._facts = ProposalFacts(signed_proposal)
        self._state = Access(talk)
        self._workers = workers
        self._event: Any = None

    # What was asked, and by whom

    @property
    def tx_id(self) -> str:
        return self._talk.tx_id

    @property
    def channel_id(self) -> str:
        return self._talk.channel_id

    @cached_property
    def args(self) -> list[bytes]:
        """Everything that was passed, the function's name first."""
        return list(self._input.args)

    @property
    def function(self) -> str:
        """The first argument, ``""`` without any."""
        return self.args[0].decode() if self.args else ""

    @property
    def parameters(self) -> list[bytes]:
        """The arguments behind the function's name."""
        return self.args[1:]

    @property
    def is_init(self) -> bool:
        """Does the client say that this is the first invocation of a new definition (``--init-required``)?"""
        return bool(self._input.is_init)

    @cached_property
    def decorations(self) -> Mapping[str, bytes]:
        """What the peer's own decorators add to every invocation."""
        return dict(self._input.decorations)

    @property
    def timestamp_ns(self) -> int:
        """The proposal's time in nanoseconds since 1970, as the client gave it: the same on every peer."""
        return self._facts.timestamp_ns

    @property
    def timestamp(self) -> float:
        """The proposal's time in seconds since 1970."""
        return self.timestamp_ns / 1e9

    @property
    def transient(self) -> Mapping[str, bytes]:
        """What travels with the proposal and not into the transaction: secrets. Do not log it."""
        return self._facts.transient

    @property
    def creator(self) -> bytes:
        """The serialised identity of who signed the proposal."""
        return self._facts.creator

    @cached_property
    def identity(self) -> ClientIdentity:
        """Who signed the proposal."""
        return ClientIdentity(self.creator)

    @property
    def binding(self) -> str:
        """A digest that ties transient data to this very proposal, in hexadecimal."""
        return self._facts.binding

    @property
    def signed_proposal(self) -> Any:
        """The proposal as it was signed (``SignedProposal`` of Fabric's protocol)."""
        return self._facts.signed_proposal

    # State

    def get_state(self, key: str) -> bytes | None:
        """The value of a key, or None."""
        return self._state.get(key)

    def get_states(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of many keys, in their order: one question, if the peer can answer many."""
        return self._state.get_many(keys)

    def put_state(self, key: str, value: bytes) -> None:
        """Write a value once the transaction commits."""
        self._state.put(key, value)

    def del_state(self, key: str) -> None:
        """Delete a key once the transaction commits."""
        self._state.delete(key)

    def set_state_validation_parameter(self, key: str, policy: bytes) -> None:
        """Who has to endorse changes of this key (see :func:`key_policy`); ``b""`` ends such a rule."""
        self._state.set_policy(key, policy)

    def get_state_validation_parameter(self, key: str) -> bytes | None:
        return self._state.get_policy(key)

    # Queries

    def get_state_by_range(self, start: str = "", end: str = "") -> Results[KV]:
        """Keys from ``start`` up to, not with, ``end``; an empty one is the first or the last of all."""
        return self._state.kvs(self._state.by_range(plain(start), plain(end)))

    def get_state_by_range_with_pagination(
        self, start: str, end: str, page_size: int, bookmark: str = ""
    ) -> Page:
        """One page of a range. The peer refuses to write in a transaction that has asked for one."""
        return read_page(self._state.by_range(plain(start), plain(end), paging(page_size, bookmark)))

    def get_state_by_partial_composite_key(
        self, object_type: str, attributes: Sequence[str] = ()
    ) -> Results[KV]:
        """Composite keys of this type that begin with these attributes."""
        return self._state.kvs(self._state.by_range(*keys.partial_range(object_type, attributes)))

    def get_state_by_partial_composite_key_with_pagination(
        self, object_type: str, attributes: Sequence[str], page_size: int, bookmark: str = ""
    ) -> Page:
        bounds = keys.partial_range(object_type, attributes)
        return read_page(self._state.by_range(*bounds, paging(page_size, bookmark)))

    def get_query_result(self, query: str) -> Results[KV]:
        """What a query in the words of the state database finds (CouchDB). Not checked again at commit."""
        return self._state.kvs(self._state.by_query(query))

    def get_query_result_with_pagination(self, query: str, page_size: int, bookmark: str = "") -> Page:
        return read_page(self._state.by_query(query, paging(page_size, bookmark)))

    def get_history_for_key(self, key: str) -> Iterator[KeyModification]:
        """Every committed change of a key, the newest first. Not checked again at commit."""
        asked = shim.GetHistoryForKey(key=key)
        first = self._talk.ask(Message.GET_HISTORY_FOR_KEY, asked.SerializeToString())
        return Results(first, read_modification, self._state.more, self._state.close)

    create_composite_key = staticmethod(keys.create_composite_key)
    split_composite_key = staticmethod(keys.split_composite_key)

    # Others

    def invoke_chaincode(self, name: str, args: Sequence[bytes | str], channel: str = "") -> Response:
        """Call another chaincode. On the same channel its writes join this transaction; else they are lost.

        What it answers is given back as it is, an error too.
        """
        given = [argument.encode() if isinstance(argument, str) else argument for argument in args]
        spec = chaincode_pb2.ChaincodeSpec(
            chaincode_id=chaincode_pb2.ChaincodeID(name=f"{name}/{channel}" if channel else name),
            input=chaincode_pb2.ChaincodeInput(args=given),
        )
        with self._workers.lent():  # the other may be served by this very process
            found = self._talk.ask(Message.INVOKE_CHAINCODE, spec.SerializeToString())
        answer = Message.FromString(found)
        if answer.type != Message.COMPLETED:
            raise PeerError(answer.payload.decode(errors="replace"))
        response = proposal_response_pb2.Response.FromString(answer.payload)
        return Response(bytes(response.payload), response.status, response.message)

    def set_event(self, name: str, payload: bytes = b"") -> None:
        """The event of this transaction: the last one set. Clients get it when the transaction commits."""
        if not name:
            raise ValueError("an event needs a name")
        self._event = chaincode_event_pb2.ChaincodeEvent(event_name=name, payload=payload, tx_id=self.tx_id)

    @property
    def event(self) -> Any:
        """What :meth:`set_event` has set, or None."""
        return self._event

    def __repr__(self) -> str:
        return f"<Stub of transaction {self.tx_id}>"
