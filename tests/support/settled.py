"""Contracts that are settled on a ledger without any service, for tests of what reads them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tokenmesh.cli.desk import Desk
from tokenmesh.config import Settings
from tokenmesh.identity import Wallet
from tokenmesh.ledger import open_ledger
from tokenmesh_chaincode.documents import Contract, Operation, conceal, digest, new_id, new_salt, sign

PAYER, PAYEE = "service-a", "service-b"
OFFERED = 20
TRACE = "0af7651916cd43dd8448eb211c80319c"
TP = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE[::-1]}-b7ad6b7169203331-00"


def settle(
    home: Path, url: str, charged: int, *, private: bool = False, tps: Sequence[str | None] = (TP,)
) -> list[str]:
    """A contract for 20 tokens by hold, from service-a to service-b, for each ``traceparent`` in ``tps``; all
    settled at once for ``charged``. Their ids."""
    payer, payee = (Wallet.load(home, name) for name in (PAYER, PAYEE))
    settings = Settings.from_environment({}, home=home, ledger=url)
    now = int(time.time())
    items: list[list[object]] = []
    ids: list[str] = []
    disclosures: dict[str, str] = {}
    with open_ledger(url, payer, settings) as ledger:
        desk = Desk(ledger, payer, time.time)
        desk.gather(OFFERED * len(tps))
        for tp in tps:
            jti = new_id()
            desk.do("hold", {"id": jti, "payee": PAYEE, "tokens": OFFERED, "exp": now + 60})
            contract = Contract(
                dom=ledger.domain,
                iss=PAYER,
                aud=PAYEE,
                op="GET /quote/{symbol}",
                htm="GET",
                htu="/quote/ACME",
                dig=digest(b""),
                tok=OFFERED,
                jti=jti,
                iat=now,
                exp=now + 30,
                via="hold",
                lane=None,
                seq=None,
                tp=tp,
            )
            if private:
                contract, disclosure = conceal(contract, new_salt())
                disclosures[contract.sd or ""] = disclosure
            items.append([sign(contract, payer), charged])
            ids.append(jti)
    with open_ledger(url, payee, settings) as ledger:
        asked = {"items": items, "skipped": []}
        settlement = Operation(ledger.domain, PAYEE, new_id(), now, now + 60, "settle", asked)
        (result,) = ledger.submit([sign(settlement, payee)], disclosures=disclosures).result(60)
        assert result.outcome.ok
    return ids
