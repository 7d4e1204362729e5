"""Wallets: register, update, rotate, revoke, freeze and unfreeze."""

from __future__ import annotations

from typing import Any, Final

from tokenmesh_chaincode.certificates import CertificateError, CertificateInfo, check_certificate
from tokenmesh_chaincode.documents import is_name
from tokenmesh_chaincode.limits import CERTIFICATES_MAX, GOVERNORS_MAX
from tokenmesh_chaincode.rules.arguments import is_pem, is_role, is_thumbprint, is_url
from tokenmesh_chaincode.rules.base import Act, Argument, Call, Detail, Refusal, always, is_frozen, wallet_of
from tokenmesh_chaincode.state import Value


def new_wallet(info: CertificateInfo, role: str, url: str | None, now: int) -> Value:
    """A wallet's record. A certificate is good until it expires, or until rotation ends it earlier."""
    return {
        "name": info.name,
        "role": role,
        "url": url,
        "certs": [_certificate(info, now)],
        "frozen_at": None,
        "created": now,
    }


def _certificate(info: CertificateInfo, now: int) -> Value:
    return {"x5t": info.x5t, "pem": info.pem, "since": now, "until": info.not_after}


def _check(call: Call, name: str, pem: str) -> CertificateInfo:
    try:
        return check_certificate(pem, call.domain["ca"], name, call.now)
    except CertificateError as error:
        raise Refusal("bad_certificate", why=str(error)) from error


def _register(call: Call, argument: Argument) -> Detail:
    name, role, url = argument["name"], argument["role"], argument.get("url")
    info = _check(call, name, argument["cert"])
    existing = call.state.get(f"wallet/{name}")
    if existing is not None:
        same = existing["role"] == role and existing["url"] == url
        if same and existing["certs"][-1]["x5t"] == info.x5t:
            return {"existing": True, "x5t": info.x5t}
        raise Refusal("name_taken", wallet=name)
    if role == "governor":
        governors = call.state.get("governors") or {"names": []}
        if len(governors["names"]) >= GOVERNORS_MAX:
            raise Refusal("too_many_governors")
        call.state.put("governors", {"names": [*governors["names"], name]})
    call.state.put(f"wallet/{name}", new_wallet(info, role, url, call.now))
    return {"x5t": info.x5t}


def _update(call: Call, argument: Argument) -> Detail:
    wallet = wallet_of(call.state, argument["name"])
    if wallet["name"] != call.name and call.wallet["role"] != "governor":
        raise Refusal("not_yours", wallet=wallet["name"])
    call.state.put(f"wallet/{wallet['name']}", {**wallet, "url": argument["url"]})
    return {}


def _rotate(call: Call, argument: Argument) -> Detail:
    """A new certificate. The old one stays good for a while, so that contracts in flight do."""
    name = argument["name"]
    if name != call.name and call.wallet["role"] != "governor":
        raise Refusal("not_yours", wallet=name)
    wallet = wallet_of(call.state, name)
    info = _check(call, name, argument["cert"])
    newest = wallet["certs"][-1]
    if newest["x5t"] == info.x5t:
        return {"existing": True, "x5t": info.x5t}
    if any(cert["x5t"] == info.x5t for cert in wallet["certs"]):
        raise Refusal("bad_certificate", why="the wallet had this certificate before")
    until = call.now + call.policy["rotation_overlap_s"]
    # A contract may still be settled this long after it was made; the certificate that proves it must stay.
    needed_s = max(call.policy["allowance_ttl_s_max"], call.policy["hold_ttl_s_max"]) + call.policy["grace_s"]
    certs = [{**cert, "until": min(cert["until"], until)} for cert in wallet["certs"]]
    certs = [cert for cert in certs if cert["until"] + needed_s >= call.now]
    if len(certs) >= CERTIFICATES_MAX:
        raise Refusal("too_many_certificates", most=CERTIFICATES_MAX)
    certs.append(_certificate(info, call.now))
    call.state.put(f"wallet/{name}", {**wallet, "certs": certs})
    return {"x5t": info.x5t, "until": until}


