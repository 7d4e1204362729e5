"""A recorded transaction run again by the rules, on the state as it was, and compared with what stands there.

The rules are the very code that runs as chaincode (:mod:`tokenmesh_chaincode.contract`); only the stub is
another one: it reads from the state that the blocks before have made, and notes what is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple, NoReturn, TypeAlias

from tokenmesh.fabric.blocks import Envelope, Namespace, Transaction
from tokenmesh.fabric.blocks.state import ChannelState
from tokenmesh.ledger import private
from tokenmesh.ledger.fabric.recorded import APPLY, GENESIS, contracts_of
from tokenmesh.ledger.settled import settled_of
from tokenmesh.ledger.worth import movement
from tokenmesh_chaincode.contract import ContractError, replay
from tokenmesh_chaincode.contract.batch import COLLECTION
from tokenmesh_chaincode.documents import Contract, Disclosures, DocumentError, Verifier, parse_operation
from tokenmesh_chaincode.documents.jws import decode_segment
from tokenmesh_chaincode.rules import Outcome
from tokenmesh_chaincode.shim import ClientIdentity
from tokenmesh_chaincode.state import Value

OK = 200
NO_TRANSIENT: Mapping[str, bytes] = {}

Disclose: TypeAlias = Callable[[Sequence[str]], Disclosures]
"""Gives the disclosures with these digests, as far as they are at hand."""


class Found(NamedTuple):
    """What does not hold; ``code`` as in :mod:`tokenmesh.ledger.findings`."""

    code: str
    text: str


class Replayed(NamedTuple):
    """A transaction of the ledger, run again. ``settled``: the contracts for which tokens moved in it.

    Of its ``private`` contracts ``undisclosed`` are those whose disclosures are not at hand.
    """

    found: list[Found]
    changes: bool
    settled: list[Contract]
    private: int
    undisclosed: int


class RecordedStub:
    """A chaincode's stub for a transaction that stands in a block."""

    def __init__(self, envelope: Envelope, transaction: Transaction, state: ChannelState) -> None:
        self.function = transaction.arguments[0].decode(errors="replace") if transaction.arguments else ""
        self.parameters = transaction.arguments[1:]
        self.tx_id = envelope.tx_id
        self.timestamp_ns = envelope.timestamp_ns
        self.transient = NO_TRANSIENT
        self.writes: dict[bytes, bytes | None] = {}
        self._creator = envelope.creator
        self._chaincode = transaction.chaincode
        self._state = state

    @cached_property
    def identity(self) -> ClientIdentity:
        return ClientIdentity(self._creator)

    def get_states(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._state.value(self._chaincode, key.encode()) for key in keys]

    def put_state(self, key: str, value: bytes) -> None:
        self.writes[key.encode()] = value

    def del_state(self, key: str) -> None:
        self.writes[key.encode()] = None

    def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        """Whether the hashes of what is kept are right is found without it: see :func:`_check_private`."""

    def get_private_datas(self, collection: str, keys: Sequence[str]) -> NoReturn:
        what = f"{len(keys)} keys of {collection}"
        raise ContractError("no_disclosures", f"a transaction of the rules reads none: {what}")

    def get_state_by_range_with_pagination(
        self, start: str, end: str, page_size: int, bookmark: str
    ) -> NoReturn:
        what = f"{page_size} keys of {start!r} to {end!r} behind {bookmark!r}"
        raise ContractError("no_ranges", f"a transaction of the rules reads no range: {what}")


class RecordedChanges:
    """The ledger's state before a transaction, and what it writes: for adding up tokens."""

    def __init__(self, state: ChannelState, chaincode: str, written: Mapping[bytes, bytes | None]) -> None:
        self._state = state
        self._chaincode = chaincode
        self.writes = {key.decode(): _value(value) for key, value in written.items()}

    def get(self, key: str) -> Value | None:
        return self.writes[key] if key in self.writes else self.before(key)

    def before(self, key: str) -> Value | None:
        return _value(self._state.value(self._chaincode, key.encode()))


def replayed(
    envelope: Envelope,
    transaction: Transaction,
    state: ChannelState,
    chaincode: str,
    disclose: Disclose,
    verify_many: Verifier,
) -> Replayed | None:
    """Run a valid transaction again, before its writes are in ``state``; None if it has nothing to do with
    the ledger that ``chaincode`` keeps. ``disclose`` gives disclosures of private contracts, if it has them,
    and ``verify_many`` checks documents' signatures."""
    own = next((one for one in transaction.namespaces if one.name == chaincode), None)
    written = {} if own is None else {write.key: write.value for write in own.writes}
    if transaction.chaincode != chaincode:
        if own is None or not (written or own.collections or own.metadata_writes):
            return None
        text = f"chaincode {transaction.chaincode} wrote into the ledger's state"
        return Replayed([Found("writes", text)], True, [], 0, 0)
    function = transaction.arguments[:1]
    if function not in ((GENESIS,), (APPLY,)) and not written:
        return None
    settled, digests = _carried(envelope.tx_id, transaction) if function == (APPLY,) else ([], [])
    known = {sd: one for sd, one in disclose(digests).items() if private.holds(sd, one)} if digests else {}
    stub = RecordedStub(envelope, transaction, state)
    found = _compare(stub, transaction, own, written, known, verify_many)
    found += _check_private(own, digests)
    found += _conservation(state, chaincode, written)
    return Replayed(found, bool(written), settled, len(digests), len(digests) - len(known))


