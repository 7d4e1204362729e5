"""Settle: the payee carries contracts to the ledger, and the tokens of those that hold are its own.

Each contract is judged by itself; one that is refused does not hinder the others. What a whole settlement
shares is read and written once: payers, allowances, what policy says. All signatures are checked in one
call, so that a ledger can use every core for them. All tokens arrive in one credit row.

What a private contract pays for is in its disclosure, which the payee sends beside the operation: it is for
the rules to judge by and for nobody else to see. So an operation whose disclosures were lost on the way is
refused whole and leaves no trace: whoever carries it cannot make it another one. The outcome says which
private contracts policy has forbidden, so that who replays it without disclosures needs nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import Contract, DocumentError, Signed, disclose
from tokenmesh_chaincode.limits import (
    RECORD_KEEP_S,
    SEQ_MAX,
    SETTLE_ITEMS_MAX,
    SKIPPED_ITEMS_MAX,
    TIME_S_MAX,
)
from tokenmesh_chaincode.rules.arguments import is_allowance_id, is_id, list_of, tuple_of
from tokenmesh_chaincode.rules.base import Act, Argument, Call, Detail, Refusal, credit, end_of
from tokenmesh_chaincode.rules.policy import allows
from tokenmesh_chaincode.rules.spent import Spent
from tokenmesh_chaincode.state import Value

_NEVER: Final = TIME_S_MAX + 1


class _Certificate(NamedTuple):
    """A payer's certificate: its key, the last second at which a contract may have been made with it, and
    what a later one is refused as."""

    key: ec.EllipticCurvePublicKey
    until: int
    code: str


class _Payer(NamedTuple):
    """A payer's certificates, by thumbprint."""

    certs: dict[str, _Certificate]
    frozen_after: int


class _Account:
    """An allowance while its contracts are settled."""

    __slots__ = ("code", "exp", "id", "payer", "since", "spent", "tokens", "used")

    def __init__(self, call: Call, allowance_id: str) -> None:
        self.id = allowance_id
        self.used = False
        allowance = call.state.get(f"allowance/{allowance_id}")
        self.code = _why_not_settle(call, allowance)
        if allowance is None or self.code is not None:
            return
        self.payer: str = allowance["payer"]
        self.tokens: int = allowance["tokens"]
        self.since: int = allowance["opened_at"] - RECORD_KEEP_S
        self.exp: int = allowance["exp"]
        self.spent = Spent(call.state.get(f"spent/{allowance_id}"))


def _why_not_settle(call: Call, allowance: Value | None) -> str | None:
    if allowance is None:
        return "unknown_allowance"
    if allowance["payee"] != call.name:
        return "wrong_payee"
    if allowance["ended"]:
        return "allowance_ended"
    if call.now >= end_of(allowance) + allowance["grace_s"]:
        return "too_late"
    return None


