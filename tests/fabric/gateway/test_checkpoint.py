"""A checkpoint is where it was left, whatever happened to the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import ChaincodeEvent, FileCheckpointer, InMemoryCheckpointer

WRITER = """
import sys
from tokenmesh.fabric.gateway import FileCheckpointer
checkpointer = FileCheckpointer(sys.argv[1], durable=False)
number = checkpointer.block_number or 0
while True:
    number += 1
    checkpointer.checkpoint_transaction(number, f"transaction-{number}" * 50)
    print(number, flush=True)
"""


@pytest.mark.parametrize("durable", [True, False, None])
def test_a_checkpoint_is_behind_what_was_dealt_with(tmp_path: Path, durable: bool | None) -> None:
    checkpointer = (
        InMemoryCheckpointer() if durable is None else FileCheckpointer(tmp_path / "at.json", durable=durable)
    )
    assert (checkpointer.block_number, checkpointer.transaction_id) == (None, None)
    checkpointer.checkpoint_block(7)
    assert (checkpointer.block_number, checkpointer.transaction_id) == (8, None)
    checkpointer.checkpoint_chaincode_event(ChaincodeEvent(9, "abc", "kv", "name", b""))
    assert (checkpointer.block_number, checkpointer.transaction_id) == (9, "abc")


def test_the_file_is_read_again_and_is_the_node_clients(tmp_path: Path) -> None:
    file = tmp_path / "at.json"
    FileCheckpointer(file).checkpoint_transaction(9, "abc")
    again = FileCheckpointer(file)
    assert (again.block_number, again.transaction_id) == (9, "abc")
    assert json.loads(file.read_text()) == {"blockNumber": "9", "transactionId": "abc"}
    file.write_text("{}")  # what the Node client writes before there is anything to remember
    assert FileCheckpointer(file).block_number is None


def test_a_file_that_is_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "at.json"
    file.write_text("[1, 2]")
    with pytest.raises(FabricError, match=r"at\.json"):
        FileCheckpointer(file)
    with pytest.raises(FabricError, match="folder"):
        FileCheckpointer(tmp_path / "absent" / "at.json")


def test_it_survives_kill_at_any_moment(tmp_path: Path) -> None:
    file = tmp_path / "at.json"
    for lines in (1, 20, 100, 300):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout as said:
            for _ in range(lines):
                last = int(said.readline())
            writer.send_signal(signal.SIGKILL)
            last = max([last, *(int(line) for line in said if line.endswith("\n"))])
        writer.wait()
        found = FileCheckpointer(file)
        assert found.block_number in (last, last + 1)
        assert found.transaction_id == f"transaction-{found.block_number}" * 50
