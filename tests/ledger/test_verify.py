"""Verification: whatever is edited by hand is found, and named with its transaction; nothing crashes it."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing

import pytest
from ledger.suite_tools import PAYEE, PAYER, contracts, id_of, open_allowance, settle
from ledger.verify_tools import Written, edit, found

from support.ledgers import GOVERNANCE, make_ledger, now_of
from support.wallets import Clock
from tokenmesh.errors import ConfigError
from tokenmesh.ledger.chain import Header, body_digest
from tokenmesh.ledger.findings import FINDINGS_MAX
from tokenmesh.ledger.store import AT_BITS
from tokenmesh.ledger.verify import verify_ledger


def test_a_ledger_that_nobody_edited_holds(written):
    """Everything is replayed, with progress from the first to the last; the file stays as it was."""
    before = written.path.read_bytes()
    seen: list[tuple[int, int]] = []
    report = verify_ledger(written.path, lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.findings == []
    total = len(written.transactions) + 1  # and the beginning, number 0
    assert report.transactions == total
    assert seen == [(done, total) for done in range(1, total + 1)]
    assert written.path.read_bytes() == before


def test_there_must_be_a_file(tmp_path):
    with pytest.raises(ConfigError, match="tokenmesh init"):
        verify_ledger(tmp_path / "nothing.db")


def _amount_in_a_document(written: Written) -> tuple[int, str]:
    n = written.number("transfer")
    sql = "UPDATE operations SET document = CAST(replace(document, substr(document, 400, 4), 'AAAA') AS BLOB)"
    edit(written, (sql + " WHERE at = ?", (n << AT_BITS,)))
    return n, "changed"


def _amount_in_the_state(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE state SET value = '{\"tokens\":5000}' WHERE key = 'balance/service-a'")
    return written.transactions[-1].number, "state"


def _outcome(written: Written) -> tuple[int, str]:
    n = written.number("settle")
    sql = "UPDATE operations SET outcome = replace(outcome, '\"tokens\":50', '\"tokens\":60') WHERE at = ?"
    edit(written, (sql, (n << AT_BITS,)))
    return n, "changed"


def _removed_transaction(written: Written) -> tuple[int, str]:
    n = written.number("open")
    edit(
        written,
        ("DELETE FROM transactions WHERE n = ?", (n,)),
        ("DELETE FROM operations WHERE at >> 20 = ?", (n,)),
    )
    return n, "missing"


def _removed_operation(written: Written) -> tuple[int, str]:
    n = next(one.number for one in written.transactions if len(one.operations) == 5)
    edit(written, ("DELETE FROM operations WHERE at = ?", ((n << AT_BITS) + 2,)))
    return n, "missing"


def _removed_all_operations(written: Written) -> tuple[int, str]:
    n = written.number("settle")
    edit(written, ("DELETE FROM operations WHERE at >> 20 = ?", (n,)))
    return n, "changed"


def _removed_state(written: Written) -> tuple[int, str]:
    edit(written, "DELETE FROM state WHERE key LIKE 'supply/%'")
    return written.number("mint"), "state"


def _swapped_order(written: Written) -> tuple[int, str]:
    n = written.number("hold")
    edit(
        written,
        ("UPDATE transactions SET n = -1 WHERE n = ?", (n,)),
        ("UPDATE transactions SET n = ? WHERE n = ?", (n, n + 1)),
        ("UPDATE transactions SET n = ? WHERE n = -1", (n + 1,)),
        ("UPDATE operations SET at = -1 WHERE at = ?", (n << AT_BITS,)),
        ("UPDATE operations SET at = ? WHERE at = ?", (n << AT_BITS, (n + 1) << AT_BITS)),
        ("UPDATE operations SET at = ? WHERE at = -1", ((n + 1) << AT_BITS,)),
    )
    return n, "changed"


def _swapped_operations(written: Written) -> tuple[int, str]:
    n = next(one.number for one in written.transactions if len(one.operations) == 5)
    at = n << AT_BITS
    edit(
        written,
        ("UPDATE operations SET at = -1 WHERE at = ?", (at,)),
        ("UPDATE operations SET at = ? WHERE at = ?", (at, at + 1)),
        ("UPDATE operations SET at = ? WHERE at = -1", (at + 1,)),
    )
    return n, "changed"


def _moved_operation(written: Written) -> tuple[int, str]:
    n = next(one.number for one in written.transactions if len(one.operations) == 5)
    edit(written, ("UPDATE operations SET at = ? WHERE at = ?", ((n << AT_BITS) + 9, (n << AT_BITS) + 4)))
    return n, "missing"


def _forged_signature(written: Written) -> tuple[int, str]:
    n = written.number("settle")
    sql = "UPDATE transactions SET signature = (SELECT signature FROM transactions WHERE n = 1) WHERE n = ?"
    edit(written, (sql, (n,)))
    return n, "signature"


def _short_signature(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE transactions SET signature = x'00' WHERE n = 3")
    return 3, "signature"


def _another_time(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE transactions SET time_ms = time_ms + 1 WHERE n = 3")
    return 3, "changed"


def _another_signer(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE transactions SET signer = 'service-b' WHERE n = 7")
    return 7, "changed"


def _another_id(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE transactions SET id = replace(id, substr(id, 1, 4), '0000') WHERE n = 4")
    return 4, "changed"


def _another_issuer(written: Written) -> tuple[int, str]:
    n = written.number("transfer")
    edit(written, ("UPDATE operations SET issuer = 'service-b' WHERE at = ?", (n << AT_BITS,)))
    return n, "operation"


def _contract_left_out(written: Written) -> tuple[int, str]:
    edit(written, "DELETE FROM contracts WHERE at = (SELECT min(at) FROM contracts)")
    return written.number("settle"), "index"


def _contract_led_astray(written: Written) -> tuple[int, str]:
    edit(written, ("UPDATE contracts SET at = ? WHERE at = (SELECT min(at) FROM contracts)", (5 << AT_BITS,)))
    return 5, "index"


def _contract_invented(written: Written) -> tuple[int, str]:
    edit(written, ("INSERT INTO contracts VALUES ('invented', ?)", (5 << AT_BITS,)))
    return 5, "index"


def _party_left_out(written: Written) -> tuple[int, str]:
    edit(written, "DELETE FROM parties WHERE wallet = 'service-b' AND n > 5")
    return written.number("transfer"), "index"


def _state_invented(written: Written) -> tuple[int, str]:
    edit(written, "INSERT INTO state VALUES ('credit/service-b/gift', '{\"tokens\":9}', NULL, NULL, 6)")
    return 6, "state"


def _mark_changed(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE state SET due = due + 1000 WHERE payer IS NOT NULL")
    return written.transactions[-1].number, "state"


def _operation_beyond_the_end(written: Written) -> tuple[int, str]:
    n = written.transactions[-1].number + 1
    edit(written, ("INSERT INTO operations VALUES (?, 'a', 'b', 'mint', '{}', x'00')", (n << AT_BITS,)))
    return n, "operation"


def _another_beginning(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE operations SET document = CAST(document || ' ' AS BLOB) WHERE at = 0")
    return 0, "changed"


def _no_beginning(written: Written) -> tuple[int, str]:
    edit(written, "DELETE FROM transactions WHERE n = 0", "DELETE FROM operations WHERE at = 0")
    return 0, "missing"


def _another_type(written: Written) -> tuple[int, str]:
    edit(written, "UPDATE operations SET document = CAST(document AS TEXT) WHERE at >> 20 = 3")
    return 3, "damaged"


EDITS = (
    _amount_in_a_document,
    _amount_in_the_state,
    _outcome,
    _removed_transaction,
    _removed_operation,
    _removed_all_operations,
    _removed_state,
    _swapped_order,
    _swapped_operations,
    _moved_operation,
    _forged_signature,
    _short_signature,
    _another_time,
    _another_signer,
    _another_id,
    _another_issuer,
    _contract_left_out,
    _contract_led_astray,
    _contract_invented,
    _party_left_out,
    _state_invented,
    _mark_changed,
    _operation_beyond_the_end,
    _another_beginning,
    _no_beginning,
    _another_type,
)


@pytest.mark.parametrize("tamper", EDITS, ids=lambda tamper: tamper.__name__.strip("_"))
def test_an_edit_is_found_and_named(written: Written, tamper: Callable[[Written], tuple[int, str]]) -> None:
    """One edit by hand: the first finding names its transaction, by number and (where it has one) id."""
    number, code = tamper(written)
    report = found(written)
    assert not report.ok
    first = report.findings[0]
    assert (first.tx_n, first.code) == (number, code), report.findings
    assert str(number) in first.text
    if code in ("signature", "state", "index", "operation") and number <= written.transactions[-1].number:
        assert first.tx_id == written.tx_id(number)


def rewrite(written: Written, n: int, change: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    """Change the first operation of transaction ``n``, and put every id after it right, as somebody would who
    knows how the chain is made but has nobody's key."""
    with closing(sqlite3.connect(written.path)) as connection, connection:
        at = n << AT_BITS
        outcome, document = connection.execute(
            "SELECT outcome, document FROM operations WHERE at = ?", (at,)
        ).fetchone()
        connection.execute(
            "UPDATE operations SET outcome = ?, document = ? WHERE at = ?", (*change(outcome, document), at)
        )
        prev = ""
        for row in connection.execute(
            "SELECT n, time_ms, signer, x5t FROM transactions ORDER BY n"
        ).fetchall():
            number, time_ms, signer, x5t = row
            operations = connection.execute(
                "SELECT document, outcome FROM operations WHERE at >> ? = ? ORDER BY at", (AT_BITS, number)
            ).fetchall()
            dom = written.domain.ledger.domain
            header = Header(dom, number, prev, time_ms, signer, x5t, body_digest(operations))
            prev = header.tx_id()
            connection.execute("UPDATE transactions SET id = ? WHERE n = ?", (prev, number))


