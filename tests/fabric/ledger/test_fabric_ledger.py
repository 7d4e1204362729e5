"""The ledger on Fabric: all that every ledger must do, on a real network, endorsed by both organisations.

Its url, and who carries operations: ``test_opening.py``. Killed and missing parts: ``test_faults.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ledger.ledger_suite import LedgerSuite
from ledger.suite_private import Private
from ledger.suite_tools import PAYEE, PAYER, NewDomain, transfer

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import GOVERNANCE, SUPPLY, Domain, now_of
from support.wallets import Clock, Wallets
from tokenmesh.errors import ConfigError, LedgerError, LedgerUnavailable
from tokenmesh.fabric.blocks import ledger_info
from tokenmesh.fabric.gateway import connect, connect_profile, read_identity, read_signer
from tokenmesh.fabric.gateway.options import Tls
from tokenmesh.ledger.base import Balance
from tokenmesh.ledger.fabric import FabricLedger
from tokenmesh_chaincode.contract import questions
from tokenmesh_chaincode.limits import TX_TIME_SKEW_S_MAX
from tokenmesh_chaincode.rules import default_policy


class TestFabric(LedgerSuite, Private):
    """The shared suite, with a clock that the test holds: that of the transactions and of the endorsers."""

    @pytest.fixture
    def new_domain(self, rules: Rules, tmp_path: Path) -> Iterator[NewDomain]:
        domains: list[Domain] = []

        def new(tokens: dict[str, int] | None = None, policy: dict[str, object] | None = None) -> Domain:
            directory = tmp_path / f"domain-{len(domains)}"
            domains.append(make_fabric_domain(rules, directory, tokens, policy=policy, clock=Clock()))
            return domains[-1]

        yield new
        for domain in domains:
            domain.ledger.close()


@pytest.fixture(scope="module")
def domain(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """One for the tests below; none of them counts on what the others have left in it."""
    domain = make_fabric_domain(rules, tmp_path_factory.mktemp("domain"), {PAYER: 10_000, PAYEE: 0})
    yield domain
    domain.ledger.close()


def again(rules: Rules, domain: Domain, **options: Any) -> FabricLedger:
    """The same ledger, opened by another process, as it were."""
    return FabricLedger(rules.connect(), domain.ledger.channel, domain.ledger.chaincode, **options)


def height(rules: Rules) -> int:
    with rules.connect() as gateway:
        return ledger_info(gateway.get_network(rules.channel)).height


# --- beginning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"policy": {**default_policy(), "grace_s": -1}}, "grace_s"),
        ({"policy": {**default_policy(), "threshold": 2}}, "threshold"),
        ({"governors": {}}, "governors"),
        ({"ca": []}, "authorities"),
    ],
)
def test_a_ledger_that_could_not_be_governed_is_not_begun(
    rules: Rules, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """The error says what is wrong; and one that could be is begun in the same place afterwards, once."""
    wallets = Wallets(tmp_path)
    governance = wallets.new(GOVERNANCE, "governor")
    arguments = {
        "ca": [wallets.authority.certificate_pem],
        "governors": {GOVERNANCE: governance.certificate_pem},
        "policy": default_policy(),
    }
    name = rules.define()
    with rules.connect() as gateway:
        with pytest.raises(ConfigError, match=said):
            FabricLedger.create(gateway, rules.channel, name, **{**arguments, **change})
        first = FabricLedger.create(gateway, rules.channel, name, **arguments)
        with pytest.raises(ConfigError, match="begun already"):
            FabricLedger.create(gateway, rules.channel, name, **arguments)
        first.close()


def test_only_an_administrator_begins_a_ledger(rules: Rules, tmp_path: Path) -> None:
    wallets = Wallets(tmp_path)
    governance = wallets.new(GOVERNANCE, "governor")
    rules.network.identity("services", "service-x")
    with (
        connect_profile(rules.profile, "services", "service-x") as gateway,
        pytest.raises(ConfigError, match="administrator"),
    ):
        FabricLedger.create(
            gateway,
            rules.channel,
            rules.define(),
            ca=[wallets.authority.certificate_pem],
            governors={GOVERNANCE: governance.certificate_pem},
            policy=default_policy(),
        )


def test_what_was_written_is_there_when_it_is_opened_again(rules: Rules, domain: Domain) -> None:
    """By whomever: balances, history and idempotency are the network's."""
    text = transfer(domain)
    (result,) = domain.submit(text)
    with again(rules, domain) as other:
        assert other.domain == domain.ledger.domain
        assert now_of(other.balance(PAYER)) == domain.balance(PAYER)
        assert now_of(other.submit([text])) == [result]
        transaction = now_of(other.transaction(result.tx_id))
        assert transaction is not None
        assert transaction.operations[0].document == text


# --- transactions ---------------------------------------------------------------------------------------


def test_what_gathers_while_another_is_on_its_way_becomes_one_transaction(domain: Domain) -> None:
    """Group commit: two hundred transfers of one wallet, a handful of transactions, and none was in vain."""
    before = domain.balance(PAYER).spendable
    futures = [domain.ledger.submit([transfer(domain)]) for _ in range(200)]
    results = [now_of(future)[0] for future in futures]
    assert all(result.outcome.ok for result in results)
    assert len({result.tx_id for result in results}) <= 10
    assert domain.balance(PAYER).spendable == before - 200


