"""What every simulation begins with: wallets whose keys and signatures are the same each time, and a ledger.

A seed must replay to the byte, so nothing here is random: keys are numbers, certificates count their serials,
and signatures are deterministic (RFC 6979), which is ES256 like any other. The ledger is made once a process,
by the product's own code, and copied for each simulation.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from simulation.world import START
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_chaincode.documents import Operation, raw_signature, sign
from tokenmesh_chaincode.rules import default_policy

GOVERNANCE = "governance"
PAYERS = ("shop", "desk")
PAYEES = ("quotes", "maps")
FUNDS: Mapping[str, int] = {"shop": 4_000, "desk": 400, "quotes": 0, "maps": 0}
SUPPLY = 10_000
POLICY = {
    **default_policy(),
    "contract_ttl_s_max": 30,
    "hold_ttl_s_max": 60,
    "allowance_ttl_s_max": 120,
    "grace_s": 60,
    "propagation_s": 4,  # as long as payees believe what they have read, and as far as clocks differ
}
SHM = Path("/dev/shm")
DIRECTORY = SHM if SHM.is_dir() else None
"""Where files are: in memory if that can be had, as thousands of commits a second are synced."""

_ECDSA = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_BEGIN = datetime.fromtimestamp(START, UTC) - timedelta(days=1)
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Signer:
    """A wallet whose key is its name: it signs the same way each time, and has nothing to reload."""

    def __init__(self, name: str, role: str, authority: Signer | None, serial: int) -> None:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % (_ORDER - 1) + 1
        self.key = ec.derive_private_key(number, ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            ]
        )
        issuer = subject if authority is None else authority.identity.certificate.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(self.key.public_key())
            .serial_number(serial)
            .not_valid_before(_BEGIN)
            .not_valid_after(_BEGIN + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        )
        signing_key = self.key if authority is None else authority.key
        self.identity = Identity(
            self.key, builder.sign(signing_key, hashes.SHA256(), ecdsa_deterministic=True)
        )
        self.name = name
        self.pem = self.identity.certificate_pem
        self.x5t = self.identity.x5t

    def sign(self, data: bytes) -> bytes:
        return raw_signature(self.key.sign(data, _ECDSA))

    def reload(self) -> bool:
        return False


class Home:
    """The wallets, and the files that a simulation begins with."""

    def __init__(self) -> None:
        authority = Signer("authority", "authority", None, 1)
        self.wallets: dict[str, Signer] = {}
        for serial, name in enumerate((GOVERNANCE, *PAYERS, *PAYEES), 2):
            role = "governor" if name == GOVERNANCE else "service"
            self.wallets[name] = Signer(name, role, authority, serial)
        self._folder = tempfile.TemporaryDirectory(prefix="tokenmesh-simulation-", dir=DIRECTORY)
        folder = Path(self._folder.name)
        self._ledger = folder / "ledger.db"
        self._journal = folder / "journal.db"
        self._make_ledger(authority)
        with closing(SqliteJournal(self._journal, clock=lambda: START)):
            pass
        _in_one_file(self._journal)

    def __getitem__(self, name: str) -> Signer:
        return self.wallets[name]

    def copy_ledger(self, to: Path) -> None:
        """Put the ledger as it begins at ``to``."""
        shutil.copyfile(self._ledger, to)

    def copy_journal(self, to: Path) -> None:
        """Put an empty journal at ``to``: making one takes longer than most of what is done to it."""
        shutil.copyfile(self._journal, to)

    def _make_ledger(self, authority: Signer) -> None:
        governance = self[GOVERNANCE]
        ledger = EmbeddedLedger.create(
            self._ledger,
            governance,
            ca=[authority.pem],
            governors={GOVERNANCE: governance.pem},
            policy=POLICY,
            nonce="simulation",
            clock=lambda: START,
        )
        with closing(ledger):
            self.domain = ledger.domain
            self._do(ledger, GOVERNANCE, "mint", {"tokens": SUPPLY})
            for name, tokens in FUNDS.items():
                arg = {"name": name, "cert": self[name].pem, "role": "service", "url": f"http://{name}"}
                self._do(ledger, GOVERNANCE, "register", arg)
                if tokens:
                    credit = self._do(ledger, GOVERNANCE, "grant", {"to": name, "tokens": tokens})["credit"]
                    self._do(ledger, name, "sweep", {"credits": [credit]})
        _in_one_file(self._ledger)

    def _do(self, ledger: EmbeddedLedger, by: str, act: str, arg: dict[str, Any]) -> dict[str, Any]:
        jti = f"begin-{act}-{by}-{arg.get('name') or arg.get('to') or ''}"
        operation = Operation(ledger.domain, by, jti, int(START), int(START) + 60, act, arg)
        (result,) = ledger.submit([sign(operation, self[by])]).result(60)
        assert result.outcome.ok, result
        return result.outcome.detail


@cache
def home() -> Home:
    """The one home of this process."""
    return Home()


def _in_one_file(path: Path) -> None:
    """Move the write-ahead log into the file, which stays in WAL mode."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
