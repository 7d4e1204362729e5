"""Profiles: what is read from them, and complaints that name the field and what would be right."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.certificates import self_signed
from tokenmesh.fabric.errors import ProfileError
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.profile import load_profile

PEM = self_signed("some-ca")
GOOD: dict[str, Any] = {
    "version": 1,
    "client": {"organisation": "governance", "identity": "alice"},
    "channels": {"mesh": {"chaincode": "tokenmesh"}},
    "organisations": {
        "governance": {
            "msp_id": "GovernanceMSP",
            "tls_ca": "ca.pem",
            "identities": "people",
            "ca": {"url": "https://ca.example:7054", "name": "ca.governance"},
            "peers": {"peer0": {"address": "peer0.example:7051", "server_name": "peer0"}},
            "orderers": {"orderer0": {"address": "[::1]:7050", "tls_ca": PEM}},
        },
        "services": {
            "msp_id": "ServicesMSP",
            "tls_ca": PEM,
            "peers": {"peer1": {"address": "127.0.0.1:7061"}},
        },
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile with the files that it names; certificates and keys are not opened before they are used."""
    (tmp_path / "ca.pem").write_text(PEM)
    for name in ("alice/msp/signcerts/cert.pem", "alice/msp/keystore/anything_sk", "alice/tls/client.crt"):
        (tmp_path / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "people" / name).touch()
    (tmp_path / "people/alice/tls/client.key").touch()
    (tmp_path / "people/bob").mkdir()
    return tmp_path


def write(folder: Path, content: Any) -> Path:
    path = folder / "profile.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good profile with one field set, or without it where the value is None."""
    content = copy.deepcopy(GOOD)
    *above, last = path.split("/")
    place = content
    for name in above:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def test_a_profile_says_where_everything_is(folder: Path) -> None:
    profile = load_profile(write(folder, GOOD))
    assert profile.channels["mesh"].chaincode == "tokenmesh"
    assert profile.channels["mesh"].genesis == ""
    governance = profile.organisations["governance"]
    peer = governance.peers["peer0"]
    assert (peer.address, peer.server_name, peer.organisation) == (
        "peer0.example:7051",
        "peer0",
        "governance",
    )
    assert peer.tls_ca == PEM
    assert [one.name for one in profile.peers] == ["peer0", "peer1"]
    assert [one.address for one in profile.orderers] == ["[::1]:7050"]
    assert governance.ca is not None
    assert (governance.ca.url, governance.ca.tls_ca) == ("https://ca.example:7054", PEM)
    assert profile.organisations["services"].ca is None


def test_peers_of_the_clients_own_organisation_come_first(folder: Path) -> None:
    profile = load_profile(write(folder, changed("client/organisation", "services")))
    assert [one.name for one in profile.peers] == ["peer1", "peer0"]


def test_an_identity_is_found_as_fabrics_tools_lay_it_down(folder: Path) -> None:
    """The default one, with whatever names its files have, and TLS files if they are there."""
    alice = load_profile(write(folder, GOOD)).client()
    assert alice.msp_id == "GovernanceMSP"
    assert alice.key.name == "anything_sk"
    assert alice.tls_key == folder / "people/alice/tls/client.key"
    (folder / "people/alice/tls/client.key").unlink()
    assert load_profile(folder / "profile.yaml").client().tls_certificate is None


@pytest.mark.parametrize(
    ("organisation", "identity", "message"),
    [
        (None, "carol", "has no identity carol in .*, but alice, bob"),
        (None, "bob", "is to hold one file, and holds 0"),
        ("services", "alice", "organisations.services names no folder of identities"),
        ("nobody", "alice", "no organisation nobody; there are governance, services"),
    ],
)
def test_an_identity_that_is_not_there_is_said(
    folder: Path, organisation: str | None, identity: str, message: str
) -> None:
    profile = load_profile(write(folder, GOOD))
    with pytest.raises(ProfileError, match=message):
        profile.client(organisation, identity)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "version is 2; this tokenmesh reads version 1"),
        ("version", None, "version is missing"),
        ("channels", {}, "channels is to name at least one"),
        ("organizations", {}, "organizations is not known; did you mean organisations?"),
        ("organisations", [], "organisations is to name at least one"),
        ("organisations/governance/msp_id", None, "organisations.governance.msp_id is missing"),
        ("organisations/governance/msp_id", 7, "organisations.governance.msp_id is 7; it is to be text"),
        ("organisations/governance/msp_id", "", "organisations.governance.msp_id is ''"),
        ("organisations/governance/colour", "red", "governance.colour is not known; there are msp_id, "),
        ("organisations/governance/tls_ca", "gone.pem", "governance.tls_ca names a file that cannot be read"),
        ("organisations/governance/tls_ca", "profile.yaml", "governance.tls_ca is no certificate in PEM"),
        ("organisations/services/tls_ca", "-----BEGIN nonsense", "services.tls_ca is no certificate in PEM"),
        ("organisations/services/tls_ca", None, "peer1.tls_ca is missing, here and at the organisation"),
        ("organisations/services/peers/peer1/adress", "x:1", "did you mean address?"),
        (
            "organisations/services/peers/peer1/address",
            "grpcs://x:1",
            "it is to be host:port, without a scheme",
        ),
        ("organisations/services/peers/peer1/address", "x", "peer1.address is 'x'; it is to be host:port"),
        ("organisations/services/peers/peer1/chaincode", "x", "peer1.chaincode is 'x'"),
        ("channels/mesh/genesis", "beef", "channels.mesh.genesis is 'beef'"),
        ("organisations/services/peers", 3, "services.peers is to name at least one"),
        ("organisations/services/peers/peer1", "127.0.0.1:1", "peer1 is to have the fields address"),
        (
            "organisations/governance/ca/url",
            "ca.example",
            "ca.url is 'ca.example'; it is to begin with https://",
        ),
        ("client/organisation", "nobody", "client.organisation is nobody; there are governance, services"),
        ("client", None, "client is missing"),
    ],
)
def test_a_field_that_does_not_fit_is_named(folder: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(write(folder, changed(path, value)))
    assert message in str(caught.value)
    assert str(folder / "profile.yaml") in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "just a word", "- a\n- list", "a: [1", "\x00", "a: !!python/object:os.system x"]
)
def test_what_is_no_profile_at_all(folder: Path, content: str) -> None:
    with pytest.raises(ProfileError, match=r"profile\.yaml"):
        load_profile(write(folder, content))


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"there is no profile .*tokenmesh fabric up"):
        load_profile(tmp_path / "profile.yaml")


def test_a_profile_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder, a file below a file, links in a circle, octets that are no text."""
    with pytest.raises(ProfileError, match=r"is a folder: name the profile in it, as .*profile\.yaml"):
        load_profile(tmp_path)
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot be read as YAML"):
        load_profile(tmp_path / "file")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "file" / "profile.yaml")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "circle")


def test_a_file_that_is_much_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="larger than"):
        load_profile(write(tmp_path, "#" * (2**20 + 1)))


def test_a_networks_own_profile_is_good(network: Network) -> None:
    """What `up` writes names what there is, and its files are where it says."""
    profile = network.profile
    assert [one.name for one in profile.peers] == ["peer0.governance", "peer0.services"]
    assert [one.name for one in profile.orderers] == ["orderer0.governance"]
    for organisation in profile.organisations:
        admin = profile.client(organisation, "admin")
        assert "BEGIN CERTIFICATE" in admin.certificate.read_text()
        assert admin.tls_certificate is not None
        assert admin.key.stat().st_mode & 0o077 == 0
