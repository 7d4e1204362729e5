"""``apply``: a batch of operations, each all or nothing by itself, in one transaction.

The disclosures of private contracts come in the transient data, which the endorsers see and the channel
does not. What a settlement has used of them goes into a private data collection, each under the digest that
its contract bears; the hash of the value, which is public, is that very digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.state import StubState
from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.documents import Disclosures, Verifier, canonical
from tokenmesh_chaincode.limits import APPLY_OPERATIONS_MAX
from tokenmesh_chaincode.prepared import Prepared, apply_prepared, check_ahead, keys_read, keys_read_next
from tokenmesh_chaincode.rules import Context, Outcome

COLLECTION: Final = "private"
TRANSIENT: Final = "disclosures"

Result = tuple[bool, str, dict[str, Any], str, float]
RESULT_LENGTH: Final = 5


def apply_batch(
    stub: Stub,
    now: float,
    disclosures: Disclosures,
    verify_many: Verifier,
    recorded: Sequence[Outcome | None] | None = None,
) -> bytes:
    """Apply the operations in the stub's parameters, in their order; what became of each, in JSON.

    In a replay ``recorded`` has the outcomes that are to be taken for true where they cannot be judged again.
    """
    if not 1 <= len(stub.parameters) <= APPLY_OPERATIONS_MAX:
        raise ContractError("bad_argument", f"apply takes 1 to {APPLY_OPERATIONS_MAX} operations")
    # A byte that is not ASCII is in no document: the rules will say so.
    prepared = [Prepared(text.decode("ascii", "replace"), disclosures) for text in stub.parameters]
    state = StubState(stub, now)
    state.fetch(key for one in prepared for key in keys_read(one))
    state.fetch(key for one in prepared for key in keys_read_next(one, state))
    # What was done before is not done again, so nobody need look at the contracts in it.
    check_ahead((one for one in prepared if not _is_done(state, one)), _Keys(state), verify_many)
    batch = _Batch(state, stub.tx_id, now)
    before = recorded or [None] * len(prepared)
    results = [batch.apply(one, said) for one, said in zip(prepared, before, strict=True)]
    state.flush()
    for digest, disclosure in batch.used.items():
        stub.put_private_data(COLLECTION, digest, disclosure.encode("ascii"))
    return canonical(results)


def _is_done(state: StubState, one: Prepared) -> bool:
    return one.signed is not None and state.get(f"op/{one.signed.body.iss}/{one.signed.body.jti}") is not None


class _Keys(dict[tuple[str, str], EllipticCurvePublicKey | None]):
    """The keys of the wallets in the state, by name and thumbprint."""

    def __init__(self, state: StubState) -> None:
        super().__init__()
        self._state = state

    def __call__(self, name: str, x5t: str) -> EllipticCurvePublicKey | None:
        return self[name, x5t]

    def __missing__(self, certificate: tuple[str, str]) -> EllipticCurvePublicKey | None:
        name, x5t = certificate
        wallet = self._state.get(f"wallet/{name}")
        pems = [] if wallet is None else [one["pem"] for one in wallet["certs"] if one["x5t"] == x5t]
        key = self[certificate] = public_key(pems[0]) if pems else None
        return key


class _Batch:
    """The operations of one transaction, one after another."""

    def __init__(self, state: StubState, tx_id: str, now: float) -> None:
        self.used: dict[str, str] = {}
        """Disclosures that operations were judged by."""
        self._state = state
        self._tx_id = tx_id
        self._now = now
        self._context = Context(int(now))

    def apply(self, one: Prepared, recorded: Outcome | None) -> Result:
        changes = self._state.changes
        outcome = apply_prepared(self._state, one, self._context, recorded)
        if self._state.changes != changes:
            if outcome.ok:
                self.used |= one.disclosures
            return (*outcome, self._tx_id, self._now)
        # Done before, or turned away without a record.
        if one.signed is not None:
            record = self._state.get(f"op/{one.signed.body.iss}/{one.signed.body.jti}")
            if record is not None and record["outcome"] == outcome.to_json():
                return (*outcome, record["tx"], record["time"])
        return (*outcome, "", self._now)


def read_disclosures(transient: Mapping[str, bytes]) -> Disclosures:
    """What the proposal discloses: a JSON object, digest to disclosure. Each is checked where it is used."""
    data = transient.get(TRANSIENT)
    if data is None:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ContractError("bad_argument", f"the transient {TRANSIENT} are not JSON") from error
    if type(found) is not dict or not all(type(one) is str for one in found.values()):
        raise ContractError("bad_argument", f"the transient {TRANSIENT} are an object of texts")
    return found


def read_outcomes(answer: bytes, count: int) -> list[Outcome | None]:
    """The outcomes in an answer of :func:`apply_batch`; None where there is none, whatever stands there."""
    try:
        results = json.loads(answer)
    except (ValueError, RecursionError):
        results = None
    if not isinstance(results, list) or len(results) != count:
        return [None] * count
    return [_outcome(result) for result in results]


def _outcome(result: Any) -> Outcome | None:
    if not isinstance(result, list) or len(result) != RESULT_LENGTH:
        return None
    ok, code, detail, *_ = result
    return Outcome(ok is True, str(code), detail) if isinstance(detail, dict) else None
