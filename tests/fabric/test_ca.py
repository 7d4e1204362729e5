"""The CA client against a real fabric-ca-server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from tokenmesh.fabric import ca as ca_module
from tokenmesh.fabric.ca import JSON, Attribute, CAClient, Enrollment
from tokenmesh.fabric.certificates import certificate_attributes
from tokenmesh.fabric.errors import CAError
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.network.msp import read_msp

numbers = count(1)


@pytest.fixture
def name() -> str:
    """An identity that the CA does not know yet."""
    return f"somebody-{next(numbers)}"


@pytest.fixture(scope="module")
def registrar(network: Network) -> Enrollment:
    return read_msp(network.layout.identity("services", "registrar") / "msp")


@pytest.fixture(scope="module")
def ca(network: Network) -> Iterator[CAClient]:
    authority = network.profile.organisations["services"].ca
    assert authority is not None
    with CAClient(authority.url, tls_ca=authority.tls_ca, name=authority.name) as client:
        yield client


@pytest.fixture
def member(ca: CAClient, registrar: Enrollment, name: str) -> Enrollment:
    """An enrolled client with two attributes, one of them for the CA's eyes only."""
    attributes = [Attribute("role", "trader"), Attribute("note", "inside", ecert=False)]
    return ca.enroll(name, ca.register(name, by=registrar, attributes=attributes))


def loaded(certificate: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate.encode())


def subject(certificate: str, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(one.value) for one in loaded(certificate).subject.get_attributes_for_oid(oid)]


def serial_and_aki(certificate: str) -> tuple[str, str]:
    aki = loaded(certificate).extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER).value
    assert isinstance(aki, x509.AuthorityKeyIdentifier)
    assert aki.key_identifier is not None
    return f"{loaded(certificate).serial_number:x}", aki.key_identifier.hex()


def test_info_names_the_ca_and_its_certificate(ca: CAClient, network: Network) -> None:
    info = ca.info()
    assert (info.name, info.version) == ("ca.services", "1.5.15")
    assert info.chain.strip() == network.layout.ca_certificate("services").read_text().strip()


