"""The three documents: contract, receipt and operation; how they are read and how they are signed.

Claims are checked for presence, type, form and range. Whether a document is *true* (its signature, its
domain, its time) is for the caller. For contracts, the hot path, the forms of all text claims are checked
by one regular expression; only when it fails is the claim at fault looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

from tokenmesh_chaincode.documents.jws import (
    DocumentError,
    Kind,
    Signed,
    Signer,
    encode_bytes,
    read_json,
    take_apart,
)
from tokenmesh_chaincode.documents.naming import encoder
from tokenmesh_chaincode.limits import (
    CONTRACT_BYTES_MAX,
    HEADER_CACHE_MAX,
    ID_LENGTH_MAX,
    NAME_LENGTH_MAX,
    OPERATION_BYTES_MAX,
    OPERATION_NAME_LENGTH_MAX,
    RECEIPT_BYTES_MAX,
    SEQ_MAX,
    TARGET_LENGTH_MAX,
    TIME_S_MAX,
    TOKENS_MAX,
    TX_LENGTH_MAX,
)

CONTRACT: Final = Kind("tokenmesh-contract+jwt", "not_a_contract", CONTRACT_BYTES_MAX)
RECEIPT: Final = Kind("tokenmesh-receipt+jwt", "not_a_receipt", RECEIPT_BYTES_MAX)
OPERATION: Final = Kind("tokenmesh-operation+jwt", "not_an_operation", OPERATION_BYTES_MAX)


class Contract(NamedTuple):
    """What accompanies one request; see the design, section 4. ``tok`` is the most that may be charged.

    ``via`` is ``"hold"`` or an allowance's id; ``lane`` and ``seq`` are there with an allowance only. With
    ``sd`` the contract is private (see :mod:`~.documents.disclosures`): ``op``, ``htm``, ``htu`` and ``dig``
    are empty until it is disclosed, and are never in what is signed.
    """

    dom: str
    iss: str
    aud: str
    op: str
    htm: str
    htu: str
    dig: str
    tok: int
    jti: str
    iat: int
    exp: int
    via: str
    lane: str | None = None
    seq: int | None = None
    tp: str | None = None
    sd: str | None = None


class Receipt(NamedTuple):
    """The payee's answer. ``tok`` is what was charged, ``status`` and ``dig`` are the response's."""

    dom: str
    iss: str
    aud: str
    jti: str
    out: Literal["fulfilled", "void"]
    tok: int
    status: int
    dig: str
    iat: int
    tx: str | None = None
    left: int | None = None


class Operation(NamedTuple):
    """What a wallet asks of the ledger: ``act`` with ``arg``, once per ``iss`` and ``jti``."""

    dom: str
    iss: str
    jti: str
    iat: int
    exp: int
    act: str
    arg: dict[str, Any]


_NOT_IN_OP: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_PATTERNS: Final = {
    "dom": r"[A-Za-z0-9_-]{43}",
    "name": rf"[a-z0-9](?:[a-z0-9._-]{{0,{NAME_LENGTH_MAX - 2}}}[a-z0-9])?",
    "id": rf"[A-Za-z0-9_-]{{1,{ID_LENGTH_MAX}}}",
    "op": rf"[^{_NOT_IN_OP}]{{1,{OPERATION_NAME_LENGTH_MAX}}}",
    "htm": r"[A-Z][A-Z-]{0,31}",
    "htu": rf"/[\x21-\x7e]{{0,{TARGET_LENGTH_MAX - 1}}}",
    "dig": r"sha-256=:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=:",
    "tp": r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
    "tx": rf"[A-Za-z0-9_-]{{1,{TX_LENGTH_MAX}}}",
    "out": r"fulfilled|void",
    "salt": r"[A-Za-z0-9_-]{21}[AQgw]",
    "sd": r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]",
    "act": r"[a-z][a-z_]{0,31}",
}
_FORMS: Final = {form: re.compile(pattern) for form, pattern in _PATTERNS.items()}
_is_id: Final = _FORMS["id"].fullmatch
_FORM_OF: Final = {
    "dom": "dom",
    "iss": "name",
    "aud": "name",
    "op": "op",
    "htm": "htm",
    "htu": "htu",
    "dig": "dig",
    "jti": "id",
    "via": "id",
    "lane": "id",
    "tp": "tp",
    "tx": "tx",
    "out": "out",
    "sd": "sd",
    "act": "act",
}
_LOWEST_AND_HIGHEST: Final = {
    "tok": (0, TOKENS_MAX),
    "iat": (0, TIME_S_MAX),
    "exp": (0, TIME_S_MAX),
    "seq": (0, SEQ_MAX),
    "status": (100, 599),
    "left": (0, TOKENS_MAX),
}
_CONTRACT_TEXTS: Final = ("dom", "iss", "aud", "op", "htm", "htu", "dig", "jti", "via")
_CONTRACT_NUMBERS: Final = ("tok", "iat", "exp")
_contract_texts = itemgetter(*_CONTRACT_TEXTS)
_contract_claims = itemgetter(*_CONTRACT_TEXTS, *_CONTRACT_NUMBERS)
_HOLD: Final = "hold"
WITHHELD: Final = ("op", "htm", "htu", "dig")
"""What a private contract does not say without its disclosure."""
_RECEIPT_TEXTS: Final = ("dom", "iss", "aud", "jti", "out", "dig")
_OPERATION_TEXTS: Final = ("dom", "iss", "jti", "act")
_operation_texts = itemgetter(*_OPERATION_TEXTS)
_operation_claims = itemgetter(*Operation._fields)


def _form(names: tuple[str, ...]) -> re.Pattern[str]:
    """The forms of several text claims as one, with line ends between them, which none of them may have."""
    return re.compile("\n".join(f"(?:{_PATTERNS[_FORM_OF[name]]})" for name in names))


_CONTRACT_FORM: Final = _form(_CONTRACT_TEXTS)
_OPERATION_FORM: Final = _form(_OPERATION_TEXTS)


def _usual() -> re.Pattern[str]:
    """A contract as JSON encoders write it: claims in the order of :class:`Contract`, no white space, nothing
    to escape. One expression reads it in a third of the time that a parser takes, and checks all its forms.
    Of one that a hold pays for, the groups ``via``, ``lane`` and ``seq`` have nothing."""
    unescaped = _PATTERNS | {
        "op": rf'[^{_NOT_IN_OP}"\\]{{1,{OPERATION_NAME_LENGTH_MAX}}}',
        "htu": rf"/[\x21\x23-\x5b\x5d-\x7e]{{0,{TARGET_LENGTH_MAX - 1}}}",
    }
    whole = "0|[1-9][0-9]{0,15}"

    def claim(name: str) -> str:
        form = _FORM_OF.get(name)
        return f'"{name}":({whole})' if form is None else f'"{name}":"({unescaped[form]})"'

    first = Contract._fields.index("via")
    always = ",".join(claim(name) for name in Contract._fields[:first])
    numbered = ",".join(claim(name) for name in ("via", "lane", "seq"))
    return re.compile(rf"\{{{always},(?:\"via\":\"hold\"|{numbered})(?:,{claim('tp')})?\}}")


_is_usual_contract: Final = _usual().fullmatch


def _check(claims: dict[str, Any], name: str) -> None:
    """Find out what is wrong with one claim, and raise it; return if nothing is."""
    if name not in claims:
        raise DocumentError("missing_claim", f"the claim {name} is missing")
    value = claims[name]
    if name in _FORM_OF:
        if not isinstance(value, str) or not _FORMS[_FORM_OF[name]].fullmatch(value):
            raise DocumentError("bad_claim", f"the claim {name} does not have its form")
        return
    lowest, highest = _LOWEST_AND_HIGHEST[name]
    if type(value) is not int:
        raise DocumentError("bad_claim", f"the claim {name} is not a whole number")
    if not lowest <= value <= highest:
        raise DocumentError("bad_claim", f"the claim {name} is not within {lowest} and {highest}")


def _check_all(claims: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    for name in required:
        _check(claims, name)
    for name in optional:
        if name in claims:
            _check(claims, name)


def _check_times(iat: int, exp: int) -> None:
    if exp <= iat:
        raise DocumentError("bad_claim", "exp does not lie after iat")


Parser = Callable[[str], Signed[Contract]]


def parse_contract(text: str | bytes) -> Signed[Contract]:
    """Read a contract without verifying it.

    Raises :class:`DocumentError`: ``too_large``, ``not_a_contract``, ``unknown_algorithm``, ``bad_header``,
    ``too_deep``, ``duplicate_claim``, ``missing_claim`` or ``bad_claim``.
    """
    text, header, payload, signing_input, signature = take_apart(text, CONTRACT)
    body = _usual_contract(payload) or _contract(payload)
    # A named tuple's own constructor is a Python function around this.
    return _new(Signed, (text, header, body, signing_input, signature))


def _usual_contract(payload: bytes) -> Contract | None:
    """What :func:`_contract` gives, for the usual spelling; None, and no verdict, for all others."""
    try:
        usual = _is_usual_contract(payload.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    if usual is None:
        return None
    dom, iss, aud, op, htm, htu, dig, tok, jti, iat, exp, via, lane, seq, tp = usual.groups()
    made, ends, tokens = int(iat), int(exp), int(tok)
    number = None if seq is None else int(seq)
    if tokens > TOKENS_MAX or not made < ends <= TIME_S_MAX or via == _HOLD:
        return None
    if number is None:
        via = _HOLD
    elif number > SEQ_MAX:
        return None
    return _new(
        Contract, (dom, iss, aud, op, htm, htu, dig, tokens, jti, made, ends, via, lane, number, tp, None)
    )


def _contract(payload: bytes) -> Contract:
    claims = read_json(payload, CONTRACT.code)
    if "sd" in claims:
        claims = _private_claims(claims)
    elif not _has_contract_form(claims):
        _check_all(claims, (*_CONTRACT_TEXTS, *_CONTRACT_NUMBERS))
    dom, iss, aud, op, htm, htu, dig, jti, via, tok, iat, exp = _contract_claims(claims)
    _check_times(iat, exp)
    get = claims.get
    lane, seq, tp, sd = get("lane"), get("seq"), get("tp"), get("sd")
    if via == _HOLD:
        if "lane" in claims or "seq" in claims:
            raise DocumentError("bad_claim", "lane and seq do not belong to a contract that a hold pays for")
    elif type(lane) is not str or not _is_id(lane) or type(seq) is not int or not 0 <= seq <= SEQ_MAX:
        _check_all(claims, ("lane", "seq"))
    if "tp" in claims:
        _check(claims, "tp")
    return Contract(dom, iss, aud, op, htm, htu, dig, tok, jti, iat, exp, via, lane, seq, tp, sd)


def _has_contract_form(claims: dict[str, Any]) -> bool:
    try:
        texts = _contract_texts(claims)
        tok, iat, exp = claims["tok"], claims["iat"], claims["exp"]
        return (
            _CONTRACT_FORM.fullmatch("\n".join(texts)) is not None
            and type(tok) is int
            and type(iat) is int
            and type(exp) is int
            and 0 <= tok <= TOKENS_MAX
            and iat >= 0
            and exp <= TIME_S_MAX
        )
    except (KeyError, TypeError):  # a claim is missing, or is no text
        return False


def _private_claims(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims of a private contract, with nothing where its disclosure belongs."""
    for name in WITHHELD:
        if name in claims:
            raise DocumentError("bad_claim", f"the claim {name} does not belong to a private contract")
    texts = [name for name in _CONTRACT_TEXTS if name not in WITHHELD]
    _check_all(claims, ("sd", *texts, *_CONTRACT_NUMBERS))
    return {**claims, **dict.fromkeys(WITHHELD, "")}


