"""Where a server's options come from, and what is wrong with them is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenmesh_chaincode.shim import Options, Server, Stub

WHERE = {"CHAINCODE_ID": "label:hash", "CHAINCODE_SERVER_ADDRESS": "127.0.0.1:7052"}
FILES = {"CHAINCODE_TLS_KEY": "/k", "CHAINCODE_TLS_CERT": "/c", "CHAINCODE_CLIENT_CA_CERT": "/ca"}


def test_the_variables_that_fabrics_own_servers_read() -> None:
    options = Options.from_environment({**WHERE, **FILES, "CHAINCODE_CONCURRENCY": "8"})
    assert (options.chaincode_id, options.address) == ("label:hash", "127.0.0.1:7052")
    assert (options.tls_key, options.tls_certificate) == (Path("/k"), Path("/c"))
    assert (options.client_ca_certificate, options.concurrency_max) == (Path("/ca"), 8)
    older = {"CORE_CHAINCODE_ID_NAME": "older:hash", "CHAINCODE_SERVER_ADDRESS": ":7052"}
    assert Options.from_environment(older).chaincode_id == "older:hash"


def test_tls_can_be_switched_off_although_there_are_files() -> None:
    options = Options.from_environment({**WHERE, **FILES, "CHAINCODE_TLS_DISABLED": "true"})
    assert options.tls_key is None
    assert options.client_ca_certificate is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "needs CHAINCODE_ID"),
        ({"CHAINCODE_ID": "label:hash"}, "CHAINCODE_SERVER_ADDRESS"),
        ({**WHERE, "CHAINCODE_TLS_DISABLED": "false"}, "TLS is on, but"),
        ({**WHERE, "CHAINCODE_TLS_DISABLED": "perhaps"}, "true or false"),
        ({**WHERE, "CHAINCODE_TLS_KEY": "/k"}, "both a key and a certificate"),
        ({**WHERE, "CHAINCODE_CLIENT_CA_CERT": "/ca"}, "by TLS only"),
        ({**WHERE, "CHAINCODE_CONCURRENCY": "many"}, "to be a number"),
        ({**WHERE, "CHAINCODE_CONCURRENCY": "0"}, "at least one"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_said(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options.from_environment(environment)


def nothing(stub: Stub) -> None:
    """A chaincode."""


def test_a_server_says_why_it_cannot_start() -> None:
    """No id, no address, a port that is taken."""
    with pytest.raises(ValueError, match="needs the package's id"):
        Server(nothing, Options()).start()
    with pytest.raises(ValueError, match="HOST:PORT"):
        Server(nothing, Options("label:hash", "nowhere")).start()
    first = Server(nothing, Options("label:hash"))
    first.start()
    try:
        with pytest.raises(OSError, match="in use"):
            Server(nothing, Options("label:hash", first.address)).start()
    finally:
        first.stop()
