"""``genesis``: a ledger begins, once, by an administrator of one of the channel's organisations."""

from __future__ import annotations

import json
from typing import Any, Final

from tokenmesh_chaincode.contract.access import check_administrator
from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.skew import check_skew
from tokenmesh_chaincode.contract.state import StubState
from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.documents import canonical, thumbprint
from tokenmesh_chaincode.limits import OPERATION_BYTES_MAX
from tokenmesh_chaincode.rules import genesis, genesis_document

_FORM: Final = {"ca": list, "governors": dict, "policy": dict, "now": int, "nonce": str}


def begin(stub: Stub, now: float) -> bytes:
    """Begin the ledger with the document in the stub's one parameter; the domain's id in JSON.

    The same document again gets the same answer, at any time; another one an error.
    """
    check_administrator(stub.identity)
    if len(stub.parameters) != 1:
        raise ContractError("bad_argument", "genesis takes one parameter, the first document")
    first = _read(stub.parameters[0])
    domain_id = thumbprint(canonical(first))
    state = StubState(stub, now)
    existing = state.get("domain")
    if existing is None:
        check_skew("the first document", first["now"], now)
        try:
            genesis(state, **{name: first[name] for name in _FORM})
        except ValueError as error:
            raise ContractError("bad_genesis", f"no ledger can be begun with this: {error}") from error
        state.flush()
    elif existing["id"] != domain_id:
        raise ContractError("begun_already", f"here the ledger {existing['id']} has begun already")
    return canonical({"domain": domain_id})


def _read(data: bytes) -> dict[str, Any]:
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
    if any(type(first.get(name)) is not kind for name, kind in _FORM.items()):
        raise ContractError("bad_genesis", f"the first document has the fields {', '.join(_FORM)}")
    texts = [*first["ca"], *first["governors"].values()]
    if not all(isinstance(text, str) for text in texts):
        raise ContractError("bad_genesis", "certificates are texts in PEM")
    if first != genesis_document(**{name: first[name] for name in _FORM}):
        raise ContractError("bad_genesis", "the first document has another format, or a field not known")
    return dict(first)
