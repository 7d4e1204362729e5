"""The organisations of a local network: each has a fabric-ca-server, which issues all its certificates."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tokenmesh.fabric.ca import Attribute, CAClient, Enrollment
from tokenmesh.fabric.errors import CAError
from tokenmesh.fabric.files import private_folder, write_private, write_public
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.msp import read_msp, tls_files, write_msp, write_tls
from tokenmesh.fabric.network.plan import HOST, Node, Plan
from tokenmesh.fabric.network.tools import assets

REGISTRAR = "registrar"
ADMIN = "admin"
ALREADY_REGISTERED = 74
"""fabric-ca's code for registering an identity that it knows (``caerrors.ErrAddIdentity`` and its kin)."""
CA_CONFIGURATION = "fabric-ca-server-config.yaml"
SECRET_BYTES = 24
HOSTS = (HOST, "localhost")
"""What the TLS certificates of a local network are good for, besides the node's own name."""


def profile() -> dict[str, Any]:
    """``organisation.yaml``, fresh."""
    content: dict[str, Any] = yaml.safe_load((assets() / "organisation.yaml").read_text())
    return content


def write_ca(layout: Layout, node: Node) -> str:
    """Configure an organisation's fabric-ca-server. The answer is the registrar's secret, good for once."""
    folder = private_folder(layout.node(node))
    secret = secrets.token_urlsafe(SECRET_BYTES)
    settings = profile()["CertificateAuthority"]
    settings |= {
        "address": HOST,
        "port": node.port,
        "tls": {"enabled": True, "certfile": "tls-cert.pem", "keyfile": ""},
        "ca": {"name": node.name},
        "operations": {"listenAddress": f"{HOST}:{node.ports['operations']}"},
        "affiliations": {node.organisation: []},
    }
    settings["csr"] |= {
        "cn": node.name,
        "names": [{"O": node.organisation, "OU": "tokenmesh"}],
        "hosts": [*HOSTS, node.name],
    }
    settings["registry"]["identities"] = [
        {
            "name": REGISTRAR,
            "pass": secret,
            "type": "client",
            "affiliation": "",
            "maxenrollments": 1,
            "attrs": {
                "hf.Registrar.Roles": "*",
                "hf.Registrar.DelegateRoles": "*",
                "hf.Registrar.Attributes": "*",
                "hf.Revoker": True,
                "hf.GenCRL": True,
                "hf.AffiliationMgr": True,
            },
        }
    ]
    write_private(folder / CA_CONFIGURATION, yaml.safe_dump(settings, sort_keys=False))
    return secret


def close_ca(layout: Layout, node: Node) -> None:
    """What a CA can only be told once it can issue certificates: TLS for its operations port, mutual.

    And the registrar's secret, which is used up, leaves the configuration. Holds from its next start on.
    """
    folder = layout.node(node)
    registrar = read_msp(layout.identity(node.organisation, REGISTRAR) / "msp")
    with ca_client(layout, node) as ca:
        enroll(ca, registrar, node.name, folder / "operations", hosts=(*HOSTS, node.name))
    tls = tls_files(folder / "operations" / "tls")
    settings = yaml.safe_load((folder / CA_CONFIGURATION).read_text())
    settings["registry"]["identities"] = []
    settings["operations"]["tls"] = {
        "enabled": True,
        "certfile": str(tls.certificate),
        "keyfile": str(tls.key),
        "clientcertrequired": True,
        "clientcacertfiles": [str(tls.ca)],
    }
    write_private(folder / CA_CONFIGURATION, yaml.safe_dump(settings, sort_keys=False))


def ca_client(layout: Layout, node: Node) -> CAClient:
    """A client of an organisation's CA, once that has started."""
    return CAClient(
        f"https://{node.address}", tls_ca=(layout.node(node) / "ca-cert.pem").read_text(), name=node.name
    )


def found(layout: Layout, plan: Plan, node: Node, secret: str) -> None:
    """What the organisation of the CA ``node`` needs: MSP, registrar, admin, and the keys of its nodes."""
    organisation = node.organisation
    with ca_client(layout, node) as ca:
        registrar = ca.enroll(REGISTRAR, secret)
        ous = profile()["NodeOUs"]
        write_public(layout.ca_certificate(organisation), registrar.ca_chain)
        write_msp(layout.msp(organisation), registrar.ca_chain, ous)
        write_msp(layout.identity(organisation, REGISTRAR) / "msp", registrar.ca_chain, ous, registrar)
        enroll(ca, registrar, ADMIN, layout.identity(organisation, ADMIN), kind="admin")
        for member in (*plan.of("orderer", organisation), *plan.of("peer", organisation)):
            enroll(
                ca, registrar, member.name, layout.node(member), kind=member.kind, hosts=(*HOSTS, member.name)
            )


def enroll(
    ca: CAClient,
    registrar: Enrollment,
    name: str,
    folder: Path,
    *,
    kind: str = "client",
    attributes: Iterable[Attribute] = (),
    hosts: tuple[str, ...] = (),
) -> Enrollment:
    """Register ``name`` and enroll it into ``folder``: ``msp/`` to sign with, ``tls/`` to connect with."""
    identity = ca.enroll(name, register(ca, registrar, name, kind=kind, attributes=attributes))
    tls = ca.reenroll(identity, profile="tls", hosts=hosts or (name,))
    write_tls(folder / "tls", identity.ca_chain, tls)
    write_msp(folder / "msp", identity.ca_chain, profile()["NodeOUs"], identity)
    return identity


def register(
    ca: CAClient,
    registrar: Enrollment,
    name: str,
    *,
    kind: str = "client",
    attributes: Iterable[Attribute] = (),
) -> str:
    """Make ``name`` known to the CA, or give it a new secret if it is known; the answer is the secret."""
    secret, given = secrets.token_urlsafe(SECRET_BYTES), list(attributes)
    try:
        ca.register(name, by=registrar, kind=kind, secret=secret, attributes=given)
    except CAError as error:
        if error.code != ALREADY_REGISTERED:
            raise
        ca.modify_identity(name, by=registrar, kind=kind, secret=secret, attributes=given)
    return secret


def identity(
    layout: Layout,
    plan: Plan,
    organisation: str,
    name: str,
    *,
    attributes: Iterable[Attribute] = (),
    kind: str = "client",
) -> Path:
    """The folder of an identity of an organisation; registered and enrolled now if it isn't there yet."""
    folder = layout.identity(organisation, name)
    if not (folder / "msp" / "signcerts" / "cert.pem").exists():
        registrar = read_msp(layout.identity(organisation, REGISTRAR) / "msp")
        with ca_client(layout, plan.of("ca", organisation)[0]) as ca:
            enroll(ca, registrar, name, folder, kind=kind, attributes=attributes)
    return folder


def revoke(layout: Layout, plan: Plan, organisation: str, name: str) -> str:
    """Revoke ``name`` at its CA: it is enrolled no more. The answer is the CA's new revocation list (PEM)."""
    registrar = read_msp(layout.identity(organisation, REGISTRAR) / "msp")
    with ca_client(layout, plan.of("ca", organisation)[0]) as ca:
        ca.revoke(name, by=registrar)
        return ca.gencrl(by=registrar)
