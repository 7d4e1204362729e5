"""Findings: bounded, printable, and explained on the ledger's page of the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenmesh.ledger.findings import BLOCK_CODES, CODES, FINDINGS_MAX, Enough, Findings
from tokenmesh.ledger.store import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGE = (REFERENCE / "embedded-ledger.md").read_text("utf-8")
FABRIC_PAGE = (REFERENCE / "fabric-verification.md").read_text("utf-8")


def test_every_code_is_explained():
    """The pages' tables of findings are the code's."""
    for code, meaning in CODES.items():
        assert f"| `{code}` | {meaning} |" in PAGE
    for code, meaning in BLOCK_CODES.items():
        assert f"| `{code}` | {meaning} |" in FABRIC_PAGE
    assert f"after {FINDINGS_MAX} findings" in FABRIC_PAGE


def test_the_file_is_described_as_it_is():
    """Tables, their marks and the number of findings on the page are those of the code."""
    for name, sql in SCHEMA.items():
        if sql.startswith("CREATE TABLE"):
            assert f"| `{name}` |" in PAGE
    assert f"`application_id` 0x{APPLICATION_ID:X}, `user_version` {SCHEMA_VERSION}" in PAGE
    assert f"after {FINDINGS_MAX} findings" in PAGE


def test_a_report_ends_when_it_is_full():
    findings = Findings()
    for number in range(FINDINGS_MAX - 1):
        findings.add(number, "", "changed", "something")
    with pytest.raises(Enough):
        findings.add(0, "", "changed", "the last one")
    assert len(findings.found) == FINDINGS_MAX


def test_a_finding_can_be_printed_anywhere():
    """Whatever a damaged file holds: no lone surrogate, nothing that a terminal cannot show."""
    findings = Findings()
    findings.add(None, "\x1b]0;", "damaged", "caf\u00e9 \udcff\x1b[2J\n")
    assert findings.found[0][1::2] == ("\\x1b]0;", "caf\\xe9 \\udcff\\x1b[2J\\n")
