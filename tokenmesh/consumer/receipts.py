"""Receipts, as the payer checks them: who signed, for which contract, how much, for what response."""

from __future__ import annotations

import hashlib
import time
import zlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec

from tokenmesh.config import Settings
from tokenmesh.errors import LedgerError, ReceiptInvalid
from tokenmesh.ledger.base import Certificate, Ledger
from tokenmesh.steps import Steps, wait
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import DocumentError, Receipt, Signed

RECEIPTS_PATH = "/.well-known/tokenmesh/receipts/"
ASK_AGAIN_S = 1.0
"""How soon the ledger is asked again for a payee's wallet because of a certificate that it did not have."""

INFLATE_BYTES_MAX = 2**20
"""How much of a compressed body is undone at once."""


class Expected(NamedTuple):
    """What a receipt must say. ``tokens``: the most that may be charged."""

    service: str
    jti: str
    tokens: int


class Digests:
    """The digest of a response's bytes as they come, and of what they are without their content coding.

    A payee signs what its handler gave; a compressing middleware or proxy after it changes the bytes, not
    the meaning. ``gzip`` and ``deflate`` are undone here; of other codings only the bytes as sent are known,
    and ``certain`` is False.
    """

    def __init__(self, coding: str | None = None) -> None:
        self.certain = True
        self._raw = hashlib.sha256()
        self._decoded = None
        self._inflate = None
        if not coding:
            return
        codings = [name.strip().lower() for name in coding.split(",")]
        codings = [name for name in codings if name not in ("", "identity")]
        if codings in (["gzip"], ["x-gzip"], ["deflate"]):
            self._decoded = hashlib.sha256()
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif codings:
            self.certain = False

    def update(self, data: bytes) -> None:
        """Take in the next bytes."""
        self._raw.update(data)
        inflate = self._inflate
        if inflate is None or self._decoded is None:
            return
        try:
            while data:  # in pieces: a few bytes may stand for very many
                self._decoded.update(inflate.decompress(data, INFLATE_BYTES_MAX))
                data = inflate.unconsumed_tail
        except zlib.error:  # such as a raw deflate stream, which some servers send
            self.certain = False
            self._inflate = None

    def match(self, digest: str) -> bool:
        """Whether ``digest`` (RFC 9530's form) is one of these."""
        return _named(self._raw.digest()) == digest or (
            self._decoded is not None and _named(self._decoded.digest()) == digest
        )


def _named(digest: bytes) -> str:
    return f"sha-256=:{b64encode(digest).decode()}:"


def digests_of(body: bytes, coding: str | None) -> Digests:
    """The digests of a whole body."""
    digests = Digests(coding)
    digests.update(body)
    return digests


class _Wallet(NamedTuple):
    keys: dict[str, tuple[ec.EllipticCurvePublicKey, int | None]]
    asked_at: float

    def is_good(self, now: float) -> bool:
        """Whether it has a certificate that a receipt can be signed with."""
        return any(until is None or now <= until for _, until in self.keys.values())


class ReceiptChecker:
    """Checks receipts against the certificates that the ledger has for their payees."""

    def __init__(
        self, payer: str, ledger: Ledger, settings: Settings, clock: Callable[[], float] = time.time
    ) -> None:
        self._payer = payer
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._wallets: OrderedDict[str, _Wallet] = OrderedDict()

    def prepare(self, service: str) -> Steps[bool]:
        """Have the payee's certificates at hand before anything is spent; False if there is no such wallet,
        or none of its certificates is good.

        Raises :class:`LedgerError`.
        """
        wallet = self._wallets.get(service)
        if wallet is None or not wallet.is_good(self._clock()):
            wallet = yield from self._ask(service, None)
        return wallet is not None and wallet.is_good(self._clock())

    def check(
        self, text: str, expected: Expected, *, status: int | None, digests: Digests | None
    ) -> Steps[Receipt]:
        """The receipt in ``text`` if everything in it holds; raises :class:`ReceiptInvalid`.

        ``status`` and ``digests`` are those of its response; None: it came with another one, or without one.
        """
        try:
            signed = documents.parse_receipt(text)
        except DocumentError as error:
            _invalid(expected, f"it cannot be read ({error})", error)
        receipt = signed.body
        service = expected.service
        parties = (signed.header.kid, receipt.iss, receipt.aud, receipt.jti, receipt.dom)
        true = (service, service, self._payer, expected.jti, self._ledger.domain)
        if parties != true:
            _invalid(
                expected, f"signer, payee, payer, contract and ledger are {parties}, and should be {true}"
            )
        if receipt.tok > expected.tokens:
            _invalid(expected, f"it charges {receipt.tok} tokens; the contract allows {expected.tokens}")
        if receipt.out == "void" and receipt.tok:
            _invalid(expected, f"it says void, and charges {receipt.tok} tokens")
        if status is not None and receipt.status != status:
            _invalid(expected, f"it is for status {receipt.status}, and the response has {status}")
        if digests is not None:
            self.compare(receipt, expected, digests)
        key = yield from self._key(signed, expected)
        if not documents.verify(signed, key):
            _invalid(expected, "its signature does not hold")
        return receipt

    def compare(self, receipt: Receipt, expected: Expected, digests: Digests) -> None:
        """Whether the receipt is for these bytes; raises :class:`ReceiptInvalid`."""
        if digests.certain and not digests.match(receipt.dig):
            _invalid(expected, "its digest is not that of the response")

    def _key(self, signed: Signed[Receipt], expected: Expected) -> Steps[ec.EllipticCurvePublicKey]:
        x5t, service = signed.header.x5t, expected.service
        wallet = self._wallets.get(service)
        age = self._clock() - wallet.asked_at if wallet is not None else 0.0
        if (
            wallet is None
            or age >= self._settings.wallet_cache_s
            or (x5t not in wallet.keys and age >= ASK_AGAIN_S)
        ):
            try:
                wallet = yield from self._ask(service, wallet)
            except LedgerError as error:
                _invalid(expected, "the ledger gave no answer when asked for the certificate", error)
        if wallet is None or x5t not in wallet.keys:
            _invalid(expected, f"it is signed with a certificate that the ledger does not have for {service}")
        key, until = wallet.keys[x5t]
        if until is not None and signed.body.iat > until:
            _invalid(expected, "it is signed with a certificate that had ended, or was revoked, by then")
        return key

    def _ask(self, service: str, known: _Wallet | None) -> Steps[_Wallet | None]:
        now = self._clock()
        try:
            record = yield from wait(self._ledger.wallet(service))
        except LedgerError:
            if known is None:
                raise
            return known  # better an older answer than none: a certificate rarely changes
        keys = {}
        if record is not None:
            keys = {each.x5t: (public_key(each.pem), _end(each)) for each in record.certificates}
        wallet = self._wallets[service] = _Wallet(keys, now)
        while len(self._wallets) > self._settings.wallet_cache_max:
            self._wallets.popitem(last=False)
        return wallet


def _end(certificate: Certificate) -> int | None:
    """The last second at which a receipt may have been signed with it."""
    ends = [moment for moment in (certificate.until, certificate.revoked_at) if moment is not None]
    return min(ends, default=None)


def _invalid(expected: Expected, why: str, cause: Exception | None = None) -> NoReturn:
    raise ReceiptInvalid(
        f"{expected.service} answered with a receipt that does not hold: {why}. Its response is not given "
        "out; receipt and contract are evidence",
        service=expected.service,
        contract_id=expected.jti,
    ) from cause
