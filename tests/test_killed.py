"""Processes killed with SIGKILL at every point of a call: the retry ends right, and nothing is lost.

Real servers, real clients, one ledger file and one journal file. What is counted is counted outside of the
product: each run of a handler in a file of the handler's own, tokens on the ledger.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import tenacity

from support.homes import SUPPLY, TESTS, Home, served, server_command, until
from support.killed_payee import POINTS as PAYEE_POINTS
from support.killed_payer import POINTS as PAYER_POINTS
from support.servers import free_port
from tokenmesh import Mesh
from tokenmesh.errors import CallError, NotSpent
from tokenmesh.steps import run
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract

PRICE = 5
PATIENT = tenacity.Retrying(
    stop=tenacity.stop_after_delay(40),
    wait=tenacity.wait_random(0.05, 0.3),
    # Said outright: also a POST that the payee gave up, because it was killed in the middle.
    retry=tenacity.retry_if_exception_type(CallError),
)
FRAMEWORKS = ("flask", "fastapi")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.open_wallet("payer", tokens=10_000)
    home.open_wallet("payee")
    yield home
    home.ledger.close()


class Payee:
    """The environment of a payee's processes, and what they leave behind."""

    def __init__(self, home: Home, folder: Path, **environment: object) -> None:
        self.runs_file = folder / "runs"
        self.mark = folder / "killed"
        self.log = folder / "payee.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = home.environment(
            "payee",
            RUNS=self.runs_file,
            KILL_MARK=self.mark,
            TOKENMESH_LEASE_S=1,
            TOKENMESH_SETTLE_INTERVAL_S=0.1,
            **environment,
        )

    def served(self, framework: str, workers: int = 1) -> Any:
        command = server_command(framework, "support.killed_payee", self.port, workers)
        return served(command, self.environment, self.port, self.log)

    def runs(self) -> Counter[str]:
        """How often the handler ran for each contract id."""
        return Counter(self.runs_file.read_text().split()) if self.runs_file.exists() else Counter()


def check_books(home: Home, *, earned: int) -> None:
    """The payee ends with what it has earned, not more, and no token is lost or made."""
    until(lambda: home.total("payee") == earned, f"the payee has {earned}, it has {home.total('payee')}")
    supply = home.ledger.supply().result(30)
    assert supply.conserved
    assert supply.minted - supply.burned == SUPPLY
    assert home.total("payer") + home.total("payee") == 10_000


def looked_after(url: str) -> bool:
    """Somebody looks whether the service is there, as an orchestrator does all the time."""
    try:
        return httpx.get(f"{url}/is-there-anybody").status_code == 404
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("point", PAYEE_POINTS)
def test_a_payee_killed_at_any_point_is_paid_once_for_work_done_once(
    home: Home, tmp_path: Path, framework: str, method: str, point: str
) -> None:
    """The caller gets its answer in the end; no handler runs twice for one contract; one call is charged."""
    payee = Payee(home, tmp_path, KILL_AT=point)
    with payee.served(framework), Mesh("payer", home=home.path) as mesh:
        with mesh.client("payee", url=payee.url, retry=PATIENT) as client:
            response = client.request(method, "/work/thing", idempotency_key="job-1")
        assert (response.status_code, response.json()) == (200, {"done": "thing"})
        until(payee.mark.exists, f"nobody was killed at {point!r}")
        if framework == "flask":
            # Flask has no start-up: its first request, whatever it is, is when a payee begins to settle.
            until(lambda: looked_after(payee.url), "the restarted payee answers")
        check_books(home, earned=PRICE)
        assert max(payee.runs().values()) == 1
        # What was killed after the work is done comes back with the stored answer, not with more work.
        if point in ("claim", "fulfilled", "sending", "sent"):
            assert sum(payee.runs().values()) == 1
        with mesh.client("payee", url=payee.url, retry=PATIENT) as client:
            again = client.request(method, "/work/thing", idempotency_key="job-1")
        assert (again.status_code, again.content) == (200, response.content)
    check_books(home, earned=PRICE)


