"""``apply``: whose document holds is heard, once per id, all or nothing, and no text can break it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from support.economy import START, Authority, Economy, authority, wallet
from tokenmesh_chaincode.documents import canonical, verify_many
from tokenmesh_chaincode.limits import CLOCK_SKEW_S_MAX, OPERATION_TTL_S_MAX
from tokenmesh_chaincode.rules import ACTS, NOT_RECORDED, Context, Outcome, apply
from tokenmesh_chaincode.state import MemoryState


def refused_without_a_trace(economy: Economy, text: str, code: str) -> None:
    before = copy.deepcopy(economy.state.values)
    assert economy.apply(text).code == code
    assert economy.state.values == before
    assert code in NOT_RECORDED


def test_the_same_operation_has_the_same_outcome_and_happens_once() -> None:
    economy = Economy(tokens=100)
    text = economy.operation("alice", "transfer", to="bob", tokens=30)
    first = economy.apply(text)
    economy.now += 200
    assert first.ok
    assert economy.apply(text) == first
    assert economy.balance("alice") == 70
    assert economy.credits("bob") == 30


def test_the_same_claims_signed_again_are_the_same_operation() -> None:
    """ES256 signatures differ each time; and anyone can turn a signature into its twin with another S."""
    economy = Economy(tokens=100)
    claims: dict[str, Any] = {"_jti": "op-1", "to": "bob", "tokens": 30}
    one, two = (economy.operation("alice", "transfer", **claims) for _ in range(2))
    assert one != two
    assert economy.apply(one) == economy.apply(two)
    assert economy.balance("alice") == 70


def test_a_refusal_is_an_outcome_too() -> None:
    """An operation that was refused for lack of tokens does not happen later, when there are some."""
    economy = Economy(tokens=10)
    text = economy.operation("alice", "transfer", to="bob", tokens=30)
    first = economy.apply(text)
    assert first == Outcome(False, "insufficient_funds", {"have": 10, "need": 30})
    economy.state.put("balance/alice", {"tokens": 100})
    assert economy.apply(text) == first
    assert economy.balance("alice") == 100


def test_an_id_stands_for_one_operation_of_one_wallet() -> None:
    economy = Economy(tokens=100)
    assert economy.submit("alice", "transfer", _jti="op-1", to="bob", tokens=1).ok
    before = copy.deepcopy(economy.state.values)
    assert economy.submit("alice", "transfer", _jti="op-1", to="bob", tokens=2).code == "id_reused"
    assert economy.state.values == before
    assert economy.submit("bob", "transfer", _jti="op-1", to="alice", tokens=2).ok


def test_a_recorded_outcome_is_given_even_after_the_document_has_expired() -> None:
    economy = Economy(tokens=100)
    text = economy.operation("alice", "transfer", to="bob", tokens=30)
    first = economy.apply(text)
    economy.now += 10_000
    assert economy.apply(text) == first


def test_times_of_an_operation() -> None:
    economy = Economy(tokens=100)
    skew = CLOCK_SKEW_S_MAX
    cases = [
        ({"_iat": START + skew, "_exp": START + skew + 1}, "ok"),
        ({"_iat": START + skew + 1, "_exp": START + skew + 2}, "not_yet_valid"),
        ({"_iat": START - 60, "_exp": START}, "ok"),
        ({"_iat": START - 60, "_exp": START - 1}, "expired"),
        ({"_exp": START + OPERATION_TTL_S_MAX}, "ok"),
        ({"_exp": START + OPERATION_TTL_S_MAX + 1}, "ttl_too_long"),
    ]
    for claims, code in cases:
        assert economy.submit("alice", "transfer", **claims, to="bob", tokens=1).code == code


def test_what_was_too_early_can_be_asked_again() -> None:
    economy = Economy(tokens=100)
    text = economy.operation("alice", "transfer", _iat=START + 60, to="bob", tokens=1)
    refused_without_a_trace(economy, text, "not_yet_valid")
    economy.now += 60
    assert economy.apply(text).ok


def test_documents_that_do_not_hold_leave_no_trace() -> None:
    economy = Economy(tokens=100)
    stranger = Authority().wallet("alice")
    arguments: dict[str, Any] = {"to": "bob", "tokens": 1}
    good = economy.operation("alice", "transfer", **arguments)
    head, claims, signature = good.split(".")
    forged = f"{head}.{claims}.{signature[:-4]}AAAA"
    refused_without_a_trace(economy, forged, "bad_signature")
    other = economy.operation("alice", "transfer", _dom="x" * 43, **arguments)
    refused_without_a_trace(economy, other, "wrong_domain")
    by_bob = economy.operation("alice", "transfer", signer=wallet("bob"), **arguments)
    refused_without_a_trace(economy, by_bob, "wrong_signer")
    unknown = economy.operation("carol", "transfer", **arguments)
    refused_without_a_trace(economy, unknown, "unknown_signer")
    uncertified = economy.operation("alice", "transfer", signer=stranger, **arguments)
    refused_without_a_trace(economy, uncertified, "unknown_certificate")
    refused_without_a_trace(economy, "not an operation", "not_an_operation")
    refused_without_a_trace(economy, economy.contract(), "not_an_operation")
    refused_without_a_trace(economy, "x" * 5_000_000, "too_large")


def test_another_wallets_thumbprint_does_not_help() -> None:
    """Signed with bob's key under alice's name and certificate: the key is alice's, so it does not hold."""
    economy = Economy(tokens=100)

    class Impostor:
        name = "alice"
        x5t = wallet("alice").x5t

        def sign(self, data: bytes) -> bytes:
            return wallet("bob").sign(data)

    text = economy.operation("alice", "transfer", signer=Impostor(), to="bob", tokens=1)
    refused_without_a_trace(economy, text, "bad_signature")


