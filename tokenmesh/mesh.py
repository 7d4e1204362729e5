"""The Mesh: one service's place in the token economy, and where all parts are put together.

Nothing is opened before it is needed: importing a module with priced handlers touches no file, reading the
offers of a service needs no consumer, and a process that only pays has no journal. What is opened is opened
once, and not carried across a fork: a pre-forking server's workers each open their own.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import wait
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, cast

from tokenmesh.config import Settings
from tokenmesh.consumer import Consumer
from tokenmesh.domain import Domain, Opening, Parts
from tokenmesh.errors import ConfigError, JournalError, LedgerError
from tokenmesh.identity import Wallet
from tokenmesh.journal import Journal
from tokenmesh.ledger import Ledger
from tokenmesh.places import others, place_of
from tokenmesh.provider import AnyProvider, Providers
from tokenmesh.settlement import Settlement
from tokenmesh.treasury import Treasury

CLIENTS = "tokenmesh.clients"


class Mesh:
    """One service's wallet, ledger and journal, and what stands on them.

    ``service`` is the name of its wallet, ``home`` the directory with its keys, ``ledger`` and ``journal``
    are urls; what is left out comes from ``TOKENMESH_SERVICE``, ``TOKENMESH_HOME``, ``TOKENMESH_LEDGER`` and
    ``TOKENMESH_JOURNAL``. ``domains`` maps patterns of services (``bank-*``) to the ledgers that they are
    paid on, where that is not ``ledger``. Every other setting of :class:`tokenmesh.config.Settings` can be
    given by its name.

    Raises :class:`ConfigError` for settings that cannot be right. The parts open when they are first used,
    and say what is wrong with them then: :class:`IdentityError`, :class:`LedgerError`,
    :class:`JournalError`.
    """

    def __init__(
        self,
        service: str | None = None,
        *,
        home: str | Path | None = None,
        ledger: str | None = None,
        journal: str | None = None,
        **settings: Any,
    ) -> None:
        self.settings = Settings.from_environment(
            service=service, home=home, ledger=ledger, journal=journal, **settings
        )
        self._begin()
        _MESHES.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._parts = Parts()
        self._closers: list[Callable[[], object]] = []
        self._own = Domain(self.settings)
        places = others(self.settings.domains, self.settings.ledger)
        self._others = {place: Domain(self.settings, place) for place in places}

    # Domains

    @property
    def domains(self) -> tuple[Domain, ...]:
        """All domains in which this service is paid; that of ``ledger`` is the first."""
        return (self._own, *self._others.values())

    def domain(self, service: str) -> Domain:
        """The domain in which ``service`` is paid: the first pattern of ``domains`` that fits, else the own.

        It has a ``wallet``, ``ledger``, ``treasury`` and ``consumer`` as the Mesh has those of its own.
        """
        place = place_of(self.settings.domains, service)
        return self._own if place is None else self._others.get(place, self._own)

    # The parts

    @property
    def service(self) -> str:
        """The name of this service's wallet; :class:`ConfigError` if none was given."""
        return self._own.service

    @property
    def wallet(self) -> Wallet:
        """The identity that signs for this service."""
        return self._own.wallet

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened with this service's wallet."""
        return self._own.ledger

    @property
    def journal(self) -> Journal:
        """What this service remembers of the contracts it took."""
        return self._own.journal

    @property
    def provider(self) -> AnyProvider:
        """Takes contracts for this service, of all its domains. The settlement of what they owe runs from
        now on."""
        return self._parts.get("provider", self._open_provider)

    @property
    def settlement(self) -> Settlement:
        """Carries what is owed to the ledger, on a thread of its own."""
        return self._own.settlement

    @property
    def treasury(self) -> Treasury:
        """Sets this service's tokens aside for its calls."""
        return self._own.treasury

    @property
    def consumer(self) -> Consumer:
        """Makes contracts and calls that are paid on ``ledger``. Clients take that of their service's
        :meth:`domain`."""
        return self._own.consumer

    def _open_provider(self) -> AnyProvider:
        """One domain's provider, or one for all domains: of these a ledger that is not there must not keep
        the others waiting for long."""
        if not self._others:
            return self._own.provider
        openings = [Opening(domain) for domain in self.domains]
        attempts = [opening.begin() for opening in openings]
        wait(attempts, self.settings.ledger_wait_s)
        for attempt in attempts:
            error = attempt.exception() if attempt.done() else None
            if error is not None and not isinstance(error, LedgerError | JournalError):
                raise error  # wrong for good: a setting, a key
        return Providers(self.service, openings, self.settings)

    # Clients

    def client(self, service: str, **options: Any) -> Any:
        """An ``httpx.Client`` whose requests go to ``service``: signed, paid, retried.

        ``options`` are those of :func:`tokenmesh.clients.httpx.client` and of ``httpx.Client``.
        """
        return self._clients("httpx").client(self, service, **options)

    def async_client(self, service: str, **options: Any) -> Any:
        """An ``httpx.AsyncClient`` whose requests go to ``service``: signed, paid, retried."""
        return self._clients("httpx").async_client(self, service, **options)

    def session(self, service: str, **options: Any) -> Any:
        """A ``requests.Session`` whose requests to ``service`` are signed, paid and retried."""
        return self._clients("requests").session(self, service, **options)

    def auth(self, service: str, **options: Any) -> Any:
        """An ``httpx.Auth`` for a client of your own, which signs and pays requests to ``service``."""
        return self._clients("httpx").auth(self, service, **options)

    def _clients(self, name: str) -> ModuleType:
        def load() -> ModuleType:
            for entry in entry_points(group=CLIENTS, name=name):
                return cast("ModuleType", entry.load())
            raise ConfigError(f"no client named {name!r} is installed (entry points of {CLIENTS})")

        return self._parts.get(f"clients.{name}", load)

    # The end

    def on_close(self, close: Callable[[], object]) -> None:
        """Have ``close`` called when this Mesh closes, before its parts do."""
        self._closers.append(close)

    def close(self) -> None:
        """Settle what is owed (for at most ``close_s_max`` seconds), then close everything. Closes once.

        What is not settled by then stays in the journal; the service settles it when it next starts.
        """
        if self._parts.close() is None:
            return
        with self._lock:
            closers, self._closers = self._closers[::-1], []
        for close in closers:
            close()
        deadline = time.monotonic() + self.settings.close_s_max
        domains = self.domains
        for behind, domain in enumerate(reversed(domains)):
            # Each has its share of the time; what one does not need is the others'.
            left = max(deadline - time.monotonic(), 0)
            domain.close(left / (len(domains) - behind))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        """In a forked child: begin anew. What the parent opened stays as it is, untouched, for the parent."""
        _INHERITED.append((self._parts, self._own, self._others))
        closed = self._parts.closed
        self._begin()
        if closed:
            self.close()


_MESHES: weakref.WeakSet[Mesh] = weakref.WeakSet()
_INHERITED: list[Any] = []
"""Parts of a parent process, kept so that collecting them does not close what the parent still uses."""
_default: Mesh | None = None
_default_lock = threading.Lock()


def default_mesh() -> Mesh:
    """The Mesh of the module-level decorators, made from the environment at the first call."""
    global _default  # noqa: PLW0603 - the one Mesh that needs no name
    with _default_lock:
        if _default is None or _default._parts.closed:
            _default = Mesh()
        return _default


def _forked() -> None:
    global _default_lock  # noqa: PLW0603 - another thread may have held it when the parent forked
    _default_lock = threading.Lock()
    for mesh in list(_MESHES):
        mesh._after_fork()


@atexit.register
def _close_all() -> None:
    for mesh in list(_MESHES):
        mesh.close()


os.register_at_fork(after_in_child=_forked)
