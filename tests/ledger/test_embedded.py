"""The embedded ledger: all that every ledger must do, and what comes with a file of its own.

Many processes, killed ones, full disks: ``test_processes.py``. Edits by hand: ``test_verify.py``.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from contextlib import closing

import pytest
from ledger.ledger_suite import LedgerSuite
from ledger.suite_private import Private
from ledger.suite_tools import PAYEE, PAYER

from support.homes import until
from support.ledgers import GOVERNANCE, Domain, make_ledger, now_of
from support.wallets import Clock, Wallets
from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError, LedgerBusy, LedgerError, LedgerUnavailable
from tokenmesh.ledger import open_ledger, store
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.store import SCHEMA_VERSION
from tokenmesh.ledger.verify import verify_ledger
from tokenmesh_chaincode.rules import default_policy

SOON = 10.0


class TestEmbedded(LedgerSuite, Private):
    """The shared suite, on a file, with a clock that the test holds."""

    @pytest.fixture
    def new_domain(self, tmp_path):
        domains = []

        def new(tokens=None, policy=None):
            directory = tmp_path / f"domain-{len(domains)}"
            directory.mkdir()
            domains.append(make_ledger(directory, tokens, policy=policy, clock=Clock()))
            return domains[-1]

        yield new
        for domain in domains:
            domain.ledger.close()
            # Whatever a test has done, the ledger holds.
            assert verify_ledger(domain.ledger.path).findings == []


@pytest.fixture
def domain(tmp_path):
    domain = make_ledger(tmp_path, clock=Clock())
    yield domain
    domain.ledger.close()


def transfer(domain: Domain, tokens: int = 1, **claims: object) -> str:
    return domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": tokens}, **claims)


class Busy:
    """Somebody else who holds the file's write lock."""

    def __init__(self, domain: Domain) -> None:
        self._connection = sqlite3.connect(domain.ledger.path, isolation_level=None)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


# --- opening and creating -------------------------------------------------------------------------------


def test_what_was_written_is_there_when_it_is_opened_again(domain):
    """Balances, history and idempotency outlive the process's ledger object."""
    text = transfer(domain, 10)
    (result,) = domain.submit(text)
    domain.ledger.close()
    with EmbeddedLedger(domain.ledger.path, domain[PAYEE], clock=domain.clock) as again:
        assert again.domain == domain.ledger.domain
        assert now_of(again.balance(PAYER)).spendable == 990
        assert now_of(again.submit([text])) == [result]


def test_without_a_wallet_a_ledger_is_for_reading(domain):
    """Questions are answered; a submission is an error that says why."""
    with EmbeddedLedger(domain.ledger.path) as reading:
        assert now_of(reading.balance(PAYER)).spendable == 1_000
        with pytest.raises(LedgerError, match="without a wallet"):
            reading.submit([transfer(domain)]).result(SOON)


def test_there_must_be_a_ledger_to_open(tmp_path):
    """No file, an empty one, another database, a later format: each is said, with what to do."""
    with pytest.raises(ConfigError, match="tokenmesh init"):
        EmbeddedLedger(tmp_path / "nothing.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(ConfigError, match="not a tokenmesh ledger"):
        EmbeddedLedger(tmp_path / "empty.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE x (y)")
    with pytest.raises(ConfigError, match="not a tokenmesh ledger"):
        EmbeddedLedger(tmp_path / "other.db")
    (tmp_path / "text.db").write_text("no database at all " * 100)
    with pytest.raises(LedgerUnavailable, match="damaged"):
        EmbeddedLedger(tmp_path / "text.db")
    domain = make_ledger(tmp_path)
    domain.ledger.close()
    with closing(sqlite3.connect(domain.ledger.path)) as later:
        later.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigError, match=f"format {SCHEMA_VERSION + 1}"):
        EmbeddedLedger(domain.ledger.path)


