"""docs/reference/protocol.md has everything: each claim, act, field, state, limit, code and status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.economy import START, Economy
from tokenmesh.provider.problems import CATALOGUE
from tokenmesh_chaincode import limits
from tokenmesh_chaincode.documents import CONTRACT, OPERATION, RECEIPT, Contract, Operation, Receipt
from tokenmesh_chaincode.rules import ACTS, MEANING, NOT_RECORDED, check_policy, default_policy
from tokenmesh_chaincode.rules.policy import Policy

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "protocol.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]


def section(title: str) -> str:
    """The text under a heading, without that of the headings below it."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def named_in_rows(text: str) -> set[str]:
    """What stands in code in the first cell of the rows of a table."""
    first_cells = (line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize(
    ("title", "form", "kind"),
    [("Contract", Contract, CONTRACT), ("Receipt", Receipt, RECEIPT), ("Operations", Operation, OPERATION)],
)
def test_every_claim_of_every_document(title: str, form: Any, kind: Any) -> None:
    text = section(title)
    assert set(form._fields) <= named_in_rows(text)
    assert kind.typ in text
    example = json.loads(text.split("```json\n")[1].split("```")[0])
    assert example.keys() <= set(form._fields)
    optional = {name for name in form._fields if name in form._field_defaults}
    assert set(form._fields) - optional <= example.keys()


@pytest.mark.parametrize("act", sorted(ACTS))
def test_every_act_with_its_fields(act: str) -> None:
    if act == "settle":
        text = who = section("Settlement")
        assert "`settle`" in text
    else:
        (text,) = (row for row in ROWS if row.startswith(f"| `{act}` | ") and row.count("|") == 5)
        who = text.split("|")[3]
        assert ("governor" in who) >= ACTS[act].governors_only
        assert ("ᵃ" in who) == (ACTS[act].needs_approval is not None)
    assert ("ᶠ" in who) == ACTS[act].when_frozen
    assert all(f"`{field}`" in text for field in ACTS[act].fields)


def test_every_code_and_which_of_them_leave_no_trace() -> None:
    listed = dict(re.findall(r"^\| `(\w+)`( •)? \| .* \|$", section("Codes of the rules"), re.MULTILINE))
    assert listed.keys() == MEANING.keys()
    assert {code for code, mark in listed.items() if mark} == NOT_RECORDED & MEANING.keys()


def test_every_problem_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.*) \|$", section("Statuses and problems"), re.MULTILINE)
    assert {code: (int(status), title) for status, code, title in rows} == {
        code: (status, title) for code, (status, title, _) in CATALOGUE.items()
    }


def test_every_limit_with_its_value() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", section("Limits"), re.MULTILINE))
    values = {name: str(getattr(limits, name)) for name in vars(limits) if name.isupper()}
    assert rows == {name: value for name, value in values.items() if not name.endswith("_CACHE_MAX")}


def test_every_field_of_the_policy_with_its_default() -> None:
    policy: Policy = check_policy(default_policy())
    text = section("Policy")
    assert policy.keys() <= named_in_rows(text)
    for field, value in policy.items():
        if isinstance(value, int) and field != "since":
            (row,) = (line for line in text.splitlines() if line.startswith("|") and f"`{field}`" in line)
            assert str(value) in row


def test_every_key_of_the_state_with_its_fields() -> None:
    """A ledger that has seen every act has no key, and no field, that the page does not have."""
    economy = Economy(tokens=1000, governors=("root", "second"))
    economy.submit("root", "mint", tokens=5)
    economy.submit("alice", "transfer", to="bob", tokens=5)
    economy.submit("alice", "hold", id="h", payee="bob", tokens=5, exp=START + 60)
    economy.submit("alice", "open", id="a", payee="bob", tokens=5, exp=START + 60)
    economy.submit("bob", "settle", items=[[economy.contract(via="a", lane="l", seq=1), 5]])
    economy.submit("root", "propose", act="mint", arg={"tokens": 5})
    rows = {line.split("`")[1].split("/")[0]: line for line in section("State").splitlines() if "| `" in line}
    assert rows.keys() == {key.split("/")[0] for key in economy.state.values}
    for key, value in economy.state.items():
        family = key.split("/")[0]
        if family != "policy":  # it has a section of its own
            assert all(f"`{field}`" in rows[family] for field in value), key
