"""Documents that almost hold: a good one with one thing wrong, in its claims, its header or its spelling."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

from fuzz.chance import Chance

from tokenmesh_chaincode.documents import Signer

ALGORITHMS: Final = ("none", "HS256", "RS256", "ES384", "EdDSA", "es256", "ES256 ", "", None, ["ES256"], 256)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def contents(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def sealed(header: bytes, claims: bytes, signer: Signer) -> str:
    """Any header and any claims under a signature that holds."""
    signing_input = f"{segment(header)}.{segment(claims)}"
    return f"{signing_input}.{segment(signer.sign(signing_input.encode()))}"


def header_of(typ: str, signer: Signer) -> dict[str, Any]:
    return {"alg": "ES256", "typ": typ, "kid": signer.name, "x5t#S256": signer.x5t}


def spelled(chance: Chance, value: Any) -> bytes:
    """``value`` in JSON, in one of the ways to spell it, or in none."""
    way = chance.below(8)
    if way == 0:
        text = json.dumps(value, indent=chance.below(4), ensure_ascii=True)
    elif way == 1:
        text = " \n\t" + json.dumps(value) + "\r\n" * chance.below(3)
    else:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=chance.one_in(2))
    data = text.encode("utf-8", "surrogatepass")
    if way == 2:
        data = text.encode(chance.pick(("utf-16", "utf-32", "utf-8-sig", "utf-7")), "surrogatepass")
    elif way == 3 and isinstance(value, dict) and value:
        name = json.dumps(chance.pick(list(value))).encode("utf-8", "surrogatepass")  # a name, twice
        data = data[:-1] + b"," + name + b":" + json.dumps(chance.value()).encode() + b"}"
    elif way == 4:
        data = chance.spoil(data)
    elif way == 5:
        data = data.replace(b":1", b":01" if chance.one_in(2) else b":+1", 1)
    return data


def spoilt_header(chance: Chance, header: dict[str, Any]) -> bytes:
    way = chance.below(4)
    if way == 0:
        return spelled(chance, {**header, "alg": chance.pick(ALGORITHMS)})
    if way == 1:
        name = chance.pick(("crit", "jwk", "jku", "x5c", "x5u", "b64", "zip", "cty"))
        return spelled(chance, {**header, name: chance.value()})
    return spelled(chance, chance.spoil_json(header))


def spoilt(chance: Chance, text: str, signer: Signer, typ: str) -> tuple[bytes, bool]:
    """The document ``text`` of ``signer`` with something wrong; and whether ``signer`` has signed it anew."""
    way = chance.below(8)
    head, claims, signature = text.split(".")
    if way == 0:
        return chance.spoil(text.encode()), False
    if way == 1:  # another signature
        raw = contents(signature)
        other = (chance.spoil(raw), raw[32:] + raw[:32], bytes(64), b"\xff" * 64, der(raw))
        return f"{head}.{claims}.{segment(chance.pick(other))}".encode(), False
    if way == 2:  # the same bytes, otherwise spelled
        parts = [head, claims, signature]
        at = chance.below(3)
        parts[at] += chance.pick(("=", "==", "\n", " ", "A", "."))
        return ".".join(parts).encode(), False
    body = json.loads(contents(claims))
    header = header_of(typ, signer)
    if way == 3:
        new_header, new_claims = spoilt_header(chance, header), contents(claims)
    else:
        new_header = json.dumps(header).encode()
        for _ in range(1 + chance.below(3)):
            body = chance.spoil_json(body)
        new_claims = spelled(chance, body)
    if chance.one_in(2):
        return sealed(new_header, new_claims, signer).encode(), True
    return f"{segment(new_header)}.{segment(new_claims)}.{signature}".encode(), False


def der(raw: bytes) -> bytes:
    """A signature as ASN.1, where 64 plain bytes belong."""
    return b"\x30\x44\x02\x20" + raw[:32] + b"\x02\x20" + raw[32:]


def decodes(part: bytes) -> bytes | None:
    """The bytes of a canonical segment, found out in another way than the product does."""
    try:
        data = base64.b64decode(part.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return None
    return data if segment(data).encode() == part else None
