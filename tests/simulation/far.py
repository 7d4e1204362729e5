"""A journal that lies across a network: the same journal, whose every answer is a future.

A request reaches it after a while, and the answer takes a while too. So a process can be killed, or fall
asleep, when its claim has been made and before it knows.
"""

from __future__ import annotations

from concurrent.futures import Future
from random import Random
from typing import Any

from simulation.world import Process
from tokenmesh.errors import TokenmeshError
from tokenmesh.journal.base import Journal
from tokenmesh.journal.sqlite import SqliteJournal

WAY_S_MAX = 0.03
METHODS = (
    "find",
    "claim",
    "fulfil",
    "void",
    "heartbeat",
    "allowance_used",
    "take_batch",
    "keep_operation",
    "finish_batch",
    "release_batch",
    "prune",
    "stats",
)


def far(journal: SqliteJournal, process: Process, chance: Random) -> Journal:
    """``journal``, as far away as a server."""

    def method(name: str) -> Any:
        do = getattr(journal, name)

        def ask(self: Any, *arguments: Any, **options: Any) -> Future[Any]:
            answer: Future[Any] = Future()

            def arrive() -> None:
                try:
                    value = do(*arguments, **options)
                except TokenmeshError as error:
                    failure = error
                    process.after(chance.uniform(0, WAY_S_MAX), lambda: answer.set_exception(failure))
                else:
                    process.after(chance.uniform(0, WAY_S_MAX), lambda: answer.set_result(value))

            process.after(chance.uniform(0, WAY_S_MAX), arrive)
            return answer

        return ask

    members = {name: method(name) for name in METHODS}
    members |= {"owner": property(lambda self: journal.owner), "close": lambda self: journal.close()}
    return type("FarJournal", (Journal,), members)()
