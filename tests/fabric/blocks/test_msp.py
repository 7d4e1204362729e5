"""Who is a member of an organisation, and as what: authorities, their authorities, roles, revocations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fabric_protos.common import configtx_pb2, policies_pb2
from fabric_protos.msp import identities_pb2, msp_config_pb2, msp_principal_pb2

from tokenmesh.fabric.blocks.msp import (
    ADMIN,
    CLIENT,
    COMBINED,
    IDENTITY,
    MEMBER,
    ORGANIZATION_UNIT,
    PEER,
    ROLE,
    Member,
    Members,
    read_msp,
)
from tokenmesh.fabric.blocks.policies import Policies, Signed, signers
from tokenmesh.fabric.errors import BlockError
from tokenmesh.fabric.policies import parse_policy
from tokenmesh.fabric.signing import CURVE_ORDERS, sign

START = datetime(2020, 1, 1, tzinfo=UTC)


class Authority:
    """A certificate authority, a root or one below another."""

    def __init__(self, name: str, above: Authority | None = None) -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.above = above or self
        self.certificate = self._certificate(name, self.above, self.key, [], authority=True)

    def issue(self, name: str, *units: str, key: Any = None) -> tuple[x509.Certificate, Any]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        return self._certificate(name, self, key, list(units), authority=False), key

    def revoke(self, *certificates: x509.Certificate) -> bytes:
        builder = x509.CertificateRevocationListBuilder(self._name(self.name), START, START)
        for one in certificates:
            revoked = x509.RevokedCertificateBuilder(one.serial_number, START)
            builder = builder.add_revoked_certificate(revoked.build())
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def _name(self, name: str, units: list[str] | None = None) -> x509.Name:
        parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units or []]
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), *parts])

    def _certificate(
        self, name: str, above: Authority, key: Any, units: list[str], *, authority: bool
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._name(name, units))
            .issuer_name(self._name(above.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(START)
            .not_valid_after(START + timedelta(days=365))  # over for long: blocks are not judged by it
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return builder.sign(above.key, hashes.SHA256())


ROLES = {"client": CLIENT, "peer": PEER, "admin": ADMIN}


def msp_config(root: Authority, *intermediates: Authority, **more: Any) -> bytes:
    ous = msp_config_pb2.FabricNodeOUs(enable=True)
    for name in ROLES:
        getattr(ous, f"{name}_ou_identifier").organizational_unit_identifier = name
    fields = {"fabric_node_ous": ous, **more}
    config = msp_config_pb2.FabricMSPConfig(
        name="Org", root_certs=[root.pem], intermediate_certs=[one.pem for one in intermediates], **fields
    )
    return bytes(msp_config_pb2.MSPConfig(type=0, config=config.SerializeToString()).SerializeToString())


def members(root: Authority, *intermediates: Authority, **more: Any) -> Members:
    return Members([read_msp(msp_config(root, *intermediates, **more))])


def serialized(certificate: x509.Certificate, msp_id: str = "Org") -> bytes:
    pem = certificate.public_bytes(Encoding.PEM)
    return bytes(identities_pb2.SerializedIdentity(mspid=msp_id, id_bytes=pem).SerializeToString())


def principal(kind: int, content: Any) -> Any:
    octets = content if isinstance(content, bytes) else content.SerializeToString()
    return msp_principal_pb2.MSPPrincipal(principal_classification=kind, principal=octets)


def role(which: int, msp_id: str = "Org") -> Any:
    return principal(ROLE, msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=which))


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("root")


def test_a_role_is_what_the_certificate_names(root: Authority) -> None:
    """A client is a member and a client, and neither a peer nor another organisation's."""
    certificate, _ = root.issue("alice", "client")
    alice = members(root).member(serialized(certificate))
    assert alice.problem == ""
    held = [which for which in (MEMBER, ADMIN, CLIENT, PEER) if alice.msp.satisfies(alice, role(which))]
    assert held == [MEMBER, CLIENT]
    assert not alice.msp.satisfies(alice, role(MEMBER, "Other"))