def test_a_ledger_is_begun_once(tmp_path):
    """Of ten that begin one at the same path at the same time, one does; its file is whole."""
    wallets = Wallets(tmp_path)
    governance = wallets.new(GOVERNANCE, "governor")
    start = threading.Barrier(10)
    made: list[str] = []
    errors: list[str] = []

    def create() -> None:
        start.wait(SOON)
        try:
            with EmbeddedLedger.create(
                tmp_path / "ledger.db",
                governance,
                ca=[wallets.authority.certificate_pem],
                governors={GOVERNANCE: governance.certificate_pem},
                policy=default_policy(),
            ) as ledger:
                made.append(ledger.domain)
        except ConfigError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=create) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert (len(made), len(errors)) == (1, 9)
    assert all("already" in error for error in errors)
    with EmbeddedLedger(tmp_path / "ledger.db") as ledger:
        assert ledger.domain == made[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ca", "ledger.db"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": {**default_policy(), "grace_s": -1}}, "grace_s"),
        ({"policy": {**default_policy(), "threshold": 2}}, "threshold"),
        ({"governors": {}}, "governors"),
        ({"ca": []}, "authorities"),
        ({"signer": "service-a"}, "none of its governors"),
    ],
)
def test_a_ledger_that_could_not_be_governed_is_not_begun(tmp_path, change, message):
    """The error says what is wrong, and no file is left behind."""
    wallets = Wallets(tmp_path)
    governance = wallets.new(GOVERNANCE, "governor")
    wallets.new("service-a")
    arguments = {
        "ca": [wallets.authority.certificate_pem],
        "governors": {GOVERNANCE: governance.certificate_pem},
        "policy": default_policy(),
        **change,
    }
    signer = wallets[arguments.pop("signer", GOVERNANCE)]
    with pytest.raises(ConfigError, match=message):
        EmbeddedLedger.create(tmp_path / "ledger.db", signer, **arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["ca"]


def test_a_ledger_is_not_begun_where_there_is_no_directory(tmp_path):
    wallets = Wallets(tmp_path)
    governance = wallets.new(GOVERNANCE, "governor")
    with pytest.raises(LedgerUnavailable):
        EmbeddedLedger.create(
            tmp_path / "nowhere" / "ledger.db",
            governance,
            ca=[wallets.authority.certificate_pem],
            governors={GOVERNANCE: governance.certificate_pem},
            policy=default_policy(),
        )


def test_a_ledger_is_opened_by_its_url(domain, monkeypatch):
    """Absolute and relative paths, and with settings; an unknown scheme is told those there are."""
    path = domain.ledger.path
    settings = Settings(ledger_queue_max=1, ledger_busy_s_max=0.5)
    with open_ledger(f"sqlite:///{path}", domain[PAYER], settings) as ledger:
        assert ledger.domain == domain.ledger.domain
    monkeypatch.chdir(path.parent)
    with open_ledger("sqlite:///ledger.db", None) as ledger:
        assert ledger.domain == domain.ledger.domain
    for url in ("nonsense", "gopher://somewhere", ""):
        with pytest.raises(ConfigError, match="sqlite://"):
            open_ledger(url, None)
    for url in ("sqlite:///", "sqlite://host/ledger.db"):
        with pytest.raises(ConfigError, match="sqlite:///path"):
            open_ledger(url, None)


# --- who may write --------------------------------------------------------------------------------------


def test_only_a_registered_wallet_writes(domain):
    """Its transactions could not be verified: refused until it is registered, with what to do."""
    stranger = domain.wallets.new("stranger")
    with EmbeddedLedger(domain.ledger.path, stranger, clock=domain.clock) as ledger:
        with pytest.raises(LedgerUnavailable, match="not registered"):
            ledger.submit([transfer(domain)]).result(SOON)
        arg = {"name": "stranger", "cert": stranger.certificate_pem, "role": "service"}
        domain.do(GOVERNANCE, "register", arg)
        assert now_of(ledger.submit([transfer(domain)]))[0].outcome.ok


def test_a_rotated_wallet_writes_with_either_certificate_while_both_are_good(domain):
    """The old certificate for the overlap, the new one from now on; all of it verifies."""
    old = domain[PAYER]
    new = domain.wallets.new(PAYER)
    overlap_s = now_of(domain.ledger.policy())["rotation_overlap_s"]
    with (
        EmbeddedLedger(domain.ledger.path, old, clock=domain.clock) as before,
        EmbeddedLedger(domain.ledger.path, new, clock=domain.clock) as after,
    ):
        with pytest.raises(LedgerUnavailable, match="certificate"):
            after.submit([transfer(domain)]).result(SOON)
        domain.do(old, "rotate", {"name": PAYER, "cert": new.certificate_pem})
        for ledger in (before, after):
            assert now_of(ledger.submit([transfer(domain)]))[0].outcome.ok
        domain.clock.forward(overlap_s + 1)
        with pytest.raises(LedgerUnavailable, match="certificate"):
            before.submit([transfer(domain)]).result(SOON)
        assert now_of(after.submit([transfer(domain)]))[0].outcome.ok
    assert verify_ledger(domain.ledger.path).ok


# --- time -----------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_does_no_harm(domain):
    """Transactions never become older than those before them; work goes on, and the ledger holds."""
    clock = domain.clock
    domain.submit(transfer(domain))
    clock.forward(-30)
    assert domain.submit(transfer(domain))[0].outcome.ok
    clock.forward(-3_600)
    (late,) = domain.submit(transfer(domain))
    assert (late.outcome.code, late.tx_id) == ("expired", "")
    clock.forward(3_650)
    assert domain.submit(transfer(domain))[0].outcome.ok
    times = [one.time for one in now_of(domain.ledger.transactions())]
    assert times == sorted(times)
    assert verify_ledger(domain.ledger.path).ok


# --- batches, and waiting for others --------------------------------------------------------------------


def queued(domain: Domain) -> int:
    """Submissions that are read and wait for the writer."""
    return domain.ledger._batcher._writer._queue.qsize()


def test_what_gathers_while_others_write_becomes_one_transaction(domain):
    """Group commit: four hundred submissions, one wait for the file, a few transactions."""
    with Busy(domain):
        futures = [domain.ledger.submit([transfer(domain)]) for _ in range(200)]
        futures += [domain.ledger.submit([transfer(domain)]) for _ in range(200)]
        # Until all of them wait for the file: on a busy machine some are still being read.
        until(lambda: sum(future.running() for future in futures) + queued(domain) == 400, "all are read")
    transactions = Counter(now_of(future)[0].tx_id for future in futures)
    assert sum(transactions.values()) == 400
    assert len(transactions) <= 4
    assert domain.balance(PAYER).spendable == 600


def test_questions_do_not_wait_for_writers(domain):
    """While the file is locked for writing and operations queue, every question is answered."""
    with Busy(domain):
        future = domain.ledger.submit([transfer(domain)])
        assert domain.ledger.balance(PAYER).result(SOON).spendable == 1_000
        assert len(domain.ledger.wallets().result(SOON)) == 3
        assert not future.done()
    assert now_of(future)[0].outcome.ok


def test_waiting_for_others_is_bounded(tmp_path):
    """After busy_s_max the submission fails with certainty, and the next one works."""
    domain = make_ledger(tmp_path, busy_s_max=0.2)
    text = transfer(domain)
    with Busy(domain), pytest.raises(LedgerUnavailable, match="ledger_busy_s_max"):
        domain.ledger.submit([text]).result(SOON)
    assert domain.balance(PAYER).spendable == 1_000
    assert domain.submit(text)[0].outcome.ok
    domain.ledger.close()


def test_what_may_wait_is_bounded(tmp_path):
    """Past queue_max a caller gets LedgerBusy at once; those who wait are served."""
    domain = make_ledger(tmp_path, queue_max=10)
    with Busy(domain):
        futures = [domain.ledger.submit([transfer(domain)]) for _ in range(30)]
        refused = [future for future in futures if future.done()]
        assert len(refused) >= 20
        assert all(isinstance(future.exception(), LedgerBusy) for future in refused)
    done = [now_of(future)[0].outcome.ok for future in futures if future not in refused]
    assert done == [True] * (30 - len(refused))
    domain.ledger.close()


def test_async_code_awaits_the_same_futures(domain):
    """Submitting and asking from an event loop, many at once."""

    async def main() -> list[bool]:
        texts = [transfer(domain) for _ in range(20)]
        results = await asyncio.gather(*(asyncio.wrap_future(domain.ledger.submit([text])) for text in texts))
        balance = await asyncio.wrap_future(domain.ledger.balance(PAYER))
        assert balance.spendable == 980
        return [result.outcome.ok for (result,) in results]

    assert asyncio.run(main()) == [True] * 20


def test_a_transaction_is_on_the_disk_before_it_is_answered(domain):
    """SQLite is told to sync every commit (2, FULL), unless the settings say otherwise (1, NORMAL)."""
    domain.submit(transfer(domain))
    (synchronous,) = domain.ledger._writer._open().execute("PRAGMA synchronous").fetchone()
    assert synchronous == 2
    with EmbeddedLedger(domain.ledger.path, domain[PAYER], synchronous="NORMAL") as other:
        (synchronous,) = other._writer._open().execute("PRAGMA synchronous").fetchone()
        assert synchronous == 1


# --- the file under our feet ----------------------------------------------------------------------------


def test_a_ledger_that_is_gone_or_replaced_is_not_used(domain, tmp_path, monkeypatch):
    """Removed: unavailable, though SQLite would go on writing to what nobody finds. Another ledger in its
    place: unavailable, for nothing may be mixed up."""
    monkeypatch.setattr(store, "LOOK_INTERVAL_S", 0)
    path = domain.ledger.path
    domain.submit(transfer(domain))
    for file in path.parent.glob("ledger.db*"):
        file.unlink()
    for future in (domain.ledger.submit([transfer(domain)]), domain.ledger.policy()):
        with pytest.raises(LedgerUnavailable, match="not there any more"):
            future.result(SOON)
    other = tmp_path / "other"
    other.mkdir()
    make_ledger(other).ledger.close()
    (other / "ledger.db").rename(path)
    for future in (domain.ledger.submit([transfer(domain)]), domain.ledger.policy()):
        with pytest.raises(LedgerUnavailable, match="replaced"):
            future.result(SOON)


def test_a_damaged_file_is_said_to_be_damaged(tmp_path):
    """Not a crash, not a wrong answer: unavailable, and which command says more."""
    domain = make_ledger(tmp_path)
    path = domain.ledger.path
    domain.ledger.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(LedgerUnavailable, match="tokenmesh verify"):
        now_of(EmbeddedLedger(path, domain[PAYER]).submit([transfer(domain)]))
