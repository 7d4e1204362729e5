"""A profile: one YAML file that says where a Fabric network is and who uses it.

``tokenmesh fabric up`` writes one; written by hand, it describes a network that someone else runs just as
well. Paths in it are relative to the file; where a certificate is asked for, its PEM may stand there itself.

    version: 1
    client: {organisation: governance, identity: admin}
    channels:
      mesh: {chaincode: tokenmesh}
    organisations:
      governance:
        msp_id: GovernanceMSP
        tls_ca: governance/ca.pem
        identities: governance/identities
        ca: {url: "https://127.0.0.1:7054", name: ca.governance}
        peers:
          peer0.governance: {address: "127.0.0.1:7051"}
        orderers:
          orderer0.governance: {address: "127.0.0.1:7050"}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from cryptography import x509

from tokenmesh.fabric.errors import ProfileError

VERSION = 1
PROFILE_BYTES_MAX = 2**20
GENESIS = re.compile(r"[0-9a-f]{64}")
ADDRESS = re.compile(r"[A-Za-z0-9._-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Endpoint:
    """A peer or orderer. ``server_name`` is the name in its TLS certificate, where that isn't its address.

    ``tls_ca`` is PEM. ``chaincode`` is where a chaincode that runs as a service beside this peer listens.
    """

    name: str
    organisation: str
    address: str
    tls_ca: str
    server_name: str | None = None
    chaincode: str | None = None


@dataclass(frozen=True)
class CertificateAuthority:
    """An organisation's fabric-ca. ``tls_ca`` is PEM."""

    url: str
    name: str
    tls_ca: str


@dataclass(frozen=True)
class IdentityFiles:
    """Where an identity lies: what it signs with, and what its TLS connections use (None: no mutual TLS)."""

    msp_id: str
    certificate: Path
    key: Path
    tls_certificate: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True)
class Organisation:
    """An organisation, its nodes, and the folder of its identities as far as they are at hand."""

    name: str
    msp_id: str
    peers: Mapping[str, Endpoint] = field(default_factory=dict)
    orderers: Mapping[str, Endpoint] = field(default_factory=dict)
    ca: CertificateAuthority | None = None
    identities: Path | None = None

    def identity(self, name: str) -> IdentityFiles:
        """The files of an identity: ``NAME/msp`` as Fabric's programs keep it, and ``NAME/tls``."""
        if self.identities is None:
            raise ProfileError(
                f"organisations.{self.name} names no folder of identities, so {name} cannot be found"
            )
        folder = self.identities / name
        if not folder.is_dir():
            others = sorted(path.name for path in self.identities.glob("*") if path.is_dir())
            raise ProfileError(
                f"{self.name} has no identity {name} in {self.identities}, but {', '.join(others) or 'none'}"
            )
        certificate = _only_file(folder / "msp" / "signcerts")
        key = _only_file(folder / "msp" / "keystore")
        return IdentityFiles(self.msp_id, certificate, key, *self.tls_pair(name))

    def tls_pair(self, name: str) -> tuple[Path, Path] | tuple[None, None]:
        """Certificate and key that ``name`` connects with, which may be here though its own key is not."""
        return _tls_pair(self.identities / name / "tls") if self.identities is not None else (None, None)


@dataclass(frozen=True)
class ChannelProfile:
    """A channel, and the name of the chaincode on it.

    ``genesis`` is the hash of its first block in hex, "" where nobody has written it down: whoever verifies
    the channel need trust nothing else.
    """

    name: str
    chaincode: str
    genesis: str = ""