def test_a_chain_made_anew_lacks_the_signatures(written):
    """An outcome changed and every id after it computed again: the writers' signatures do not hold, from
    that transaction on, and the outcome is not what the rules give."""
    n = written.number("transfer")

    def more(outcome: str, document: bytes) -> tuple[str, bytes]:
        assert '"balance":989' in outcome
        return outcome.replace('"balance":989', '"balance":999'), document

    rewrite(written, n, more)
    report = found(written)
    assert [(one.tx_n, one.code) for one in report.findings[:2]] == [(n, "signature"), (n, "outcome")]
    later = {one.tx_n for one in report.findings if one.code == "signature"}
    assert later == set(range(n, written.transactions[-1].number + 1))


def test_a_document_forged_by_the_writer_itself_is_found(tmp_path):
    """Whoever writes transactions holds a key of its own, but not its neighbours': an operation that nobody
    signed, in a chain that is signed throughout, is not what the rules let pass."""
    domain = make_ledger(tmp_path, clock=Clock())
    text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 7})
    head, claims, _ = text.split(".")
    writer = domain.ledger._writer
    (result,) = domain.submit(text)
    assert result.outcome.ok
    domain.ledger.close()
    with closing(sqlite3.connect(domain.ledger.path)) as connection, connection:
        n = connection.execute("SELECT max(n) FROM transactions").fetchone()[0]
        forged = f"{head}.{claims}.{'A' * 86}".encode()
        connection.execute("UPDATE operations SET document = ? WHERE at = ?", (forged, n << AT_BITS))
        prev, time_ms = connection.execute(
            "SELECT p.id, t.time_ms FROM transactions t JOIN transactions p ON p.n = t.n - 1 WHERE t.n = ?",
            (n,),
        ).fetchone()
        outcome = connection.execute(
            "SELECT outcome FROM operations WHERE at = ?", (n << AT_BITS,)
        ).fetchone()[0]
        signer = domain[GOVERNANCE]
        header = Header(
            writer._domain, n, prev, time_ms, signer.name, signer.x5t, body_digest([(forged, outcome)])
        )
        connection.execute(
            "UPDATE transactions SET id = ?, signature = ? WHERE n = ?",
            (header.tx_id(), signer.sign(header.to_bytes()), n),
        )
    report = verify_ledger(domain.ledger.path)
    assert [(one.tx_n, one.code) for one in report.findings] == [(n, "outcome")]
    assert "bad_signature" in report.findings[0].text


