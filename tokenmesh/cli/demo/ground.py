"""What the demo's domain stands on: a file with the home's own authority, or a Fabric network of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tokenmesh.cli.demo.plan import GOVERNANCE
from tokenmesh.identity import CertificateAuthority, Issuer, Role, Wallet
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.findings import Report
from tokenmesh.ledger.verify import verify_ledger
from tokenmesh_chaincode.documents import new_id

if TYPE_CHECKING:  # the extra `fabric` need not be installed for an embedded ledger
    from tokenmesh.fabric.network import Network

EMBEDDED, FABRIC = "embedded", "fabric"
KINDS = (EMBEDDED, FABRIC)
CHANNEL = "mesh"
BATCH_TIMEOUT_MS = 50
"""Half of what a network waits by default: ten services open allowances with one another at first."""

Progress = Callable[[int, int], None]


class Ground(Protocol):
    """Where a ledger can be begun, found and verified."""

    url: str

    def issuer(self, role: Role) -> Issuer:
        """Who issues the certificates of wallets."""

    def begin(self, governance: Wallet, policy: dict[str, Any]) -> None:
        """Begin the ledger."""

    def verify(self, progress: Progress) -> Report:
        """Verify it as ``tokenmesh verify`` does."""


class EmbeddedGround:
    """A ledger in a file of the home."""

    def __init__(self, home: Path) -> None:
        self._path = home / "ledger.db"
        self._authority = CertificateAuthority.create(home, passphrase=no_passphrase)
        self.url = f"sqlite:///{self._path}"

    def issuer(self, role: Role) -> Issuer:  # noqa: ARG002 - one for all
        return self._authority

    def begin(self, governance: Wallet, policy: dict[str, Any]) -> None:
        EmbeddedLedger.create(
            self._path,
            governance,
            ca=[self._authority.certificate_pem],
            governors={GOVERNANCE: governance.certificate_pem},
            policy=policy,
            nonce=new_id(),
        ).close()

    def verify(self, progress: Progress) -> Report:
        return verify_ledger(self._path, progress)


class FabricGround:
    """A ledger on a Fabric network that is up, with the rules on it."""

    def __init__(self, network: Network) -> None:
        self._profile = network.profile
        self.url = f"fabric:///{self._profile.path}?channel={CHANNEL}"

    def issuer(self, role: Role) -> Issuer:
        from tokenmesh.cli.enrolling import FabricAuthority

        return FabricAuthority(self._profile, "governance" if role == "governor" else "services")

    def begin(self, governance: Wallet, policy: dict[str, Any]) -> None:
        from tokenmesh.cli.enrolling import authorities
        from tokenmesh.fabric.gateway import connect_profile
        from tokenmesh.ledger.fabric import FabricLedger

        FabricLedger.create(
            connect_profile(self._profile),
            CHANNEL,
            self._profile.channels[CHANNEL].chaincode,
            ca=authorities(self._profile),
            governors={GOVERNANCE: governance.certificate_pem},
            policy=policy,
            nonce=new_id(),
        ).close()

    def verify(self, progress: Progress) -> Report:
        """By the blocks of governance's peer; the other organisation's must end with the same one."""
        from tokenmesh.fabric.gateway import connect_profile
        from tokenmesh.ledger.fabric.verify import verify_fabric

        with ExitStack() as stack:
            gateways = {
                name: stack.enter_context(connect_profile(self._profile, name, "admin"))
                for name in self._profile.organisations
            }
            own = gateways.pop(self._profile.organisation)
            chaincode = self._profile.channels[CHANNEL].chaincode
            return verify_fabric(own, CHANNEL, chaincode, progress, witnesses=gateways).report


def network_home(home: Path) -> Path:
    """Where a demo in ``home`` has its network; `tokenmesh fabric` finds one that was kept."""
    return home / "fabric"


@contextmanager
def prepare(kind: str, home: Path, tell: Callable[[str], None], *, keep: bool) -> Iterator[Ground]:
    """The ground of a demo. A network is brought up for it, and then removed; with ``keep``, stopped."""
    if kind == EMBEDDED:
        yield EmbeddedGround(home)
        return
    from tokenmesh.cli.rules import deploy_rules
    from tokenmesh.fabric.network import Network

    network = Network(network_home(home), channels=(CHANNEL,), batch_timeout_ms=BATCH_TIMEOUT_MS)
    try:
        network.up(lambda what, _: tell(what))
        tell("Deploying the rules")
        deploy_rules(network)
        yield FabricGround(network)
    finally:
        if keep:
            network.down()
        else:
            network.clean()


def no_passphrase() -> None:
    """No passphrase: the demo's keys live for a minute, and nobody should be asked for one."""
