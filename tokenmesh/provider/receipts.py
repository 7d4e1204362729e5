"""Receipts, and the answers that stand in the journal."""

from __future__ import annotations

from typing import Literal

from tokenmesh.identity import Reloading
from tokenmesh.journal import Claim, Ended, StoredResponse
from tokenmesh.provider.problems import RECEIPT_HEADER, Answer, Answered, Problem, Refused, Replayed
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Receipt

EMPTY_DIGEST = documents.digest(b"")
NO_RESPONSE_STATUS = 500
"""The status in the receipt of a contract that ended without a response, as one whose process was killed."""


class Receipts:
    """Makes the receipts of one payee."""

    def __init__(self, wallet: Reloading, domain: str) -> None:
        self._wallet = wallet
        self._domain = domain

    def make(
        self,
        contract: Contract,
        out: Literal["fulfilled", "void"],
        charged: int,
        response: StoredResponse,
        left: int | None,
        now: float,
    ) -> str:
        """The receipt of a contract that ends now; ``left`` is the allowance's rest as of its claim."""
        rest = "" if left is None else f',"left":{left + contract.tok - charged}'
        wallet = self._wallet
        wallet.reload()
        # Spelled out, as one is written for every call: every text in it has a form that needs no escapes.
        return documents.seal(
            documents.RECEIPT,
            f'{{"dom":"{self._domain}","iss":"{wallet.name}","aud":"{contract.iss}","jti":"{contract.jti}",'
            f'"out":"{out}","tok":{charged},"status":{response.status},"dig":"{response.digest}",'
            f'"iat":{int(now)}{rest}}}',
            wallet,
        )

    def again(self, payer: str, jti: str, ended: Ended | Claim, now: float) -> str:
        """The receipt of a contract that has ended: as it was given, or signed now if nobody did. With the
        ledger's transaction, once it is known."""
        tx_id, text = ended.tx_id, ended.receipt
        if text is not None and tx_id is None:
            return text
        if text is not None:
            receipt = documents.parse_receipt(text).body._replace(tx=tx_id)
        else:
            response = ended.response
            receipt = Receipt(
                dom=self._domain,
                iss=self._wallet.name,
                aud=payer,
                jti=jti,
                out=outcome(ended),
                tok=ended.charged,
                status=NO_RESPONSE_STATUS if response is None else response.status,
                dig=EMPTY_DIGEST if response is None else response.digest,
                iat=int(now),
                tx=tx_id,
            )
        self._wallet.reload()
        return documents.sign(receipt, self._wallet)


def outcome(ended: Ended | Claim) -> Literal["fulfilled", "void"]:
    """How a contract has ended."""
    if isinstance(ended, Ended):
        return ended.out
    return "fulfilled" if ended.state == "fulfilled" else "void"


def replayed(ended: Ended | Claim, receipt: str, jti: str) -> Answered:
    """What a request gets whose contract has ended: the very response of then, if it was kept."""
    response = ended.response
    if response is not None and response.body is not None:
        headers = [*response.headers, (RECEIPT_HEADER, receipt)]
        return Replayed(f"{jti} has ended", Answer(response.status, headers, response.body))
    if outcome(ended) == "fulfilled":
        kept = "" if response is None else f" Its digest was {response.digest}."
        return Refused(Problem("response_not_kept", f"Only its digest was kept.{kept}", jti, receipt=receipt))
    why = ended.reason or "its process ended before it was done"
    return Refused(Problem("contract_void", f"The work was not done: {why}.", jti, receipt=receipt))
