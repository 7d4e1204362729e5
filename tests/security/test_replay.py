"""Documents in the wrong place: at another payee, on another ledger, after a restart, as another kind.

Whoever sees a document can send it anywhere, as often as they like. It is worth what it says, once, where it
says, and nothing anywhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ledgers import GOVERNANCE, Domain, make_ledger
from support.payee import PAYER, Payee, Signing
from support.wallets import Clock
from tokenmesh.journal import StoredResponse
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.ledger.base import Ledger
from tokenmesh.ledger.chain import Header
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.provider import Answered, Provider, Request, Terms
from tokenmesh.steps import run
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Operation, parse_operation, seal
from tokenmesh_chaincode.documents.forms import CONTRACT, OPERATION, RECEIPT

TERMS = Terms(5)
OP = "GET /quote"
BODY = b"the answer that was paid for"


@pytest.fixture
def payee(tmp_path: Path) -> Iterator[Payee]:
    payee = Payee(tmp_path)
    yield payee
    payee.close()


def take(provider: Provider, text: str) -> bytes:
    """One request with a contract: the body that comes back. The handler gives ``BODY``."""
    request = Request("GET", "/quote", OP, "/quote", (text.encode(),), lambda: b"")
    try:
        call = run(provider.check(request, TERMS))
        assert call is not None
        run(provider.admit(call))
        run(provider.claim(call))
    except Answered as answered:
        return answered.answer.body
    stored = StoredResponse(200, [("Content-Type", "text/plain")], BODY, documents.digest(BODY))
    run(provider.fulfil(call, stored))
    return BODY


def code(body: bytes) -> str:
    return str(json.loads(body)["code"])


def provider_of(payee: Payee, name: str, ledger: Ledger, directory: Path) -> Provider:
    """The provider of another wallet, with a journal of its own."""
    wallet: Any = Signing(payee.domain[name])
    journal = SqliteJournal(directory / f"journal-{name}.db", clock=payee.clock)
    return Provider(wallet, ledger, journal, settings=payee.settings, clock=payee.clock)


# A contract


def test_a_contract_is_worth_nothing_at_another_payee(payee: Payee, tmp_path: Path) -> None:
    """Though it pays for the very same request, and the payer has an allowance there too."""
    contract = payee.contract(OP)
    other = provider_of(payee, "other", payee.domain.ledger, tmp_path)
    assert code(take(other, contract)) == "other_payee"
    assert take(payee.provider, contract) == BODY
    other.journal.close()


def test_a_contract_is_worth_nothing_on_another_ledger(payee: Payee, tmp_path: Path) -> None:
    """Not even where the same authority, the same wallets and the same keys are."""
    twin = EmbeddedLedger.create(
        tmp_path / "twin.db",
        payee.domain[GOVERNANCE],
        ca=[payee.domain.wallets.authority.certificate_pem],
        governors={GOVERNANCE: payee.domain[GOVERNANCE].certificate_pem},
        policy=payee.domain.ledger.policy().result(60),
        nonce="another beginning",
        clock=payee.clock,
    )
    try:
        elsewhere = Domain(twin, payee.domain.wallets, payee.clock)
        for name in (PAYER, "quotes"):
            arg = {"name": name, "cert": payee.domain[name].certificate_pem, "role": "service"}
            elsewhere.do(GOVERNANCE, "register", arg)
        provider = provider_of(payee, "quotes", twin, tmp_path)
        assert code(take(provider, payee.contract(OP))) == "other_domain"
        provider.journal.close()
        paid = payee.domain.operation(PAYER, "transfer", {"to": "quotes", "tokens": 1})
        assert elsewhere.submit(paid)[0].outcome.code == "wrong_domain"
        settled = elsewhere.do("quotes", "settle", {"items": [[payee.contract(OP), 5]]})
        assert list(settled["refused"].values()) == ["wrong_domain"]
    finally:
        twin.close()


def test_a_contract_is_charged_once_however_often_the_payee_was_restarted(
    payee: Payee, tmp_path: Path
) -> None:
    """What it got then it gets now, and the allowance has lost its tokens once."""
    contract = payee.contract(OP)
    assert take(payee.provider, contract) == BODY
    for _ in range(3):
        payee.journal.close()
        payee.journal = SqliteJournal(tmp_path / "journal.db", clock=payee.clock)
        assert take(payee.new_provider(payee.domain.ledger), contract) == BODY
        assert payee.used() == 5
        assert payee.journal.stats().claims == 1


def test_the_number_and_the_id_of_a_contract_pay_for_no_other(payee: Payee) -> None:
    """A payer that signs two contracts of one number, or of one id, pays for one, and gets one."""
    first = payee.terms(OP)
    assert take(payee.provider, payee.sign(first)) == BODY
    same_number = payee.terms(OP)._replace(seq=first.seq)
    assert code(take(payee.provider, payee.sign(same_number))) == "sequence_used"
    same_id = payee.terms(OP, body=b"another request", jti=first.jti)
    assert code(take(payee.provider, payee.sign(same_id))) == "other_request"
    assert payee.used() == 5


def test_the_ledger_does_not_show_what_gets_a_private_response(payee: Payee) -> None:
    """Everyone who reads the ledger has the contracts that were settled. A private one without its
    disclosure, which is in no transaction, gets nothing: not the response either that was stored for it."""
    concealed, disclosure = documents.conceal(payee.terms(OP), documents.new_salt())
    own = payee.sign(concealed)
    assert take(payee.provider, documents.present(own, disclosure)) == BODY
    assert code(take(payee.provider, own)) == "undisclosed"
    guess = documents.conceal(payee.terms(OP), documents.new_salt())[1]
    assert code(take(payee.provider, documents.present(own, guess))) == "undisclosed"


# An operation


def test_an_operation_happens_once_whoever_carries_it_how_often(tmp_path: Path) -> None:
    """Also after the ledger was opened anew, and after it would have expired."""
    clock = Clock()
    domain = make_ledger(tmp_path, {PAYER: 100, "quotes": 0}, clock=clock)
    text = domain.operation(PAYER, "transfer", {"to": "quotes", "tokens": 7})
    assert domain.submit(text)[0].outcome.ok
    domain.ledger.close()
    clock.forward(1_000)
    again = EmbeddedLedger(tmp_path / "ledger.db", domain[GOVERNANCE], clock=clock)
    try:
        reopened = Domain(again, domain.wallets, clock)
        assert reopened.submit(text, text)[1].outcome.ok
        assert reopened.balance("quotes").credits == 7
    finally:
        again.close()


# One document as another


@pytest.mark.parametrize("kind", [CONTRACT, RECEIPT])
def test_no_other_signed_document_is_an_operation(tmp_path: Path, kind: Any) -> None:
    """A wallet's key has signed these very claims, but as something else."""
    domain = make_ledger(tmp_path, {PAYER: 100, "quotes": 0})
    good = parse_operation(domain.operation(PAYER, "transfer", {"to": "quotes", "tokens": 7})).body
    claims = json.dumps(good._asdict())
    assert domain.submit(seal(kind, claims, domain[PAYER]))[0].outcome.code == "not_an_operation"
    assert domain.submit(seal(OPERATION, claims, domain[PAYER]))[0].outcome.ok
    domain.ledger.close()


