"""Where everything of a local network lies below its home.

network.json  profile.yaml  lock
organisations/ORG/ca.pem                  the certificate of the organisation's CA
organisations/ORG/msp/                    what others need to recognise the organisation
organisations/ORG/ca/                     fabric-ca-server: configuration, keys, database
organisations/ORG/identities/NAME/        {msp,tls}/ of people and services
organisations/ORG/nodes/NODE/             {msp,tls,data}/ and the configuration of a peer or orderer;
                                          {tls,peer}/ of a chaincode's service
channels/CHANNEL.block                    the first block
logs/NODE.log  run/NODE.pid
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tokenmesh.fabric.network.plan import FOLLOWING, Node


class Layout(NamedTuple):
    """Paths below the ``home`` of one network."""

    home: Path

    @property
    def plan(self) -> Path:
        return self.home / "network.json"

    @property
    def profile(self) -> Path:
        return self.home / "profile.yaml"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def channels(self) -> Path:
        return self.home / "channels"

    @property
    def builders(self) -> Path:
        return self.home / "builders"

    @property
    def organisations(self) -> Path:
        return self.home / "organisations"

    def organisation(self, name: str) -> Path:
        return self.organisations / name

    def ca_certificate(self, organisation: str) -> Path:
        return self.organisation(organisation) / "ca.pem"

    def msp(self, organisation: str) -> Path:
        return self.organisation(organisation) / "msp"

    def identity(self, organisation: str, name: str) -> Path:
        return self.organisation(organisation) / "identities" / name

    def node(self, node: Node) -> Path:
        """The folder of a node's configuration, keys and data. A service's next version has its keys."""
        if node.kind == "ca":
            return self.organisation(node.organisation) / "ca"
        return self.organisation(node.organisation) / "nodes" / node.name.removesuffix(FOLLOWING)

    def log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def block(self, channel: str) -> Path:
        return self.channels / f"{channel}.block"
