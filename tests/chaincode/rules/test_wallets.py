"""Wallets: who registers, updates, rotates, freezes and unfreezes them, and what then holds."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Authority, Economy, authority, wallet
from tokenmesh_chaincode.limits import CERTIFICATES_MAX, GOVERNORS_MAX


def test_a_governor_registers_a_wallet_which_can_then_act() -> None:
    economy = Economy(tokens=10)
    carol = wallet("carol")
    outcome = economy.submit(
        "root", "register", name="carol", cert=carol.pem, role="service", url="http://carol:8000"
    )
    assert outcome.detail == {"x5t": carol.x5t}
    record = economy.state.get("wallet/carol")
    assert record is not None
    assert record["url"] == "http://carol:8000"
    assert record["role"] == "service"
    assert record["frozen_at"] is None
    assert record["created"] == START
    assert [cert["x5t"] for cert in record["certs"]] == [carol.x5t]
    assert economy.submit("alice", "transfer", to="carol", tokens=1).ok
    assert economy.submit("carol", "sweep", credits=[]).ok


def test_only_governors_register() -> None:
    economy = Economy()
    argument = {"name": "carol", "cert": wallet("carol").pem, "role": "service"}
    assert economy.submit("alice", "register", **argument).code == "not_governor"


def test_registering_the_same_wallet_again_changes_nothing() -> None:
    economy = Economy()
    argument = {"name": "carol", "cert": wallet("carol").pem, "role": "service", "url": None}
    assert economy.submit("root", "register", **argument).ok
    economy.now += 60
    assert economy.submit("root", "register", **argument).detail["existing"]
    record = economy.state.get("wallet/carol")
    assert record is not None
    assert record["created"] == START


@pytest.mark.parametrize(
    "changes", [{"role": "governor"}, {"url": "http://elsewhere"}, {"cert": authority().wallet("carol").pem}]
)
def test_a_name_is_registered_once(changes: dict[str, str]) -> None:
    economy = Economy()
    argument = {"name": "carol", "cert": wallet("carol").pem, "role": "service"}
    assert economy.submit("root", "register", **argument).ok
    assert economy.submit("root", "register", **{**argument, **changes}).code == "name_taken"


def test_certificates_that_are_not_the_wallets() -> None:
    economy = Economy()
    for cert in (wallet("bob").pem, Authority().wallet("carol").pem, "no certificate", ""):
        outcome = economy.submit("root", "register", name="carol", cert=cert, role="service")
        assert outcome.code == "bad_certificate"
        assert outcome.detail["why"]
        assert economy.submit("root", "rotate", name="alice", cert=cert).code == "bad_certificate"


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "king"},
        {"role": None},
        {"url": "ftp://x"},
        {"url": "http://"},
        {"url": "http://a b"},
        {"url": "http://" + "x" * 300},
        {"url": 5},
        {"name": "Carol"},
        {"cert": None},
        {"cert": "x" * 9000},
    ],
)
def test_arguments_without_their_form(changes: dict[str, object]) -> None:
    argument = {"name": "carol", "cert": wallet("carol").pem, "role": "service", **changes}
    assert Economy().submit("root", "register", **argument).code == "bad_argument"


def test_a_ledger_has_so_many_governors_and_no_more() -> None:
    economy = Economy()
    economy.state.put("governors", {"names": [f"g{number}" for number in range(GOVERNORS_MAX - 1)]})
    for name, code in (("gov-a", "ok"), ("gov-b", "too_many_governors")):
        outcome = economy.submit("root", "register", name=name, cert=wallet(name).pem, role="governor")
        assert outcome.code == code


def test_a_wallet_and_a_governor_say_where_it_is_found() -> None:
    economy = Economy()
    for caller, url in (("alice", "https://alice.example"), ("root", None), ("root", "http://10.0.0.1:80/x")):
        assert economy.submit(caller, "update", name="alice", url=url).ok
        record = economy.state.get("wallet/alice")
        assert record is not None
        assert record["url"] == url
    assert economy.submit("bob", "update", name="alice", url="http://bob").code == "not_yours"
    assert economy.submit("root", "update", name="carol", url=None).code == "unknown_wallet"


def test_rotation_leaves_contracts_in_flight_valid_until_the_overlap_is_over() -> None:
    economy = Economy(tokens=100, rotation_overlap_s=60)
    old, new = wallet("alice"), authority().wallet("alice")
    economy.submit("alice", "open", id="a", payee="bob", tokens=50, exp=START + 3600)
    outcome = economy.submit("alice", "rotate", name="alice", cert=new.pem)
    assert outcome.detail == {"x5t": new.x5t, "until": START + 60}
    economy.now += 100
    made = {"in time": START + 60, "too late": START + 61}
    items = [
        [economy.contract(via="a", lane="l", seq=n, jti=f"old-{n}", iat=iat, exp=START + 200, signer=old), 1]
        for n, iat in enumerate(made.values())
    ]
    items.append([economy.contract(via="a", lane="l", seq=9, signer=new), 1])
    detail = economy.submit("bob", "settle", items=items).detail
    assert detail["settled"] == 2
    assert detail["refused"] == {"alice/old-1": "certificate_expired"}


def test_rotation_ends_the_old_keys_operations_after_the_overlap() -> None:
    economy = Economy(tokens=100, rotation_overlap_s=60)
    new = authority().wallet("alice")
    economy.submit("alice", "rotate", name="alice", cert=new.pem)
    economy.now += 60
    assert economy.submit("alice", "transfer", to="bob", tokens=1).ok
    economy.now += 1
    assert economy.submit("alice", "transfer", to="bob", tokens=1).code == "certificate_expired"
    assert economy.submit("alice", "transfer", to="bob", tokens=1, signer=new).ok


def test_the_wallet_by_its_old_key_or_a_governor_rotates_and_nobody_else() -> None:
    economy = Economy()
    new = authority().wallet("alice")
    assert economy.submit("bob", "rotate", name="alice", cert=new.pem).code == "not_yours"
    assert (
        economy.submit("alice", "rotate", signer=new, name="alice", cert=new.pem).code
        == "unknown_certificate"
    )
    assert economy.submit("root", "rotate", name="alice", cert=new.pem).ok
    assert economy.submit("root", "rotate", name="alice", cert=new.pem).detail["existing"]
    assert economy.submit("root", "rotate", name="alice", cert=wallet("alice").pem).code == "bad_certificate"


def test_a_wallet_has_so_many_certificates_that_are_still_needed_and_no_more() -> None:
    economy = Economy(rotation_overlap_s=0, allowance_ttl_s_max=100, hold_ttl_s_max=50, grace_s=10)
    signers = [authority().wallet("alice") for _ in range(CERTIFICATES_MAX)]
    for signer in signers[:-1]:
        assert economy.submit("root", "rotate", name="alice", cert=signer.pem).ok
    last = signers[-1].pem
    assert economy.submit("root", "rotate", name="alice", cert=last).code == "too_many_certificates"
    economy.now += 110
    assert economy.submit("root", "rotate", name="alice", cert=last).code == "too_many_certificates"
    economy.now += 1
    assert economy.submit("root", "rotate", name="alice", cert=last).ok
    record = economy.state.get("wallet/alice")
    assert record is not None
    assert [cert["x5t"] for cert in record["certs"]] == [signers[-2].x5t, signers[-1].x5t]


def test_a_frozen_wallet_spends_nothing_but_loses_nothing() -> None:
    economy = Economy(tokens=100)
    economy.submit("alice", "open", id="a", payee="bob", tokens=10, exp=START + 600)
    row = economy.submit("bob", "transfer", to="alice", tokens=5).detail["credit"]
    assert economy.submit("root", "freeze", name="alice").detail["frozen_at"] == START
    refused: list[tuple[str, dict[str, Any]]] = [
        ("transfer", {"to": "bob", "tokens": 1}),
        ("burn", {"tokens": 1}),
        ("hold", {"id": "h", "payee": "bob", "tokens": 1, "exp": START + 60}),
        ("open", {"id": "b", "payee": "bob", "tokens": 1, "exp": START + 60}),
        ("refill", {"id": "a", "tokens": 1}),
        ("rotate", {"name": "alice", "cert": authority().wallet("alice").pem}),
        ("update", {"name": "alice", "url": None}),
    ]
    for act, argument in refused:
        assert economy.submit("alice", act, **argument).code == "frozen", act
    allowed: list[tuple[str, dict[str, Any]]] = [
        ("close", {"id": "a"}),
        ("sweep", {"credits": [row]}),
        ("settle", {"items": []}),
        ("void", {"holds": []}),
        ("expire", {}),
        ("forget", {}),
    ]
    for act, argument in allowed:
        assert economy.submit("alice", act, **argument).ok, act
    assert economy.submit("root", "unfreeze", name="alice").ok
    assert economy.submit("alice", "transfer", to="bob", tokens=1).ok


def test_a_second_freeze_does_not_move_the_first() -> None:
    economy = Economy()
    economy.submit("root", "freeze", name="alice")
    economy.now += 60
    again = economy.submit("root", "freeze", name="alice")
    assert again.detail == {"frozen_at": START, "enforce": {"frozen": ["alice", START]}}
    economy.enforce(again)
    assert economy.submit("root", "freeze", name="alice").detail == {"frozen_at": START}
    assert economy.submit("root", "unfreeze", name="alice").ok
    assert economy.submit("root", "unfreeze", name="alice").ok


def test_who_freezes() -> None:
    economy = Economy()
    assert economy.submit("bob", "freeze", name="alice").code == "not_governor"
    assert economy.submit("alice", "unfreeze", name="alice").code == "not_governor"
    assert economy.submit("root", "freeze", name="carol").code == "unknown_wallet"
    assert economy.submit("root", "freeze", name="root").code == "forbidden"


@pytest.mark.parametrize("act", ["mint", "grant", "register", "freeze", "unfreeze", "set_policy"])
def test_a_frozen_governor_governs_no_more(act: str) -> None:
    economy = Economy(governors=("root", "second"), tokens=10)
    arguments: dict[str, dict[str, object]] = {
        "mint": {"tokens": 1},
        "grant": {"to": "bob", "tokens": 1},
        "register": {"name": "carol", "cert": wallet("carol").pem, "role": "service"},
        "freeze": {"name": "alice"},
        "unfreeze": {"name": "second"},
        "set_policy": {"policy": economy.state.values["policy"]},
    }
    assert economy.submit("root", "freeze", name="second").ok
    assert economy.submit("second", act, **arguments[act]).code == "frozen"
