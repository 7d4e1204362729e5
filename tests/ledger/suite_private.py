"""What every ledger does with private contracts, and with certificates that are revoked."""

from __future__ import annotations

import base64

from ledger.suite_tools import PAYEE, PAYER, NewDomain, Suite, open_allowance, transfer

from support.ledgers import GOVERNANCE, Domain, now_of
from tokenmesh_chaincode.documents import parse_contract

OPERATION = "POST /loans/{id}"
DENIED = {"payer": "*", "payee": "*", "operation": "POST /loans/*", "effect": "deny"}


def settling(domain: Domain, *texts: str) -> str:
    return domain.operation(PAYEE, "settle", {"items": [[text, 5] for text in texts]})


class Private(Suite):
    """To be inherited with :class:`~ledger.ledger_suite.LedgerSuite`."""

    def test_a_private_contract_is_settled_by_its_disclosure(self, domain: Domain) -> None:
        """Tokens move as for any contract; without the disclosure nothing happens, and can still happen."""
        allowance = open_allowance(domain)
        text, disclosures = domain.private_contract(
            PAYER, PAYEE, via=allowance, lane="l", seq=1, op=OPERATION
        )
        settlement = settling(domain, text)
        (without,) = domain.submit(settlement)
        assert (without.outcome.code, without.tx_id) == ("undisclosed", "")
        (result,) = domain.submit(settlement, disclosures=disclosures)
        assert result.outcome.detail["settled"] == 1
        assert result.outcome.detail["private"] == {"contracts": 1, "forbidden": []}
        (again,) = domain.submit(settlement)
        assert again == result
        assert domain.balance(PAYEE).credits == 5
        assert now_of(domain.ledger.supply()).conserved

    def test_history_shows_a_private_contract_and_what_it_was_for_to_who_may_know(
        self, domain: Domain
    ) -> None:
        allowance = open_allowance(domain)
        text, disclosures = domain.private_contract(
            PAYER, PAYEE, via=allowance, lane="l", seq=1, op=OPERATION
        )
        domain.submit(settling(domain, text), disclosures=disclosures)
        body = parse_contract(text).body
        (record,) = now_of(domain.ledger.contract(body.jti))
        assert (record.payer, record.payee, record.charged, record.code) == (PAYER, PAYEE, 5, "ok")
        assert (record.op, record.disclosure) == (OPERATION, disclosures[body.sd or ""])
        assert record.contract == text

    def test_the_transaction_says_nothing_of_it(self, domain: Domain) -> None:
        allowance = open_allowance(domain)
        text, disclosures = domain.private_contract(
            PAYER, PAYEE, via=allowance, lane="l", seq=1, op=OPERATION
        )
        (result,) = domain.submit(settling(domain, text), disclosures=disclosures)
        transaction = now_of(domain.ledger.transaction(result.tx_id))
        assert transaction is not None
        (operation,) = transaction.operations
        assert text in bytes_of(operation.document or "").decode()
        for secret in (*disclosures.values(), OPERATION):
            assert secret not in bytes_of(operation.document or "").decode()
            assert secret not in str(operation.outcome)

    def test_policy_judges_a_private_contract_by_what_it_is_for(self, new_domain: NewDomain) -> None:
        domain = new_domain({PAYER: 1_000, PAYEE: 0}, {"rules": [DENIED], "propagation_s": 0})
        allowance = open_allowance(domain)
        made = {"via": allowance, "lane": "l", "iat": domain.now + 1}
        denied, one = domain.private_contract(PAYER, PAYEE, seq=1, op=OPERATION, **made)
        fine, other = domain.private_contract(PAYER, PAYEE, seq=2, **made)
        (result,) = domain.submit(settling(domain, denied, fine), disclosures={**one, **other})
        assert result.outcome.detail["settled"] == 1
        assert result.outcome.detail["private"] == {"contracts": 2, "forbidden": [0]}

    def test_a_revoked_certificate_ends_at_once(self, domain: Domain) -> None:
        waiting = transfer(domain)
        wallet = domain[PAYER]
        detail = domain.do(GOVERNANCE, "revoke", {"name": PAYER, "x5t": wallet.x5t})
        assert domain.submit(waiting)[0].outcome.code == "revoked_certificate"
        record = now_of(domain.ledger.wallet(PAYER))
        assert record is not None
        assert [one.revoked_at for one in record.certificates] == [detail["revoked_at"]]
        assert record.frozen_at is None


def bytes_of(document: str) -> bytes:
    """The claims of a document, as they were before they were encoded."""
    claims = document.split(".")[1]
    return base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
