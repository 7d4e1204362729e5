"""Genesis: a ledger begins with its authorities, its governors and its policy, and is named after them."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Authority, authority, wallet
from tokenmesh_chaincode.documents import canonical, thumbprint
from tokenmesh_chaincode.limits import CERTIFICATE_AUTHORITIES_MAX, GOVERNORS_MAX
from tokenmesh_chaincode.rules import default_policy, genesis, genesis_document
from tokenmesh_chaincode.state import MemoryState


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "ca": [authority().pem],
        "governors": {"root": wallet("root").pem},
        "policy": default_policy(),
        "now": START,
        "nonce": "n",
        **changes,
    }


def test_a_ledger_begins() -> None:
    state = MemoryState()
    domain = genesis(state, **arguments())
    assert domain == thumbprint(canonical(genesis_document(**arguments())))
    assert set(state.values) == {"domain", "policy", "governors", "wallet/root"}
    assert state.values["domain"] == {"id": domain, "ca": [authority().pem], "created": START}
    assert state.values["policy"]["since"] == START
    assert state.values["governors"] == {"names": ["root"]}
    assert state.values["wallet/root"]["role"] == "governor"


@pytest.mark.parametrize(
    "changes", [{"nonce": "m"}, {"now": START + 1}, {"policy": {**default_policy(), "grace_s": 5}}]
)
def test_another_beginning_is_another_domain(changes: dict[str, Any]) -> None:
    assert genesis(MemoryState(), **arguments(**changes)) != genesis(MemoryState(), **arguments())


def test_a_ledger_begins_once() -> None:
    state = MemoryState()
    genesis(state, **arguments())
    with pytest.raises(ValueError, match="begun here already"):
        genesis(state, **arguments())


@pytest.mark.parametrize(
    "changes",
    [
        {"ca": []},
        {"ca": [authority().pem] * (CERTIFICATE_AUTHORITIES_MAX + 1)},
        {"ca": [wallet("root").pem]},
        {"ca": ["x"]},
        {"ca": [Authority().pem]},
        {"governors": {}},
        {"governors": {f"g{n}": wallet("root").pem for n in range(GOVERNORS_MAX + 1)}},
        {"governors": {"other": wallet("root").pem}},
        {"governors": {"Root": wallet("root").pem}},
        {"policy": {}},
        {"policy": {**default_policy(), "threshold": 2}},
        {"now": START + 400 * 86_400},
    ],
)
def test_a_ledger_that_could_not_be_governed_does_not_begin(changes: dict[str, Any]) -> None:
    state = MemoryState()
    with pytest.raises(ValueError, match=r".+"):
        genesis(state, **arguments(**changes))
    assert state.values == {}
