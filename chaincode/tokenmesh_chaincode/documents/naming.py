"""How things are named so that both sides name them alike: ids, digests, targets, canonical JSON."""

from __future__ import annotations

import hashlib
import json
import json.encoder
import os
import re
import time
from binascii import b2a_base64
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from tokenmesh_chaincode.documents.jws import encode_segment

# RFC 3986's pchar and the slash: what may stand in a path as it is.
_PATH_SAFE: Final = "/!$&'()*+,;=:@~"
# What is made of these alone is spelled already: the usual case.
_PLAIN: Final = r"[A-Za-z0-9_.\-/!$&'()*+,;=:@~]+"
_is_plain: Final = re.compile(_PLAIN).fullmatch
_are_plain: Final = re.compile(_PLAIN.encode()).fullmatch
_QUERY_SAFE: Final = "".join(map(chr, range(0x21, 0x7F)))


def encoder(*, sort_keys: bool) -> Callable[[Any], str]:
    """What writes a value as JSON, without white space; ``ValueError`` for what is no number.

    What ``json.JSONEncoder`` makes anew for every value is made once: a third of the time. For values that
    do not contain themselves.
    """
    plain = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys, allow_nan=False, check_circular=False
    )
    make, escape = getattr(json.encoder, "c_make_encoder", None), json.encoder.encode_basestring
    if make is None:  # a Python without its accelerator
        return plain.encode
    pieces = make(None, plain.default, escape, None, ":", ",", sort_keys, False, False)
    join = "".join
    return lambda value: join(pieces(value, 0))


_canonical: Final = encoder(sort_keys=True)


def canonical(value: Any) -> bytes:
    """JSON with sorted names and no white space, in UTF-8: one value, one spelling (as in RFC 8785)."""
    return _canonical(value).encode("utf-8")


def thumbprint(data: bytes) -> str:
    """SHA-256 as base64url without padding, 43 characters."""
    return encode_segment(hashlib.sha256(data).digest())


def digest(body: bytes) -> str:
    """A body's SHA-256 in the form of RFC 9530's ``Content-Digest``: ``sha-256=:<base64>:``."""
    return f"sha-256=:{b2a_base64(hashlib.sha256(body).digest(), newline=False).decode('ascii')}:"


def new_id() -> str:
    """An id of 128 bits, 22 characters: 48 bits of milliseconds and 80 random ones, as in UUIDv7 (RFC 9562).

    Nothing may depend on their order. But ids that begin alike are kept side by side, and a batch of rows
    with such ids is written to a database several times faster than one with ids from all over the place.
    """
    return encode_segment((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))


def derived_id(dom: str, payer: str, payee: str, key: str, generation: int = 0) -> str:
    """The contract id that follows from a caller's idempotency key: the same job, the same id.

    The first 16 bytes of SHA-256 over ``canonical(["tokenmesh-contract", dom, payer, payee, key,
    generation])``, as base64url: 22 characters.
    ``generation`` counts how often the job was begun anew after a contract for it had ended void.
    """
    name = canonical(["tokenmesh-contract", dom, payer, payee, key, generation])
    return encode_segment(hashlib.sha256(name).digest()[:16])


def target(path: str | bytes, query: str | bytes = "", *, decoded: bool = False) -> str:
    """The canonical ``htu`` of a request: its path in one spelling, and its query as it was sent.

    ``path`` is percent-encoded, as on the wire, unless ``decoded`` is true: give the bytes (or WSGI's
    latin-1 text) of a path that the server has decoded already, which must not be decoded twice. Text that
    is not latin-1 counts as UTF-8. In the query only what may not stand in a URL is encoded.
    """
    if not query:
        if isinstance(path, str):
            if _is_plain(path):
                return path
        elif _are_plain(path):
            return path.decode("ascii")
    raw = _to_bytes(path)
    if not decoded and b"%" in raw:
        raw = unquote_to_bytes(raw)
    spelled = quote_from_bytes(raw, _PATH_SAFE) or "/"
    if not query:
        return spelled
    return f"{spelled}?{quote_from_bytes(_to_bytes(query), _QUERY_SAFE)}"


def _to_bytes(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