class Settlement:
    """One settle operation: what it has read, and what it will write."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.settled = 0
        self.tokens = 0
        self.refused: dict[str, str] = {}
        self._payers: dict[str, _Payer | None] = {}
        self._accounts: dict[str, _Account] = {}
        self._allowed: dict[tuple[str, str], bool] = {}
        self._rests: dict[str, int] = {}
        self.private = _Private(call)
        propagation_s = call.policy["propagation_s"]
        self._policy_after = _news_after(call.policy["since"], propagation_s)
        self._payee_frozen_after = _frozen_after(call.wallet, propagation_s)

    def settle(self, items: list[list[Any]]) -> None:
        """Judge ``[contract, charged]`` pairs one by one, in their order."""
        readable: list[tuple[int, Contract, int]] = []
        to_verify: list[tuple[Signed[Contract], ec.EllipticCurvePublicKey]] = []
        parse = self.call.given.parse_contract
        for index, (text, charged) in enumerate(items):
            try:
                signed = parse(text)
            except DocumentError as error:
                self.refused[f"#{index}"] = error.code
                continue
            contract = signed.body
            if contract.sd is not None:
                contract = self.private.take(index, contract)
            key = self._key_for(signed)
            if isinstance(key, str):
                self._refuse(contract, key)
                continue
            readable.append((index, contract, charged))
            to_verify.append((signed, key))
        self.private.check()
        verified = self.call.given.verify_many(to_verify)
        for (index, contract, charged), good in zip(readable, verified, strict=True):
            code = self._judge(index, contract, charged) if good else "bad_signature"
            if code is None:
                self.settled += 1
                self.tokens += charged
            else:
                self._refuse(contract, code)

    def _refuse(self, contract: Contract, code: str) -> None:
        self.refused.setdefault(f"{contract.iss}/{contract.jti}", code)

    def _key_for(self, signed: Signed[Contract]) -> ec.EllipticCurvePublicKey | str:
        """The key that must have signed this contract, or the code of why there is none."""
        contract, header = signed.body, signed.header
        if contract.dom != self.call.domain["id"]:
            return "wrong_domain"
        if contract.aud != self.call.name:
            return "wrong_payee"
        if header.kid != contract.iss:
            return "wrong_signer"
        payer = self._payer(contract.iss)
        if payer is None:
            return "unknown_wallet"
        entry = payer.certs.get(header.x5t)
        if entry is None:
            return "unknown_certificate"
        return entry.key if contract.iat <= entry.until else entry.code

    def _payer(self, name: str) -> _Payer | None:
        if name in self._payers:
            return self._payers[name]
        wallet = self.call.state.get(f"wallet/{name}")
        payer = None
        if wallet is not None:
            propagation_s = self.call.policy["propagation_s"]
            certs = {cert["x5t"]: _certificate(cert, propagation_s) for cert in wallet["certs"]}
            payer = _Payer(certs, _frozen_after(wallet, propagation_s))
        self._payers[name] = payer
        return payer

    def _judge(self, index: int, contract: Contract, charged: int) -> str | None:
        """Settle one contract whose signature holds; or the code of why not, and nothing has changed."""
        iat = contract.iat
        payer = self._payers[contract.iss]
        if payer is None or iat > payer.frozen_after:
            return "frozen"
        if iat > self._payee_frozen_after:
            return "payee_frozen"
        if iat > self._policy_after and not self._is_allowed(index, contract):
            return "forbidden"
        if charged > contract.tok:
            return "charged_too_much"
        if contract.via == "hold":
            return self._capture(contract, charged)
        return self._draw(contract, charged)

    def _draw(self, contract: Contract, charged: int) -> str | None:
        account = self._account(contract.via)
        if account.code is not None:
            return account.code
        if account.payer != contract.iss:
            return "wrong_payer"
        # Made after the payer has closed the allowance is no reason: the payee may not have known.
        if contract.exp > account.exp:
            return "outlives_funds"
        if contract.iat < account.since:
            return "before_funds"
        spent = account.spent
        if spent.tokens + charged > account.tokens:
            return "allowance_used_up"
        if contract.lane is None or contract.seq is None:
            return "missing_claim"
        code = spent.use(contract.lane, contract.seq)
        if code is None:
            spent.tokens += charged
            account.used = True
        return code

    def _account(self, allowance_id: str) -> _Account:
        account = self._accounts.get(allowance_id)
        if account is None:
            account = self._accounts[allowance_id] = _Account(self.call, allowance_id)
        return account

    def _is_allowed(self, index: int, contract: Contract) -> bool:
        payer, operation = key = (contract.iss, contract.op)
        if not operation:  # only in a replay
            return self.private.was_allowed(index)
        allowed = self._allowed.get(key)
        if allowed is None:
            allowed = allows(self.call.policy, payer, self.call.name, operation)
            self._allowed[key] = allowed
        if not allowed and contract.sd is not None:
            self.private.forbidden.append(index)
        return allowed

    def _capture(self, contract: Contract, charged: int) -> str | None:
        key = f"hold/{contract.iss}/{contract.jti}"
        hold = self.call.state.get(key)
        if hold is None:
            return "unknown_hold"
        if hold["payee"] != self.call.name:
            return "wrong_payee"
        if hold["state"] != "open":
            return "already_settled" if hold["state"] == "captured" else "hold_ended"
        if self.call.now >= hold["exp"] + hold["grace_s"]:
            return "too_late"
        if contract.exp > hold["exp"]:
            return "outlives_funds"
        if contract.iat < hold["opened_at"] - RECORD_KEEP_S:
            return "before_funds"
        if charged > hold["tokens"]:
            return "charged_too_much"
        self.call.state.put(key, {**hold, "state": "captured", "charged": charged})
        self._rests[contract.iss] = self._rests.get(contract.iss, 0) + hold["tokens"] - charged
        return None

    def skip(self, skipped: list[list[Any]]) -> int:
        """Mark ``[allowance, lane, seq]`` as used without pay, which only the payee may: it closes gaps."""
        marked = 0
        for allowance_id, lane, seq in skipped:
            account = self._account(allowance_id)
            if account.code is None and account.spent.use(lane, seq) is None:
                account.used = True
                marked += 1
        return marked

    def write(self) -> None:
        for account in self._accounts.values():
            if account.used:
                self.call.state.put(f"spent/{account.id}", account.spent.to_json())
        for payer, tokens in self._rests.items():
            credit(self.call, payer, tokens, "rest")
        credit(self.call, self.call.name, self.tokens, "settle")


class _Private:
    """The private contracts of one settlement."""

    def __init__(self, call: Call) -> None:
        self.contracts = 0
        self.forbidden: list[int] = []
        """The numbers of the items that policy forbids."""
        self._disclosures = call.given.disclosures
        self._recorded = None if call.given.recorded is None else _forbidden_in(call.given.recorded.detail)
        self._lacking: dict[str, list[int]] = {}

    def take(self, index: int, contract: Contract) -> Contract:
        """The contract with what its disclosure says; as it is if there is none."""
        self.contracts += 1
        try:
            return disclose(contract, self._disclosures.get(contract.sd or "", ""))
        except DocumentError as error:
            self._lacking.setdefault(error.code, []).append(index)
            return contract

    def check(self) -> None:
        """Refuse the operation if anything has to be judged that is not known."""
        if self._recorded is None:
            for code, items in self._lacking.items():
                raise Refusal(code, items=items)

    def detail(self) -> Detail:
        """What the outcome says of them."""
        return {"contracts": self.contracts, "forbidden": self.forbidden}

    def was_allowed(self, index: int) -> bool:
        """Whether the ledger has recorded that policy allowed the contract that is this item."""
        if self._recorded is None or index not in self._recorded:
            return True
        self.forbidden.append(index)
        return False


def _forbidden_in(detail: Mapping[str, Any]) -> frozenset[int]:
    """What a recorded outcome says policy has forbidden, whatever stands there."""
    private = detail.get("private")
    forbidden = private.get("forbidden") if isinstance(private, dict) else None
    return (
        frozenset(item for item in forbidden if type(item) is int)
        if isinstance(forbidden, list)
        else frozenset()
    )


def _certificate(cert: Value, propagation_s: int) -> _Certificate:
    key, until = public_key(cert["pem"]), cert["until"]
    revoked_after = _news_after(cert.get("revoked_since"), propagation_s)
    if revoked_after < until:
        return _Certificate(key, revoked_after, "revoked_certificate")
    return _Certificate(key, until, "certificate_expired")


def _frozen_after(wallet: Value, propagation_s: int) -> int:
    return _news_after(wallet.get("frozen_since"), propagation_s)


def _news_after(since: int | None, propagation_s: int) -> int:
    """The last second at which a contract may have been made that a change does not hit: news travels, and
    does not set out before the change is in the ledger. ``since`` is None until that is certain."""
    return _NEVER if since is None else since + propagation_s


def _settle(call: Call, argument: Argument) -> Detail:
    settlement = Settlement(call)
    settlement.settle(argument["items"])
    detail: Detail = {}
    if argument.get("skipped"):
        detail["skipped"] = settlement.skip(argument["skipped"])
    if settlement.private.contracts:
        detail["private"] = settlement.private.detail()
    settlement.write()
    return {
        "settled": settlement.settled,
        "tokens": settlement.tokens,
        "refused": settlement.refused,
        **detail,
    }


def _is_item(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 2
        and type(value[0]) is str
        and type(value[1]) is int
        and value[1] >= 0
    )


def _is_seq(value: object) -> bool:
    return type(value) is int and 0 <= value <= SEQ_MAX


ACTS: Final = {
    "settle": Act(
        _settle,
        {
            "items": list_of(_is_item, SETTLE_ITEMS_MAX),
            "skipped": list_of(tuple_of(is_allowance_id, is_id, _is_seq), SKIPPED_ITEMS_MAX),
        },
        optional=frozenset({"skipped"}),
        when_frozen=True,
    )
}
