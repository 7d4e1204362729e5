"""A signer whose key never leaves a hardware security module, by PKCS#11. Needs the extra ``hsm``."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tokenmesh.fabric.errors import IdentityError
from tokenmesh.fabric.gateway.identity import Identity, hash_sha256
from tokenmesh.fabric.signing import CURVE_ORDERS


class HsmSigner:
    """Signs with a key on a token, one digest at a time: a session is not for several threads.

    ``library`` is the module's PKCS#11 library. The key is found by ``identifier`` (``CKA_ID``), which
    Fabric's tools set to the SHA-256 of the public key: :func:`subject_key_identifier`.
    """

    def __init__(
        self, library: str | Path, token: str, pin: str, identifier: bytes, *, curve: str = "secp256r1"
    ) -> None:
        try:
            import pkcs11
        except ImportError as error:
            raise IdentityError("an HSM needs PKCS#11: pip install 'tokenmesh-fabric[hsm]'") from error
        self._errors: type[Exception] = pkcs11.PKCS11Error
        self._mechanism = pkcs11.Mechanism.ECDSA
        self._order = CURVE_ORDERS[curve]
        self._lock = threading.Lock()
        try:
            slot = pkcs11.lib(str(library)).get_token(token_label=token)
            self._session: Any = slot.open(user_pin=pin)
        except (pkcs11.PKCS11Error, RuntimeError) as error:
            raise IdentityError(f"token {token} of {library} cannot be opened: {error!r}") from error
        try:
            self._key: Any = self._session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, id=identifier)
        except pkcs11.PKCS11Error as error:
            self._session.close()
            raise IdentityError(f"token {token} has no private key {identifier.hex()}: {error!r}") from error

    def __call__(self, digest: bytes, /) -> bytes:
        try:
            with self._lock:
                raw = bytes(self._key.sign(digest, mechanism=self._mechanism))
        except self._errors as error:
            raise IdentityError(f"the token did not sign: {error!r}") from error
        r, s = (int.from_bytes(half) for half in (raw[: len(raw) // 2], raw[len(raw) // 2 :]))
        return encode_dss_signature(r, min(s, self._order - s))

    def close(self) -> None:
        """Log out of the token."""
        with self._lock:
            self._session.close()

    def __enter__(self) -> HsmSigner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def subject_key_identifier(identity: Identity) -> bytes:
    """By which Fabric's tools name an identity's key on a token: SHA-256 of the public key's point."""
    key = x509.load_pem_x509_certificate(identity.credentials).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IdentityError("only keys on elliptic curves are looked for on tokens")
    return hash_sha256(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
