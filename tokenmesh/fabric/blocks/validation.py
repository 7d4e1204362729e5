"""Whether a channel's blocks hold: everything that orderers and peers have decided, decided anew.

From block 0, whose hash is all that has to be known, each block must follow from the one before, hold the
data that its header names and be signed by the channel's orderers; and for each transaction it is found out
whether it is valid: who handed it in, who endorsed it, whether what it has read was still so. What peers have
noted about it (the validation codes) is compared, and not believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from tokenmesh.fabric.blocks.block import Block
from tokenmesh.fabric.blocks.channel import Configuration, first_configuration, new_configuration
from tokenmesh.fabric.blocks.codes import (
    BAD_COMMON_HEADER,
    BAD_CREATOR_SIGNATURE,
    BAD_PAYLOAD,
    BAD_PROPOSAL_TXID,
    DUPLICATE_TXID,
    INVALID_CONFIG_TRANSACTION,
    INVALID_ENDORSER_TRANSACTION,
    TARGET_CHAIN_NOT_FOUND,
    UNSUPPORTED_TX_PAYLOAD,
    VALID,
    code_name,
)
from tokenmesh.fabric.blocks.conflicts import Key, conflict, written_keys
from tokenmesh.fabric.blocks.endorsements import Endorsements, noted_keys
from tokenmesh.fabric.blocks.envelopes import Envelope, Transaction, read_envelope, read_transaction
from tokenmesh.fabric.blocks.orderers import ordering_problem
from tokenmesh.fabric.blocks.rwsets import Version
from tokenmesh.fabric.blocks.state import ChannelState
from tokenmesh.fabric.blocks.updates import update_problem
from tokenmesh.fabric.errors import BlockError


class Problem(NamedTuple):
    """Something about a block that does not hold; ``tx_id`` names the transaction, if it is one's.

    ``code``: ``chain``, ``data``, ``orderer``, ``configuration``, ``flag``.
    """

    block: int
    tx_id: str
    code: str
    text: str


class Judged(NamedTuple):
    """A transaction, the code that it deserves, and why (where that is not VALID).

    ``envelope`` and ``transaction`` are None where they cannot be read.
    """

    version: Version
    envelope: Envelope | None
    transaction: Transaction | None
    code: int
    why: str

    @property
    def tx_id(self) -> str:
        return self.envelope.tx_id if self.envelope is not None else ""

    @property
    def is_valid(self) -> bool:
        return self.code == VALID


class Validator:
    """The channel up to the last block taken; ``state`` is what its valid transactions have written.

    ``genesis``: the hash of block 0 that is trusted; None takes the first one that comes.
    """

    def __init__(self, state: ChannelState, genesis: bytes | None = None) -> None:
        self.state = state
        self.problems: list[Problem] = []
        """What was found and not fetched yet, with :meth:`new_problems`."""
        self.configuration: Configuration | None = None
        self.last: Block | None = None
        self.genesis = genesis
        self._last_config = 0

    def new_problems(self) -> list[Problem]:
        """What was found since this was asked last."""
        found, self.problems = self.problems, []
        return found

    def take(self, block: Block) -> Iterator[Judged]:
        """Judge the next block: its transactions, each before what it writes is in the state.

        Go through them all before the next block. Raises :class:`BlockError` where nothing could be judged
        any more: at a beginning that is none.
        """
        self._check_chain(block)
        if self.configuration is None:
            self._begin(block)
        else:
            yield from self._judge(block, self.configuration)
        self.last = block

    def _find(self, block: Block, code: str, text: str, tx_id: str = "") -> None:
        self.problems.append(Problem(block.number, tx_id, code, text))

    def _begin(self, block: Block) -> None:
        if self.genesis is not None and block.hash != self.genesis:
            raise BlockError(
                f"block 0 is another one than the one that is trusted: its hash is {block.hash.hex()}, and "
                f"not {self.genesis.hex()}"
            )
        self.genesis = block.hash
        self.configuration = first_configuration(block)

    def _check_chain(self, block: Block) -> None:
        expected = 0 if self.last is None else self.last.number + 1
        if block.number != expected:
            self._find(block, "chain", f"block {block.number} stands where block {expected} belongs")
            if self.last is None:
                raise BlockError(f"the blocks begin with number {block.number}, and not with 0")
        elif self.last is not None and block.previous_hash != self.last.hash:
            self._find(block, "chain", "it does not name the hash of the block before it")
        if not block.data_is_whole:
            self._find(block, "data", "its transactions are not those that its header names")
        if self.last is not None:  # block 0 is nobody's transaction, and not signed
            for place in block.entries_run_together:
                self._find(
                    block, "data", f"entry {place} of its data is not one transaction, cut where it ends"
                )

    def _judge(self, block: Block, configuration: Configuration) -> Iterator[Judged]:
        envelopes = [_envelope(octets) for octets in block.data]
        is_config = any(one is not None and one.is_config for one in envelopes)
        last_config = block.number if is_config else self._last_config
        problem = ordering_problem(block, configuration, last_config)
        if problem:
            self._find(block, "orderer", problem)
        endorsements = Endorsements(self.state, configuration)
        judged = self._first_pass(block, envelopes, configuration, endorsements)
        in_block: set[Key] = set()
        for one in judged:
            decided = self._second_pass(one, in_block)
            self._compare(block, decided)
            yield decided
            if decided.is_valid and decided.transaction is not None:
                namespaces = decided.transaction.namespaces
                self.state.apply(namespaces, decided.version, endorsements.definitions.lifetime)
                in_block |= written_keys(namespaces)
        for envelope in envelopes:
            if envelope is not None:
                self.state.note(envelope.tx_id)
        self.state.expire(block.number)
        self._configure(block, judged, is_config)

    def _first_pass(
        self,
        block: Block,
        envelopes: list[Envelope | None],
        configuration: Configuration,
        endorsements: Endorsements,
    ) -> list[Judged]:
        """What can be said of each transaction without the others' writes."""
        noted: set[Key] = set()
        ids: set[str] = set()
        found = []
        for place, envelope in enumerate(envelopes):
            version = Version(block.number, place)
            transaction: Transaction | None = None
            if envelope is None:
                found.append(Judged(version, None, None, BAD_PAYLOAD, "it cannot be read"))
                continue
            code, why = _envelope_problem(envelope, configuration)
            if code == VALID and envelope.is_config:
                why = update_problem(configuration, envelope)
                code = INVALID_CONFIG_TRANSACTION if why else VALID
                if why:
                    self._find(block, "configuration", why, envelope.tx_id)
            elif code == VALID:
                code, why, transaction = self._endorsed(envelope, endorsements, noted)
            if code == VALID and envelope.tx_id in ids:
                code, why = DUPLICATE_TXID, "another of this block has its id"
            if code == VALID:
                ids.add(envelope.tx_id)
            found.append(Judged(version, envelope, transaction, code, why))
        return found

    def _endorsed(
        self, envelope: Envelope, endorsements: Endorsements, noted: set[Key]
    ) -> tuple[int, str, Transaction | None]:
        try:
            transaction = read_transaction(envelope)
        except BlockError as error:
            return INVALID_ENDORSER_TRANSACTION, str(error), None
        code, why = _transaction_problem(envelope, transaction)
        if code == VALID and self.state.has(envelope.tx_id):
            code, why = DUPLICATE_TXID, "an earlier one has its id"
        if code == VALID:
            code, why = endorsements.judge(transaction, noted)
        if code == VALID:
            noted |= noted_keys(transaction.namespaces)
        return code, why, transaction

    def _second_pass(self, one: Judged, in_block: set[Key]) -> Judged:
        """Whether what was read was still so, after the transactions before it."""
        if not one.is_valid or one.transaction is None:
            return one
        code, why = conflict(self.state, one.transaction.namespaces, in_block)
        return one._replace(code=code, why=why)

    def _compare(self, block: Block, one: Judged) -> None:
        """With what the peer that gave the block has noted, if it has."""
        place = one.version.tx
        if not block.codes:
            return
        noted = block.codes[place] if place < len(block.codes) else 254
        if (noted == VALID) != one.is_valid:
            why = f": {one.why}" if one.why else ""
            said = f"the peer has noted {code_name(noted)}, and it is {code_name(one.code)}{why}"
            self._find(block, "flag", said, one.tx_id)

    def _configure(self, block: Block, judged: list[Judged], is_config: bool) -> None:
        """The configuration that counts from the next block on."""
        if not is_config:
            return
        self._last_config = block.number
        if len(judged) != 1:
            self._find(block, "configuration", "a configuration does not stand alone in its block")
        for one in judged:
            if one.is_valid and one.envelope is not None and one.envelope.is_config:
                self.configuration = new_configuration(one.envelope)


