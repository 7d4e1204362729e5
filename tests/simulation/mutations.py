"""Ways to break the product on purpose. Each must be found: what finds nothing here proves nothing elsewhere.

A mutation is a context manager that puts something wrong in the place of something right, in one function or
method of the product, and says so in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from tokenmesh.consumer.call import Call as ConsumerCall
from tokenmesh.consumer.outcomes import Again
from tokenmesh.errors import Unreachable
from tokenmesh.journal import Claimed, Ended, Running, StoredResponse, retention
from tokenmesh.journal.base import Claim
from tokenmesh.journal.file import JournalFile
from tokenmesh.journal.outbox import Outbox
from tokenmesh.journal.owners import Owner
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.provider import checks
from tokenmesh.provider.exchange import Exchange
from tokenmesh.provider.mirror import Mirror
from tokenmesh.provider.provider import Provider
from tokenmesh.settlement import settlement
from tokenmesh.treasury.allowances import Allowance
from tokenmesh_chaincode.documents import digest
from tokenmesh_chaincode.rules import ending, engine, funds, settling

FOREVER = 10**12


class Mutation(NamedTuple):
    """One way to break the product: what it does wrong, and how it is made to."""

    name: str
    sentence: str
    broken: Callable[[], AbstractContextManager[object]]


MUTATIONS: dict[str, Mutation] = {}


def mutation(sentence: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    """Take a generator that breaks something while it waits into the list."""

    def add(breaks: Callable[[], Iterator[None]]) -> None:
        name = breaks.__name__
        MUTATIONS[name] = Mutation(name, sentence, contextmanager(breaks))

    return add


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put ``make(original)`` in the place of ``owner.name``."""
    with patch.object(owner, name, make(getattr(owner, name))):
        yield


# The payee


@mutation("Whoever comes with a contract that was taken is let through to the handler.")
def skip_the_claim() -> Iterator[None]:
    def make(claim: Any) -> Any:
        def wrong(self: SqliteJournal, entry: Any, now: float) -> Any:
            result = claim(self, entry, now)
            return Claimed(0, self._owner.id) if isinstance(result, Running | Ended) else result

        return wrong

    with replaced(SqliteJournal, "claim", make):
        yield


@mutation("A contract is owed, and can be settled, as soon as it is claimed.")
def settle_before_fulfil() -> Iterator[None]:
    stub = StoredResponse(200, [], b"", digest(b""))
    fulfil = SqliteJournal.fulfil

    def make(claim: Any) -> Any:
        def wrong(self: SqliteJournal, entry: Any, now: float) -> Any:
            result = claim(self, entry, now)
            if isinstance(result, Claimed):
                fulfil(self, entry.payer, entry.jti, entry.tok, stub, None, now)
            return result

        return wrong

    with replaced(SqliteJournal, "claim", make), patch.object(SqliteJournal, "fulfil", lambda *_, **__: True):
        yield


@mutation("Nobody is ever given up, however long ago its lease ended.")
def wait_for_the_dead() -> Iterator[None]:
    with patch.object(Owner, "given_up", lambda *_: False):
        yield


@mutation("Every other process is taken for dead, whatever its lease says.")
def forget_the_lease() -> Iterator[None]:
    with patch.object(Owner, "given_up", lambda self, execute, owner, now: owner != self.id):
        yield


@mutation("A retry is answered without a look at what it asks for.")
def answer_any_request() -> Iterator[None]:
    with patch.object(Claim, "binds", lambda *_: True):
        yield


@mutation("A contract for another payee is as good as one's own.")
def accept_anothers_contract() -> Iterator[None]:
    with patch.object(checks, "addressed", lambda *_: None):
        yield


@mutation("The body may be another one than was signed.")
def accept_any_body() -> Iterator[None]:
    with patch.object(Provider, "compare", lambda *_: None):
        yield


@mutation("A contract that has expired is taken.")
def accept_the_expired() -> Iterator[None]:
    def nothing(*_: Any) -> Generator[Any, Any, None]:
        yield from ()

    with patch.object(checks, "timely", lambda *_: None), patch.object(Provider, "recall", nothing):
        yield


@mutation("The most that a contract offers is charged, whatever the handler says.")
def charge_the_most() -> Iterator[None]:
    with patch.object(Exchange, "charge", lambda *_: None):
        yield


@mutation("A handler that failed is paid like one that did not.")
def charge_a_void() -> Iterator[None]:
    def wrong(self: Provider, call: Any, reason: str, response: Any) -> Generator[Any, Any, Any]:
        return (yield from self.fulfil(call, response))

    with patch.object(Provider, "void", wrong):
        yield


@mutation("The response goes out with a receipt, and nothing is written down.")
def answer_before_storing() -> Iterator[None]:
    def wrong(self: Provider, call: Any, response: Any) -> str:
        return self._receipts.make(
            call.contract, "fulfilled", call.charged, response, call.left, self._clock()
        )

    with patch.object(Provider, "fulfil_at_once", wrong):
        yield


@mutation("What has ended is forgotten at once, and its contract can be taken again.")
def forget_what_was_answered() -> Iterator[None]:
    with patch.object(retention, "_droppable", lambda rows, *_: list(rows)):
        yield


