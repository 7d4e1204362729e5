"""A network's profile with something wrong in it, for tests of what is said then.

``Spoilt(network, folder)`` is a copy of the profile and of its client's identities; each of its methods makes
one thing wrong and answers with the profile's path. Certificates come from the very CA of the organisation
where only that shows what is meant: one that has expired, but is right in everything else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from support.authority import Authority
from tokenmesh.fabric.network import Network

YESTERDAY = timedelta(days=-1)
CLIENT = "admin"
"""The identity of the profile's client."""


class Spoilt:
    """A profile of its own for ``network`` in ``folder``, as yet without a fault."""

    def __init__(self, network: Network, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.network = network
        self.folder = folder
        self.path = folder / "profile.yaml"
        self.content: dict[str, Any] = yaml.safe_load(network.profile.path.read_text())
        for name, organisation in self.content["organisations"].items():
            organisation["tls_ca"] = network.layout.ca_certificate(name).read_text()
            identities = network.layout.organisation(name) / "identities"
            shutil.copytree(identities, folder / name)
            organisation["identities"] = name
        self.organisation: str = self.content["client"]["organisation"]
        self.msp = folder / self.organisation / CLIENT / "msp"
        self.tls = folder / self.organisation / CLIENT / "tls"
        self._write()

    def as_it_is(self) -> Path:
        return self._write()

    def tls_ca_of_another(self) -> Path:
        stranger = Authority(self.folder, "stranger").certificate.read_text()
        for organisation in self.content["organisations"].values():
            organisation["tls_ca"] = stranger
        return self._write()

    def without_tls_pair(self) -> Path:
        shutil.rmtree(self.tls)
        return self._write()

    def tls_pair_of_another(self) -> Path:
        pair = Authority(self.folder, "stranger").issue("client")
        shutil.copy(pair.certificate, self.tls / "tls.crt")
        shutil.copy(pair.key, self.tls / "tls.key")
        return self._write()

    def expired_tls_pair(self) -> Path:
        self._reissue(self.tls / "tls.crt", self.tls / "tls.crt", self.tls / "tls.key")
        return self._write()

    def tls_key_that_does_not_fit(self) -> Path:
        (self.tls / "tls.key").write_bytes(_new_key_pem())
        return self._write()

    def tls_pair_that_is_none(self) -> Path:
        (self.tls / "tls.crt").write_text("nonsense")
        return self._write()

    def expired_certificate(self) -> Path:
        certificate = _only(self.msp / "signcerts")
        self._reissue(certificate, certificate, _only(self.msp / "keystore"))
        return self._write()

    def certificate_of_another_ca(self) -> Path:
        """Of a CA that bears the very name of the organisation's, with the right MSP id."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _only(self.msp / "signcerts")
        ours = x509.load_pem_x509_certificate(certificate.read_bytes())
        theirs = _reissued(ours, key.public_key(), key, timedelta(days=1))
        certificate.write_bytes(theirs.public_bytes(Encoding.PEM))
        _only(self.msp / "keystore").write_bytes(_pem(key))
        return self._write()

    def certificate_of_another_organisation(self) -> Path:
        """A good certificate of the services' CA, with governance's MSP id."""
        other = next(name for name in self.content["organisations"] if name != self.organisation)
        folder = self.network.identity(other, "stranger") / "msp"
        shutil.copy(_only(folder / "signcerts"), _only(self.msp / "signcerts"))
        shutil.copy(_only(folder / "keystore"), _only(self.msp / "keystore"))
        return self._write()

    def key_that_does_not_fit(self) -> Path:
        _only(self.msp / "keystore").write_bytes(_new_key_pem())
        return self._write()

    def unknown_msp(self) -> Path:
        self.content["organisations"][self.organisation]["msp_id"] = "NobodyMSP"
        return self._write()

    def unknown_channel(self) -> Path:
        self.content["channels"] = {"elsewhere": {"chaincode": self._channel["chaincode"]}}
        return self._write()

    def unknown_chaincode(self) -> Path:
        self._channel["chaincode"] = "absent"
        return self._write()

    def nobody_listens(self) -> Path:
        return self._at("127.0.0.1:9")

    def no_such_host(self) -> Path:
        return self._at("nowhere.invalid:7051")

    def an_orderers_port(self) -> Path:
        return self._at(self.network.profile.orderers[0].address)

    def not_a_fabric_port(self) -> Path:
        """The port of the CA: TLS by the right CA, and something else behind it."""
        ca = next(iter(self.content["organisations"].values()))["ca"]
        return self._at(ca["url"].removeprefix("https://"))

    @property
    def _channel(self) -> dict[str, Any]:
        channel: dict[str, Any] = next(iter(self.content["channels"].values()))
        return channel

    def _at(self, address: str) -> Path:
        for organisation in self.content["organisations"].values():
            for peer in organisation["peers"].values():
                peer["address"] = address
        return self._write()

    def _write(self) -> Path:
        self.path.write_text(yaml.safe_dump(self.content))
        return self.path

    def _reissue(self, source: Path, certificate: Path, key: Path) -> None:
        """The same certificate by the same CA, but that it ended yesterday."""
        ours = x509.load_pem_x509_certificate(source.read_bytes())
        authority = ca_key(self.network, self.organisation)
        own = load_pem_private_key(key.read_bytes(), None).public_key()
        assert isinstance(own, ec.EllipticCurvePublicKey)
        certificate.write_bytes(_reissued(ours, own, authority, YESTERDAY).public_bytes(Encoding.PEM))


def ca_key(network: Network, organisation: str) -> ec.EllipticCurvePrivateKey:
    """The private key with which an organisation's fabric-ca issues certificates."""
    folder = network.layout.organisation(organisation) / "ca" / "msp" / "keystore"
    ca = x509.load_pem_x509_certificate(network.layout.ca_certificate(organisation).read_bytes())
    for file in folder.glob("*_sk"):
        key = load_pem_private_key(file.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == ca.public_key():
            return key
    raise AssertionError(f"no key of the CA in {folder}")


def expired(
    network: Network, organisation: str, name: str, key: ec.EllipticCurvePublicKey
) -> x509.Certificate:
    """A client's certificate by an organisation's CA that ended yesterday."""
    ca = x509.load_pem_x509_certificate(network.layout.ca_certificate(organisation).read_bytes())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "client"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = x509.CertificateBuilder(ca.subject, subject, key, x509.random_serial_number())
    return _ending(builder, YESTERDAY).sign(ca_key(network, organisation), hashes.SHA256())


def _reissued(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePublicKey,
    authority: ec.EllipticCurvePrivateKey,
    left: timedelta,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        certificate.issuer, certificate.subject, key, x509.random_serial_number()
    )
    for extension in certificate.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    return _ending(builder, left).sign(authority, hashes.SHA256())


def _ending(builder: x509.CertificateBuilder, left: timedelta) -> x509.CertificateBuilder:
    end = datetime.now(UTC) + left
    return builder.not_valid_before(end - timedelta(days=30)).not_valid_after(end)


def _only(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def _new_key_pem() -> bytes:
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


Spoil = Callable[[Spoilt], Path]
