"""The rules as chaincode: begin a ledger, apply a batch of operations, answer a question about the state.

A Fabric transaction carries a batch of operations, and its response their outcomes. Whoever signs the
transaction for Fabric is merely the carrier: what an operation may do is decided by the wallet that has
signed its document. All endorsers come to the same response and the same writes, for all that counts is in
the proposal and in the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tokenmesh_chaincode.contract.batch import apply_batch, read_disclosures, read_outcomes
from tokenmesh_chaincode.contract.beginning import begin
from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.questions import answer
from tokenmesh_chaincode.contract.skew import check_skew, time_of
from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.documents import NO_DISCLOSURES, Disclosures, Verifier, verify_many


class TokenmeshContract:
    """The chaincode: called with a stub, it gives the response's payload, or raises ``ContractError``.

    ``clock`` is the endorser's own, to which the time of a proposal is held. ``verify_many`` checks
    signatures, and must agree with ``documents.verify_many``; it may use threads.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, *, verify_many: Verifier = verify_many
    ) -> None:
        self._clock = clock
        self._verify_many = verify_many
        self._functions: Mapping[str, Callable[[Stub], bytes]] = {
            "genesis": self._genesis,
            "apply": self._apply,
            "ask": answer,
        }

    def __call__(self, stub: Stub) -> bytes:
        function = self._functions.get(stub.function)
        if function is None:
            known = ", ".join(self._functions)
            raise ContractError("unknown_function", f"there is no {stub.function[:40]!r}, only {known}")
        return function(stub)

    def _genesis(self, stub: Stub) -> bytes:
        return begin(stub, self._time(stub))

    def _apply(self, stub: Stub) -> bytes:
        return apply_batch(stub, self._time(stub), read_disclosures(stub.transient), self._verify_many)

    def _time(self, stub: Stub) -> float:
        now = time_of(stub)
        check_skew("the proposal", now, self._clock())
        return now


def replay(
    stub: Stub,
    recorded: bytes,
    disclosures: Disclosures = NO_DISCLOSURES,
    *,
    verify_many: Verifier = verify_many,
) -> bytes:
    """Run a recorded transaction again, as it was, and return what it should have answered.

    For who verifies a ledger: ``stub`` has the state as it was before, and notes what is written.
    ``recorded`` is the answer that stands in the ledger; taken from it is only what policy said of a private
    contract whose disclosure is not at hand. Raises ``ContractError`` for what no endorser should have
    endorsed; what the time was on their clocks is not known any more.
    """
    now = time_of(stub)
    if stub.function == "apply":
        outcomes = read_outcomes(recorded, len(stub.parameters))
        return apply_batch(stub, now, disclosures, verify_many, outcomes)
    if stub.function == "genesis":
        return begin(stub, now)
    raise ContractError("unknown_function", f"{stub.function[:40]!r} changes nothing, so nothing records it")
