"""Whether a transaction was endorsed by those who have to, for everything that it writes.

``core/committer/txvalidator/v20`` and ``core/common/validation/statebased`` in Fabric's source: each
chaincode's policy for writes to its state, each collection's for writes to it, and a key's own where it has
one, which then counts in place of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.channel import Configuration
from tokenmesh.fabric.blocks.codes import (
    ENDORSEMENT_POLICY_FAILURE,
    ILLEGAL_WRITESET,
    INVALID_CHAINCODE,
    INVALID_OTHER_REASON,
    VALID,
)
from tokenmesh.fabric.blocks.conflicts import Key
from tokenmesh.fabric.blocks.definitions import BUILTIN, Definition, Definitions
from tokenmesh.fabric.blocks.envelopes import Transaction
from tokenmesh.fabric.blocks.msp import Member
from tokenmesh.fabric.blocks.policies import Signed, signers
from tokenmesh.fabric.blocks.rwsets import Namespace
from tokenmesh.fabric.blocks.state import ChannelState
from tokenmesh.fabric.errors import BlockError


class Endorsements:
    """Judges the endorsements of one block's transactions, by state and configuration before it."""

    def __init__(self, state: ChannelState, configuration: Configuration) -> None:
        self.definitions = Definitions(state, configuration)
        self._state = state
        self._configuration = configuration

    def judge(self, transaction: Transaction, noted: Set[Key]) -> tuple[int, str]:
        """The validation code, and what is lacking.

        ``noted``: keys whose own policy an earlier transaction of this block has changed.
        """
        problem = _inconsistent(transaction)
        if problem:
            return INVALID_CHAINCODE, problem
        event = transaction.event
        if event is not None and event.chaincode != transaction.chaincode:
            return INVALID_OTHER_REASON, f"its event is in the name of chaincode {event.chaincode!r}"
        names = [one.name for one in transaction.namespaces]
        if len(names) != len(set(names)):
            return ILLEGAL_WRITESET, "its write set names a namespace twice"
        by = self.endorsers(transaction)
        written = {one.name: one for one in transaction.namespaces if _writes(one)}
        for name in sorted({transaction.chaincode, *written}):
            code, why = self._namespace(name, written.get(name), by, noted)
            if code != VALID:
                return code, why
        return VALID, ""

    def endorsers(self, transaction: Transaction) -> list[Member]:
        """Those whose endorsement of a transaction holds, each once."""
        return signers(
            self._configuration.members,
            (
                Signed(transaction.response_payload + one.endorser, one.signature, one.endorser)
                for one in transaction.endorsements
            ),
        )

    def _namespace(
        self, name: str, written: Namespace | None, by: Sequence[Member], noted: Set[Key]
    ) -> tuple[int, str]:
        try:
            definition = self.definitions.get(name)
        except BlockError as error:
            return INVALID_CHAINCODE, str(error)
        if definition is None or not definition.policy or definition.plugin != BUILTIN:
            return INVALID_CHAINCODE, _undefined(name, definition)
        try:
            lacking = self._lacking(definition, name, written, by, noted)
        except DecodeError as error:
            lacking = f"a policy of {name} cannot be read: {error}"
        if lacking:
            whose = ", ".join(sorted({member.msp_id for member in by if not member.problem})) or "nobody"
            return ENDORSEMENT_POLICY_FAILURE, f"{lacking}; it is endorsed by {whose}"
        return VALID, ""

    def _lacking(
        self,
        definition: Definition,
        name: str,
        written: Namespace | None,
        by: Sequence[Member],
        noted: Set[Key],
    ) -> str:
        """What of the policies for a namespace does not hold; "" if all do."""
        holds = self._configuration.policies.application_policy_holds
        collections: set[str] = set()
        others = False
        for collection, key in _keys(written):
            if (name, collection, key) in noted:
                return f"the policy of a key of {name} was changed by an earlier transaction of the block"
            own = self._state.policy(name, collection, key)
            if own is None:
                collections.add(collection)
                continue
            others = True
            if not holds(_application_policy(own), by):
                return f"the policy that a key of {name} has of its own does not hold"
        if not collections and not others:
            collections.add("")
        for collection in sorted(collections):
            policy = self.definitions.collection_policy(name, collection) if collection else definition.policy
            if policy is None:
                return f"{name} has no collection {collection}"
            if not holds(policy or definition.policy, by):
                what = f"collection {collection} of {name}" if collection else name
                return f"the endorsement policy of {what} does not hold"
        return ""


def _keys(written: Namespace | None) -> Iterator[tuple[str, bytes]]:
    """What is written in a namespace: (collection, key)."""
    if written is None:
        return
    for write in written.writes:
        yield "", write.key
    for noted in written.metadata_writes:
        yield "", noted.key
    for collection in written.collections:
        for write in collection.writes:
            yield collection.name, write.key
        for noted in collection.metadata_writes:
            yield collection.name, noted.key


def noted_keys(namespaces: Sequence[Namespace]) -> set[Key]:
    """The keys about which a transaction notes something, such as a policy of their own."""
    found: set[Key] = set()
    for one in namespaces:
        found.update((one.name, "", noted.key) for noted in one.metadata_writes)
        for collection in one.collections:
            found.update((one.name, collection.name, noted.key) for noted in collection.metadata_writes)
    return found


def _writes(namespace: Namespace) -> bool:
    return next(_keys(namespace), None) is not None


def _inconsistent(transaction: Transaction) -> str:
    if not transaction.chaincode or transaction.header_chaincode != transaction.chaincode:
        return f"it is for {transaction.header_chaincode!r}, and endorsed for {transaction.chaincode!r}"
    if not transaction.version:
        return "it names no version of its chaincode"
    return ""


def _undefined(name: str, definition: Definition | None) -> str:
    if definition is None:
        return f"there is no chaincode {name} on the channel"
    return f"chaincode {name} is to be validated by {definition.plugin!r}, which only its peers know"


def _application_policy(own: bytes) -> bytes:
    """A key's own policy is a bare signature policy; as an ``ApplicationPolicy``, it is its first field."""
    return b"\x0a" + _varint(len(own)) + own


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)
