"""Parts of the network are full, or killed and started again, while transactions are on their way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from support.kv_chaincode import Service
from tokenmesh.fabric.gateway import (
    NO_RETRY,
    Commit,
    CommitStatusError,
    Contract,
    EndorseError,
    Gateway,
    GatewayError,
    Retry,
    connect_profile,
)
from tokenmesh.fabric.network import Network

from .conftest import deploy_kv

loads = count(1)
WORKERS = 8
PLACES = 6
EITHER = "OR('GovernanceMSP.peer', 'ServicesMSP.peer')"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def frail(
    fabric_tools: None, tmp_path_factory: pytest.TempPathFactory, service: Service
) -> Iterator[Network]:
    """A network of this module's own, whose peers serve few gateway calls at once."""
    network = Network(
        tmp_path_factory.mktemp("frail"),
        batch_timeout_ms=1000,
        peer_settings={"peer.limits.concurrency.gatewayService": PLACES},
    )
    try:
        network.up()
        deploy_kv(network, service, policy=EITHER)
        yield network
    finally:
        network.clean()


@pytest.fixture
def patient(frail: Network) -> Iterator[Contract]:
    """A contract whose caller has a minute."""
    with connect_profile(frail.profile, retry=Retry(attempts=100, budget_s=60)) as gateway:
        yield kv_of(gateway)


def kv_of(gateway: Gateway) -> Contract:
    return gateway.get_network("mesh").get_contract("kv")


class Load:
    """Some threads that submit, each its own keys, until told to stop; and what was acknowledged to them."""

    def __init__(self, contract: Contract) -> None:
        self.acknowledged: list[str] = []
        self.errors: list[Exception] = []
        self._contract = contract
        self._name = f"load-{next(loads)}"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(WORKERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=120)
            assert not thread.is_alive()

    def wait_for_more(self, count: int) -> None:
        """Until so many more were acknowledged: the load goes on."""
        target, tick = len(self.acknowledged) + count, threading.Event()
        for _ in range(1200):
            if len(self.acknowledged) >= target or self.errors:
                return
            tick.wait(0.1)
        raise AssertionError("the load does not go on")

    def _run(self, worker: int) -> None:
        number = 0
        while not self._stop.is_set():
            key = f"{self._name}-{worker}-{number}"
            try:
                answer = self._contract.submit_transaction("increment", key)
                assert answer == b"1"
                self.acknowledged.append(key)
            except Exception as error:
                self.errors.append(error)
            number += 1


def run_under_load(contract: Contract, hurt: Callable[[], None]) -> None:
    """Hurt the network under load: nobody sees an error, nothing acknowledged is lost, nothing done twice."""
    with Load(contract) as load:
        load.wait_for_more(WORKERS)
        hurt()
        load.wait_for_more(WORKERS * 2)
    assert load.errors == []
    with ThreadPoolExecutor(4) as pool:
        values = set(pool.map(lambda key: contract.evaluate_transaction("get", key), load.acknowledged))
    assert values == {b"1"}


def test_waiting_for_commits_takes_no_place_at_the_gateway(frail: Network) -> None:
    with connect_profile(frail.profile) as gateway:
        kv = kv_of(gateway)
        many = [kv.submit_async("put", (f"waiting-{number}", "1")) for number in range(PLACES * 5)]
        with ThreadPoolExecutor(len(many)) as pool:
            statuses = list(pool.map(lambda one: one.get_status(), many))
        assert all(status.successful for status in statuses)


def test_asking_for_each_commit_takes_a_place_and_a_full_gateway_says_so(frail: Network) -> None:
    with connect_profile(frail.profile, commit_stream=False) as gateway:
        kv = kv_of(gateway)
        many = [kv.submit_async("put", (f"asking-{number}", "1")) for number in range(PLACES * 5)]

        with ThreadPoolExecutor(len(many)) as pool:
            errors = [error for error in pool.map(asked_in_vain, many) if error is not None]
    assert len(errors) > PLACES
    for error in errors:
        assert error.retryable
        assert "gatewayService" in str(error)


def asked_in_vain(commit: Commit) -> CommitStatusError | None:
    try:
        commit.get_status()
    except CommitStatusError as error:
        return error
    return None


def test_more_callers_than_places_are_all_served(patient: Contract) -> None:
    with ThreadPoolExecutor(PLACES * 4) as pool:
        jobs = pool.map(lambda n: patient.submit_transaction("put", f"crowd-{n}", str(n)), range(PLACES * 8))
        assert list(jobs) == [str(number).encode() for number in range(PLACES * 8)]


@pytest.mark.parametrize("node", ["peer0.governance", "peer0.services", "orderer0.governance"])
def test_a_node_is_killed_and_started_under_load(frail: Network, patient: Contract, node: str) -> None:
    def hurt() -> None:
        frail.kill(node)
        frail.start(node)

    run_under_load(patient, hurt)


def test_the_chaincode_is_stopped_and_started_under_load(patient: Contract, service: Service) -> None:
    def hurt() -> None:
        service.stop()
        service.restart()

    run_under_load(patient, hurt)


def test_a_chaincode_that_is_down_is_named(frail: Network, service: Service) -> None:
    service.stop()
    try:
        with connect_profile(frail.profile) as gateway:
            for run in (
                lambda: kv_of(gateway).submit("put", ("x", "1"), retry=NO_RETRY),
                lambda: kv_of(gateway).evaluate("get", ("x",), retry=NO_RETRY),
            ):
                with pytest.raises(GatewayError, match="chaincode") as caught:
                    run()
                assert caught.value.retryable, str(caught.value)
            assert isinstance(caught.value, GatewayError | EndorseError)
    finally:
        service.restart()


def test_a_peer_that_is_down_is_an_error_that_says_so(frail: Network) -> None:
    frail.stop("peer0.governance")
    try:
        with (
            connect_profile(frail.profile) as gateway,
            pytest.raises(EndorseError, match="could not be reached") as caught,
        ):
            kv_of(gateway).submit("put", ("x", "1"), retry=NO_RETRY)
        assert caught.value.retryable
    finally:
        frail.start("peer0.governance")


def test_an_orderer_that_is_down_is_a_submit_error_with_its_address(frail: Network) -> None:
    frail.stop("orderer0.governance")
    try:
        with connect_profile(frail.profile) as gateway:
            transaction = kv_of(gateway).new_proposal("put", ("x", "1")).endorse()
            with pytest.raises(GatewayError) as caught:
                transaction.submit()
        assert type(caught.value).__name__ == "SubmitError"
        assert caught.value.transaction_id == transaction.transaction_id
        assert caught.value.retryable
    finally:
        frail.start("orderer0.governance")