def parse_receipt(text: str | bytes) -> Signed[Receipt]:
    """Read a receipt without verifying it; raises :class:`DocumentError` as for a contract."""
    text, header, payload, signing_input, signature = take_apart(text, RECEIPT)
    claims = read_json(payload, RECEIPT.code)
    _check_all(claims, (*_RECEIPT_TEXTS, "tok", "status", "iat"), ("tx", "left"))
    values: list[Any] = [claims.get(name) for name in Receipt._fields]
    body = Receipt(*values)
    return Signed(text, header, body, signing_input, signature)


def parse_operation(text: str | bytes) -> Signed[Operation]:
    """Read an operation without verifying it; ``arg`` is an object whose content the rules check."""
    text, header, payload, signing_input, signature = take_apart(text, OPERATION)
    claims = read_json(payload, OPERATION.code)
    if not _has_operation_form(claims):
        _check_all(claims, (*_OPERATION_TEXTS, "iat", "exp"))
    _check_times(claims["iat"], claims["exp"])
    if "arg" not in claims:
        raise DocumentError("missing_claim", "the claim arg is missing")
    if type(claims["arg"]) is not dict:
        raise DocumentError("bad_claim", "the claim arg is not an object")
    return Signed(text, header, Operation(*_operation_claims(claims)), signing_input, signature)


