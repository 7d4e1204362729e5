"""The rules as chaincode: begin a ledger, apply a batch of operations, answer a question about the state.

A Fabric transaction carries a batch of operations, and its response their outcomes. Whoever signs the
transaction for Fabric is merely the carrier: what an operation may do is decided by the wallet that has
signed its document. All endorsers come to the same response and the same writes, for all that counts is in
the proposal and in the state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tokenmesh_chaincode.contract.access import check_administrator
from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.questions import answer
from tokenmesh_chaincode.contract.state import StubState
from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.documents import canonical, thumbprint
from tokenmesh_chaincode.limits import APPLY_OPERATIONS_MAX, OPERATION_BYTES_MAX, TX_TIME_SKEW_S_MAX
from tokenmesh_chaincode.prepared import Prepared, apply_prepared, keys_read, keys_read_next
from tokenmesh_chaincode.rules import Context, genesis, genesis_document

Result = tuple[bool, str, dict[str, Any], str, float]

_GENESIS_FORM: Final = {"ca": list, "governors": dict, "policy": dict, "now": int, "nonce": str}


class TokenmeshContract:
    """The chaincode: called with a stub, it gives the response's payload, or raises ``ContractError``.

    ``clock`` is the endorser's own, to which the time of a proposal is held.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
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
        """Begin the ledger. The same document again gets the same answer, another one an error."""
        now = self._time(stub)
        check_administrator(stub.identity)
        if len(stub.parameters) != 1:
            raise ContractError("bad_argument", "genesis takes one parameter, the first document")
        first = _read_genesis(stub.parameters[0])
        domain_id = thumbprint(canonical(first))
        state = StubState(stub, now)
        existing = state.get("domain")
        if existing is None:
            _check_skew("the first document", first["now"], now)
            try:
                genesis(state, **{name: first[name] for name in _GENESIS_FORM})
            except ValueError as error:
                raise ContractError("bad_genesis", f"no ledger can be begun with this: {error}") from error
            state.flush()
        elif existing["id"] != domain_id:
            raise ContractError("begun_already", f"here the ledger {existing['id']} has begun already")
        return canonical({"domain": domain_id})

    def _apply(self, stub: Stub) -> bytes:
        """Apply operations in their order; the answer is what became of each."""
        now = self._time(stub)
        if not 1 <= len(stub.parameters) <= APPLY_OPERATIONS_MAX:
            raise ContractError("bad_argument", f"apply takes 1 to {APPLY_OPERATIONS_MAX} operations")
        # A byte that is not ASCII is in no document: the rules will say so.
        prepared = [Prepared(text.decode("ascii", "replace")) for text in stub.parameters]
        state = StubState(stub, now)
        state.fetch(key for one in prepared for key in keys_read(one))
        state.fetch(key for one in prepared for key in keys_read_next(one, state))
        context = Context(int(now))
        results = [_apply_one(state, one, context, stub.tx_id, now) for one in prepared]
        state.flush()
        return canonical(results)

    def _time(self, stub: Stub) -> float:
        """The transaction's time in seconds, to the millisecond; refused if it is not about now."""
        seconds, rest = divmod(stub.timestamp_ns // 1_000_000, 1_000)
        now = seconds if rest == 0 else seconds + rest / 1_000
        _check_skew("the proposal", now, self._clock())
        return now


def _check_skew(what: str, moment: float, now: float) -> None:
    if abs(moment - now) > TX_TIME_SKEW_S_MAX:
        raise ContractError(
            "clock_skewed",
            f"{what} is from {moment:.0f}, and here it is {now:.0f}: at most {TX_TIME_SKEW_S_MAX} s may lie "
            "between them; set the clock of the one that is wrong",
        )


def _apply_one(state: StubState, one: Prepared, context: Context, tx_id: str, now: float) -> Result:
    changes = state.changes
    outcome = apply_prepared(state, one, context)
    if state.changes != changes:
        return (*outcome, tx_id, now)
    # Done before, or turned away without a record.
    if one.signed is not None:
        record = state.get(f"op/{one.signed.body.iss}/{one.signed.body.jti}")
        if record is not None and record["outcome"] == outcome.to_json():
            return (*outcome, record["tx"], record["time"])
    return (*outcome, "", now)


def _read_genesis(data: bytes) -> dict[str, Any]:
    """The first document, as ``rules.genesis_document`` makes it, in canonical JSON."""
    if len(data) > OPERATION_BYTES_MAX:
        raise ContractError("bad_genesis", f"the first document is longer than {OPERATION_BYTES_MAX} bytes")
    try:
        first = json.loads(data)
        is_canonical = type(first) is dict and canonical(first) == data
    except (ValueError, RecursionError) as error:
        raise ContractError("bad_genesis", "the first document is not JSON") from error
    if not is_canonical:
        raise ContractError("bad_genesis", "the first document is not an object in canonical JSON")
    if any(type(first.get(name)) is not kind for name, kind in _GENESIS_FORM.items()):
        raise ContractError("bad_genesis", f"the first document has the fields {', '.join(_GENESIS_FORM)}")
    texts = [*first["ca"], *first["governors"].values()]
    if not all(isinstance(text, str) for text in texts):
        raise ContractError("bad_genesis", "certificates are texts in PEM")
    if first != genesis_document(**{name: first[name] for name in _GENESIS_FORM}):
        raise ContractError("bad_genesis", "the first document has another format, or a field not known")
    return dict(first)