@pytest.mark.parametrize("act", ["nothing", "apply", "steal"])
def test_an_act_that_does_not_exist(act: str) -> None:
    economy = Economy(tokens=100)
    refused_without_a_trace(economy, economy.operation("alice", act), "unknown_act")


_WRONG: list[dict[str, Any]] = [
    {},
    {"to": "bob"},
    {"to": "bob", "tokens": 0},
    {"to": "bob", "tokens": -5},
    {"to": "bob", "tokens": True},
    {"to": "bob", "tokens": "5"},
    {"to": "bob", "tokens": 2**53},
    {"to": "Bob", "tokens": 5},
    {"to": "../bob", "tokens": 5},
    {"to": None, "tokens": 5},
    {"to": ["bob"], "tokens": 5},
    {"to": "alice", "tokens": 5},
    {"to": "bob", "tokens": 5, "from": "carol"},
]


@pytest.mark.parametrize("argument", _WRONG, ids=canonical)
def test_arguments_without_their_form(argument: dict[str, Any]) -> None:
    economy = Economy(tokens=100)
    refused_without_a_trace(economy, economy.operation("alice", "transfer", _arg=argument), "bad_argument")


def test_nothing_happens_where_no_ledger_has_begun() -> None:
    text = Economy().operation("alice", "sweep", credits=[])
    assert apply(MemoryState(), text, Context(START)).code == "no_domain"


def test_values_of_the_state_are_never_changed_in_place() -> None:
    """What the state hands out may be cached by the ledger: every change must be a new value."""
    economy = Economy(tokens=100)

    class Frozen(MemoryState):
        def get(self, key: str) -> dict[str, Any] | None:
            value = self.values.get(key)
            kept.append((value, json.dumps(value)))
            return value

    kept: list[tuple[Any, str]] = []
    economy.state = Frozen(economy.state.values)
    assert economy.submit("alice", "open", id="a", payee="bob", tokens=50, exp=START + 600).ok
    for seq in (1, 2, 5, 3):
        text = economy.contract(via="a", lane="l", seq=seq)
        assert economy.submit("bob", "settle", items=[[text, 5]]).detail["settled"] == 1
    economy.submit("alice", "refill", id="a", tokens=10)
    economy.submit("alice", "close", id="a")
    economy.submit("root", "freeze", name="alice")
    economy.submit("root", "rotate", name="bob", cert=authority().wallet("bob").pem)
    assert all(json.dumps(value) == text for value, text in kept)


def test_signatures_are_checked_by_the_function_that_is_handed_in() -> None:
    economy = Economy(tokens=100)
    economy.submit("alice", "open", id="a", payee="bob", tokens=50, exp=START + 600)
    items = [[economy.contract(via="a", lane="l", seq=seq), 5] for seq in range(4)]
    batches: list[int] = []

    def counting(pairs: Any) -> list[bool]:
        batches.append(len(pairs))
        return verify_many(pairs)

    text = economy.operation("bob", "settle", items=items)
    assert apply(economy.state, text, Context(START), verify_many=counting).detail["settled"] == 4
    assert batches == [1, 4]


def test_a_verifier_that_says_no_is_believed() -> None:
    economy = Economy(tokens=100)

    def never(pairs: Any) -> list[bool]:
        return [False] * len(pairs)

    text = economy.operation("alice", "transfer", to="bob", tokens=1)
    assert apply(economy.state, text, Context(START), verify_many=never).code == "bad_signature"


def test_a_recorded_outcome_survives_json() -> None:
    outcome = Outcome(False, "insufficient_funds", {"have": 1, "need": 2})
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1"))))
def test_any_text_gets_an_outcome(text: str) -> None:
    economy = Economy()
    before = dict(economy.state.values)
    outcome = economy.apply(text)
    assert not outcome.ok
    assert outcome.code in NOT_RECORDED
    assert economy.state.values == before


_ids = st.sampled_from(["a", "h", "root", "alice", "bob", "", "hold", "\u00e9", "x" * 70])
_leaves = st.none() | st.booleans() | st.integers(-5, 2**60) | _ids | st.text(max_size=3)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ids, inner, max_size=3),
    max_leaves=8,
)
_FIELDS = sorted({field for act in ACTS.values() for field in act.fields})


@given(
    caller=st.sampled_from(["root", "alice"]),
    act=st.sampled_from(sorted(ACTS)),
    argument=st.dictionaries(st.sampled_from(_FIELDS), _values),
)
def test_any_argument_of_any_act_gets_an_outcome_that_the_ledger_can_store(
    caller: str, act: str, argument: dict[str, Any]
) -> None:
    economy = Economy(tokens=100)
    fields = ACTS[act].fields
    kept = {name: value for name, value in argument.items() if name in fields}
    for chosen in (argument, kept):
        text = economy.operation(caller, act, _arg=chosen)
        assert canonical(economy.apply(text).to_json())
    assert canonical(economy.state.values)
    assert economy.accounted() == economy.supply()


def test_any_key_type_is_what_the_certificates_say() -> None:
    """The verifier is handed exactly the key of the certificate that the header names."""
    economy = Economy(tokens=100)
    seen: list[ec.EllipticCurvePublicKey] = []

    def watching(pairs: Any) -> list[bool]:
        seen.extend(key for _, key in pairs)
        return [True] * len(pairs)

    text = economy.operation("alice", "transfer", to="bob", tokens=1)
    apply(economy.state, text, Context(START), verify_many=watching)
    assert [key.public_numbers() for key in seen] == [wallet("alice").key.public_key().public_numbers()]
