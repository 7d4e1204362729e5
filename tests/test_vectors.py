"""The test vectors, judged by those who are to judge them: a payee's provider, a payer's receipt check."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vectors.parties import BOB, GENESIS, GOVERNANCE, Party

from support.ledgers import now_of
from support.wallets import Clock
from tokenmesh.config import Settings
from tokenmesh.consumer.receipts import Expected, ReceiptChecker, digests_of
from tokenmesh.errors import ReceiptInvalid
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.provider import Provider, Refused, Request, Terms
from tokenmesh.steps import run
from tokenmesh_chaincode.documents import parse_contract, target

FOLDER = Path(__file__).parent / "vectors"
CONTRACTS: dict[str, Any] = json.loads((FOLDER / "contracts.json").read_text())
PRIVATE: dict[str, Any] = json.loads((FOLDER / "private.json").read_text())
RECEIPTS: dict[str, Any] = json.loads((FOLDER / "receipts.json").read_text())
OPERATIONS: dict[str, Any] = json.loads((FOLDER / "operations.json").read_text())
KEYS: dict[str, Any] = json.loads((FOLDER / "keys.json").read_text())


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Standing(Party):
    """A party as a wallet of a running service: it has nothing to reload."""

    def reload(self) -> bool:
        return False


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock(GENESIS["now"])


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[EmbeddedLedger]:
    """The ledger of keys.json after ``setup`` of operations.json."""
    path = tmp_path_factory.mktemp("vectors") / "ledger.db"
    beginning = {name: GENESIS[name] for name in ("ca", "governors", "policy", "nonce")}
    with EmbeddedLedger.create(path, GOVERNANCE, **beginning, clock=clock) as ledger:
        for step in OPERATIONS["setup"]:
            clock.now = step["now"]
            (result,) = now_of(ledger.submit([step["text"]]))
            assert result.outcome.to_json() == step["outcome"]
        yield ledger


def test_the_ledgers_domain_is_that_of_the_vectors(ledger: EmbeddedLedger) -> None:
    assert ledger.domain == KEYS["domain"]


@pytest.mark.parametrize("case", CONTRACTS["cases"], ids=lambda case: str(case["name"]))
def test_a_payee_answers_as_the_vectors_say(
    case: dict[str, Any], ledger: EmbeddedLedger, clock: Clock, tmp_path: Path
) -> None:
    clock.now = case["at"]
    asked, operation = case["request"], CONTRACTS["operation"]
    request = Request(
        method=asked["method"],
        target=target(asked["path"], asked["query"]),
        operation=operation,
        path=operation.split(" ")[1],
        contracts=[case["text"].encode()],
        body=lambda: decoded(asked["body"]),
    )
    journal = SqliteJournal(tmp_path / "journal.db", clock=clock)
    provider = Provider(Standing("bob"), ledger, journal, settings=Settings(home=tmp_path), clock=clock)
    assert answer(provider, request) == (case["status"], case["code"])
    assert journal.stats().claims == (1 if case["status"] == 200 else 0)
    journal.close()


def answer(provider: Provider, request: Request) -> tuple[int, str]:
    """200 and ok if the contract is taken, else the problem's status and code."""
    try:
        checked = run(provider.check(request, Terms(tokens=CONTRACTS["tokens"])))
        assert checked is not None
        run(provider.admit(checked))
        run(provider.claim(checked))
    except Refused as refused:
        return refused.problem.status, refused.problem.code
    return 200, "ok"


@pytest.mark.parametrize("case", PRIVATE["cases"], ids=lambda case: str(case["name"]))
def test_a_payee_answers_private_contracts_as_the_vectors_say(
    case: dict[str, Any], ledger: EmbeddedLedger, clock: Clock, tmp_path: Path
) -> None:
    whole = {**case, "at": PRIVATE["at"], "request": PRIVATE["request"]}
    test_a_payee_answers_as_the_vectors_say(whole, ledger, clock, tmp_path)


@pytest.mark.parametrize("case", RECEIPTS["cases"], ids=lambda case: str(case["name"]))
def test_a_payer_believes_receipts_as_the_vectors_say(
    case: dict[str, Any], ledger: EmbeddedLedger, clock: Clock
) -> None:
    contract = parse_contract(RECEIPTS["contract"]).body
    checker = ReceiptChecker("alice", ledger, Settings(), clock)
    expected = Expected("bob", contract.jti, contract.tok)
    digests = digests_of(decoded(RECEIPTS["body"]), None)
    check = checker.check(case["text"], expected, status=RECEIPTS["status"], digests=digests)
    if case["holds"]:
        assert run(check).jti == contract.jti
        return
    with pytest.raises(ReceiptInvalid):
        run(check)


def test_the_payee_of_the_vectors_has_the_certificate_on_the_ledger(ledger: EmbeddedLedger) -> None:
    record = now_of(ledger.wallet("bob"))
    assert record is not None
    assert [each.x5t for each in record.certificates] == [BOB.x5t]