@dataclass(frozen=True)
class Profile:
    """A network as its users see it, and who they are unless they say otherwise."""

    path: Path
    channels: Mapping[str, ChannelProfile]
    organisations: Mapping[str, Organisation]
    organisation: str
    identity: str

    @property
    def peers(self) -> list[Endpoint]:
        """All peers; those of the client's own organisation first."""
        own = self.organisations[self.organisation].peers.values()
        return [*own, *(peer for one in self._others() for peer in one.peers.values())]

    @property
    def orderers(self) -> list[Endpoint]:
        return [orderer for one in self.organisations.values() for orderer in one.orderers.values()]

    def peer(self, organisation: str | None = None, name: str | None = None) -> Endpoint:
        """A peer of the client's organisation, or of another; the first, unless it is named."""
        owner = organisation or self.organisation
        peers = self.organisations[owner].peers if owner in self.organisations else {}
        if not peers or (name is not None and name not in peers):
            raise ProfileError(
                f"{self.path}: {owner} has no peer {name or ''}; it has {', '.join(peers) or 'none'}"
            )
        return peers[name] if name is not None else next(iter(peers.values()))

    def client(self, organisation: str | None = None, identity: str | None = None) -> IdentityFiles:
        """The files of who uses the network."""
        name = organisation or self.organisation
        if name not in self.organisations:
            raise ProfileError(
                f"{self.path}: no organisation {name}; there are {', '.join(self.organisations)}"
            )
        return self.organisations[name].identity(identity or self.identity)

    def _others(self) -> list[Organisation]:
        return [one for name, one in self.organisations.items() if name != self.organisation]