def test_an_authority_below_another(root: Authority) -> None:
    """A certificate of an intermediate authority counts; one of an authority that isn't named does not."""
    below = Authority("below", root)
    stranger = Authority("below", Authority("root"))
    everybody = members(root, below)
    good, bad = (one.issue("alice", "client")[0] for one in (below, stranger))
    assert everybody.member(serialized(good)).problem == ""
    assert "authorities has issued" in everybody.member(serialized(bad)).problem
    assert "authorities has issued" in members(root).member(serialized(good)).problem


def test_everybody_has_one_role(root: Authority) -> None:
    """With NodeOUs: neither none nor two; and an authority is nobody."""
    everybody = members(root)
    for units, said in (((), "names 0 of the roles"), (("client", "peer"), "names 2 of the roles")):
        assert said in everybody.member(serialized(root.issue("alice", *units)[0])).problem
    assert "is an authority's" in everybody.member(serialized(Authority("below", root).certificate)).problem


def test_a_role_may_be_given_by_one_authority_only(root: Authority) -> None:
    below = Authority("below", root)
    ous = msp_config_pb2.FabricNodeOUs(enable=True)
    ous.peer_ou_identifier.organizational_unit_identifier = "peer"
    ous.peer_ou_identifier.certificate = below.pem
    everybody = members(root, below, fabric_node_ous=ous)
    assert everybody.member(serialized(below.issue("peer0", "peer")[0])).problem == ""
    said = everybody.member(serialized(root.issue("peer0", "peer")[0])).problem
    assert "was not given by the authority that may" in said


def test_units_that_an_organisation_demands(root: Authority) -> None:
    unit = msp_config_pb2.FabricOUIdentifier(organizational_unit_identifier="trade", certificate=root.pem)
    everybody = members(root, organizational_unit_identifiers=[unit])
    assert everybody.member(serialized(root.issue("alice", "client", "trade")[0])).problem == ""
    other = everybody.member(serialized(root.issue("alice", "client", "other")[0]))
    assert "names no organizational unit" in other.problem


def test_revoked_by_who_issued_it(root: Authority) -> None:
    """A CRL counts for its own authority's certificates, and only if that authority has signed it."""
    certificate, _ = root.issue("alice", "client")
    identity = serialized(certificate)
    revoked = members(root, revocation_list=[root.revoke(certificate)])
    assert revoked.member(identity).problem == "its certificate is revoked"
    assert members(root, revocation_list=[root.revoke()]).member(identity).problem == ""
    forged = Authority("root")
    assert members(root, revocation_list=[forged.revoke(certificate)]).member(identity).problem == ""


def test_administrators_may_be_named(root: Authority) -> None:
    """By their very certificates, whatever role these name."""
    certificate, _ = root.issue("alice", "client")
    everybody = members(root, admins=[certificate.public_bytes(Encoding.PEM)])
    alice = everybody.member(serialized(certificate))
    assert alice.msp.satisfies(alice, role(ADMIN))


def test_principals_that_are_no_roles(root: Authority) -> None:
    certificate, _ = root.issue("alice", "client", "trade")
    alice = members(root).member(serialized(certificate))
    holds = alice.msp.satisfies
    unit = msp_principal_pb2.OrganizationUnit(
        msp_identifier="Org", organizational_unit_identifier="trade", certifiers_identifier=alice.issued_by
    )
    assert holds(alice, principal(ORGANIZATION_UNIT, unit))
    unit.organizational_unit_identifier = "client "
    assert not holds(alice, principal(ORGANIZATION_UNIT, unit))
    assert holds(alice, principal(IDENTITY, serialized(certificate)))
    assert not holds(alice, principal(IDENTITY, serialized(root.issue("alice", "client")[0])))
    both = msp_principal_pb2.CombinedPrincipal(principals=[role(MEMBER), role(CLIENT)])
    assert holds(alice, principal(COMBINED, both))
    both.principals.append(role(PEER))
    assert not holds(alice, principal(COMBINED, both))
    assert not holds(alice, principal(COMBINED, msp_principal_pb2.CombinedPrincipal()))


