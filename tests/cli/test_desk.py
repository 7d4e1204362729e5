"""The desk: what is asked for happens once, whatever becomes of the answers, and refusals say what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from support.cli import Cli
from tokenmesh.cli import desk as desk_module
from tokenmesh.cli.desk import Desk, Fault, answer
from tokenmesh.errors import LedgerOutcomeUnknown, LedgerUnavailable, OperationRefused
from tokenmesh.identity import Wallet
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.embedded import EmbeddedLedger


class LosingLedger(EmbeddedLedger):
    """Does what it is asked for, and loses the first answers."""

    lose = 0
    lose_after: int | None = None
    """How many operations it takes before it is gone for good."""
    silent = False
    """It is gone without a word."""
    asked: list[str]

    def submit(self, operations: Sequence[str]) -> Future[list[Result]]:
        if self.lose_after == len(self.asked):
            if self.silent:
                return Future()
            raise LedgerUnavailable("the ledger is gone")
        done = super().submit(operations)
        self.asked.extend(operations)
        if self.lose:
            self.lose -= 1
            done.result()
            lost: Future[list[Result]] = Future()
            lost.set_exception(LedgerOutcomeUnknown("no answer came"))
            return lost
        return done


@contextmanager
def losing(cli: Cli, lose: int) -> Iterator[Desk]:
    governance = Wallet.load(cli.home, "governance")
    with LosingLedger(cli.ledger, governance) as ledger:
        ledger.lose = lose
        ledger.asked = []
        yield Desk(ledger, governance, time.time)


def test_an_operation_whose_answer_is_lost_is_asked_for_again_and_happens_once(cli: Cli) -> None:
    with losing(cli, desk_module.SUBMIT_ATTEMPTS_MAX - 1) as desk:
        assert desk.do("mint", {"tokens": 7}).outcome.ok
        assert isinstance(desk.ledger, LosingLedger)
        assert len(desk.ledger.asked) == desk_module.SUBMIT_ATTEMPTS_MAX
        assert len(set(desk.ledger.asked)) == 1
    assert cli.spendable("governance") == 1007


def test_after_so_many_lost_answers_the_outcome_is_said_to_be_unknown(cli: Cli) -> None:
    with losing(cli, desk_module.SUBMIT_ATTEMPTS_MAX) as desk, pytest.raises(LedgerOutcomeUnknown):
        desk.do("mint", {"tokens": 7})
    assert cli.spendable("governance") == 1007


@pytest.mark.parametrize("silent", [False, True])
def test_a_change_that_cannot_be_put_in_force_just_now_has_been_made(
    cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """The ledger goes away between the two, or says nothing: who asked for it is told what to do, and the
    change holds."""
    cli("wallet", "create", "service-a")
    with losing(cli, 0) as desk:
        assert isinstance(desk.ledger, LosingLedger)
        if silent:
            monkeypatch.setattr(desk_module, "ANSWER_S_MAX", 0.5)
            desk.ledger.silent = True
        desk.ledger.lose_after = 1
        assert desk.do("freeze", {"name": "service-a"}).outcome.ok
    assert "'tokenmesh enforce'" in capsys.readouterr().err
    shown = cli.json("wallet", "show", "service-a")
    assert shown["frozen_at"] is not None
    assert shown["frozen_since"] is None
    assert "the freeze of service-a" in cli("enforce")


def test_a_ledger_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "ANSWER_S_MAX", 0.01)
    silent: Future[None] = Future()
    with pytest.raises(Fault, match="may still happen"):
        answer(silent)


def test_what_the_ledger_raises_is_what_the_caller_gets() -> None:
    failed: Future[None] = Future()
    failed.set_exception(LedgerUnavailable("the disk is full"))
    with pytest.raises(LedgerUnavailable, match="the disk is full"):
        answer(failed)


def test_a_refusal_says_what_why_and_what_to_do(cli: Cli) -> None:
    with losing(cli, 0) as desk, pytest.raises(OperationRefused) as caught:
        desk.do("grant", {"to": "nobody", "tokens": 5})
    assert caught.value.code == "unknown_wallet"
    assert str(caught.value) == (
        "grant is refused (unknown_wallet): no such wallet is registered (nobody); "
        "'tokenmesh wallet list' shows those there are"
    )


def test_gathering_sweeps_only_as_much_as_is_needed(cli: Cli) -> None:
    cli("wallet", "create", "second", "--governor", "--tokens", "300")
    second = Wallet.load(cli.home, "second")
    with EmbeddedLedger(cli.ledger, second) as ledger:
        desk = Desk(ledger, second, time.time)
        desk.gather(300)
        assert cli.spendable("second") == 300
        cli("grant", "second", "50")
        desk.gather(300)
        assert (cli.spendable("second"), cli.total("second")) == (300, 350)
        with pytest.raises(Fault, match="second has 350 tokens to spend and needs 400: 'tokenmesh mint 50'"):
            desk.gather(400)
