"""Who may do what on a real network: nobody endorses alone, no key mints alone, no one is another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import GOVERNANCE, SUPPLY, Domain, now_of
from support.wallets import Clock
from tokenmesh.fabric.errors import CommitError, FabricError
from tokenmesh.fabric.gateway import NO_RETRY, Contract, connect_profile
from tokenmesh.fabric.lifecycle import Collection, Definition, Lifecycle
from tokenmesh_chaincode.contract.batch import COLLECTION
from tokenmesh_chaincode.documents import Operation, new_id, sign
from tokenmesh_chaincode.rules import default_policy

SECOND = "auditor"
PAYER, PAYEE = "service-a", "service-b"


@pytest.fixture
def domain(rules: Rules, tmp_path: Path) -> Iterator[Domain]:
    """A ledger with two governors, two of whom it takes; the payer has 1,000 tokens."""
    domain = make_fabric_domain(rules, tmp_path, clock=Clock())
    second = domain.wallets.new(SECOND, "governor")
    arg = {"name": SECOND, "cert": second.certificate_pem, "role": "governor"}
    domain.do(GOVERNANCE, "register", arg)
    domain.do(
        GOVERNANCE, "set_policy", {"policy": {**default_policy(), "threshold": 2, "rotation_overlap_s": 0}}
    )
    yield domain
    domain.ledger.close()


def minted(domain: Domain) -> int:
    return now_of(domain.ledger.supply()).minted


# --- organisations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", ["GovernanceMSP", "ServicesMSP"])
def test_one_organisation_alone_endorses_nothing(rules: Rules, domain: Domain, alone: str) -> None:
    """Its peer would say yes, and every peer finds the transaction invalid: nothing has happened."""
    transfer = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 7})
    with connect_profile(rules.profile, retry=NO_RETRY) as gateway:
        contract: Contract = gateway.get_network(rules.channel).get_contract(
            domain.ledger.chaincode, clock=domain.clock
        )
        with pytest.raises(CommitError, match="ENDORSEMENT_POLICY_FAILURE"):
            contract.submit("apply", (transfer,), endorsing_organizations=(alone,))
    assert domain.balance(PAYER).spendable == 1_000
    assert domain.balance(PAYEE).credits == 0


def test_one_organisation_alone_does_not_change_the_rules(rules: Rules, domain: Domain) -> None:
    """A new definition that only one has approved cannot be committed; the old one stays in force."""
    name = domain.ledger.chaincode
    with ExitStack() as stack:
        services, governance = (
            Lifecycle(stack.enter_context(connect_profile(rules.profile, one)))
            for one in ("services", "governance")
        )
        before = governance.query_committed(rules.channel, name)
        assert before is not None
        kept = (Collection(COLLECTION, "OR('GovernanceMSP.member', 'ServicesMSP.member')"),)
        lax = Definition(name, "lax", before.sequence + 1, "OR('ServicesMSP.peer')", kept)
        services.approve(rules.channel, lax)
        assert services.check_commit_readiness(rules.channel, lax) == {
            "GovernanceMSP": False,
            "ServicesMSP": True,
        }
        with pytest.raises(FabricError, match=r"not agreed to by this org"):
            services.commit(rules.channel, lax)
        assert governance.query_committed(rules.channel, name) == before


# --- governors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "arg"),
    [
        ("mint", {"tokens": 5}),
        ("set_policy", {"policy": {**default_policy(), "threshold": 1}}),
        ("unfreeze", {"name": PAYER}),
    ],
)
def test_no_single_key_governs(domain: Domain, act: str, arg: dict[str, object]) -> None:
    """One governor can neither do it nor approve its own proposal; a second one's approval carries it out."""
    domain.do(GOVERNANCE, "freeze", {"name": PAYER})
    assert domain.ask(GOVERNANCE, act, arg).code == "needs_approval"
    proposed = domain.do(GOVERNANCE, "propose", {"act": act, "arg": arg})
    assert (proposed["done"], proposed["approved"]) == (False, 1)
    approval = {"proposal": proposed["proposal"]}
    assert domain.ask(GOVERNANCE, "approve", approval).code == "already_approved"
    assert domain.ask(PAYEE, "approve", approval).code == "not_governor"
    assert minted(domain) == SUPPLY
    assert now_of(domain.ledger.policy())["threshold"] == 2
    assert now_of(domain.ledger.wallet(PAYER)).frozen_at is not None
    assert domain.do(SECOND, "approve", approval)["done"]
    changed = {
        "mint": minted(domain) == SUPPLY + 5,
        "set_policy": now_of(domain.ledger.policy())["threshold"] == 1,
        "unfreeze": now_of(domain.ledger.wallet(PAYER)).frozen_at is None,
    }
    assert [name for name, done in changed.items() if done] == [act]


