"""Disks that are full, or may only be read: a clear error, nothing lost, and on it goes when there is room.

Real disks, real servers, SQLite's own errors. The same with a limit on file sizes, closer to the code:
``ledger/test_processes.py`` and ``journal/test_sqlite.py``.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
import tenacity

from support.cli import Cli
from support.disks import Disk, small_disk
from support.homes import Home, Supervised, served, server_command, until
from support.servers import free_port
from tokenmesh import Mesh
from tokenmesh.errors import CallError, LedgerUnavailable, NotFundedYet
from tokenmesh.ledger.verify import verify_ledger
from tokenmesh.steps import run
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract

PRICE = 5
ROOM_MAX = 2_000
"""More contracts than fit into what a full disk has left in files that are there already."""
FRAMEWORKS = ("flask", "fastapi")
PATIENT = tenacity.Retrying(
    stop=tenacity.stop_after_delay(60),
    wait=tenacity.wait_random(0.05, 0.2),
    retry=tenacity.retry_if_exception_type(CallError),
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        yield disk


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home on the disk that everyone has; only the payee's journal is on the small one."""
    home = Home(tmp_path / "home")
    home.open_wallet("payer", tokens=100_000)
    home.open_wallet("payee")
    yield home
    home.ledger.close()


class Payee:
    """A payee under a real server, whose journal lies where it is told, and all contracts it was sent."""

    def __init__(self, home: Home, journal: Path, folder: Path, framework: str) -> None:
        self._runs = folder / "runs"
        self._log = folder / "payee.log"
        self._port = free_port()
        self._command = server_command(framework, "support.killed_payee", self._port)
        self._environment = home.environment(
            "payee",
            RUNS=self._runs,
            TOKENMESH_JOURNAL=f"sqlite:///{journal}",
            TOKENMESH_SETTLE_INTERVAL_S=0.1,
        )
        self.url = f"http://127.0.0.1:{self._port}"
        self.contracts: dict[str, str] = {}

    def served(self) -> AbstractContextManager[Supervised]:
        return served(self._command, self._environment, self._port, self._log)

    def ask(self, mesh: Mesh) -> tuple[str, httpx.Response]:
        """Send a new contract, once; its id and what came of it."""
        jti, contract = contract_of(mesh)
        self.contracts[jti] = contract
        return jti, self.send(jti)

    def send(self, jti: str) -> httpx.Response:
        headers = {"Token-Contract": self.contracts[jti]}
        return httpx.get(f"{self.url}/work/thing", headers=headers, timeout=30)

    def refuses(self, mesh: Mesh, why: str) -> str:
        """Ask until it refuses, which it does in the right form; the contract's id."""
        for _ in range(ROOM_MAX):
            jti, answer = self.ask(mesh)
            if answer.status_code != 200:
                assert_unkept(answer, jti, why)
                return jti
        raise AssertionError(f"{ROOM_MAX} contracts were taken, and it should have refused: {why}")

    def end(self, jti: str) -> str:
        """How a contract ends, once there is room: its payer asks until it knows."""
        answers: list[httpx.Response] = []

        def ended() -> bool:
            answers.append(self.send(jti))
            return "Token-Receipt" in answers[-1].headers

        until(ended, f"contract {jti} ends")
        assert answers[-1].status_code in (200, 402), answers[-1].text
        return documents.parse_receipt(answers[-1].headers["Token-Receipt"]).body.out

    def check(self, home: Home, others: Collection[str] = ()) -> None:
        """Every contract has an end, was worked at most once, and is charged if and only if it is fulfilled.

        ``others`` are contracts made by a client of its own, and fulfilled.
        """
        ends = {jti: self.end(jti) for jti in self.contracts}
        runs = Counter(self._runs.read_text().split())
        assert max(runs.values()) == 1
        fulfilled = {jti for jti, end in ends.items() if end == "fulfilled"}
        assert fulfilled | set(others) <= runs.keys()
        earned = PRICE * len(fulfilled | set(others))
        until(lambda: home.total("payee") == earned, f"the payee has {earned}, it has {home.total('payee')}")
        assert home.ledger.supply().result(30).conserved
        assert "Traceback" not in self._log.read_text()


def contract_of(mesh: Mesh) -> tuple[str, str]:
    """A contract for one call, as the consumer makes it; its id and its text."""
    ticket = run(mesh.treasury.allowance_for("payee", PRICE))
    now = int(time.time())
    contract = Contract(
        dom=mesh.ledger.domain,
        iss="payer",
        aud="payee",
        op="GET /work/{what}",
        htm="GET",
        htu="/work/thing",
        dig=documents.digest(b""),
        tok=PRICE,
        jti=documents.new_id(),
        iat=now,
        exp=now + 300,
        via=ticket.via,
        lane=ticket.lane,
        seq=ticket.seq,
    )
    return contract.jti, documents.sign(contract, mesh.wallet)