def test_a_contract_settled_under_two_allowances_is_named(tmp_path):
    """The rules cannot see it without reading every key; the history shows both, and verify names both."""
    domain = make_ledger(tmp_path, clock=Clock())
    first, second = open_allowance(domain, 100), open_allowance(domain, 100)
    one = domain.contract(PAYER, PAYEE, via=first, lane="lane", seq=0)
    two = domain.contract(PAYER, PAYEE, via=second, lane="lane", seq=0, jti=id_of(one))
    settle(domain, (one, 5))
    settle(domain, (two, 5))
    transactions = now_of(domain.ledger.transactions(newest_first=True, limit=2))
    domain.ledger.close()
    (finding,) = verify_ledger(domain.ledger.path).findings
    assert (finding.code, finding.tx_n, finding.tx_id) == ("settled_twice", *transactions[0][:2])
    for part in (id_of(one), PAYER, PAYEE, first, second, f"transaction {transactions[1].number}"):
        assert part in finding.text


@pytest.mark.parametrize("copies", [1, 2])
def test_a_contract_settled_twice_at_once_or_behind_a_refusal_is_named(tmp_path, copies):
    """In one settlement, under two allowances; and where a refused copy hides the one that was settled."""
    domain = make_ledger(tmp_path, clock=Clock())
    first, second = open_allowance(domain, 100), open_allowance(domain, 100)
    one = domain.contract(PAYER, PAYEE, via=first, lane="lane", seq=0)
    two = domain.contract(PAYER, PAYEE, via=second, lane="lane", seq=0, jti=id_of(one))
    settle(domain, *[(one, 5)] * copies, *[(two, 5)] * (copies == 1))
    if copies == 2:
        settle(domain, (two, 5))
    domain.ledger.close()
    (finding,) = verify_ledger(domain.ledger.path).findings
    assert finding.code == "settled_twice"