def test_no_governor_makes_itself_a_second_one(domain: Domain) -> None:
    """Neither by a new governor's wallet nor by taking over the other one's."""
    own = domain.wallets.authority.new_identity("puppet", "governor")
    arg = {"name": "puppet", "cert": own.certificate_pem, "role": "governor"}
    assert domain.ask(GOVERNANCE, "register", arg).code == "needs_approval"
    taken = domain.wallets.authority.new_identity(SECOND, "governor")
    assert domain.ask(GOVERNANCE, "rotate", {"name": SECOND, "cert": taken.certificate_pem}).code == (
        "needs_approval"
    )


@pytest.mark.parametrize(
    ("act", "arg"),
    [
        ("mint", {"tokens": 5}),
        ("grant", {"to": PAYER, "tokens": 5}),
        ("freeze", {"name": PAYER}),
        ("unfreeze", {"name": PAYER}),
        ("set_policy", {"policy": default_policy()}),
        ("propose", {"act": "mint", "arg": {"tokens": 5}}),
    ],
)
def test_a_service_does_not_govern(domain: Domain, act: str, arg: dict[str, object]) -> None:
    """Whatever it asks for, the rules refuse it on every endorser."""
    assert domain.ask(PAYEE, act, arg).code == "not_governor"


def test_an_administrator_of_fabric_has_no_say_in_the_economy(domain: Domain) -> None:
    """The carrier of all these operations is governance's own Fabric administrator; it has no wallet."""
    stranger = domain.wallets.authority.new_identity("admin", "governor")
    assert domain.ask(stranger, "mint", {"tokens": 5}).code == "unknown_signer"
    assert minted(domain) == SUPPLY


# --- wallets --------------------------------------------------------------------------------------------


def test_nobody_acts_for_another_wallet(domain: Domain) -> None:
    """An operation in another's name does not hold, whichever key of the same authority has signed it."""
    thief = domain[PAYEE]
    now = domain.now
    body = Operation(
        domain.ledger.domain, PAYER, new_id(), now, now + 60, "transfer", {"to": PAYEE, "tokens": 5}
    )
    imposter = domain.wallets.authority.new_identity(PAYER)
    (by_thief, by_imposter) = domain.submit(sign(body, thief), sign(body._replace(jti=new_id()), imposter))
    assert by_thief.outcome.code == "wrong_signer"
    assert by_imposter.outcome.code == "unknown_certificate"
    assert domain.balance(PAYER).spendable == 1_000


def test_a_rotated_key_is_good_no_longer(domain: Domain) -> None:
    """The new one works at once; the old one is refused as soon as the overlap is over."""
    old = domain[PAYER]
    new = domain.wallets.new(PAYER)
    domain.do(old, "rotate", {"name": PAYER, "cert": new.certificate_pem})
    domain.clock.forward(1)  # type: ignore[attr-defined]
    arg = {"to": PAYEE, "tokens": 5}
    assert domain.ask(old, "transfer", arg).code == "certificate_expired"
    assert domain.ask(new, "transfer", arg).ok


def test_a_revoked_certificate_is_good_no_longer(domain: Domain) -> None:
    """From the very second on, even for an operation that claims to be older, and whoever carries it."""
    arg = {"to": PAYEE, "tokens": 5}
    earlier = domain.operation(PAYER, "transfer", arg)
    domain.do(SECOND, "revoke", {"name": PAYER, "x5t": domain[PAYER].x5t})
    assert domain.submit(earlier)[0].outcome.code == "revoked_certificate"
    assert domain.ask(PAYER, "transfer", arg).code == "revoked_certificate"
