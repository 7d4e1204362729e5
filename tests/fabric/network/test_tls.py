"""Who shows no certificate of the organisations gets nowhere; and where that was switched off, gets in."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import httpx
import pytest

from tokenmesh.fabric.network import Network, Node
from tokenmesh.fabric.network.msp import tls_files

READY_S = 10


def connects(network: Network, node: Node, *, with_certificate: bool) -> bool:
    """Whether a TLS connection comes about; by gRPC, as every client's."""
    tls = tls_files(network.layout.identity(node.organisation, "admin") / "tls")
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes()) if with_certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), *pair)
    with grpc.secure_channel(node.address, credentials) as channel:
        try:
            grpc.channel_ready_future(channel).result(READY_S if with_certificate else 2)
        except grpc.FutureTimeoutError:
            return False
    return True


def members(network: Network) -> list[Node]:
    return [*network.plan.of("peer"), *network.plan.of("orderer")]


def test_peers_and_orderers_refuse_who_shows_no_certificate(network: Network) -> None:
    for node in members(network):
        assert connects(network, node, with_certificate=True)
        assert not connects(network, node, with_certificate=False)


def test_admin_and_operations_ports_refuse_who_shows_no_certificate(network: Network) -> None:
    """Joining channels, metrics, log levels: for the organisation's own only."""
    for node in network.plan.nodes:
        tls = tls_files(network.layout.identity(node.organisation, "admin") / "tls")
        pages = [f"https://127.0.0.1:{node.ports['operations']}/healthz"]
        if node.kind == "orderer":
            pages.append(f"https://127.0.0.1:{node.ports['admin']}/participation/v1/channels")
        for page in pages:
            unknown = ssl.create_default_context(cafile=str(tls.ca))
            with httpx.Client(verify=unknown) as stranger, pytest.raises(httpx.TransportError):
                stranger.get(page)
            known = ssl.create_default_context(cafile=str(tls.ca))
            known.load_cert_chain(tls.certificate, tls.key)
            with httpx.Client(verify=known) as admin:
                assert admin.get(page).status_code == 200


def test_a_registrars_secret_is_used_up_and_kept_nowhere(network: Network) -> None:
    """The CA knows only its hash, and its configuration nothing of it."""
    for node in network.plan.of("ca"):
        settings = (network.layout.node(node) / "fabric-ca-server-config.yaml").read_text()
        assert "pass:" not in settings


def test_keys_are_for_their_owner_only(network: Network) -> None:
    """Every private key, and the CAs' configuration with the registrars' secrets."""
    secret = [
        path
        for path in network.layout.organisations.rglob("*")
        if path.is_file() and (b"PRIVATE KEY" in path.read_bytes() or path.name.endswith("config.yaml"))
    ]
    assert len(secret) > 10
    for path in secret:
        if path.parent.name != "msp":  # config.yaml of an MSP names OUs, nothing secret
            folders = [path.parent, *path.parent.parents]
            closed = path.stat().st_mode & 0o077 == 0 or any(
                one.stat().st_mode & 0o077 == 0 for one in folders if one.is_relative_to(network.home)
            )
            assert closed, path


def test_mutual_tls_can_be_switched_off(home: Path) -> None:
    network = Network(home, mutual_tls=False)
    network.up()
    assert all(connects(network, node, with_certificate=False) for node in members(network))