def _revoke(call: Call, argument: Argument) -> Detail:
    """End a certificate at once, for good: its key may be in other hands. The wallet itself is not frozen."""
    name, x5t = argument["name"], argument["x5t"]
    wallet = wallet_of(call.state, name)
    revoked = next((cert for cert in wallet["certs"] if cert["x5t"] == x5t), None)
    if revoked is None:
        raise Refusal("unknown_certificate", wallet=name)
    if "revoked_at" in revoked:
        return _revoked(name, revoked)
    others = [cert for cert in wallet["certs"] if cert is not revoked]
    if name == call.name and not any(_is_good(cert, call.now) for cert in others):
        raise Refusal("forbidden", why="a governor does not revoke its own last certificate: rotate it first")
    ended = {**revoked, "revoked_at": call.now}
    certs = [ended if cert is revoked else cert for cert in wallet["certs"]]
    call.state.put(f"wallet/{name}", {**wallet, "certs": certs})
    return _revoked(name, ended)


def _revoked(name: str, cert: Value) -> Detail:
    told: Detail = {"revoked_at": cert["revoked_at"]}
    return told if "revoked_since" in cert else {**told, "enforce": {"revoked": [name, cert["x5t"]]}}


def _is_good(cert: Value, now: int) -> bool:
    return "revoked_at" not in cert and now <= cert["until"]


def _freeze(call: Call, argument: Argument) -> Detail:
    name = argument["name"]
    if name == call.name:
        raise Refusal("forbidden", why="a governor does not freeze its own wallet: nobody might unfreeze it")
    wallet = wallet_of(call.state, name)
    if not is_frozen(wallet):
        wallet = {**wallet, "frozen_at": call.now}
        call.state.put(f"wallet/{name}", wallet)
    told: Detail = {"frozen_at": wallet["frozen_at"]}
    return told if "frozen_since" in wallet else {**told, "enforce": {"frozen": [name, wallet["frozen_at"]]}}


def _unfreeze(call: Call, argument: Argument) -> Detail:
    wallet = wallet_of(call.state, argument["name"])
    if is_frozen(wallet):
        thawed = {field: value for field, value in wallet.items() if field != "frozen_since"}
        call.state.put(f"wallet/{wallet['name']}", {**thawed, "frozen_at": None})
    return {}


# With a threshold, one governor alone could otherwise make itself a second one, or take another's wallet.
def _makes_governor(_call: Call, argument: Argument) -> bool:
    return bool(argument["role"] == "governor")


def _takes_wallet(call: Call, argument: Argument) -> bool:
    return bool(argument["name"] != call.name and call.wallet["role"] == "governor")


def _ends_governor(call: Call, argument: Argument) -> bool:
    """One governor alone could otherwise lock out all others."""
    wallet = call.state.get(f"wallet/{argument['name']}")
    return argument["name"] != call.name and wallet is not None and wallet["role"] == "governor"


_NAME: Final[dict[str, Any]] = {"name": is_name}

ACTS: Final = {
    "register": Act(
        _register,
        {"name": is_name, "cert": is_pem, "role": is_role, "url": is_url},
        optional=frozenset({"url"}),
        governors_only=True,
        needs_approval=_makes_governor,
    ),
    "update": Act(_update, {"name": is_name, "url": is_url}),
    "rotate": Act(_rotate, {"name": is_name, "cert": is_pem}, needs_approval=_takes_wallet),
    "revoke": Act(
        _revoke, {"name": is_name, "x5t": is_thumbprint}, governors_only=True, needs_approval=_ends_governor
    ),
    "freeze": Act(_freeze, _NAME, governors_only=True),
    "unfreeze": Act(_unfreeze, _NAME, governors_only=True, needs_approval=always),
}
