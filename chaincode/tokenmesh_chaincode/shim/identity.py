"""Who asked for a transaction: organisation, certificate, attributes of fabric-ca, roles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier
from fabric_protos.msp import identities_pb2

ATTRIBUTES_OID = ObjectIdentifier("1.2.3.4.5.6.7.8.1")
"""The certificate extension in which fabric-ca writes attributes."""


class ClientIdentity:
    """The creator of a proposal. The peer has checked certificate and signature before the chaincode runs."""

    def __init__(self, creator: bytes) -> None:
        identity = identities_pb2.SerializedIdentity.FromString(creator)
        self.mspid: str = identity.mspid
        self.pem: bytes = identity.id_bytes

    @cached_property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.pem)

    @cached_property
    def attributes(self) -> Mapping[str, str]:
        """What fabric-ca put into the certificate; empty without such an extension."""
        try:
            extension = self.certificate.extensions.get_extension_for_oid(ATTRIBUTES_OID)
        except x509.ExtensionNotFound:
            return MappingProxyType({})
        value: Any = extension.value
        attributes = json.loads(value.value).get("attrs", {})
        return MappingProxyType({str(name): str(given) for name, given in attributes.items()})

    def has_attribute(self, name: str, value: str | None = None) -> bool:
        """Is the attribute there, and with this value, if one is given?"""
        found = self.attributes.get(name)
        return found is not None and (value is None or found == value)

    @cached_property
    def units(self) -> tuple[str, ...]:
        """The subject's organisational units: ``client``, ``admin`` and ``peer`` are Fabric's node roles."""
        found = self.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        return tuple(str(unit.value) for unit in found)

    @cached_property
    def id(self) -> str:
        """Subject and issuer in RFC 4514's form: the same for every certificate of one enrolled identity."""
        return (
            f"x509::{self.certificate.subject.rfc4514_string()}::{self.certificate.issuer.rfc4514_string()}"
        )

    def __repr__(self) -> str:
        return f"<ClientIdentity of {self.mspid}>"