def assert_unkept(answer: httpx.Response, jti: str, why: str) -> None:
    """A refusal for the journal's sake: a problem with the reason, and when to come again; nothing served."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "Retry-After" in answer.headers
    assert "Token-Receipt" not in answer.headers
    problem = answer.json()
    assert problem["code"] == "journal_unavailable", problem
    assert re.search(why, problem["detail"]), problem
    # Who cannot even open its journal has not read the contract.
    assert problem.get("contract_id", jti) == jti


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_journal_without_room(home: Home, disk: Disk, tmp_path: Path, framework: str) -> None:
    """503 and why, whatever the moment; with room again the same process answers the same contracts, and a
    payer who has kept asking all the time gets its answer."""
    payee = Payee(home, disk.path / "journal.db", tmp_path, framework)
    with payee.served(), Mesh("payer", home=home.path, allowance_calls=2 * ROOM_MAX) as mesh:
        assert payee.ask(mesh)[1].status_code == 200
        disk.fill()
        refused = [payee.refuses(mesh, "its disk is full") for _ in range(10)]
        with mesh.client("payee", url=payee.url, retry=PATIENT) as client, ThreadPoolExecutor() as pool:
            asking = pool.submit(client.get, "/work/patience")
            assert_unkept(payee.send(refused[0]), refused[0], "its disk is full")
            disk.free()
            patient = asking.result(60)
        assert patient.json() == {"done": "patience"}
        payee.check(home, others=[patient.extensions["tokenmesh"].contract_id])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_journal_on_a_disk_that_may_only_be_read(
    home: Home, disk: Disk, tmp_path: Path, framework: str
) -> None:
    """A payee that starts on such a disk refuses with the reason; once it may write it does, by itself."""
    payee = Payee(home, disk.path / "journal.db", tmp_path, framework)
    with Mesh("payer", home=home.path) as mesh:
        with payee.served():
            assert payee.ask(mesh)[1].status_code == 200
        disk.remount("ro")
        with payee.served():
            for _ in range(3):
                payee.refuses(mesh, "Read-only file system|may not be written|cannot be opened")
            disk.remount("rw")
            payee.check(home)


@pytest.fixture
def cli(disk: Disk) -> Cli:
    """A home on the small disk, as everybody makes one."""
    cli = Cli(disk.path / "home")
    cli("init", "--supply", "1000")
    cli("wallet", "create", "service-a", "--tokens", "100")
    return cli


def test_a_ledger_without_room(cli: Cli, disk: Disk) -> None:
    """Each command says that the disk is full, and has done nothing; `verify` does not call that damage. With
    room again the same commands do it."""
    disk.fill()
    for command in (("grant", "service-a", "5"), ("balance", "service-a"), ("verify",)):
        assert "its disk is full" in cli.refused(*command)
    assert re.search("its disk is full|No space left", cli.refused("wallet", "create", "service-b"))
    elsewhere = Cli(disk.path / "another")
    assert "No space left on device" in elsewhere.refused("init", "--supply", "10")
    disk.free()
    assert cli.total("service-a") == 100
    cli("grant", "service-a", "5")
    cli("wallet", "create", "service-b")
    assert cli.total("service-a") == 105
    cli("verify")
    elsewhere("init", "--supply", "10")
    elsewhere("verify")


def test_a_ledger_that_runs_out_of_room_while_services_use_it(disk: Disk, tmp_path: Path) -> None:
    """The payer hears that nothing is set aside, the payee works on and keeps what it is owed in its journal,
    readers read; with room again it is settled, by itself, and every token is where it should be."""
    home = Home(disk.path / "home")
    home.open_wallet("payer", tokens=100_000)
    home.open_wallet("payee")
    payee = Payee(home, tmp_path / "journal.db", tmp_path, "fastapi")
    with payee.served(), Mesh("payer", home=home.path, allowance_calls=100) as mesh:
        assert payee.ask(mesh)[1].status_code == 200
        until(lambda: home.total("payee") == PRICE, "the first call is settled")
        disk.fill()
        full = _until_full(home)
        with mesh.client("payee", url=payee.url, via="hold") as client, pytest.raises(NotFundedYet):
            client.get("/work/thing")
        answers = [payee.ask(mesh)[1] for _ in range(10)]
        assert {answer.status_code for answer in answers} == {200}, "paid out of what is set aside already"
        assert home.total("payee") == PRICE, "and readers read"
        disk.free()
        payee.check(home)
    assert "its disk is full" in full
    home.ledger.close()
    assert verify_ledger(disk.path / "home" / "ledger.db").ok


def _until_full(home: Home) -> str:
    """Use up what room the ledger's files have left: the error of the grant for which there is none."""
    for _ in range(ROOM_MAX):
        try:
            home.do("grant", {"to": "payer", "tokens": 1})
        except LedgerUnavailable as error:
            return str(error)
    raise AssertionError(f"{ROOM_MAX} grants were done on a disk that is full")


def test_a_ledger_on_a_disk_that_may_only_be_read(cli: Cli, disk: Disk) -> None:
    """What cannot be done is said to be so for that reason, and is done once it can be."""
    disk.remount("ro")
    assert "read-only" in cli.refused("grant", "service-a", "5")
    assert re.search("read-only|Read-only", cli.refused("wallet", "create", "service-b"))
    for command in (("balance", "service-a"), ("verify",)):
        assert "its folder is read-only" in cli.refused(*command)
    disk.remount("rw")
    cli("grant", "service-a", "5")
    assert cli.total("service-a") == 105
    cli("verify")
