"""A small economy to try the rules on: an authority, wallets with keys, a state, a clock held still."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tokenmesh_chaincode.certificates import x5t_s256
from tokenmesh_chaincode.documents import Contract, Operation, conceal, digest, new_id, new_salt, sign
from tokenmesh_chaincode.rules import Context, Outcome, apply, default_policy, genesis
from tokenmesh_chaincode.state import MemoryState

START = 1_800_000_000
"""When every economy begins, in Unix seconds."""


def certificate(
    name: str,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
    start: int = START - 3600,
    days: int = 365,
) -> str:
    """A certificate in PEM; ``issuer`` is the authority's common name."""
    begin = datetime.fromtimestamp(start, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


class Authority:
    """A certificate authority with its own root."""

    def __init__(self, name: str = "test-ca") -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = certificate(name, self.key.public_key(), name, self.key, authority=True)

    def wallet(self, name: str, **options: Any) -> Wallet:
        key = ec.generate_private_key(ec.SECP256R1())
        return Wallet(name, key, certificate(name, key.public_key(), self.name, self.key, **options))


class Wallet:
    """A wallet with its key: a signer."""

    def __init__(self, name: str, key: ec.EllipticCurvePrivateKey, pem: str) -> None:
        self.name = name
        self.key = key
        self.pem = pem
        self.x5t = x5t_s256(pem)

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@cache
def authority() -> Authority:
    return Authority()


@cache
def wallet(name: str) -> Wallet:
    """One wallet a name for the whole test run: keys are slow to make."""
    return authority().wallet(name)


class Economy:
    """A ledger's state with governors, services and a clock; ``submit`` signs and applies operations."""

    def __init__(
        self,
        services: Sequence[str] = ("alice", "bob"),
        *,
        governors: Sequence[str] = ("root",),
        tokens: int = 0,
        **policy: Any,
    ) -> None:
        self.state = MemoryState()
        self.now = START
        self.disclosures: dict[str, str] = {}
        """Of all private contracts that were made here; the rules get them with every operation."""
        self.domain = genesis(
            self.state,
            ca=[authority().pem],
            governors={name: wallet(name).pem for name in governors},
            policy={**default_policy(), **policy},
            now=self.now,
            nonce="test",
        )
        for name in services:
            self.state.put(f"wallet/{name}", self._registered(name))
            if tokens:
                self.state.put(f"balance/{name}", {"tokens": tokens})
        if tokens and services:
            self.state.put("supply/test/start", {"tokens": tokens * len(services)})

    def _registered(self, name: str) -> dict[str, Any]:
        signer = wallet(name)
        until = START - 3600 + 365 * 86_400
        return {
            "name": name,
            "role": "service",
            "url": None,
            "certs": [{"x5t": signer.x5t, "pem": signer.pem, "since": START, "until": until}],
            "frozen_at": None,
            "created": START,
        }

    def operation(self, caller: str, act: str, /, *, signer: Any = None, **claims: Any) -> str:
        """A signed operation. Claims of the document begin with ``_``; all others are the argument's."""
        document = {name[1:]: value for name, value in claims.items() if name.startswith("_")}
        argument = {name: value for name, value in claims.items() if not name.startswith("_")}
        body = Operation(
            document.get("dom", self.domain),
            document.get("iss", caller),
            document.get("jti", new_id()),
            document.get("iat", self.now),
            document.get("exp", self.now + 300),
            act,
            document.get("arg", argument),
        )
        return sign(body, signer or wallet(caller))

    def enforce(self, change: Outcome) -> None:
        """Put in force what has come of a freeze, a revocation or a new policy, as of now."""
        outcome = self.submit("root", "enforce", **change.detail["enforce"])
        assert outcome.detail == {"since": self.now, "changes": 1}

    def submit(self, caller: str, act: str, /, **claims: Any) -> Outcome:
        return self.apply(self.operation(caller, act, **claims))

    def apply(self, text: str) -> Outcome:
        return apply(self.state, text, Context(self.now), disclosures=self.disclosures)

    def contract(self, payer: str = "alice", payee: str = "bob", *, signer: Any = None, **claims: Any) -> str:
        """A signed contract; give what shall differ from a small paid GET."""
        return sign(self.contract_body(payer, payee, **claims), signer or wallet(payer))

    def private_contract(self, payer: str = "alice", payee: str = "bob", **claims: Any) -> str:
        """The same, but what it is for stands in a disclosure, which is noted in ``disclosures``."""
        concealed, disclosure = conceal(self.contract_body(payer, payee, **claims), new_salt())
        self.disclosures[concealed.sd or ""] = disclosure
        return sign(concealed, wallet(payer))

    def contract_body(self, payer: str = "alice", payee: str = "bob", **claims: Any) -> Contract:
        body = Contract(
            dom=self.domain,
            iss=payer,
            aud=payee,
            op="GET /quote/{symbol}",
            htm="GET",
            htu="/quote/ACME",
            dig=digest(b""),
            tok=5,
            jti=new_id(),
            iat=self.now,
            exp=self.now + 60,
            via="hold",
        )
        return body._replace(**claims)

    def balance(self, name: str) -> int:
        record = self.state.get(f"balance/{name}")
        return int(record["tokens"]) if record else 0

    def credits(self, name: str) -> int:
        return sum(row["tokens"] for _, row in self.state.items(f"credit/{name}/"))

    def supply(self) -> int:
        return sum(row["tokens"] for _, row in self.state.items("supply/"))

    def accounted(self) -> int:
        """Every token wherever it is: balances, credits, open holds, what is left in allowances."""
        total: int = sum(row["tokens"] for _, row in self.state.items("balance/"))
        total += sum(row["tokens"] for _, row in self.state.items("credit/"))
        total += sum(row["tokens"] for _, row in self.state.items("hold/") if row["state"] == "open")
        for key, row in self.state.items("allowance/"):
            if not row["ended"]:
                spent = self.state.get(f"spent/{key.removeprefix('allowance/')}")
                total += row["tokens"] - (spent["tokens"] if spent else 0)
        return total