def test_an_enrolled_certificate_is_for_the_key_made_here(
    ca: CAClient, member: Enrollment, name: str
) -> None:
    """Signed by the CA, for the identity's name and kind, with the attributes that are for certificates."""
    certificate = loaded(member.certificate)
    certificate.verify_directly_issued_by(loaded(member.ca_chain))
    assert certificate.public_key() == member.key.public_key()
    assert subject(member.certificate, NameOID.COMMON_NAME) == [name]
    assert "client" in subject(member.certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    attributes = certificate_attributes(member.certificate)
    assert attributes["role"] == "trader"
    assert attributes["hf.EnrollmentID"] == name
    assert "note" not in attributes


def test_attributes_can_be_chosen(ca: CAClient, registrar: Enrollment, name: str) -> None:
    """Those asked for stand in the certificate, and no others; one that is not there is an error."""
    given = [Attribute("a", "1", ecert=False), Attribute("b", "2")]
    secret = ca.register(name, by=registrar, attributes=given)
    assert certificate_attributes(ca.enroll(name, secret, attributes=["a"]).certificate) == {"a": "1"}
    with pytest.raises(CAError):
        ca.enroll(name, secret, attributes=["c"])


def test_the_tls_profile_gives_a_certificate_for_servers_and_clients(
    ca: CAClient, member: Enrollment
) -> None:
    """By the names and addresses asked for; reenrolling needs no secret."""
    tls = ca.reenroll(member, profile="tls", hosts=["127.0.0.1", "peer.example"])
    extensions = loaded(tls.certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert names.get_values_for_type(x509.DNSName) == ["peer.example"]
    usage = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_reenrolling_gives_a_new_certificate_for_a_new_or_the_same_key(
    ca: CAClient, member: Enrollment
) -> None:
    renewed = ca.reenroll(member)
    assert renewed.key.public_key() != member.key.public_key()
    assert loaded(renewed.certificate).serial_number != loaded(member.certificate).serial_number
    kept = ca.reenroll(member, key=member.key)
    assert loaded(kept.certificate).public_key() == member.key.public_key()


def test_a_key_of_ones_own_is_used(ca: CAClient, registrar: Enrollment, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    enrolled = ca.enroll(name, ca.register(name, by=registrar), key=key)
    assert loaded(enrolled.certificate).public_key() == key.public_key()
    assert "PRIVATE KEY" in enrolled.key_pem


def test_a_wrong_secret_is_refused(ca: CAClient, registrar: Enrollment, name: str) -> None:
    ca.register(name, by=registrar, secret="right")
    with pytest.raises(CAError, match=r"fabric-ca refused enroll: Authentication failure") as caught:
        ca.enroll(name, "wrong")
    assert caught.value.status == 401
    assert caught.value.code == 20


def test_a_secret_is_good_for_as_many_enrollments_as_registered(
    ca: CAClient, registrar: Enrollment, name: str
) -> None:
    secret = ca.register(name, by=registrar, max_enrollments=1)
    ca.enroll(name, secret)
    with pytest.raises(CAError):
        ca.enroll(name, secret)


def test_a_name_is_registered_once(ca: CAClient, registrar: Enrollment, name: str) -> None:
    ca.register(name, by=registrar)
    with pytest.raises(CAError, match="already registered") as caught:
        ca.register(name, by=registrar)
    assert (caught.value.status, caught.value.code) == (409, 74)


def test_only_a_registrar_registers(ca: CAClient, member: Enrollment, name: str) -> None:
    with pytest.raises(CAError, match="Authorization failure"):
        ca.register(f"{name}-friend", by=member)


def test_another_cas_identity_is_none_here(ca: CAClient, network: Network) -> None:
    stranger = read_msp(network.layout.identity("governance", "registrar") / "msp")
    with pytest.raises(CAError) as caught:
        ca.identities(by=stranger)
    assert caught.value.status == 401


def test_a_request_signed_with_another_key_is_refused(ca: CAClient, member: Enrollment) -> None:
    """Somebody who has the certificate, which is public, but not its key."""
    with pytest.raises(CAError) as caught:
        ca.reenroll(member._replace(key=ec.generate_private_key(ec.SECP256R1())))
    assert caught.value.status == 401


def test_a_revoked_identity_enrolls_no_more_and_its_certificate_is_on_the_list(
    ca: CAClient, registrar: Enrollment, member: Enrollment, name: str
) -> None:
    revoked = ca.revoke(name, by=registrar, reason="keycompromise", gencrl=True)
    serial, aki = serial_and_aki(member.certificate)
    assert (serial, aki.lstrip("0")) in {
        (one[0].lstrip("0"), one[1].lstrip("0")) for one in revoked.certificates
    }
    assert revoked.crl is not None
    for crl in (revoked.crl, ca.gencrl(by=registrar)):
        listed = x509.load_pem_x509_crl(crl.encode())
        assert listed.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None
        issuer = loaded(member.ca_chain).public_key()
        assert isinstance(issuer, ec.EllipticCurvePublicKey)
        assert listed.is_signature_valid(issuer)
    with pytest.raises(CAError):
        ca.reenroll(member)


def test_one_certificate_is_revoked_by_serial_and_aki(
    ca: CAClient, registrar: Enrollment, member: Enrollment
) -> None:
    """The others of the identity stay good."""
    other = ca.reenroll(member)
    serial, aki = serial_and_aki(member.certificate)
    assert len(ca.revoke(by=registrar, serial=serial, aki=aki).certificates) == 1
    ca.reenroll(other)
    with pytest.raises(CAError):
        ca.reenroll(member)


def test_a_revocation_list_can_be_of_a_time(
    ca: CAClient, registrar: Enrollment, member: Enrollment, name: str
) -> None:
    ca.revoke(name, by=registrar)
    serial = loaded(member.certificate).serial_number
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    later = x509.load_pem_x509_crl(ca.gencrl(by=registrar, revoked_after=tomorrow).encode())
    assert later.get_revoked_certificate_by_serial_number(serial) is None
    with pytest.raises(ValueError, match="time zone"):
        ca.gencrl(by=registrar, revoked_after=datetime(2026, 1, 1))


def test_identities_are_listed_changed_and_removed(ca: CAClient, registrar: Enrollment, name: str) -> None:
    ca.register(name, by=registrar, attributes=[Attribute("role", "trader")])
    assert name in {one["id"] for one in ca.identities(by=registrar)}
    assert ca.identity(name, by=registrar)["type"] == "client"
    changed = ca.modify_identity(name, by=registrar, secret="new", attributes=[Attribute("role", "auditor")])
    assert {"name": "role", "value": "auditor", "ecert": True} in changed["attrs"]
    assert certificate_attributes(ca.enroll(name, "new").certificate)["role"] == "auditor"
    assert ca.remove_identity(name, by=registrar)["id"] == name
    with pytest.raises(CAError):
        ca.identity(name, by=registrar)


def test_affiliations_are_a_tree(ca: CAClient, registrar: Enrollment, name: str) -> None:
    """An identity's affiliation becomes OUs of its certificate."""
    ca.add_affiliation("services.shop.till", by=registrar)
    assert {"services.shop", "services.shop.till"} <= names_below(ca.affiliations(by=registrar))
    secret = ca.register(name, by=registrar, affiliation="services.shop.till")
    units = subject(ca.enroll(name, secret).certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
    assert {"services", "shop", "till"} <= set(units)
    ca.remove_identity(name, by=registrar)
    ca.remove_affiliation("services.shop", by=registrar, force=True)
    assert "services.shop" not in names_below(ca.affiliations(by=registrar))


def names_below(affiliation: JSON) -> set[str]:
    below = [names_below(one) for one in affiliation.get("affiliations", ())]
    return {affiliation["name"]}.union(*below)


def test_certificates_are_found_again(
    ca: CAClient, registrar: Enrollment, member: Enrollment, name: str
) -> None:
    assert [loaded(one) for one in ca.certificates(by=registrar, name=name)] == [loaded(member.certificate)]
    serial, aki = serial_and_aki(member.certificate)
    assert len(ca.certificates(by=registrar, serial=serial, aki=aki)) == 1
    ca.revoke(name, by=registrar)
    assert ca.certificates(by=registrar, name=name, not_revoked=True) == []
    assert len(ca.certificates(by=registrar, name=name, not_expired=True)) == 1
    assert len(ca.certificates(by=registrar)) > 1


def test_a_ca_that_is_down_or_not_trusted_is_an_error_that_says_so(network: Network) -> None:
    services = network.profile.organisations["services"].ca
    governance = network.profile.organisations["governance"].ca
    assert services is not None
    assert governance is not None
    with (
        CAClient(services.url, tls_ca=governance.tls_ca) as other,
        pytest.raises(CAError, match=r"cannot be reached .*tls_ca"),
    ):
        other.info()
    down = dataclasses.replace(services, url="https://127.0.0.1:1")
    with (
        CAClient(down.url, tls_ca=down.tls_ca) as nobody,
        pytest.raises(CAError, match="is it running") as caught,
    ):
        nobody.info()
    assert caught.value.status == 0


def test_a_ca_of_another_name_is_not_here(network: Network) -> None:
    services = network.profile.organisations["services"].ca
    assert services is not None
    with (
        CAClient(services.url, tls_ca=services.tls_ca, name="ca.nobody") as other,
        pytest.raises(CAError, match=r"ca\.nobody"),
    ):
        other.info()


@pytest.mark.parametrize(
    "body", [b"<html>a proxy</html>", b"[]", b'{"success": false, "errors": [7]}', b'{"success": true}', b""]
)
def test_what_is_no_fabric_ca_is_said_not_raised_as_nonsense(body: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    with (
        CAClient("http://ca.example", transport=transport) as ca,
        pytest.raises(CAError, match="not fabric-ca"),
    ):
        ca.info()


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca_module, "RESPONSE_BYTES_MAX", 1000)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=b"x" * 2000))
    with (
        CAClient("http://ca.example", transport=transport) as ca,
        pytest.raises(CAError, match="longer than 1000 bytes"),
    ):
        ca.info()