def test_a_contract_refused_first_and_settled_later_is_fine(tmp_path):
    """Only what was settled twice is a finding, not what was carried twice."""
    domain = make_ledger(tmp_path, clock=Clock())
    allowance = open_allowance(domain, 100)
    (one,) = contracts(domain, allowance, 1)
    settle(domain, (one, 6))
    settle(domain, (one, 5))
    settle(domain, (one, 5), (one, 5))
    domain.ledger.close()
    assert verify_ledger(domain.ledger.path).ok


def test_the_file_may_be_in_use(tmp_path):
    """Verifying while the ledger is open and written to: what is there so far holds."""
    domain = make_ledger(tmp_path)
    before = 1 + len(now_of(domain.ledger.transactions()))
    meanwhile = 5

    def progress(done: int, total: int) -> None:
        if done <= meanwhile:
            domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": 1})

    report = verify_ledger(domain.ledger.path, progress)
    assert report.findings == []
    assert report.transactions == before + meanwhile
    domain.ledger.close()


def test_memory_does_not_grow_with_the_ledger(tmp_path):
    """Four times the history takes about the same memory to verify."""
    domain = make_ledger(tmp_path)
    allowance = open_allowance(domain, 900)
    peaks = []
    first = 0
    for rounds in (3, 9):
        for _ in range(rounds):
            settle(domain, *((text, 0) for text in contracts(domain, allowance, 60, first=first)))
            first += 60
        tracemalloc.start()
        assert verify_ledger(domain.ledger.path).ok
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    domain.ledger.close()
    assert peaks[1] < peaks[0] * 1.3, peaks


def test_a_report_is_bounded(written):
    """Many edits: the report ends after FINDINGS_MAX."""
    edit(written, "UPDATE contracts SET at = at + 1")
    with closing(sqlite3.connect(written.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO parties VALUES (?, 1)", [(f"nobody-{n}",) for n in range(FINDINGS_MAX * 2)]
        )
    assert len(found(written).findings) == FINDINGS_MAX
