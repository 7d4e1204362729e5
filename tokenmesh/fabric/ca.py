"""A client of fabric-ca: enroll, register, revoke and the rest of its REST interface.

    with CAClient("https://127.0.0.1:7054", tls_ca=pem) as ca:
        registrar = ca.enroll("registrar", secret)
        secret = ca.register("alice", by=registrar, attributes=[Attribute("role", "trader")])
        alice = ca.enroll("alice", secret)

Keys are made here and never leave the process. What fabric-ca asks for on the wire is in its
``swagger/swagger-fabric-ca.json``; how a request is signed in its ``util.GenECDSAToken``.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tokenmesh.fabric.certificates import certificate_request, common_name
from tokenmesh.fabric.errors import CAError
from tokenmesh.fabric.signing import sign

TIMEOUT_S = 10.0
RESPONSE_BYTES_MAX = 64 * 2**20
"""The longest answer that is read: ``certificates`` and ``identities`` answer with all they have."""
JSON = dict[str, Any]


class Attribute(NamedTuple):
    """What the CA keeps about an identity; with ``ecert`` it stands in the identity's certificates."""

    name: str
    value: str
    ecert: bool = True


class Enrollment(NamedTuple):
    """What enrolling gives: a certificate, the key made for it, and the certificates of the CA above it."""

    certificate: str
    key: ec.EllipticCurvePrivateKey
    ca_chain: str

    @property
    def key_pem(self) -> str:
        """The private key, PKCS #8, not encrypted: for a file that only its owner reads."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem.decode()


class CAInfo(NamedTuple):
    """What a CA says about itself."""

    name: str
    chain: str
    version: str


class Revoked(NamedTuple):
    """Serial and AKI of each certificate that was revoked, and the new CRL (PEM) if one was asked for."""

    certificates: list[tuple[str, str]]
    crl: str | None


class CAClient:
    """One CA. ``tls_ca`` is the PEM of what its TLS certificate must be signed by.

    ``name`` chooses one of several CAs in one server. ``tls_identity`` is for a server that asks for
    client certificates: paths of a certificate and a key file. Every method raises :class:`CAError`.
    """

    def __init__(
        self,
        url: str,
        *,
        tls_ca: str | None = None,
        name: str = "",
        tls_identity: tuple[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        context = ssl.create_default_context(cadata=tls_ca)
        if tls_identity is not None:
            context.load_cert_chain(*tls_identity)
        self.url = url.rstrip("/")
        self.name = name
        self._http = httpx.Client(verify=context, timeout=timeout_s, transport=transport, trust_env=False)

    def info(self) -> CAInfo:
        """Name, certificates and version of the CA. Needs no identity."""
        result = self._ask("GET", "cainfo", query={"ca": self.name} if self.name else None)
        return CAInfo(result["CAName"], _unwrapped(result["CAChain"]), result.get("Version", ""))

    # Enrolling

    def enroll(
        self,
        name: str,
        secret: str,
        *,
        profile: str = "",
        attributes: Iterable[str] | None = None,
        hosts: Sequence[str] = (),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Enrollment:
        """Exchange the secret of a registered identity for a certificate.

        ``profile="tls"`` gives a TLS certificate, for the names and addresses in ``hosts``. ``attributes``
        names those to put in the certificate; left out, it is all that were registered with ``ecert``.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        body = certificate_request(name, key, hosts, profile, attributes)
        return self._enrolled(self._ask("POST", "enroll", body, auth=httpx.BasicAuth(name, secret)), key)

    def reenroll(
        self,
        identity: Enrollment,
        *,
        profile: str = "",
        attributes: Iterable[str] | None = None,
        hosts: Sequence[str] = (),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Enrollment:
        """A new certificate for whom ``identity`` is: with a new key, or with ``key``."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        body = certificate_request(common_name(identity.certificate), key, hosts, profile, attributes)
        return self._enrolled(self._ask("POST", "reenroll", body, auth=_Token(identity)), key)

    def register(
        self,
        name: str,
        *,
        by: Enrollment,
        kind: str = "client",
        secret: str = "",
        max_enrollments: int = 0,
        affiliation: str = "",
        attributes: Iterable[Attribute] = (),
    ) -> str:
        """Make an identity known to the CA; the answer is the secret to enroll it with.

        ``kind`` becomes the certificate's OU (client, peer, orderer, admin). ``max_enrollments`` 0 is the
        CA's own limit, -1 none. ``by`` needs ``hf.Registrar.Roles`` for the type.
        """
        body = {
            "id": name,
            "type": kind,
            "secret": secret,
            "max_enrollments": max_enrollments,
            "affiliation": affiliation,
            "attrs": _attributes(attributes),
        }
        return str(self._ask("POST", "register", body, auth=_Token(by))["secret"])

    # Revoking

    def revoke(
        self,
        name: str = "",
        *,
        by: Enrollment,
        serial: str = "",
        aki: str = "",
        reason: str = "unspecified",
        gencrl: bool = False,
    ) -> Revoked:
        """Revoke ``name`` with all its certificates, or the one certificate of serial and AKI.

        The CA enrolls it no longer. A channel only refuses it once the CRL is in the channel's configuration.
        """
        body = {"id": name, "serial": serial, "aki": aki, "reason": reason, "gencrl": gencrl}
        result = self._ask("POST", "revoke", body, auth=_Token(by))
        revoked = [(one["Serial"], one["AKI"]) for one in result["RevokedCerts"] or ()]
        return Revoked(revoked, _unwrapped(result["CRL"]) if result.get("CRL") else None)

    def gencrl(
        self,
        *,
        by: Enrollment,
        revoked_after: datetime | None = None,
        revoked_before: datetime | None = None,
        expire_after: datetime | None = None,
        expire_before: datetime | None = None,
    ) -> str:
        """The certificate revocation list (PEM) of what is revoked and, by default, not yet expired."""
        limits = {
            "revokedafter": revoked_after,
            "revokedbefore": revoked_before,
            "expireafter": expire_after,
            "expirebefore": expire_before,
        }
        body = {name: _moment(value) for name, value in limits.items() if value is not None}
        return _unwrapped(self._ask("POST", "gencrl", body, auth=_Token(by))["CRL"])

    # What the CA knows

    def identities(self, *, by: Enrollment) -> list[JSON]:
        """All identities that ``by`` may manage: id, type, affiliation, attrs, max_enrollments."""
        return list(self._ask("GET", "identities", query=self._ca(), auth=_Token(by))["identities"] or ())

    def identity(self, name: str, *, by: Enrollment) -> JSON:
        """One identity, as in :meth:`identities`."""
        return self._ask("GET", f"identities/{quote(name, safe='')}", query=self._ca(), auth=_Token(by))

    def modify_identity(
        self,
        name: str,
        *,
        by: Enrollment,
        kind: str | None = None,
        secret: str | None = None,
        max_enrollments: int | None = None,
        affiliation: str | None = None,
        attributes: Iterable[Attribute] | None = None,
    ) -> JSON:
        """Change what the CA knows of an identity; what is left out stays. The answer is the identity."""
        given = {
            "type": kind,
            "secret": secret,
            "max_enrollments": max_enrollments,
            "affiliation": affiliation,
            "attrs": None if attributes is None else _attributes(attributes),
        }
        body = {field: value for field, value in given.items() if value is not None}
        return self._ask("PUT", f"identities/{quote(name, safe='')}", body, auth=_Token(by))

    def remove_identity(self, name: str, *, by: Enrollment, force: bool = False) -> JSON:
        """Forget an identity (``force``: also oneself). Only where the CA allows removal."""
        query = {**self._ca(), "force": str(force).lower()}
        return self._ask("DELETE", f"identities/{quote(name, safe='')}", query=query, auth=_Token(by))

    def affiliations(self, *, by: Enrollment) -> JSON:
        """The tree of affiliations that ``by`` is in: name, affiliations."""
        return self._ask("GET", "affiliations", query=self._ca(), auth=_Token(by))

    def add_affiliation(self, name: str, *, by: Enrollment, force: bool = True) -> JSON:
        """Add an affiliation (``mesh.shop``); with ``force``, those above it too."""
        query = {"force": str(force).lower()}
        return self._ask("POST", "affiliations", {"name": name}, query=query, auth=_Token(by))

    def remove_affiliation(self, name: str, *, by: Enrollment, force: bool = False) -> JSON:
        """Remove an affiliation; with ``force``, with all below it. Only where the CA allows removal."""
        query = {**self._ca(), "force": str(force).lower()}
        return self._ask("DELETE", f"affiliations/{quote(name, safe='')}", query=query, auth=_Token(by))

    def certificates(
        self,
        *,
        by: Enrollment,
        name: str = "",
        serial: str = "",
        aki: str = "",
        not_expired: bool = False,
        not_revoked: bool = False,
    ) -> list[str]:
        """The certificates (PEM) that the CA has issued, all or those that fit."""
        query = {**self._ca(), "id": name, "serial": serial, "aki": aki}
        query |= {"notexpired": str(not_expired).lower(), "notrevoked": str(not_revoked).lower()}
        chosen = {name: value for name, value in query.items() if value}
        result = self._ask("GET", "certificates", query=chosen, auth=_Token(by))
        return [one["PEM"] for one in result["certs"] or ()]

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ca(self) -> dict[str, str]:
        return {"ca": self.name} if self.name else {}

    def _enrolled(self, result: JSON, key: ec.EllipticCurvePrivateKey) -> Enrollment:
        return Enrollment(_unwrapped(result["Cert"]), key, _unwrapped(result["ServerInfo"]["CAChain"]))

    def _ask(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        query: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
    ) -> JSON:
        content = b""
        if body is not None:
            content = json.dumps({"caname": self.name, **body} if self.name else body).encode()
        url = httpx.URL(f"{self.url}/api/v1/{path}", params=query or None)
        try:
            with self._http.stream(method, url, content=content, auth=auth) as response:
                return _result(response.status_code, _read(response), path)
        except httpx.HTTPError as error:
            raise CAError(
                f"fabric-ca at {self.url} cannot be reached ({error or type(error).__name__}); "
                f"is it running, and is tls_ca the certificate that signed its own?"
            ) from error


class _Token(httpx.Auth):
    """Signs a request as the holder of an enrollment: its certificate, and a signature over what is sent."""

    requires_request_body = True

    def __init__(self, identity: Enrollment) -> None:
        self._identity = identity

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        certificate = _b64(self._identity.certificate.encode())
        signed = ".".join((request.method, _b64(request.url.raw_path), _b64(request.content), certificate))
        signature = _b64(sign(self._identity.key, signed.encode()))
        request.headers["Authorization"] = f"{certificate}.{signature}"
        yield request


def _attributes(attributes: Iterable[Attribute]) -> list[JSON]:
    return [{"name": one.name, "value": one.value, "ecert": one.ecert} for one in attributes]


def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > RESPONSE_BYTES_MAX:
            raise CAError(
                f"the answer of fabric-ca is longer than {RESPONSE_BYTES_MAX} bytes; ask for less at once"
            )
    return bytes(body)


def _result(status: int, body: bytes, path: str) -> JSON:
    """The ``result`` of an answer; its first error raised."""
    try:
        answer = json.loads(body)
        if answer["success"] and status < 400 and isinstance(answer["result"], dict):
            return dict(answer["result"])
        first: JSON = (answer.get("errors") or [{"code": 0, "message": "no reason given"}])[0]
        message, code = str(first["message"]), int(first["code"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CAError(f"{path}: what answered is not fabric-ca (status {status})", status=status) from error
    raise CAError(
        f"fabric-ca refused {path}: {message} (status {status}, code {code})", status=status, code=code
    )


def _moment(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a moment needs its time zone; use datetime.now(timezone.utc)")
    return value.isoformat()


def _unwrapped(text: str) -> str:
    return base64.b64decode(text).decode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