def _has_operation_form(claims: dict[str, Any]) -> bool:
    try:
        texts = _operation_texts(claims)
        iat, exp = claims["iat"], claims["exp"]
        return (
            _OPERATION_FORM.fullmatch("\n".join(texts)) is not None
            and type(iat) is int
            and type(exp) is int
            and iat >= 0
            and exp <= TIME_S_MAX
        )
    except (KeyError, TypeError):  # a claim is missing, or is no text
        return False


_new: Final = tuple.__new__
_encode: Final = encoder(sort_keys=False)
_KINDS: Final[dict[type, Kind]] = {Contract: CONTRACT, Receipt: RECEIPT, Operation: OPERATION}


@lru_cache(maxsize=HEADER_CACHE_MAX)
def _header_segment(typ: str, kid: str, x5t: str) -> bytes:
    header = {"alg": "ES256", "typ": typ, "kid": kid, "x5t#S256": x5t}
    return encode_bytes(_encode(header).encode()) + b"."


def sign(document: Contract | Receipt | Operation, signer: Signer) -> str:
    """The document as compact JWS, signed. Claims that are ``None`` are left out."""
    claims = {
        name: value for name, value in zip(document._fields, document, strict=True) if value is not None
    }
    if "sd" in claims:
        for name in WITHHELD:
            del claims[name]
    return seal(_KINDS[type(document)], _encode(claims), signer)


def seal(kind: Kind, claims: str, signer: Signer) -> str:
    """``claims``, an object in JSON, as compact JWS, signed: for who writes so many documents of one kind
    that it spells them out itself."""
    signing_input = _header_segment(kind.typ, signer.name, signer.x5t) + encode_bytes(claims.encode())
    return (signing_input + b"." + encode_bytes(signer.sign(signing_input))).decode("ascii")


def is_form(form: str, value: object) -> bool:
    """Whether ``value`` is text of a named form (``id``, ``name``, ``dom``, ``dig``, ``act``, …)."""
    return isinstance(value, str) and _FORMS[form].fullmatch(value) is not None