def _compare(
    stub: RecordedStub,
    transaction: Transaction,
    own: Namespace | None,
    written: Mapping[bytes, bytes | None],
    disclosures: Disclosures,
    verify_many: Verifier,
) -> list[Found]:
    try:
        answer = replay(stub, transaction.payload, disclosures, verify_many=verify_many)
    except ContractError as error:
        return [Found("outcome", f"the rules refuse it: {error}")]
    except Exception as error:
        # Whatever a state that no rules have written leads to is a finding, never a crash.
        return [Found("outcome", f"it cannot be replayed: {error!r}")]
    found = []
    if transaction.status != OK or transaction.payload != answer:
        found.append(Found("outcome", _difference(transaction.payload, answer)))
    others = [one.name for one in transaction.namespaces if one.name != transaction.chaincode and one.writes]
    if others:
        found.append(Found("writes", f"it writes into the state of {', '.join(others)} too"))
    if own is not None and own.metadata_writes:
        found.append(Found("writes", "it gives keys of the ledger policies of their own"))
    if transaction.event is not None:
        found.append(Found("writes", f"it emits {transaction.event.name!r}, and the rules emit nothing"))
    wrong = sorted(key for key in {*stub.writes, *written} if stub.writes.get(key, 0) != written.get(key, 0))
    if wrong:
        found.append(Found("writes", _about_key(wrong[0], stub.writes, written, len(wrong))))
    return found


def _difference(recorded: bytes, answer: bytes) -> str:
    """Which operation's result is another one."""
    try:
        pairs = list(zip(json.loads(recorded), json.loads(answer), strict=True))
        place, (said, right) = next((place, pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
    except (ValueError, TypeError, StopIteration):
        return f"it answers {_shown(recorded)}, and by the rules {_shown(answer)}"
    return f"operation {place} ends with {_text(said)}, and by the rules with {_text(right)}"


def _about_key(
    key: bytes, right: Mapping[bytes, bytes | None], written: Mapping[bytes, bytes | None], count: int
) -> str:
    name = key.decode(errors="replace")
    more = f" (and {count - 1} keys more are wrong)" if count > 1 else ""
    if key not in written:
        return f"it does not write {name}, as the rules do{more}"
    if key not in right:
        return f"it writes {name}, as the rules do not{more}"
    return f"it writes {_shown(written[key])} to {name}, and the rules {_shown(right[key])}{more}"


def _carried(tx_id: str, transaction: Transaction) -> tuple[list[Contract], list[str]]:
    """The contracts that are settled in it, and the digests of the private contracts that came with it."""
    settled: list[Contract] = []
    digests: dict[str, None] = {}
    done: set[tuple[str, str]] = set()
    try:
        results = json.loads(transaction.payload)
        for text, (ok, code, detail, recorded_in, _) in zip(transaction.arguments[1:], results, strict=True):
            if not ok or recorded_in != tx_id:
                continue
            body = parse_operation(text.decode("ascii")).body
            if (body.iss, body.jti) in done:
                continue  # it stands in the batch twice, and happened once
            done.add((body.iss, body.jti))
            carried = [one.body for one in contracts_of(body.act, body.arg)]
            digests.update(dict.fromkeys(one.sd for one in carried if one.sd is not None))
            if body.act == "settle":
                settled += settled_of(carried, Outcome(ok, code, detail))
    except (ValueError, TypeError, KeyError, DocumentError):
        return [], []  # the answer is not what the rules give, and was found to be another
    return settled, list(digests)


def _check_private(own: Namespace | None, digests: Sequence[str]) -> list[Found]:
    """Of private data there are the disclosures of its private contracts and nothing else: each is kept under
    the digest that the contract bears, and that digest is the hash of its value."""
    right = {sha256(sd.encode()).digest(): decode_segment(sd.encode()) for sd in digests}
    collections = () if own is None else own.collections
    recorded: dict[bytes, bytes | None] = {}
    for collection in collections:
        if collection.name == COLLECTION:
            recorded.update((write.key, write.value) for write in collection.writes)
        elif collection.writes:
            return [Found("writes", f"it writes into the collection {collection.name}")]
    if recorded == right:
        return []
    return [Found("disclosure", "what it keeps as private is not the disclosures of its private contracts")]


def _conservation(state: ChannelState, chaincode: str, written: Mapping[bytes, bytes | None]) -> list[Found]:
    try:
        accounted, supply = movement(RecordedChanges(state, chaincode, written))
    except (ValueError, TypeError, KeyError) as error:
        return [Found("conservation", f"what it writes cannot be added up: {error!r}")]
    if accounted == supply:
        return []
    return [Found("conservation", f"accounted for are {accounted:+} tokens, minted are {supply:+}")]


def _value(octets: bytes | None) -> Value | None:
    return None if octets is None else json.loads(octets)


def _shown(octets: bytes | None) -> str:
    return "nothing" if octets is None else octets[:200].decode(errors="replace")


def _text(value: object) -> str:
    return json.dumps(value)[:200]