def test_signatures(root: Authority) -> None:
    """Of the right key over the right bytes, with the smaller s; Ed25519 too."""
    certificate, key = root.issue("alice", "client")
    alice = members(root).member(serialized(certificate))
    signature = sign(key, b"message")
    assert alice.has_signed(b"message", signature)
    assert not alice.has_signed(b"another", signature)
    r, s = decode_dss_signature(signature)
    assert not alice.has_signed(b"message", encode_dss_signature(r, CURVE_ORDERS["secp256r1"] - s))
    assert not alice.has_signed(b"message", b"no signature")
    edwards = ed25519.Ed25519PrivateKey.generate()
    other = members(root).member(serialized(root.issue("bob", "client", key=edwards)[0]))
    assert other.has_signed(b"message", edwards.sign(b"message"))
    assert not other.has_signed(b"message", edwards.sign(b"another"))


@pytest.mark.parametrize("octets", [b"", b"\xff", b"no pem"])
def test_who_is_nobody(root: Authority, octets: bytes) -> None:
    with pytest.raises(BlockError):
        members(root).member(octets)
    with pytest.raises(BlockError):
        members(root).member(
            identities_pb2.SerializedIdentity(mspid="Org", id_bytes=octets).SerializeToString()
        )


def test_an_msp_of_another_kind() -> None:
    with pytest.raises(BlockError, match="type 1"):
        read_msp(msp_config_pb2.MSPConfig(type=1).SerializeToString())


class Group:
    """Three peers of one organisation, and a client."""

    def __init__(self, root: Authority) -> None:
        self.members = members(root)
        self.identities: list[tuple[bytes, Any]] = []
        for name, unit in (("p1", "peer"), ("p2", "peer"), ("p3", "peer"), ("c", "client")):
            certificate, key = root.issue(name, unit)
            self.identities.append((serialized(certificate), key))

    def signed(self, *who: int, message: bytes = b"m") -> list[Member]:
        made = (self.identities[one] for one in who)
        return signers(self.members, [Signed(message, sign(key, message), one) for one, key in made])

    def holds(self, policy: str, *who: int) -> bool:
        policies = Policies(configtx_pb2.ConfigGroup(), self.members)
        return policies.signature_policy_holds(parse_policy(policy), self.signed(*who))


def test_each_signature_counts_once(root: Authority) -> None:
    group = Group(root)
    assert group.holds("OR('Org.peer')", 0)
    assert not group.holds("OR('Org.peer')", 3)
    assert group.holds("AND('Org.peer', 'Org.client')", 0, 3)
    assert group.holds("AND('Org.peer', 'Org.peer')", 0, 1)
    assert not group.holds("AND('Org.peer', 'Org.peer')", 0)
    assert not group.holds("AND('Org.peer', 'Org.peer')", 0, 0)
    assert group.holds("OutOf(2, 'Org.peer', 'Org.client', 'Org.admin')", 3, 2)
    assert not group.holds("OutOf(2, 'Org.peer', 'Org.client', 'Org.admin')", 3)
    assert group.holds("OR(AND('Org.admin', 'Org.peer'), 'Org.peer')", 0)
    assert len(group.signed(0, 1, 0)) == 2


def test_policies_of_policies(root: Authority) -> None:
    """Any, all or a majority of the organisations below, each by its own policy of that name."""
    group = Group(root)
    config = configtx_pb2.ConfigGroup()
    peers, admins = (parse_policy(text).SerializeToString() for text in ("OR('Org.peer')", "OR('Org.admin')"))
    for name, value in (("a", peers), ("b", peers), ("c", admins)):
        policy = config.groups["Application"].groups[name].policies["Endorsement"].policy
        policy.type, policy.value = 1, value
    for rule in ("ANY", "ALL", "MAJORITY"):
        policy = config.groups["Application"].policies[rule].policy
        meta = policies_pb2.ImplicitMetaPolicy(sub_policy="Endorsement", rule=rule)
        policy.type, policy.value = 3, meta.SerializeToString()
    policies = Policies(config, group.members)
    held = {
        rule: policies.holds(f"/Channel/Application/{rule}", group.signed(0))
        for rule in ("ANY", "ALL", "MAJORITY", "NONE")
    }
    assert held == {"ANY": True, "ALL": False, "MAJORITY": True, "NONE": False}
    assert policies.has("/Channel/Application/ANY")
    assert not policies.has("/Channel/Nowhere/ANY")
    assert not policies.holds("/Other/Application/ANY", group.signed(0))
