"""What a payee, or whoever sits in its place, can answer: receipts, offers, problems, headers, all spoilt.

A call ends with a response or with an error of ours, and in bounded time; no contract is for more than its
caller allows; and nothing counts as charged without the payee's own signature under it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, ClassVar, Final

from fuzz.chance import Chance
from fuzz.spoiling import spelled, spoilt
from fuzz.target import Target

from support.market import PAYEE, PAYER, Market
from support.payee import Signing
from support.scripted import BODY, OFFER, Answer, ScriptedPayee, wire
from support.wallets import Clock
from tokenmesh.consumer import Consumer
from tokenmesh.errors import TokenmeshError
from tokenmesh.provider.problems import CATALOGUE
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Receipt

MOST: Final = 10
CODES: Final = tuple(CATALOGUE)
STATUSES: Final = (
    200,
    201,
    204,
    206,
    301,
    304,
    400,
    401,
    402,
    403,
    404,
    409,
    410,
    422,
    425,
    429,
    500,
    502,
    503,
    504,
)
REQUESTS_MAX: Final = 60
"""More requests than this of one call, with all its tries, would be a loop."""
MOMENTS: Final = (b"Fri, 15 Jan 2027 08:00:00 GMT", b"3", b"0.5", b"Thu, 01 Jan 1970 00:00:00 +0000")


class OfConsumer(Target):
    name: ClassVar[str] = "consumer"
    share: ClassVar[int] = 30

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.market = Market(directory, {PAYER: 500_000_000, PAYEE: 0}, clock=self.clock)
        self.wire = wire(self.market, self.clock)

    def close(self) -> None:
        self.market.close()

    def one(self, chance: Chance) -> None:
        """One call of a consumer that has met nobody before, with an answer or four of that kind."""
        shop, payer = self.wire, self.wire.payer
        wallet: Any = Signing(self.market.domain[PAYER])
        payer.consumer = Consumer(
            wallet,
            self.market.domain.ledger,
            payer.treasury,
            payer.settings,
            clock=self.clock,
            monotonic=self.clock,
            chance=random.Random(chance.name),
        )
        payee = shop.payee = Rubbish(self.market, chance)
        for seen in (shop.sent, shop.texts, shop.asked, shop.slept):
            seen.clear()
        method = chance.pick(("GET", "GET", "POST", "HEAD"))
        key = chance.text() if chance.one_in(4) else None
        if key is not None and not key.isascii():
            key = None
        try:
            target = "/quote/" + ("ACME" if chance.one_in(2) else "a" * 60)
            response = shop.call(target, method=method, key=key, max_tokens=MOST)
            if response.pending is not None:
                response.pending.digests.update(response.native.content)
                shop.run(payer.consumer.conclude(response.pending))
        except TokenmeshError:
            pass
        else:
            info = response.info
            assert info is not None
            assert info.charged in (0, None) or info.charged <= MOST
            if info.charged:
                assert info.receipt_text in payee.signed, "charged, and the payee has not signed that"
        assert all(contract is None or contract.tok <= MOST for contract in shop.sent)
        assert len(shop.sent) + len(shop.asked) <= REQUESTS_MAX


class Rubbish(ScriptedPayee):
    """Answers the first requests with rubbish, later ones as it should."""

    def __init__(self, market: Market, chance: Chance) -> None:
        super().__init__(market)
        self.chance = chance
        self.left = 1 + chance.below(4)
        self.signed: set[str] = set()

    def answer(self, contract: Contract, **claims: Any) -> Answer:
        answer = super().answer(contract, **claims)
        self.signed.add(answer.headers["Token-Receipt"])
        return answer

    def receive(self, effect: Any) -> Answer:
        chance = self.chance
        url = getattr(effect, "url", None)
        if self.left > 0 and chance.one_in(2 if url else 1):
            self.left -= 1
            if url is None:
                contract = documents.parse_contract(effect.contract).body if effect.contract else None
                return self.rubbish(contract)
            return self.told(url)
        if url is not None and "/receipts/" in url:
            return Answer(404, {}, b"")
        return super().receive(effect)

    def rubbish(self, contract: Contract | None) -> Answer:
        """An answer to the call itself."""
        chance = self.chance
        status = chance.pick(STATUSES)
        headers: dict[str, str] = {}
        body = BODY if chance.one_in(2) else chance.bytes(60)
        if status >= 400 and not chance.one_in(4):
            headers["Content-Type"] = "application/problem+json"
            body = self.problem(status)
        if contract is not None and not chance.one_in(4):
            headers["Token-Receipt"] = self.receipt(contract, status, body)
        for name in ("Retry-After", "Date"):
            if chance.one_in(3):
                headers[name] = text(chance.spoil(chance.pick(MOMENTS)))
        if chance.one_in(4):
            headers["Content-Encoding"] = chance.pick(
                ("gzip", "deflate", "br", "gzip, gzip", "", ",", "identity")
            )
        if chance.one_in(2):
            headers["Content-Length"] = str(len(body))
        return Answer(status, headers, body, streamed=status < 400 and chance.one_in(3))

    def problem(self, status: int) -> bytes:
        chance = self.chance
        fitting = [code for code in CODES if CATALOGUE[code][0] == status] or CODES
        content: dict[str, Any] = {
            "code": chance.pick(fitting if not chance.one_in(4) else CODES),
            "title": "No.",
            "detail": "Because.",
            "action": "Do.",
            "status": status,
            "offers": [self.offer()],
        }
        if chance.one_in(3):
            content = chance.spoil_json(content)
        if chance.one_in(16):
            return chance.pick((b"[", b'{"a":')) * chance.pick((10, 1_000, 100_000))
        return (
            spelled(chance, content) if chance.one_in(3) else json.dumps(content).encode("utf-8", "replace")
        )

    def offer(self) -> Any:
        chance = self.chance
        offer: Any = {**OFFER, "tokens": chance.pick((5, 5, 9, 10, 11, 2**53, 0, None))}
        while chance.one_in(3):
            offer = chance.spoil_json(offer)
        if chance.one_in(16) and isinstance(offer, dict):
            offer["path"] = "/quote/" + "{a}" * chance.below(12) + "x" + "{b:path}" * chance.below(9) + "y"
        return offer

    def receipt(self, contract: Contract, status: int, body: bytes) -> str:
        """A receipt that almost holds, and sometimes does."""
        chance = self.chance
        out = chance.pick(("fulfilled", "void"))
        receipt = Receipt(
            contract.dom,
            self.name,
            contract.iss,
            contract.jti,
            out,
            contract.tok if out == "fulfilled" else 0,
            status,
            documents.digest(body),
            int(self.market.clock()),
        )
        if chance.one_in(2):
            name = chance.pick(("tok", "status", "iat", "left", "tx"))
            receipt = receipt._replace(**{name: chance.pick((0, 1, MOST, MOST + 1, 2**53 - 1, 599))})
        signer = self.signer if not chance.one_in(8) else self.market.domain[PAYER]
        made = documents.sign(receipt, signer)
        if signer is self.signer:
            self.signed.add(made)
        if chance.one_in(3):
            spoiled, anew = spoilt(chance, made, signer, "tokenmesh-receipt+jwt")
            made = text(spoiled)
            if anew and signer is self.signer:
                self.signed.add(made)
        return made

    def told(self, url: str) -> Answer:
        """An answer to a question of the mesh's own: for offers, or a receipt."""
        chance = self.chance
        status = chance.pick((200, 200, 200, *STATUSES))
        if "/offers" in url:
            document: Any = {
                "service": self.name,
                "domain": self.market.domain.ledger.domain,
                "offers": [self.offer()],
            }
            while chance.one_in(3):
                document = chance.spoil_json(document)
            if chance.one_in(16):
                return Answer(status, {}, chance.pick((b"[", b'{"a":')) * 100_000)
            return Answer(status, {}, spelled(chance, document))
        return Answer(status, {}, chance.spoil(chance.bytes(80)))


def text(data: bytes) -> str:
    """A header's value as a client library hands it over."""
    return "".join(chr(byte) for byte in data if byte >= 32 and byte != 127)
