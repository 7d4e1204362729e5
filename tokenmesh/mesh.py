"""The Mesh: one service's place in the token economy, and where all parts are put together.

Nothing is opened before it is needed: importing a module with priced handlers touches no file, reading the
offers of a service needs no consumer, and a process that only pays has no journal. What is opened is opened
once, and not carried across a fork: a pre-forking server's workers each open their own.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar, cast

from tokenmesh.config import Settings
from tokenmesh.consumer import Consumer
from tokenmesh.errors import ConfigError
from tokenmesh.identity import Wallet
from tokenmesh.journal import Journal, open_journal
from tokenmesh.ledger import Ledger, open_ledger
from tokenmesh.provider import Provider
from tokenmesh.settlement import Settlement
from tokenmesh.treasury import Treasury

T = TypeVar("T")
CLIENTS = "tokenmesh.clients"


class Mesh:
    """One service's wallet, ledger and journal, and what stands on them.

    ``service`` is the name of its wallet, ``home`` the directory with its keys, ``ledger`` and ``journal``
    are urls; what is left out comes from ``TOKENMESH_SERVICE``, ``TOKENMESH_HOME``, ``TOKENMESH_LEDGER`` and
    ``TOKENMESH_JOURNAL``. Every other setting of :class:`tokenmesh.config.Settings` can be given by its name.

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
        self._lock = threading.RLock()
        self._parts: dict[str, Any] = {}
        self._closers: list[Callable[[], object]] = []
        self._closed = False
        _MESHES.add(self)

    # The parts

    @property
    def service(self) -> str:
        """The name of this service's wallet; :class:`ConfigError` if none was given."""
        if not self.settings.service:
            raise ConfigError(
                "this process has no wallet: set TOKENMESH_SERVICE to its name, or give Mesh(service=...)"
            )
        return self.settings.service

    @property
    def wallet(self) -> Wallet:
        """The identity that signs for this service."""
        return self._part("wallet", lambda: Wallet.load(self.settings.home, self.service))

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened with this service's wallet."""
        return self._part("ledger", lambda: open_ledger(self.settings.ledger, self.wallet, self.settings))

    @property
    def journal(self) -> Journal:
        """What this service remembers of the contracts it took."""
        return self._part("journal", lambda: open_journal(self.settings.journal, self.settings))

    @property
    def provider(self) -> Provider:
        """Takes contracts for this service. The settlement of what they owe runs from now on."""
        return self._part("provider", self._open_provider)

    @property
    def settlement(self) -> Settlement:
        """Carries what is owed to the ledger, on a thread of its own."""
        return self._part("settlement", self._open_settlement)

    @property
    def treasury(self) -> Treasury:
        """Sets this service's tokens aside for its calls."""
        return self._part("treasury", lambda: Treasury(self.wallet, self.ledger, self.settings))

    @property
    def consumer(self) -> Consumer:
        """Makes contracts and calls for this service."""
        return self._part(
            "consumer", lambda: Consumer(self.wallet, self.ledger, self.treasury, self.settings)
        )

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

    def _part(self, name: str, make: Callable[[], T]) -> T:
        part = self._parts.get(name)
        if part is None:
            with self._lock:
                part = self._parts.get(name)
                if part is None:
                    if self._closed:
                        raise ConfigError(f"this Mesh is closed: its {name} cannot be used any more")
                    part = self._parts[name] = make()
        return cast("T", part)

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

        return self._part(f"clients.{name}", load)

    # The end

    def on_close(self, close: Callable[[], object]) -> None:
        """Have ``close`` called when this Mesh closes, before its parts do."""
        self._closers.append(close)

    def close(self) -> None:
        """Settle what is owed (for at most ``close_s_max`` seconds), then close everything. Closes once.

        What is not settled by then stays in the journal; the service settles it when it next starts.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            parts, self._parts = self._parts, {}
            closers, self._closers = self._closers[::-1], []
        for close in closers:
            close()
        if "settlement" in parts:
            parts["settlement"].stop(self.settings.close_s_max)
        for name in ("treasury", "journal", "ledger"):
            if name in parts:
                parts[name].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        """In a forked child: begin anew. What the parent opened stays as it is, untouched, for the parent."""
        self._lock = threading.RLock()
        _INHERITED.append(self._parts)
        self._parts = {}
        self._closers = []


_MESHES: weakref.WeakSet[Mesh] = weakref.WeakSet()
_INHERITED: list[dict[str, Any]] = []
"""Parts of a parent process, kept so that collecting them does not close what the parent still uses."""
_default: Mesh | None = None
_default_lock = threading.Lock()


def default_mesh() -> Mesh:
    """The Mesh of the module-level decorators, made from the environment at the first call."""
    global _default  # noqa: PLW0603 - the one Mesh that needs no name
    with _default_lock:
        if _default is None or _default._closed:
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
