"""Private contracts: the operation and the request stay with those who need them, and all else is public.

The idea is that of SD-JWT (RFC 9901). In place of ``op``, ``htm``, ``htu`` and ``dig`` a private contract
carries ``sd``, the digest of a *disclosure*: base64url of canonical JSON ``[salt, {those four}]``. Payer and
payee, and who judges by the rules, have the disclosure beside the contract (``<contract>~<disclosure>``);
everyone else can check the signature, the parties and the tokens, and learns nothing more, for the salt's
128 bits make the digest useless to who guesses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from tokenmesh_chaincode.documents.forms import WITHHELD, Contract, is_form, parse_contract
from tokenmesh_chaincode.documents.jws import (
    DocumentError,
    Signed,
    decode_segment,
    encode_segment,
    read_json,
)
from tokenmesh_chaincode.documents.naming import canonical, thumbprint
from tokenmesh_chaincode.limits import CONTRACT_BYTES_MAX, DISCLOSURE_BYTES_MAX

Disclosures = Mapping[str, str]
"""Disclosures by their digest, which is the ``sd`` of the contract that each belongs to."""
NO_DISCLOSURES: Final[Disclosures] = MappingProxyType({})

SALT_BYTES: Final = 16
SEPARATOR: Final = "~"


def new_salt() -> str:
    """128 random bits, 22 characters."""
    return encode_segment(os.urandom(SALT_BYTES))


def conceal(contract: Contract, salt: str) -> tuple[Contract, str]:
    """The contract with ``sd`` in the place of what it is to keep to itself, to be signed; and the
    disclosure. ``salt`` is :func:`new_salt`, a new one for each contract."""
    withheld = {name: getattr(contract, name) for name in WITHHELD}
    disclosure = encode_segment(canonical([salt, withheld]))
    return contract._replace(op="", htm="", htu="", dig="", sd=thumbprint(disclosure.encode())), disclosure


def disclose(contract: Contract, disclosure: str) -> Contract:
    """The private contract as it was before it was concealed, with ``sd`` still in it.

    Raises :class:`DocumentError`: ``undisclosed`` if the disclosure is another one's, ``bad_disclosure``
    if it is none.
    """
    if len(disclosure) > DISCLOSURE_BYTES_MAX:
        raise DocumentError("bad_disclosure", f"longer than {DISCLOSURE_BYTES_MAX} bytes")
    try:
        data = disclosure.encode("ascii")
        content = decode_segment(data)
    except ValueError:
        raise DocumentError("bad_disclosure", "the disclosure is not canonical base64url") from None
    if thumbprint(data) != contract.sd:
        raise DocumentError("undisclosed", "the disclosure is not this contract's")
    try:
        withheld = _withheld_in(read_json(content, "bad_disclosure", list))
    except DocumentError as error:
        raise DocumentError("bad_disclosure", str(error)) from error
    return contract._replace(**withheld)


def _withheld_in(content: list[Any]) -> dict[str, Any]:
    if len(content) != 2 or not is_form("salt", content[0]):
        raise DocumentError("bad_disclosure", "a disclosure is a salt of 128 bits and the claims withheld")
    claims = content[1]
    if type(claims) is not dict or claims.keys() != set(WITHHELD):
        raise DocumentError("bad_disclosure", f"the claims withheld are {', '.join(WITHHELD)}")
    for name in WITHHELD:
        if not is_form(name, claims[name]):
            raise DocumentError(
                "bad_disclosure", f"the claim {name} of the disclosure does not have its form"
            )
    return dict(claims)


def present(text: str, disclosure: str) -> str:
    """A private contract's text and its disclosure, as they accompany a request."""
    return f"{text}{SEPARATOR}{disclosure}"


def take_presented(text: str) -> tuple[str, str | None]:
    """A contract's own text, and the disclosure that came with it, if any."""
    contract, separator, disclosure = text.partition(SEPARATOR)
    return contract, (disclosure if separator else None)


def parse_presented(text: str | bytes) -> Signed[Contract]:
    """Read a contract as it accompanies a request, with its disclosure if it is private; nothing is verified.

    The body has all claims, whether private or not. ``text`` of what is returned is the whole of it. Raises
    :class:`DocumentError` as ``parse_contract`` does, and ``undisclosed`` or ``bad_disclosure``.
    """
    if len(text) > CONTRACT_BYTES_MAX:
        raise DocumentError("too_large", f"longer than {CONTRACT_BYTES_MAX} bytes")
    try:
        whole = text if isinstance(text, str) else bytes(text).decode("ascii")
    except ValueError:
        raise DocumentError("not_a_contract", "not three base64url segments with dots between them") from None
    own, disclosure = take_presented(whole)
    signed = parse_contract(own)
    if signed.body.sd is None:
        if disclosure is not None:
            raise DocumentError("bad_disclosure", "the contract is not private, and came with a disclosure")
        return signed
    if disclosure is None:
        raise DocumentError("undisclosed", "the contract is private, and came without its disclosure")
    return signed._replace(text=whole, body=disclose(signed.body, disclosure))
