"""Chaincode that the network runs itself: a service for each organisation, which its peers connect to.

Services are told how to serve by the variables that Fabric's own samples use (``CHAINCODE_ID``,
``CHAINCODE_SERVER_ADDRESS``, ``CHAINCODE_TLS_…``). Between peer and service is mutual TLS, with certificates
of the organisation's CA.
"""

from __future__ import annotations

from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.msp import TlsFiles, read_msp, tls_files, write_tls
from tokenmesh.fabric.network.organisations import HOSTS, REGISTRAR, ca_client, register
from tokenmesh.fabric.network.plan import Chaincode, Node, Plan
from tokenmesh.fabric.packages import Package, ServiceTls, package_service


def service_package(layout: Layout, chaincode: Chaincode, service: Node) -> Package:
    """What the peers of the service's organisation install: where it is, and how they reach it by TLS."""
    own = tls_files(layout.node(service) / "tls")
    peer = _peer_files(layout, service)
    tls = ServiceTls(own.ca.read_text(), peer.certificate.read_text(), peer.key.read_text())
    return package_service(chaincode.label, service.address, tls=tls)


def service_environment(layout: Layout, chaincode: Chaincode, service: Node) -> dict[str, str]:
    """What tells a service who it is, where to listen, and with which keys."""
    tls = tls_files(layout.node(service) / "tls")
    return {
        "CHAINCODE_ID": service_package(layout, chaincode, service).package_id,
        "CHAINCODE_SERVER_ADDRESS": service.address,
        "CHAINCODE_TLS_DISABLED": "false",
        "CHAINCODE_TLS_KEY": str(tls.key),
        "CHAINCODE_TLS_CERT": str(tls.certificate),
        "CHAINCODE_CLIENT_CA_CERT": str(tls.ca),
        **chaincode.environ,
    }


def give_keys(layout: Layout, plan: Plan, service: Node) -> None:
    """TLS keys for a service and, of its own, for the peers that connect to it; unless they are there.

    They are for TLS only: nothing here lets a service act on a channel.
    """
    peer = _peer_files(layout, service)
    if peer.certificate.exists():
        return
    organisation = service.organisation
    registrar = read_msp(layout.identity(organisation, REGISTRAR) / "msp")
    with ca_client(layout, plan.of("ca", organisation)[0]) as ca:
        secret = register(ca, registrar, service.name)
        identity = ca.enroll(service.name, secret)
        hosts = (*HOSTS, service.name)
        own = ca.reenroll(identity, profile="tls", hosts=hosts)
        write_tls(layout.node(service) / "tls", identity.ca_chain, own)
        theirs = ca.reenroll(identity, profile="tls", hosts=(service.name,))
        write_tls(layout.node(service) / "peer", identity.ca_chain, theirs)  # last: with it, all is there


def _peer_files(layout: Layout, service: Node) -> TlsFiles:
    """What peers show the service."""
    return tls_files(layout.node(service) / "peer")