@mutation("The journal's log is not synced when a contract is claimed or ends, though that was asked for.")
def skip_the_sync() -> Iterator[None]:
    def make(init: Any) -> Any:
        def wrong(self: JournalFile, path: Any, **options: Any) -> None:
            init(self, path, **{**options, "synchronous": "NORMAL"})

        return wrong

    with replaced(JournalFile, "__init__", make):
        yield


@mutation("A process that starts takes what waits to be settled for done.")
def lose_the_outbox() -> Iterator[None]:
    def make(init: Any) -> Any:
        def wrong(self: Outbox, file: Any, owner: Any) -> None:
            init(self, file, owner)
            with file as execute:
                execute(
                    "UPDATE marks SET value = (SELECT ifnull(max(n), 0) + 1 FROM owed) WHERE name = 'next'"
                )

        return wrong

    with replaced(Outbox, "__init__", make):
        yield


@mutation("A settlement asks for a token more than was charged.")
def settle_for_more() -> Iterator[None]:
    def make(argument: Any) -> Any:
        def wrong(batch: Any) -> Any:
            found = argument(batch)
            return {**found, "items": [[text, charged + 1] for text, charged in found["items"]]}

        return wrong

    with replaced(settlement, "settle_argument", make):
        yield


# The payer


@mutation("Every contract of a lane gets the number of the one before.")
def reuse_a_number() -> Iterator[None]:
    def make(take: Any) -> Any:
        def wrong(self: Allowance, tokens: int) -> Any:
            ticket = take(self, tokens)
            self.next_seq = 0
            return ticket

        return wrong

    with replaced(Allowance, "take", make):
        yield


@mutation("Where nobody knows how a contract ended, another one is made.")
def sign_anew_in_doubt() -> Iterator[None]:
    def make(send: Any) -> Any:
        def wrong(self: ConsumerCall) -> Generator[Any, Any, Any]:
            try:
                return (yield from send(self))
            except Again:
                if self.doubt:
                    self.doubt, self.ticket = False, None
                    self.begin_anew()
                raise

        return wrong

    with replaced(ConsumerCall, "_send", make):
        yield


@mutation("A contract whose end is unknown is said to have cost nothing.")
def call_the_unknown_unspent() -> Iterator[None]:
    with patch.object(ConsumerCall, "unknown", lambda self, why: Unreachable(why, service=self.service)):
        yield


# The rules


@mutation("An operation that was done is done again when it is sent again.")
def do_operations_twice() -> Iterator[None]:
    class Forgetful:
        def __init__(self, state: Any, key: str) -> None:
            self._state, self._key = state, key
            self.put, self.delete = state.put, state.delete

        def get(self, key: str) -> Any:
            return None if key == self._key else self._state.get(key)

    def make(once: Any) -> Any:
        def wrong(state: Any, domain: Any, wallet: Any, signed: Any, context: Any, given: Any) -> Any:
            key = f"op/{signed.body.iss}/{signed.body.jti}"
            return once(Forgetful(state, key), domain, wallet, signed, context, given)

        return wrong

    with replaced(engine, "_once", make):
        yield


@mutation("A settlement may come after all grace.")
def settle_after_expiry() -> Iterator[None]:
    with patch.object(settling, "end_of", lambda allowance: FOREVER):
        yield


@mutation("More may be charged than a contract offers.")
def charge_more_than_offered() -> Iterator[None]:
    def make(judge: Any) -> Any:
        def wrong(self: Any, index: int, contract: Any, charged: int) -> Any:
            return judge(self, index, contract._replace(tok=max(contract.tok, charged)), charged)

        return wrong

    with replaced(settling.Settlement, "_judge", make):
        yield


@mutation("What expires is gone: nothing is given back.")
def keep_what_expires() -> Iterator[None]:
    with patch.object(ending, "credit", lambda *_: None):
        yield


@mutation("What is set aside expires before its grace is over.")
def expire_early() -> Iterator[None]:
    with patch.object(ending, "end_of", lambda allowance: 0):
        yield


@mutation("A hold that has ended is given back once more.")
def refund_twice() -> Iterator[None]:
    with patch.object(funds, "_why_not_void", lambda call, hold: None if hold else "unknown_hold"):
        yield


@mutation("Of a hold for more than was charged, the rest goes to nobody.")
def keep_the_rest() -> Iterator[None]:
    def make(write: Any) -> Any:
        def wrong(self: Any) -> None:
            self._rests.clear()
            write(self)

        return wrong

    with replaced(settling.Settlement, "write", make):
        yield


@mutation("A number of an allowance can be settled any number of times.")
def settle_a_number_twice() -> Iterator[None]:
    with patch.object(settling.Spent, "use", lambda *_: None):
        yield


@mutation("What the ledger has said of wallets and policy is believed for ever.")
def never_ask_again() -> Iterator[None]:
    def make(believable: Any) -> Any:
        def wrong(self: Mirror[Any], key: str) -> Any:
            entry = self._entries.get(key)
            return believable(self, key) if entry is None else entry.value

        return wrong

    with replaced(Mirror, "believable", make):
        yield