def test_what_signs_a_transaction_of_the_ledger_is_no_document() -> None:
    """The same key signs documents and, where its service writes, the chain: never the same bytes."""
    header = Header("d" * 43, 1, "", 0, "alice", "x" * 43, "").to_bytes()
    assert header.startswith(b"{")
    for parse in _PARSERS:
        with pytest.raises(documents.DocumentError):
            parse(header + b"." + header + b"." + b"A" * 86)


_PARSERS: tuple[Callable[[bytes], object], ...] = (
    documents.parse_contract,
    documents.parse_receipt,
    documents.parse_operation,
)


def test_no_wallet_signs_for_another(tmp_path: Path) -> None:
    """Neither in its name, nor under its thumbprint, nor with a certificate of its own for that name."""
    domain = make_ledger(tmp_path, {PAYER: 100, "quotes": 0})
    victim, thief = domain[PAYER], domain["quotes"]
    now = domain.now
    body = Operation(
        domain.ledger.domain,
        PAYER,
        documents.new_id(),
        now,
        now + 60,
        "transfer",
        {"to": "quotes", "tokens": 9},
    )
    other = domain.wallets.authority.new_identity(PAYER)  # of the right authority, and not registered

    class As:
        def __init__(self, name: str, x5t: str, signer: Any) -> None:
            self.name, self.x5t, self.sign = name, x5t, signer.sign

    for signer, expected in (
        (thief, "wrong_signer"),
        (As(PAYER, victim.x5t, thief), "bad_signature"),
        (As(PAYER, thief.x5t, thief), "unknown_certificate"),
        (other, "unknown_certificate"),
    ):
        assert domain.submit(documents.sign(body, signer))[0].outcome.code == expected
    assert domain.balance(PAYER).spendable == 100
    domain.ledger.close()
