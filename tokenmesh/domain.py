"""One domain of a Mesh: a ledger, and what stands on it for one service.

Every part is opened when it is first used, and once. Nothing here is carried across a fork: the Mesh makes
its domains anew in the child.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from tokenmesh.config import Settings
from tokenmesh.consumer import Consumer
from tokenmesh.errors import ConfigError, LedgerUnavailable
from tokenmesh.identity import Wallet
from tokenmesh.journal import Journal, open_journal
from tokenmesh.ledger import Ledger, open_ledger
from tokenmesh.places import Place, journal_beside, without_secrets
from tokenmesh.provider import Provider
from tokenmesh.settlement import Settlement
from tokenmesh.telemetry import log
from tokenmesh.treasury import Treasury

T = TypeVar("T")

AGAIN_S = 1.0
"""How soon after it could not be opened a domain is tried again, if there is traffic."""

_log = log("tokenmesh.domain")


class Parts:
    """Things made when they are first asked for, once, however many threads ask; none after the end."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}
        self.closed = False

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The part called ``name``. :class:`ConfigError` once this is closed."""
        part = self._made.get(name)
        if part is None:
            with self._lock:
                part = self._made.get(name)
                if part is None:
                    if self.closed:
                        raise ConfigError(f"this Mesh is closed: its {name} cannot be used any more")
                    part = self._made[name] = make()
        return cast("T", part)

    def close(self) -> dict[str, Any] | None:
        """Make nothing any more; what was made, or None if this was closed before."""
        with self._lock:
            if self.closed:
                return None
            self.closed = True
            made, self._made = self._made, {}
        return made


class Domain:
    """A ledger, and one service's wallet, journal, provider, settlement, treasury and consumer on it.

    ``settings`` are those of the Mesh. ``place`` says where this domain is; None: it is the Mesh's own, with
    the ledger, the home and the journal of the settings.
    """

    def __init__(self, settings: Settings, place: Place | None = None) -> None:
        self.settings = settings if place is None else settings.at(place)
        self._place = place
        self._parts = Parts()

    def __repr__(self) -> str:
        return f"<Domain {without_secrets(self.settings.ledger)}>"

    @property
    def service(self) -> str:
        """The name of this service's wallet; :class:`ConfigError` if none was given."""
        if not self.settings.service:
            raise ConfigError(
                "this process has no wallet: set TOKENMESH_SERVICE to its name, or give Mesh(service=...)"
            )
        return self.settings.service

    @property
    def id(self) -> str:
        """The id of the ledger's first block, which every document for this domain names."""
        return self.ledger.domain

    @property
    def wallet(self) -> Wallet:
        """The identity that signs for this service."""
        return self._parts.get("wallet", lambda: Wallet.load(self.settings.home, self.service))

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened with this service's wallet."""
        return self._parts.get(
            "ledger", lambda: open_ledger(self.settings.ledger, self.wallet, self.settings)
        )

    @property
    def journal(self) -> Journal:
        """What this service remembers of the contracts it took for this ledger."""
        return self._parts.get("journal", self._open_journal)

    @property
    def provider(self) -> Provider:
        """Takes contracts for this ledger. The settlement of what they owe runs from now on."""
        return self._parts.get("provider", self._open_provider)

    @property
    def settlement(self) -> Settlement:
        """Carries what is owed to the ledger, on a thread of its own."""
        return self._parts.get("settlement", self._open_settlement)

    @property
    def treasury(self) -> Treasury:
        """Sets this service's tokens aside for its calls."""
        return self._parts.get("treasury", lambda: Treasury(self.wallet, self.ledger, self.settings))

    @property
    def consumer(self) -> Consumer:
        """Makes contracts and calls that are paid on this ledger."""
        return self._parts.get(
            "consumer", lambda: Consumer(self.wallet, self.ledger, self.treasury, self.settings)
        )

    def _open_journal(self) -> Journal:
        url = self.settings.journal
        if self._place is not None and not self._place.journal:
            url = journal_beside(url, self.id, self.settings.ledger)
        return open_journal(url, self.settings)

    def _open_provider(self) -> Provider:
        provider = Provider(self.wallet, self.ledger, self.journal, settings=self.settings)
        self.settlement.start()
        return provider

    def _open_settlement(self) -> Settlement:
        return Settlement(
            self.journal,
            self.ledger,
            self.wallet,
            settings=self.settings,
            upkeep=self.treasury.look_after,
        )

    def close(self, seconds: float) -> None:
        """Settle what is owed for at most so many seconds, then close everything."""
        parts = self._parts.close() or {}
        if "settlement" in parts:
            parts["settlement"].stop(seconds)
        for name in ("treasury", "journal", "ledger"):
            if name in parts:
                parts[name].close()


class Opening:
    """Opens the provider of a domain in the background, so that requests for other domains do not wait.

    Called, it gives the domain's id and its provider, or the error for which they are not there (yet). What
    could not be opened is tried again by a later call, at the earliest after ``AGAIN_S``.
    """

    def __init__(self, domain: Domain, clock: Callable[[], float] = time.monotonic) -> None:
        self._domain = domain
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at = float("-inf")
        self._said = ""
        self._attempt: Future[tuple[str, Provider]] | None = None

    def __call__(self) -> tuple[str, Provider] | BaseException:
        attempt = self.begin()
        if not attempt.done():
            where = without_secrets(self._domain.settings.ledger)
            return LedgerUnavailable(f"the ledger {where} is being opened and has not answered yet")
        # Given and not raised: an error that is raised for every request would grow with each of them.
        return attempt.exception() or attempt.result()

    def begin(self) -> Future[tuple[str, Provider]]:
        """The attempt that is under way or has succeeded, or failed a moment ago; else a new one."""
        with self._lock:
            attempt = self._attempt
            if attempt is not None and (
                not attempt.done() or attempt.exception() is None or self._clock() - self._failed_at < AGAIN_S
            ):
                return attempt
            attempt = self._attempt = Future()
        opening = threading.Thread(
            target=self._open, args=(attempt,), name="tokenmesh-open-domain", daemon=True
        )
        opening.start()
        return attempt

    def _open(self, attempt: Future[tuple[str, Provider]]) -> None:
        try:
            attempt.set_result((self._domain.id, self._domain.provider))
        except Exception as error:
            self._failed_at = self._clock()
            if str(error) != self._said:  # once, not with every attempt
                self._said = str(error)
                _log.warning("no contracts for %r can be taken yet: %s", self._domain, error)
            attempt.set_exception(error)