def test_a_post_given_up_in_the_middle_is_not_repeated_unless_the_caller_says_so(
    home: Home, tmp_path: Path
) -> None:
    """Nobody but the caller can know whether half the work, done again, does harm: it hears that nothing was
    spent, and nothing is."""
    payee = Payee(home, tmp_path, KILL_AT="running")
    with payee.served("flask"), Mesh("payer", home=home.path) as mesh:
        with mesh.client("payee", url=payee.url) as client, pytest.raises(NotSpent) as error:
            client.post("/work/thing")
        assert payee.runs() == {error.value.contract_id: 1}
        check_books(home, earned=0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_on_crash_rerun_runs_the_same_contract_again(home: Home, tmp_path: Path, framework: str) -> None:
    """With ``on_crash="rerun"`` the retry takes the claim over: one contract, two runs, one charge."""
    payee = Payee(home, tmp_path, KILL_AT="running", TOKENMESH_ON_CRASH="rerun")
    with payee.served(framework), Mesh("payer", home=home.path) as mesh:
        with mesh.client("payee", url=payee.url, retry=PATIENT) as client:
            response = client.post("/work/thing")
        assert response.json() == {"done": "thing"}
        assert list(payee.runs().values()) == [2]
        check_books(home, earned=PRICE)


@pytest.mark.parametrize("point", PAYER_POINTS)
def test_a_payer_killed_at_any_point_pays_once_when_it_tries_the_job_again(
    home: Home, tmp_path: Path, point: str
) -> None:
    """The restarted payer makes the same contract again: the work is done once and charged once."""
    payee = Payee(home, tmp_path)
    environment = home.environment("payer")
    script = [sys.executable, str(TESTS / "support" / "killed_payer.py"), payee.url]
    with payee.served("fastapi"):
        killed = subprocess.run([*script, point], env=environment, check=False, timeout=60)
        assert killed.returncode == -9
        done = subprocess.run(
            [*script, "none"], env=environment, check=True, timeout=60, capture_output=True, text=True
        )
        assert '"once"' in done.stdout
        assert list(payee.runs().values()) == [1]
        check_books(home, earned=PRICE)


def signed_contract(mesh: Mesh, path: str) -> tuple[str, str]:
    """A contract for ``GET path`` as the consumer makes it; its id and its text."""
    ticket = run(mesh.treasury.allowance_for("payee", PRICE))
    now = int(time.time())
    contract = Contract(
        dom=mesh.ledger.domain,
        iss="payer",
        aud="payee",
        op="GET /work/{what}",
        htm="GET",
        htu=path,
        dig=documents.digest(b""),
        tok=PRICE,
        jti=documents.new_id(),
        iat=now,
        exp=now + 60,
        via=ticket.via,
        lane=ticket.lane,
        seq=ticket.seq,
    )
    return contract.jti, documents.sign(contract, mesh.wallet)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_hundred_copies_at_once_on_two_worker_processes(home: Home, tmp_path: Path, framework: str) -> None:
    """The handler runs once, one charge; every copy gets the same stored response, or 409 while it runs."""
    payee = Payee(home, tmp_path)
    with payee.served(framework, workers=2), Mesh("payer", home=home.path) as mesh:
        jti, contract = signed_contract(mesh, "/work/slow")

        def send(_: int) -> httpx.Response:
            # A connection of its own each time, so that both workers get some.
            return httpx.get(f"{payee.url}/work/slow", headers={"Token-Contract": contract}, timeout=30)

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(send, range(100)))
        answers.append(send(0))
        assert set(Counter(answer.status_code for answer in answers)) <= {200, 409}
        assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
        # Signed anew once it can name the transaction; what it says of the call is always the same.
        receipts = [answer.headers["Token-Receipt"] for answer in answers if answer.status_code == 200]
        bodies = [documents.parse_receipt(receipt).body for receipt in receipts]
        assert {(body.jti, body.out, body.tok) for body in bodies} == {(jti, "fulfilled", PRICE)}
        assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 409)
        assert payee.runs() == {jti: 1}
        check_books(home, earned=PRICE)


def test_many_processes_on_one_ledger_and_one_journal(home: Home, tmp_path: Path) -> None:
    """Two services with two workers each and four paying processes on the same files: every call ends well,
    and nobody ever sees a locked database."""
    payee = Payee(home, tmp_path)
    script = (
        "import sys; from tokenmesh import default_mesh\n"
        "with default_mesh().client('payee', url=sys.argv[1]) as client:\n"
        "    for number in range(50):\n"
        "        assert client.get(f'/work/{number}').status_code == 200\n"
    )
    with payee.served("flask", workers=2):
        command = [sys.executable, "-c", script, payee.url]
        payers = [
            subprocess.Popen(command, env=home.environment("payer"), stderr=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        said = [payer.communicate(timeout=100)[1] for payer in payers]
        assert [payer.returncode for payer in payers] == [0] * 4, "\n".join(said)
        assert sum(payee.runs().values()) == 200
        check_books(home, earned=200 * PRICE)
    assert "locked" not in payee.log.read_text()