def _envelope(octets: bytes) -> Envelope | None:
    try:
        return read_envelope(octets)
    except BlockError:
        return None


def _envelope_problem(envelope: Envelope, configuration: Configuration) -> tuple[int, str]:
    """``core/common/validation`` in Fabric's source: the headers, and who has signed."""
    if not (envelope.is_config or envelope.is_transaction):
        return UNSUPPORTED_TX_PAYLOAD, f"it is of type {envelope.type}"
    if envelope.epoch != 0 or not envelope.nonce or not envelope.creator:
        return BAD_COMMON_HEADER, "its header lacks its creator or its nonce, or has an epoch"
    if envelope.channel != configuration.channel:
        return TARGET_CHAIN_NOT_FOUND, f"it is for channel {envelope.channel!r}"
    try:
        creator = configuration.members.member(envelope.creator)
    except BlockError as error:
        return BAD_CREATOR_SIGNATURE, str(error)
    if creator.problem:
        return BAD_CREATOR_SIGNATURE, f"its creator is none of {creator.msp_id}: {creator.problem}"
    if not creator.has_signed(envelope.payload, envelope.signature):
        return BAD_CREATOR_SIGNATURE, "its creator has not signed it"
    return VALID, ""


def _transaction_problem(envelope: Envelope, transaction: Transaction) -> tuple[int, str]:
    """Whether id, proposal and response belong together."""
    if sha256(envelope.nonce + envelope.creator).hexdigest() != envelope.tx_id:
        return BAD_PROPOSAL_TXID, "its id is not made of its nonce and its creator"
    if transaction.actions != 1:
        return INVALID_ENDORSER_TRANSACTION, f"it has {transaction.actions} actions, not one"
    proposal = envelope.channel_header + transaction.action_header + transaction.proposal_payload
    if sha256(proposal).digest() != transaction.proposal_hash:
        return INVALID_ENDORSER_TRANSACTION, "what was endorsed is not the proposal in it"
    return VALID, ""
