"""How often the ledger is asked for what it may not have.

A wallet, an allowance or a hold that a payee does not know may have come about a moment ago, so the ledger is
asked; but whoever makes up names must not be able to turn every request into a question. So many are asked at
once and so many a second, and nothing that the ledger has is counted: a payer that is found never notices.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeAlias

from tokenmesh.config import Settings
from tokenmesh.ledger.base import Ledger, WalletRecord
from tokenmesh.provider.checks import Fault, Payer
from tokenmesh.provider.mirror import MISSING, REFRESH_AT, Mirror
from tokenmesh.steps import Steps

AT_ONCE_S = 5
"""The questions of so many seconds may come at once."""
LISTED_S = 5.0
"""How long a list of all wallets is believed; one in use is asked for anew long before (``REFRESH_AT``)."""
LISTING_PART_MAX = 0.05
"""The part of the time for which the ledger is kept busy with lists: with many wallets they are rarer."""
UNASKED_RETRY_S = 2.0
"""After how long what has come about just now is known here, if the ledger was not asked for it."""

Listed: TypeAlias = Mapping[str, frozenset[str]]
"""The thumbprints of all certificates of all wallets."""


class Ration:
    """``a_second`` questions a second; those of ``AT_ONCE_S`` seconds at once, after as long without any.

    Any number of threads may use one: where two are in each other's way, a question more or less is asked.
    """

    __slots__ = ("_a_second", "_left", "_now")

    def __init__(self, a_second: float, now: float) -> None:
        self._a_second = a_second
        self._left = a_second * AT_ONCE_S
        self._now = now

    def is_used_up(self, now: float) -> bool:
        """Whether there is none left at ``now``."""
        past, self._now = now - self._now, now
        if past > 0:  # a clock that is set back gives nothing, and takes nothing
            self._left = min(self._left + past * self._a_second, self._a_second * AT_ONCE_S)
        return self._left < 1

    def take(self, now: float) -> bool:
        """Take one; False if there is none left."""
        if self.is_used_up(now):
            return False
        self._left -= 1
        return True

    def owe(self, now: float) -> None:
        """Take one that may not be there: the next one to come makes up for it."""
        self.is_used_up(now)
        self._left = max(self._left, 0) - 1

    def give_back(self) -> None:
        """One was taken for what the ledger has."""
        self._left += 1


class Misses:
    """A ration for each payer that has named what the ledger does not have. For one that has not, or has
    named something since that was found, the ledger is asked without any."""

    def __init__(self, a_second: float, size_max: int) -> None:
        self._a_second = a_second
        self._size_max = size_max
        self._rations: OrderedDict[str, Ration] = OrderedDict()

    def may_ask(self, payer: str, now: float) -> bool:
        """Whether to ask for something that ``payer`` names."""
        ration = self._rations.get(payer)
        return ration is None or ration.take(now)

    def is_used_up(self, payer: str, now: float) -> bool:
        """Whether :meth:`may_ask` would say no."""
        ration = self._rations.get(payer)
        return ration is not None and ration.is_used_up(now)

    def found(self, payer: str) -> None:
        """The ledger has it."""
        self._rations.pop(payer, None)

    def missed(self, payer: str, now: float) -> None:
        """The ledger does not have it. That counts as much again as to have asked: who is made to wait for
        each answer, and comes again at once, has to run out of it too."""
        ration = self._rations.get(payer)
        if ration is not None:
            ration.owe(now)
        else:
            self._rations[payer] = Ration(self._a_second, now)
            while len(self._rations) > self._size_max:
                try:
                    self._rations.popitem(last=False)
                except KeyError:
                    return  # another thread was faster


class Strangers:
    """Signers that are not known, of which each may be made up: it takes nobody's key to name one.

    Beyond the ration, a list of all wallets says which are worth a question. It is asked for once a second at
    most, however many come.
    """

    def __init__(
        self, ledger: Ledger, payers: Mirror[Payer | None], settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._payers = payers
        self._clock = clock
        self._ration = Ration(settings.unknown_asked_max, clock())
        self._listed: Mirror[Listed] = Mirror(
            self._list, _listed, clock, believe_s=LISTED_S, size_max=1, wait_s=settings.ledger_wait_s
        )

    def at_once(self, name: str, x5t: str) -> Fault | None:
        """The fault of a wallet that is not known to have a certificate, if that takes no waiting."""
        if self._payers.is_asked(name) or self._is_worth_asking(name):
            return None
        listed = self._listed.believable("")
        if listed is MISSING or x5t in listed.get(name, ()):
            return None
        return _unlisted(name, x5t, listed)

    def ask(self, name: str, x5t: str) -> Steps[Payer | Fault | None]:
        """The wallet, as the ledger says it now."""
        payers = self._payers
        rationed = not payers.is_asked(name)
        if rationed and not (self._is_worth_asking(name) and self._ration.take(self._clock())):
            listed = yield from self._listed.get("")
            if x5t not in listed.get(name, ()):
                return _unlisted(name, x5t, listed)
            rationed = False
        payer = yield from (payers.get(name) if payers.at_hand(name) is MISSING else payers.again(name))
        if rationed and payer is not None and x5t in payer.keys:
            self._ration.give_back()
        return payer

    def _is_worth_asking(self, name: str) -> bool:
        """Nobody has just asked, and there is some of the ration left."""
        return not (self._ration.is_used_up(self._clock()) or self._payers.is_doubted(name))

    def _list(self, _: str) -> Future[list[WalletRecord]]:
        """Ask for all wallets. The longer that takes, the less often it is done."""
        asked_at = self._clock()
        answer = self._ledger.wallets()

        def answered(_: Future[list[WalletRecord]]) -> None:
            took = self._clock() - asked_at
            self._listed.believe_s = max(LISTED_S, took / LISTING_PART_MAX / REFRESH_AT)

        answer.add_done_callback(answered)
        return answer


def _listed(wallets: list[WalletRecord]) -> Listed:
    return {one.name: frozenset(item.x5t for item in one.certificates) for one in wallets}


def _unlisted(name: str, x5t: str, listed: Listed) -> Fault:
    """The fault of a signer that is not on the list, which may be a second old."""
    lately = "as the ledger said a moment ago: many unknown ones come, and it is not asked for each"
    if name in listed:
        detail = f"{name} has no certificate with thumbprint {x5t}, {lately}."
        return Fault("certificate_unknown", detail, UNASKED_RETRY_S)
    return Fault("wallet_unknown", f"There is no wallet {name} on this ledger, {lately}.", UNASKED_RETRY_S)
