"""The embedded ledger and private contracts: disclosures lie beside the chain, and can be taken away."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledger.suite_tools import PAYEE, PAYER, open_allowance
from ledger.verify_tools import Written, edit, found

from support.ledgers import GOVERNANCE, Domain, make_ledger, now_of
from support.wallets import Clock
from tokenmesh.errors import LedgerUnavailable
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.store import AT_BITS
from tokenmesh_chaincode.documents import parse_contract, parse_operation

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "embedded-ledger.md"
DENIED = {"payer": "*", "payee": "*", "operation": "DELETE *", "effect": "deny"}
PRIVATE = 4
"""Private contracts that are settled; the last one is forbidden by policy."""


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    policy = {"rules": [DENIED], "propagation_s": 0}
    domain = make_ledger(tmp_path, {PAYER: 1_000, PAYEE: 0}, clock=Clock(), policy=policy)
    yield domain
    domain.ledger.close()


@pytest.fixture
def written(domain: Domain, tmp_path: Path) -> Written:
    """A ledger with private contracts and an open one, settled in two settlements."""
    allowance = open_allowance(domain)
    for first in (0, 2):
        made = {"via": allowance, "lane": "l", "iat": domain.now + 1}
        texts, disclosures = [], {}
        for seq in (first, first + 1):
            op = "DELETE /everything" if seq == PRIVATE - 1 else f"GET /secret-{seq}"
            text, own = domain.private_contract(PAYER, PAYEE, seq=seq, op=op, **made)
            texts.append(text)
            disclosures |= own
        texts.append(domain.contract(PAYER, PAYEE, seq=first + 10, **made))
        settlement = domain.operation(PAYEE, "settle", {"items": [[text, 5] for text in texts]})
        domain.submit(settlement, disclosures=disclosures)
    transactions = now_of(domain.ledger.transactions())
    domain.ledger.close()
    return Written(tmp_path / "ledger.db", domain, transactions)


def settlement_of(written: Written) -> int:
    return max(one.number for one in written.transactions if one.operations[0].act == "settle")


def test_a_ledger_with_private_contracts_holds(written: Written) -> None:
    report = found(written)
    assert report.ok
    assert (report.private, report.undisclosed) == (PRIVATE, 0)


def test_it_holds_without_the_disclosures_and_says_for_how_many(written: Written) -> None:
    edit(written, "DELETE FROM disclosures WHERE disclosure IN (SELECT disclosure FROM disclosures LIMIT 1)")
    report = found(written)
    assert (report.ok, report.private, report.undisclosed) == (True, PRIVATE, 1)
    edit(written, "DELETE FROM disclosures")
    report = found(written)
    assert (report.ok, report.private, report.undisclosed) == (True, PRIVATE, PRIVATE)


def test_what_is_deleted_as_the_page_says_is_gone_for_good(written: Written) -> None:
    """The file's very bytes have it no more, and history says that the contract was private."""
    with closing(sqlite3.connect(written.path)) as connection:
        rows = connection.execute("SELECT sd, disclosure FROM disclosures").fetchall()
    assert len(rows) == PRIVATE
    assert all(disclosure.encode() in written.path.read_bytes() for _, disclosure in rows)
    (recipe,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    with closing(sqlite3.connect(written.path, isolation_level=None)) as connection:
        connection.executescript(recipe)
    held = b"".join(path.read_bytes() for path in written.path.parent.glob("ledger.db*") if path.is_file())
    assert not any(disclosure.encode() in held for _, disclosure in rows)
    with EmbeddedLedger(written.path) as ledger:
        transaction = now_of(ledger.transaction(written.tx_id(settlement_of(written))))
        assert transaction is not None
        items = parse_operation(transaction.operations[0].document or "").body.arg["items"]
        (record,) = now_of(ledger.contract(parse_contract(items[0][0]).body.jti))
    assert (record.op, record.disclosure, record.charged) == ("", None, 5)


def test_a_disclosure_changed_by_hand_is_found(written: Written) -> None:
    edit(written, "UPDATE disclosures SET disclosure = replace(disclosure, 'W', 'X')")
    codes = {(finding.code, finding.tx_n) for finding in found(written).findings}
    assert {code for code, _ in codes} == {"disclosure"}
    assert settlement_of(written) in {number for _, number in codes}


def test_a_disclosure_of_no_contract_is_found(written: Written) -> None:
    edit(written, "UPDATE disclosures SET n = 1")
    assert {finding.code for finding in found(written).findings} == {"disclosure"}


def test_a_verdict_changed_by_hand_is_found_without_the_disclosures(written: Written) -> None:
    """Who makes a forbidden contract look allowed changes the transaction, whose id shows it."""
    number = settlement_of(written)
    allowed = "replace(outcome, '\"forbidden\":[1]', '\"forbidden\":[]')"
    sql = f"UPDATE operations SET outcome = {allowed} WHERE at = ?"
    edit(written, (sql, (number << AT_BITS,)), "DELETE FROM disclosures")
    first = found(written).findings[0]
    assert (first.code, first.tx_n) == ("changed", number)


def test_disclosures_of_several_callers_travel_together(domain: Domain) -> None:
    """One that submits a wrong disclosure for another's contract does not hinder it."""
    allowance = open_allowance(domain)
    text, right = domain.private_contract(PAYER, PAYEE, via=allowance, lane="l", seq=1)
    wrong = dict.fromkeys(right, "nonsense")
    other = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 1})
    settlement = domain.operation(PAYEE, "settle", {"items": [[text, 5]]})
    futures = [
        domain.ledger.submit([other], disclosures=wrong),
        domain.ledger.submit([settlement], disclosures=right),
        domain.ledger.submit([other], disclosures=wrong),
    ]
    assert now_of(futures[1])[0].outcome.detail["settled"] == 1


def test_nothing_is_kept_of_what_is_refused(domain: Domain) -> None:
    text, disclosures = domain.private_contract(PAYER, PAYEE, via="nothing", lane="l", seq=1)
    stranger = domain.wallets.authority.new_identity(PAYEE)
    refused = domain.operation(stranger, "settle", {"items": [[text, 5]]})
    (result,) = domain.submit(refused, disclosures=disclosures)
    assert result.outcome.code == "unknown_certificate"
    sd = parse_contract(text).body.sd or ""
    assert sd.encode() not in b"".join(path.read_bytes() for path in files_of(domain))


def files_of(domain: Domain) -> list[Path]:
    assert isinstance(domain.ledger, EmbeddedLedger)
    return [path for path in domain.ledger.path.parent.glob("ledger.db*") if path.is_file()]


def test_a_process_whose_certificate_is_revoked_writes_no_more(domain: Domain) -> None:
    """Not even what others have signed: nobody could trust its transactions."""
    path = files_of(domain)[0].with_name("ledger.db")
    with EmbeddedLedger(path, domain[PAYER], clock=domain.clock) as own:
        theirs = domain.operation(PAYEE, "sweep", {"credits": []})
        assert now_of(own.submit([theirs]))[0].outcome.ok
        domain.do(GOVERNANCE, "revoke", {"name": PAYER, "x5t": domain[PAYER].x5t})
        later = domain.operation(PAYEE, "sweep", {"credits": []})
        with pytest.raises(LedgerUnavailable, match="certificate is not good"):
            now_of(own.submit([later]))
    domain.ledger.close()
    assert found(Written(path, domain, [])).ok
