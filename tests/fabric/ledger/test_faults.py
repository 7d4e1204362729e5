"""Parts of the network are killed while operations are on their way: who submits sees as little as can be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import Domain, now_of
from tokenmesh.errors import LedgerError, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.fabric.gateway import Retry
from tokenmesh.fabric.network import Network
from tokenmesh.ledger import open_ledger
from tokenmesh.ledger.base import Ledger
from tokenmesh.ledger.fabric import ledger as fabric_ledger

CALLERS = 6
PAYER, PAYEE = "service-a", "service-b"


@pytest.fixture(scope="module")
def frail(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network of this module's own, with two peers in each organisation."""
    network = Network(tmp_path_factory.mktemp("frail"), peers=2)
    try:
        network.up()
        yield network
    finally:
        network.clean()


@pytest.fixture(scope="module")
def domain(frail: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    with Rules(frail) as rules:
        domain = make_fabric_domain(rules, tmp_path_factory.mktemp("domain"), {PAYER: 100_000, PAYEE: 0})
        rules.profile_of(domain.ledger.chaincode)
        yield domain
        domain.ledger.close()


@pytest.fixture
def ledger(frail: Network, domain: Domain) -> Iterator[Ledger]:
    """The ledger as a service opens it: by its url, so with all the peers of the profile."""
    profile = frail.profile.path.with_name(f"{domain.ledger.chaincode}.yaml")
    with open_ledger(f"fabric:///{profile}", domain[PAYER]) as ledger:
        yield ledger


def transfer(domain: Domain) -> str:
    return domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 1}, ttl_s=600)


class Load:
    """Some callers who pay one token at a time until told to stop."""

    def __init__(self, ledger: Ledger, domain: Domain) -> None:
        self.errors: list[Exception] = []
        self.paid = 0
        self._ledger, self._domain = ledger, domain
        self._stop = threading.Event()
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._run) for _ in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=120)
            assert not thread.is_alive()

    def wait_for_more(self, paid: int) -> None:
        with self._more:
            target = self.paid + paid
            assert self._more.wait_for(lambda: self.paid >= target or self.errors, 120), "it does not go on"

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                (result,) = now_of(self._ledger.submit([transfer(self._domain)]))
                assert result.outcome.ok, result.outcome
            except Exception as error:
                self.errors.append(error)
            with self._more:
                self.paid += 1
                self._more.notify_all()


def hurt_under_load(ledger: Ledger, domain: Domain, hurt: Callable[[], None]) -> None:
    """Nobody sees an error, and what was paid is exactly what was acknowledged."""
    # A peer that was killed by another test may be a block behind, until it has committed this.
    assert now_of(ledger.submit([transfer(domain)]))[0].outcome.ok
    before = now_of(ledger.balance(PAYER)).spendable
    with Load(ledger, domain) as load:
        load.wait_for_more(CALLERS * 3)
        hurt()
        load.wait_for_more(CALLERS * 5)
    assert load.errors == []
    assert now_of(ledger.balance(PAYER)).spendable == before - load.paid


def test_when_the_peer_is_gone_the_next_one_serves(frail: Network, ledger: Ledger, domain: Domain) -> None:
    """The one that the ledger is connected to is killed under load; and questions are answered too."""
    hurt_under_load(ledger, domain, lambda: frail.kill("peer0.governance"))
    try:
        assert now_of(ledger.wallet(PAYER)) is not None
        newest = now_of(ledger.transactions(newest_first=True, limit=1))
        assert newest[0].operations[0].act == "transfer"
    finally:
        frail.start("peer0.governance")


def test_an_orderer_that_comes_back_costs_time_only(frail: Network, ledger: Ledger, domain: Domain) -> None:
    hurt_under_load(ledger, domain, lambda: frail.restart("orderer0.governance"))


def test_without_an_orderer_the_outcome_is_said_to_be_unknown(
    frail: Network, ledger: Ledger, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the budget; and the same operation, submitted again, has happened once."""
    monkeypatch.setattr(fabric_ledger, "SUBMIT_RETRY", Retry(attempts=3, budget_s=1.0))
    profile = frail.profile.path.with_name(f"{domain.ledger.chaincode}.yaml")
    text = transfer(domain)
    before = now_of(ledger.balance(PAYER)).spendable
    with open_ledger(f"fabric:///{profile}", domain[PAYER]) as impatient:
        frail.stop("orderer0.governance")
        try:
            with pytest.raises((LedgerOutcomeUnknown, LedgerUnavailable), match="again"):
                now_of(impatient.submit([text]))
            assert now_of(impatient.balance(PAYER)).spendable == before, "questions need no orderer"
        finally:
            frail.start("orderer0.governance")
    for _ in range(2):
        assert now_of(ledger.submit([text]))[0].outcome.ok
    assert now_of(ledger.balance(PAYER)).spendable == before - 1


def test_without_any_peer_everything_is_an_error_in_time(
    frail: Network, ledger: Ledger, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certainly nothing happened, and what to do; and when one is back, all works again by itself."""
    monkeypatch.setattr(fabric_ledger, "SUBMIT_RETRY", Retry(attempts=3, budget_s=1.0))
    monkeypatch.setattr(fabric_ledger, "ASK_RETRY", Retry(attempts=3, budget_s=1.0))
    profile = frail.profile.path.with_name(f"{domain.ledger.chaincode}.yaml")
    peers = [node.name for node in frail.plan.of("peer")]
    text = transfer(domain)
    with open_ledger(f"fabric:///{profile}", domain[PAYER]) as impatient:
        assert now_of(impatient.submit([transfer(domain)]))[0].outcome.ok
        with ThreadPoolExecutor(len(peers)) as pool:
            list(pool.map(frail.stop, peers))
        try:
            with pytest.raises(LedgerUnavailable, match="could not be reached"):
                now_of(impatient.submit([text]))
            with pytest.raises(LedgerUnavailable, match="could not be reached"):
                now_of(impatient.balance(PAYER))
        finally:
            for name in peers:
                frail.start(name)
    for _ in range(2):
        assert until_it_works(ledger, text)


def until_it_works(ledger: Ledger, text: str) -> bool:
    """As a settlement does: the same operation again, until there is an answer."""
    for _ in range(20):
        try:
            return now_of(ledger.submit([text]))[0].outcome.ok
        except LedgerError as error:
            if not error.retryable:
                raise
    return False
