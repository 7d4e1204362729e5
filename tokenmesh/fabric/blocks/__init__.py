"""Blocks of a Fabric channel: reading them, taking them apart, and deciding anew whether they hold."""

from tokenmesh.fabric.blocks.block import Block, read_block
from tokenmesh.fabric.blocks.envelopes import (
    Creator,
    Endorsement,
    Envelope,
    Event,
    Transaction,
    read_creator,
    read_envelope,
    read_transaction,
)
from tokenmesh.fabric.blocks.reader import (
    LedgerInfo,
    ledger_info,
    read_block_files,
    read_blocks,
    write_blocks,
)
from tokenmesh.fabric.blocks.rwsets import Collection, Namespace, Read, Version, Write

__all__ = [
    "Block",
    "Collection",
    "Creator",
    "Endorsement",
    "Envelope",
    "Event",
    "LedgerInfo",
    "Namespace",
    "Read",
    "Transaction",
    "Version",
    "Write",
    "ledger_info",
    "read_block",
    "read_block_files",
    "read_blocks",
    "read_creator",
    "read_envelope",
    "read_transaction",
    "write_blocks",
]
