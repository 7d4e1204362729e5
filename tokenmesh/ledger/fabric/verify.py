"""Verification of a ledger on Fabric: from the channel's first block on, everything that was decided is
decided anew, and nothing is believed that a peer says.

The blocks may come from a peer or from files. Fabric's part (the chain of hashes, orderers, creators,
endorsements, conflicts, configurations) is :mod:`tokenmesh.fabric.blocks`; on top of it every transaction of
the ledger is run again by the rules, and its answer and its writes must be the same, byte for byte. All that
is trusted is the hash of block 0. In constant memory: the state lies in a temporary file.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tokenmesh.errors import ConfigError, LedgerError, LedgerUnavailable
from tokenmesh.fabric.blocks import Block, ledger_info, read_blocks
from tokenmesh.fabric.blocks.codes import MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT, code_name
from tokenmesh.fabric.blocks.definitions import LIFECYCLE
from tokenmesh.fabric.blocks.state import ChannelState
from tokenmesh.fabric.blocks.validation import Judged, Problem, Validator
from tokenmesh.fabric.errors import BlockError, FabricError
from tokenmesh.fabric.gateway import NO_RETRY, Gateway, Network
from tokenmesh.ledger.fabric.questions import StateQuestions
from tokenmesh.ledger.fabric.replaying import Disclose, replayed
from tokenmesh.ledger.findings import Enough, Finding, Findings, Report
from tokenmesh.ledger.settled import SettledOnce
from tokenmesh_chaincode.documents import NO_DISCLOSURES, Disclosures
from tokenmesh_chaincode.verifiers import Verifiers

__all__ = ["Finding", "Report", "Verified", "verify_blocks", "verify_fabric"]

Progress = Callable[[int, int], None]
_FOLLOWS = tuple(code_name(code) for code in (MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT))


class Verified(NamedTuple):
    """What was found, in so many blocks.

    ``genesis`` is the hash of block 0, on which all of it rests. ``witnesses`` have the same blocks;
    ``silent`` could not be asked.
    """

    report: Report
    blocks: int
    genesis: str
    witnesses: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


def verify_fabric(
    gateway: Gateway,
    channel: str,
    chaincode: str,
    progress: Progress | None = None,
    *,
    genesis: str = "",
    witnesses: Mapping[str, Gateway] = MappingProxyType({}),
) -> Verified:
    """Verify the ledger that ``chaincode`` keeps on ``channel``, by the blocks of the gateway's peer.

    ``progress`` is called with the blocks judged and their number. ``genesis`` is the hash of block 0 (hex)
    that is trusted; left out, the first block is taken for the channel's, and its hash is in the result.
    ``witnesses`` are other peers, by their names, which must have the same blocks. Raises
    ``LedgerUnavailable`` if the peer cannot be read from, or if there is no room for the state;
    ``ConfigError`` if the channel begins with another block than the one that is trusted.
    """
    network = gateway.get_network(channel)
    try:
        height = ledger_info(network).height
        blocks = read_blocks(network, 0, height - 1)
        with closing(blocks):
            verification = _Verification(chaincode, progress, height, genesis, _asking(network, chaincode))
            others = {name: one.get_network(channel) for name, one in witnesses.items()}
            verification.run(blocks, others)
    except FabricError as error:
        if isinstance(error, BlockError):
            raise ConfigError(f"channel {channel} cannot be verified: {error}") from error
        raise LedgerUnavailable(f"the blocks of channel {channel} cannot be read: {error}") from error
    return verification.verified


def verify_blocks(
    blocks: Iterable[Block], chaincode: str, progress: Progress | None = None, *, genesis: str = ""
) -> Verified:
    """The same for blocks from anywhere, such as
    :func:`~tokenmesh.fabric.blocks.read_block_files`."""
    verification = _Verification(chaincode, progress, 0, genesis, _nothing)
    try:
        verification.run(blocks, {})
    except BlockError as error:
        raise ConfigError(f"the blocks cannot be verified: {error}") from error
    return verification.verified


class _Verification:
    """One run over one channel's blocks."""

    def __init__(
        self,
        chaincode: str,
        progress: Progress | None,
        height: int,
        genesis: str,
        disclose: Disclose,
    ) -> None:
        self.chaincode = chaincode
        self.disclose = disclose
        self.progress = progress
        self.height = height
        self.genesis = genesis
        self.findings = Findings()
        self.verifiers = Verifiers()
        self.blocks = 0
        self.transactions = 0
        self.private = 0
        self.undisclosed = 0
        self.witnesses: list[str] = []
        self.silent: list[str] = []
        self.diverged = False
        """Something was found that changes what follows: what conflicts with what is not known any more."""

    @property
    def verified(self) -> Verified:
        report = Report(self.transactions, self.findings.found, self.private, self.undisclosed)
        return Verified(report, self.blocks, self.genesis, (*self.witnesses,), (*self.silent,))

    def run(self, blocks: Iterable[Block], witnesses: Mapping[str, Network]) -> None:
        with (
            suppress(Enough),
            tempfile.TemporaryDirectory(prefix="tokenmesh-verify-") as directory,
            closing(ChannelState(Path(directory) / "state.db", self._keeps)) as state,
            closing(self.verifiers),
        ):
            try:
                self._run(blocks, witnesses, state)
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"no room for the replay in {directory}: {error}") from error

    def _keeps(self, namespace: str) -> bool:
        return namespace in (LIFECYCLE, self.chaincode)

    def _run(self, blocks: Iterable[Block], witnesses: Mapping[str, Network], state: ChannelState) -> None:
        validator = Validator(state, bytes.fromhex(self.genesis) if self.genesis else None)
        settled = SettledOnce(state.connection)
        state.connection.execute("CREATE TABLE blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL)")
        for block in blocks:
            for judged in validator.take(block):
                self._note(validator.new_problems())
                self._replay(judged, state, settled)
            self._note(validator.new_problems())
            state.connection.execute("INSERT OR IGNORE INTO blocks VALUES (?, ?)", (block.number, block.hash))
            self.genesis = (validator.genesis or b"").hex()
            self.blocks += 1
            if self.progress is not None:
                self.progress(self.blocks, max(self.blocks, self.height))
        if validator.last is None:
            raise BlockError("there are no blocks at all")
        self._ask_witnesses(validator.last, witnesses, state.connection)
        if not self.transactions:
            self.findings.add(None, "", "missing", f"no ledger has begun in chaincode {self.chaincode}")

    def _note(self, problems: Iterable[Problem]) -> None:
        for one in problems:
            follows = one.code == "flag" and any(name in one.text for name in _FOLLOWS)
            if not (follows and self.diverged):
                self._find(one.block, one.tx_id, one.code, one.text)

    def _find(self, block: int, tx_id: str, code: str, text: str) -> None:
        where = f"block {block}, transaction {tx_id}" if tx_id else f"block {block}"
        self.findings.add(block, tx_id, code, f"{where}: {text}")
        self.diverged = True

    def _replay(self, judged: Judged, state: ChannelState, settled: SettledOnce) -> None:
        if not judged.is_valid or judged.envelope is None or judged.transaction is None:
            return
        one = replayed(
            judged.envelope, judged.transaction, state, self.chaincode, self.disclose, self.verifiers
        )
        if one is None:
            return
        block = judged.version.block
        for found in one.found:
            self._find(block, judged.tx_id, found.code, found.text)
        for text in settled.take(judged.tx_id, one.settled):
            self._find(block, judged.tx_id, "settled_twice", text)
        self.transactions += one.changes
        self.private += one.private
        self.undisclosed += one.undisclosed

    def _ask_witnesses(
        self, last: Block, witnesses: Mapping[str, Network], connection: sqlite3.Connection
    ) -> None:
        """Other peers have the same blocks, as far as they have come."""
        for name, network in witnesses.items():
            try:
                number, other = _block_of(network, last.number)
            except FabricError:
                self.silent.append(name)
                continue
            (own,) = connection.execute("SELECT hash FROM blocks WHERE number = ?", (number,)).fetchone()
            if other == own:
                self.witnesses.append(name)
            else:
                self._find(number, "", "chain", f"the peer {name} has another block of this number")


def _nothing(_: Sequence[str]) -> Disclosures:
    return NO_DISCLOSURES


def _asking(network: Network, chaincode: str) -> Disclose:
    """Disclosures from the peer, if it is a member of the collection; whether they are right is checked."""
    questions = StateQuestions(network.get_contract(chaincode), NO_RETRY)

    def disclose(digests: Sequence[str]) -> Disclosures:
        try:
            found = questions.disclosures(digests)
        except (LedgerError, ValueError, TypeError):
            return NO_DISCLOSURES
        return {sd: one for sd, one in found.items() if isinstance(one, str)}

    return disclose


def _block_of(network: Network, last: int) -> tuple[int, bytes]:
    """The number and hash of a peer's block ``last``, or of the last it has."""
    info = ledger_info(network)
    if info.height <= last + 1:
        return info.height - 1, info.hash
    (block,) = read_blocks(network, last, last)
    return last, block.hash