def load_profile(path: str | Path) -> Profile:
    """Read and check a profile. :class:`ProfileError` names the field that does not fit, and what would."""
    file = Path(path).absolute()
    try:
        file = file.resolve()
        if file.is_dir():
            raise ProfileError(f"{file} is a folder: name the profile in it, as {file / 'profile.yaml'}")
        if file.stat().st_size > PROFILE_BYTES_MAX:
            raise ProfileError(f"{file} is larger than {PROFILE_BYTES_MAX} bytes: that is no profile")
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError as error:
        raise ProfileError(
            f"there is no profile {file}; `tokenmesh fabric up` makes a network and its profile"
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # in one line
        raise ProfileError(f"{file} cannot be read as YAML: {said}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go in a circle
        raise ProfileError(f"the profile {file} cannot be read: {error}") from error
    return _Reader(file).profile(content)


class _Reader:
    """Reads one profile; every complaint names the file and the field."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def profile(self, content: Any) -> Profile:
        top = self._fields(content, "", required=("version", "client", "channels", "organisations"))
        if top["version"] != VERSION:
            raise self._wrong("version", f"is {top['version']!r}; this tokenmesh reads version {VERSION}")
        client = self._fields(top["client"], "client", required=("organisation",), optional=("identity",))
        organisations = self._each(top["organisations"], "organisations", self._organisation)
        organisation = self._text(client, "client", "organisation")
        if organisation not in organisations:
            raise self._wrong(
                "client.organisation", f"is {organisation}; there are {', '.join(organisations)}"
            )
        channels = self._each(top["channels"], "channels", self._channel)
        identity = self._text(client, "client", "identity", "admin")
        return Profile(self._file, channels, organisations, organisation, identity)

    def _channel(self, name: str, content: Any, where: str) -> ChannelProfile:
        fields = self._fields(content, where, ("chaincode",), ("genesis",))
        genesis = self._text(fields, where, "genesis", "").lower()
        if genesis and not GENESIS.fullmatch(genesis):
            raise self._wrong(
                f"{where}.genesis", f"is {genesis!r}; the hash of a block is 64 hexadecimal digits"
            )
        return ChannelProfile(name, self._text(fields, where, "chaincode"), genesis)

    def _organisation(self, name: str, content: Any, where: str) -> Organisation:
        optional = ("tls_ca", "identities", "ca", "peers", "orderers")
        fields = self._fields(content, where, ("msp_id",), optional)
        tls_ca = self._certificate(fields, where, "tls_ca", "")

        def endpoint(node: str, given: Any, at: str) -> Endpoint:
            return self._endpoint(node, name, given, at, tls_ca)

        identities = self._text(fields, where, "identities", "")
        return Organisation(
            name,
            self._text(fields, where, "msp_id"),
            self._each(fields.get("peers", {}), f"{where}.peers", endpoint, may_be_empty=True),
            self._each(fields.get("orderers", {}), f"{where}.orderers", endpoint, may_be_empty=True),
            self._ca(fields["ca"], f"{where}.ca", tls_ca) if "ca" in fields else None,
            self._file.parent / identities if identities else None,
        )

    def _endpoint(self, name: str, organisation: str, content: Any, where: str, tls_ca: str) -> Endpoint:
        fields = self._fields(content, where, ("address",), ("tls_ca", "server_name", "chaincode"))
        addresses = {use: self._text(fields, where, use, "") for use in ("address", "chaincode")}
        for use, address in addresses.items():
            if not ADDRESS.fullmatch(address) and (address or use == "address"):
                raise self._wrong(
                    f"{where}.{use}", f"is {address!r}; it is to be host:port, without a scheme"
                )
        own = self._certificate(fields, where, "tls_ca", tls_ca)
        if not own:
            raise self._wrong(
                f"{where}.tls_ca", "is missing, here and at the organisation: Fabric is used by TLS only"
            )
        server_name = self._text(fields, where, "server_name", "") or None
        return Endpoint(
            name, organisation, addresses["address"], own, server_name, addresses["chaincode"] or None
        )

    def _ca(self, content: Any, where: str, tls_ca: str) -> CertificateAuthority:
        fields = self._fields(content, where, ("url",), ("name", "tls_ca"))
        url = self._text(fields, where, "url")
        if not url.startswith(("https://", "http://")):
            raise self._wrong(f"{where}.url", f"is {url!r}; it is to begin with https://")
        own = self._certificate(fields, where, "tls_ca", tls_ca)
        return CertificateAuthority(url, self._text(fields, where, "name", ""), own)

    def _each(
        self,
        content: Any,
        where: str,
        read: Callable[[str, Any, str], Item],
        *,
        may_be_empty: bool = False,
    ) -> dict[str, Item]:
        if not isinstance(content, dict) or not (content or may_be_empty):
            raise self._wrong(where, "is to name at least one, each with its fields below it")
        return {str(name): read(str(name), given, f"{where}.{name}") for name, given in content.items()}

    def _fields(
        self, content: Any, where: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise self._wrong(where, f"is to have the fields {', '.join(required + optional)}")
        for name in content:
            if name not in required + optional:
                near = difflib.get_close_matches(str(name), required + optional, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(required + optional)}"
                raise self._wrong(f"{where}.{name}".lstrip("."), f"is not known; {hint}")
        for name in required:
            if name not in content:
                raise self._wrong(f"{where}.{name}".lstrip("."), "is missing")
        return content

    def _text(self, fields: Mapping[str, Any], where: str, name: str, default: str | None = None) -> str:
        value = fields.get(name, default)
        if not isinstance(value, str) or (not value and default is None):
            raise self._wrong(
                f"{where}.{name}", f"is {value!r}; it is to be text (in quotes, if it looks like a number)"
            )
        return value

    def _certificate(self, fields: Mapping[str, Any], where: str, name: str, default: str) -> str:
        """The PEM that a field holds, or that lies in the file it names."""
        given = self._text(fields, where, name, "")
        if not given:
            return default
        pem, source = given, "what stands there"
        if "-----BEGIN" not in given:
            path = self._file.parent / given
            source = str(path)
            try:
                pem = path.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise self._wrong(f"{where}.{name}", f"names a file that cannot be read: {error}") from error
        try:
            x509.load_pem_x509_certificates(pem.encode())
        except ValueError as error:
            raise self._wrong(f"{where}.{name}", f"is no certificate in PEM ({source})") from error
        return pem

    def _wrong(self, where: str, what: str) -> ProfileError:
        return ProfileError(f"{self._file}: {where or 'the profile'} {what}")


def _only_file(folder: Path) -> Path:
    files = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
    if len(files) != 1:
        raise ProfileError(f"{folder} is to hold one file, and holds {len(files)}")
    return files[0]


def _tls_pair(folder: Path) -> tuple[Path, Path] | tuple[None, None]:
    """Certificate and key for mutual TLS, by the names that Fabric's tools give them."""
    for name in ("tls", "client", "server"):
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        if certificate.is_file() and key.is_file():
            return certificate, key
    return None, None