def test_two_processes_of_one_wallet_see_no_conflict(rules: Rules, domain: Domain) -> None:
    """What the peers find invalid, as both have written one balance, is proposed anew until it holds."""
    before = domain.balance(PAYER).spendable
    with again(rules, domain) as other:
        ledgers = (domain.ledger, other)

        def pay(ledger: FabricLedger) -> list[bool]:
            return [now_of(ledger.submit([transfer(domain)]))[0].outcome.ok for _ in range(10)]

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(pay, ledgers)) == [[True] * 10] * 2
        assert now_of(other.balance(PAYER)).spendable == before - 20


def test_what_is_not_recorded_makes_no_transaction(rules: Rules, domain: Domain) -> None:
    """A repeated operation, a forged one: answered by the endorsers, and the chain stays as it is."""
    text = transfer(domain)
    (result,) = domain.submit(text)
    blocks = height(rules)
    assert domain.submit(text, "nonsense")[0] == result
    assert height(rules) == blocks


def small_messages(rules: Rules, domain: Domain, message_bytes_max: int) -> FabricLedger:
    files, peer = rules.profile.client(), rules.profile.peer()
    gateway = connect(
        peer.address,
        read_identity(files.msp_id, files.certificate),
        read_signer(files.key),
        tls=Tls.of(peer, files),
        message_bytes_max=message_bytes_max,
    )
    return FabricLedger(gateway, domain.ledger.channel, domain.ledger.chaincode)


def test_a_batch_that_is_too_large_is_cut(rules: Rules, domain: Domain) -> None:
    """Between submissions, and where it must be within one: everybody is told of their own, in order."""
    with small_messages(rules, domain, 30_000) as ledger:
        first = ledger.submit([transfer(domain)])
        several = [transfer(domain, jti=f"several-{number}") for number in range(60)]
        alone = [ledger.submit([transfer(domain, jti=f"alone-{number}")]) for number in range(60)]
        whole = ledger.submit(several)
        assert now_of(first)[0].outcome.ok
        details = [result.outcome.detail["credit"] for result in now_of(whole)]
        assert details == [f"{PAYER}:several-{number}" for number in range(60)]
        assert len({result.tx_id for result in now_of(whole)}) > 1
        for number, future in enumerate(alone):
            assert now_of(future)[0].outcome.detail["credit"] == f"{PAYER}:alone-{number}"


def test_an_operation_that_is_too_large_alone_hinders_no_other(rules: Rules, domain: Domain) -> None:
    with small_messages(rules, domain, 30_000) as ledger:
        good, bad = ledger.submit([transfer(domain)]), ledger.submit(["x" * 40_000])
        after = ledger.submit([transfer(domain)])
        assert now_of(good)[0].outcome.ok
        with pytest.raises(LedgerError, match="40000 bytes is too large"):
            now_of(bad)
        assert now_of(after)[0].outcome.ok


def test_a_clock_that_is_wrong_is_named(rules: Rules, domain: Domain) -> None:
    """An endorser takes no transaction of another time than its own; and certainly nothing happened."""
    text = transfer(domain)
    wrong = time.time() + TX_TIME_SKEW_S_MAX + 10
    with (
        again(rules, domain, clock=lambda: wrong) as ledger,
        pytest.raises(LedgerUnavailable, match="set the clock"),
    ):
        now_of(ledger.submit([text]))
    assert domain.submit(text)[0].outcome.ok


# --- questions ------------------------------------------------------------------------------------------


def test_answers_that_come_in_pages_are_whole(
    rules: Rules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chaincode gives two at a time, and looks at three rows: nothing is left out, nothing twice."""
    clock = Clock()
    tokens = {f"service-{n}": 100 for n in range(5)}
    domain = make_fabric_domain(rules, tmp_path, tokens, clock=clock, wallet="service-2")
    monkeypatch.setattr(questions, "LISTED_MAX", 2)
    monkeypatch.setattr(questions, "SCANNED_MAX", 3)
    ledger = domain.ledger
    opened = set()
    for number in range(5):
        terms = {"tokens": 5, "exp": domain.now + 60}
        allowance = {"id": f"allowance-{number}", "payee": f"service-{2 + number % 3}", **terms}
        domain.do("service-0" if number else "service-1", "open", allowance)
        hold = {"id": f"h{number}", "payee": f"service-{(number + 1) % 5}", **terms}
        domain.do(f"service-{number}", "hold", hold)
        opened.add(f"allowance-{number}")
    assert [one.name for one in now_of(ledger.wallets())] == [GOVERNANCE, *(f"service-{n}" for n in range(5))]
    assert {one.id for one in now_of(ledger.allowances("service-0"))} == opened - {"allowance-0"}
    assert domain.balance("service-0") == Balance(75, 0, 5, 20)
    assert now_of(ledger.supply()) == (SUPPLY, 0, SUPPLY)
    clock.forward(100_000)
    due = now_of(ledger.expirable(domain.now, 100))
    assert set(due["allowances"]) == opened
    assert sorted(due["holds"]) == [[f"service-{n}", f"h{n}"] for n in range(5)]
    domain.do(GOVERNANCE, "expire", due)
    clock.forward(100_000)
    forgotten = 0
    while sum(map(len, (old := now_of(ledger.forgettable(domain.now, 7))).values())):
        forgotten += domain.do(GOVERNANCE, "forget", old)["forgotten"]
        assert forgotten < 200
    assert now_of(ledger.allowance("allowance-0")) is None
    assert now_of(ledger.hold("service-0", "h0")) is None
    ledger.close()
