"""Faults: exceptions, a service that restarts, TLS that does not fit; and what the log says of them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.authority import Authority
from support.servers import free_port, wait_until_listening
from support.shim_chaincode import chaincode
from tokenmesh.fabric.errors import EndorseError, GatewayError
from tokenmesh.fabric.gateway import Contract, Gateway, connect_profile
from tokenmesh.fabric.lifecycle import Definition, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import ServiceTls, package_service
from tokenmesh_chaincode.shim import Options, Server

from .conftest import deploy_shim

PROGRAM = Path(__file__).parents[2] / "support" / "shim_chaincode.py"


def test_every_exception_is_an_answer(contract: Contract) -> None:
    """A bug, a function that is not there, an answer of the wrong kind, even an exit: never a silence."""
    for call, message in [
        (("fail",), r"chaincode response 500, .*secret"),
        (("leave",), "chaincode response 500, gone"),
        (("answer_nonsense",), "a chaincode answers with bytes, a Response or None, not with int"),
        (("unheard-of",), "no function unheard-of"),
    ]:
        with pytest.raises(EndorseError, match=message):
            contract.submit(*call, transient_data={"secret": "secret"})


def test_no_payload_is_logged(contract: Contract, caplog: pytest.LogCaptureFixture) -> None:
    """Even with everything logged: neither arguments nor values, transient data or messages of exceptions."""
    caplog.set_level(logging.DEBUG)
    marks = ["mark-key", "mark-value", "mark-transient"]
    contract.submit("put", marks[:2], transient_data={"secret": marks[2]})
    contract.submit("put_private", ("private", marks[0]), transient_data={"value": marks[2]})
    for name in ("fail", "refuse"):
        with pytest.raises(EndorseError):
            contract.submit(name, marks[:2], transient_data={"secret": marks[2]})
    ours = [record for record in caplog.records if record.name.startswith("tokenmesh.chaincode")]
    said = [logging.Formatter().format(record) for record in ours]
    assert any("failed: KeyError at" in line and "shim_chaincode.py" in line for line in said)
    assert not [line for line in said for mark in marks if mark in line]


def test_a_service_that_was_gone_is_found_again(network: Network, gateway: Gateway) -> None:
    """Stopped: an error that says so. Started at the same place: the peer comes back by itself."""
    first = Server(chaincode, Options())
    deploy_shim(network, first, "returning")
    contract = gateway.get_network("mesh").get_contract("returning")
    contract.submit_transaction("put", "key", "before")
    address = first.address
    first.stop()
    with pytest.raises(GatewayError):
        contract.evaluate_transaction("get", "key")
    second = Server(chaincode, Options(address=address))
    try:
        second.start(package_service("returning", address).package_id)
        assert contract.evaluate_transaction("get", "key") == b"before"
    finally:
        second.stop()


@contextmanager
def program(network: Network, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """The chaincode as a program of its own, configured by its environment."""
    port = free_port()
    package = package_service(name, f"127.0.0.1:{port}")
    environment = {
        **os.environ,
        "CHAINCODE_ID": package.package_id,
        "CHAINCODE_SERVER_ADDRESS": f"127.0.0.1:{port}",
    }
    with subprocess.Popen([sys.executable, str(PROGRAM)], env=environment) as process, ExitStack() as stack:
        stack.callback(process.kill)
        wait_until_listening(port, process)
        gateways = [
            stack.enter_context(connect_profile(network.profile, organisation))
            for organisation in network.profile.organisations
        ]
        deploy(gateways, "mesh", Definition(name), [package])
        yield process


def test_a_program_serves_until_it_is_asked_to_end(network: Network, gateway: Gateway) -> None:
    """SIGTERM ends it in peace: no error, status 0."""
    with program(network, "program") as process:
        contract = gateway.get_network("mesh").get_contract("program")
        contract.submit_transaction("put", "key", "value")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serving(authority: Authority) -> Server:
    """A server that shows a certificate and wants to see one."""
    pair = authority.issue("server")
    options = Options(
        tls_key=pair.key, tls_certificate=pair.certificate, client_ca_certificate=authority.certificate
    )
    return Server(chaincode, options)


def test_mutual_tls_carries_everything(network: Network, gateway: Gateway, authority: Authority) -> None:
    """Small and very large messages, both ways."""
    peer = authority.issue("peer")
    tls = ServiceTls(authority.certificate.read_text(), peer.certificate.read_text(), peer.key.read_text())
    server = serving(authority)
    try:
        deploy_shim(network, server, "sealed", tls=tls)
        contract = gateway.get_network("mesh").get_contract("sealed")
        contract.submit_transaction("put", "key", "value")
        assert contract.evaluate_transaction("get", "key") == b"value"
        assert contract.evaluate_transaction("length", b"x" * 20 * 2**20) == b"%d" % (20 * 2**20)
        assert len(contract.evaluate_transaction("large", str(20 * 2**20))) == 20 * 2**20
    finally:
        server.stop()


@pytest.mark.parametrize("wrong", ["no certificate", "another authority"])
def test_a_peer_that_shows_no_certificate_of_ours_is_turned_away(
    network: Network, gateway: Gateway, authority: Authority, tmp_path: Path, wrong: str
) -> None:
    """Whoever can connect could read what a chaincode is asked, and answer in its place."""
    tls = ServiceTls(authority.certificate.read_text())
    if wrong == "another authority":
        stranger = Authority(tmp_path, "stranger").issue("peer")
        tls = ServiceTls(
            authority.certificate.read_text(), stranger.certificate.read_text(), stranger.key.read_text()
        )
    server = serving(authority)
    name = f"refused-{wrong.partition(' ')[0]}"
    try:
        deploy_shim(network, server, name, tls=tls)
        with pytest.raises(GatewayError):
            gateway.get_network("mesh").get_contract(name).evaluate_transaction("get", "key")
    finally:
        server.stop()
