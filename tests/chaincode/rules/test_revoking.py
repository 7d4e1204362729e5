"""Revoked certificates: what they sign no more, what they have signed before, and who revokes."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Authority, Economy, authority, wallet
from tokenmesh_chaincode.rules import apply
from tokenmesh_chaincode.rules.base import Context

PROPAGATION_S = 5


def revoke(economy: Economy, name: str = "alice", by: str = "root", x5t: str | None = None) -> Any:
    return economy.submit(by, "revoke", name=name, x5t=x5t or wallet(name).x5t)


def with_allowance() -> Economy:
    economy = Economy(tokens=100)
    assert economy.submit("alice", "open", id="a", payee="bob", tokens=50, exp=START + 3600).ok
    economy.now += 60
    return economy


def test_a_revoked_certificate_signs_no_operation_at_once() -> None:
    economy = Economy(tokens=100)
    waiting = economy.operation("alice", "transfer", to="bob", tokens=1)
    done = economy.operation("alice", "transfer", to="bob", tokens=2)
    kept = economy.apply(done)
    assert kept.ok
    assert revoke(economy).detail["revoked_at"] == START
    refused = economy.apply(waiting)
    assert (refused.code, refused.detail) == ("revoked_certificate", {"revoked_at": START})
    backdated = economy.operation("alice", "transfer", to="bob", tokens=1, _iat=START - 60)
    assert economy.apply(backdated).code == "revoked_certificate"
    assert economy.apply(done) == kept
    assert economy.balance("alice") == 98


def test_a_clock_that_is_behind_does_not_help_it() -> None:
    """On a ledger whose transactions bring their own time, one may be dated before the revocation."""
    economy = Economy(tokens=100)
    revoke(economy)
    text = economy.operation("alice", "transfer", to="bob", tokens=1, _iat=START - 60)
    assert apply(economy.state, text, Context(START - 30)).code == "revoked_certificate"


@pytest.mark.parametrize(
    ("made", "code"),
    [(0, "ok"), (PROPAGATION_S, "ok"), (PROPAGATION_S + 1, "revoked_certificate")],
)
def test_contracts_made_before_anyone_could_know_are_paid(made: int, code: str) -> None:
    economy = with_allowance()
    revoked = revoke(economy)
    economy.now += 8
    economy.enforce(revoked)
    known_at = economy.now
    economy.now += 30
    contract = economy.contract(via="a", lane="l", seq=1, jti="c", iat=known_at + made)
    detail = economy.submit("bob", "settle", items=[[contract, 5]]).detail
    assert detail["refused"].get("alice/c", "ok") == code
    assert detail["settled"] == (1 if code == "ok" else 0)
    assert economy.accounted() == economy.supply()


def test_the_wallet_goes_on_with_another_certificate() -> None:
    economy = with_allowance()
    fresh = authority().wallet("alice")
    assert economy.submit("alice", "rotate", name="alice", cert=fresh.pem).ok
    economy.enforce(revoke(economy))
    economy.now += 30
    assert economy.submit("alice", "transfer", signer=fresh, to="bob", tokens=1).ok
    assert economy.submit("alice", "transfer", to="bob", tokens=1).code == "revoked_certificate"
    items = [
        [economy.contract(via="a", lane="l", seq=1, signer=fresh), 5],
        [economy.contract(via="a", lane="l", seq=2), 5],
    ]
    detail = economy.submit("bob", "settle", items=items).detail
    assert (detail["settled"], [*detail["refused"].values()]) == (1, ["revoked_certificate"])


def test_after_its_overlap_an_old_certificate_has_expired_as_before() -> None:
    economy = with_allowance()
    fresh = authority().wallet("alice")
    overlap_s = economy.state.values["policy"]["rotation_overlap_s"]
    economy.submit("alice", "rotate", name="alice", cert=fresh.pem)
    economy.now += overlap_s + 10
    revoke(economy)
    contract = economy.contract(via="a", lane="l", seq=1, iat=economy.now - 1)
    detail = economy.submit("bob", "settle", items=[[contract, 5]]).detail
    assert [*detail["refused"].values()] == ["certificate_expired"]


def test_a_wallet_whose_only_certificate_is_revoked_is_given_another_by_a_governor() -> None:
    economy = Economy(tokens=100)
    revoke(economy)
    fresh = authority().wallet("alice")
    by_itself = economy.submit("alice", "rotate", name="alice", cert=fresh.pem)
    assert by_itself.code == "revoked_certificate"
    assert economy.submit("root", "rotate", name="alice", cert=fresh.pem).ok
    assert economy.submit("alice", "transfer", signer=fresh, to="bob", tokens=1).ok


def test_a_revoked_certificate_does_not_come_back() -> None:
    economy = Economy(tokens=100)
    fresh = authority().wallet("alice")
    economy.submit("alice", "rotate", name="alice", cert=fresh.pem)
    revoke(economy)
    assert economy.submit("root", "rotate", name="alice", cert=wallet("alice").pem).code == "bad_certificate"


def test_revoking_again_does_not_move_it() -> None:
    economy = Economy()
    revoke(economy)
    economy.now += 60
    again = {"revoked_at": START, "enforce": {"revoked": ["alice", wallet("alice").x5t]}}
    assert revoke(economy).detail == again
    economy.enforce(revoke(economy))
    assert revoke(economy).detail == {"revoked_at": START}


def test_who_revokes() -> None:
    economy = Economy(tokens=100)
    assert revoke(economy, "bob", by="alice").code == "not_governor"
    assert revoke(economy, "alice", by="alice").code == "not_governor"
    assert revoke(economy, "nobody", x5t=wallet("bob").x5t).code == "unknown_wallet"
    assert revoke(economy, "alice", x5t=wallet("bob").x5t).code == "unknown_certificate"
    assert revoke(economy, "alice", x5t="alice's").code == "bad_argument"
    assert revoke(economy, "alice").ok


def test_one_governor_revokes_a_service_whatever_the_threshold() -> None:
    economy = Economy(governors=("root", "second"), threshold=2)
    assert revoke(economy, "alice").ok


def test_one_governor_alone_does_not_lock_out_another() -> None:
    economy = Economy(governors=("root", "second", "third"), threshold=2)
    assert revoke(economy, "second").code == "needs_approval"
    argument = {"name": "second", "x5t": wallet("second").x5t}
    proposed = economy.submit("root", "propose", _jti="p", _arg={"act": "revoke", "arg": argument})
    assert proposed.ok, proposed
    approved = economy.submit("third", "approve", proposal="p")
    assert approved.detail["result"] == {
        "revoked_at": START,
        "enforce": {"revoked": ["second", wallet("second").x5t]},
    }
    assert economy.submit("second", "freeze", name="alice").code == "revoked_certificate"


def test_a_governor_keeps_its_own_last_certificate() -> None:
    economy = Economy()
    assert revoke(economy, "root").code == "forbidden"
    fresh = authority().wallet("root")
    economy.submit("root", "rotate", name="root", cert=fresh.pem)
    assert revoke(economy, "root").ok
    assert economy.submit("root", "freeze", name="alice").code == "revoked_certificate"
    assert economy.submit("root", "freeze", signer=fresh, name="alice").ok
    last = economy.submit("root", "revoke", signer=fresh, name="root", x5t=fresh.x5t)
    assert last.code == "forbidden"


def test_a_certificate_of_another_authority_is_none_to_revoke() -> None:
    stranger = Authority().wallet("alice")
    assert revoke(Economy(), "alice", x5t=stranger.x5t).code == "unknown_certificate"
