"""Identities for tests: an authority in a directory, and wallets in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tokenmesh.identity import CertificateAuthority, Role
from tokenmesh.keyfiles import Identity


class Clock:
    """A clock that the test holds."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


class Wallets:
    """Makes identities, all issued by one authority, and remembers them by name."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.time) -> None:
        self.authority = CertificateAuthority.create(home, passphrase=lambda: None, clock=clock)
        self._made: dict[str, Identity] = {}

    def __getitem__(self, name: str) -> Identity:
        return self._made[name]

    def new(self, name: str, role: Role = "service") -> Identity:
        """A new key with a certificate for it, whether or not there was one of that name before."""
        identity = self._made[name] = self.authority.new_identity(name, role)
        return identity
