"""Notes: whole lines from many writers, read as they come."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokenmesh.cli.demo.notes import LINE_BYTES_MAX, Notes, Reader


def test_lines_of_many_writers_never_mix(tmp_path: Path) -> None:
    """Eight writers with a descriptor each; every line arrives whole, none is missing."""
    path = tmp_path / "notes"

    def write(writer: int) -> None:
        notes = Notes(path)
        for number in range(200):
            notes.write(writer=writer, number=number, text="x" * (number * 10))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sorted((note["writer"], note["number"]) for note in Reader(path).new()) == [
        (writer, number) for writer in range(8) for number in range(200)
    ]


def test_a_reader_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Nothing is read twice, and a line that is half written waits until it is whole."""
    path = tmp_path / "notes"
    reader = Reader(path)
    assert list(reader.new()) == []
    notes = Notes(path)
    notes.write(n=1)
    assert list(reader.new()) == [{"n": 1}]
    line = json.dumps({"n": 2}) + "\n"
    with path.open("a") as file:
        file.write(line[:4])
        file.flush()
        assert list(reader.new()) == []
        file.write(line[4:])
    notes.write(n=3)
    assert list(reader.new()) == [{"n": 2}, {"n": 3}]


def test_a_note_has_a_limit(tmp_path: Path) -> None:
    """Past the limit nothing is written at all: half a note would spoil the file."""
    notes = Notes(tmp_path / "notes")
    with pytest.raises(ValueError, match="at most"):
        notes.write(text="x" * LINE_BYTES_MAX)
    assert list(Reader(tmp_path / "notes").new()) == []
