"""A payee by script, and a wire on a held clock: what a consumer sends is seen, what comes back is chosen.

``Wire.run`` carries out a call's steps without a transport: sleeping moves the clock, futures are waited
for, and every request goes to a :class:`ScriptedPayee`, which fulfils each contract once, like a real one,
unless its script says otherwise.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from support.market import PAYEE, PAYER, Market, Payer
from support.wallets import Clock
from tokenmesh.consumer import Ask, CallOptions, InResponse, OutRequest, ReadBody, Send, TransportFailed
from tokenmesh.steps import Sleep, Steps, Within
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Receipt, Signer

URL = "http://quotes.test"
BODY = b'{"symbol":"ACME"}'
OFFER = {
    "operation": "GET /quote/{symbol}",
    "method": "GET",
    "path": "/quote/{symbol}",
    "tokens": 5,
    "via": "allowance",
}


class Answer(NamedTuple):
    """A response by script; looks enough like a library's own for retry predicates."""

    status_code: int
    headers: dict[str, str]
    content: bytes
    streamed: bool = False


class Headers(dict[str, str]):
    """Looked up without regard to case."""

    def get(self, name: str, default: Any = None, /) -> Any:
        return next((value for key, value in self.items() if key.lower() == name.lower()), default)


Step = Callable[["ScriptedPayee", Contract | None], Answer]


class ScriptedPayee:
    """Answers requests. ``script`` has what it does with the next ones, in order."""

    def __init__(self, market: Market, name: str = PAYEE) -> None:
        self.name = name
        self.market = market
        self.signer: Signer = market.domain[name]
        self.offers: list[dict[str, Any]] = [OFFER]
        self.script: deque[Step] = deque()
        self.asks: deque[Step] = deque()
        self.ended: dict[str, Answer] = {}
        self.ran: Counter[str] = Counter()

    def fulfil(self, contract: Contract | None, **claims: Any) -> Answer:
        """Do the work once, and give the same answer ever after. ``claims`` are what the receipt says."""
        if contract is None:
            return Answer(200, {}, BODY)
        known = self.ended.get(contract.jti)
        if known is None:
            self.ran[contract.jti] += 1
            known = self.ended[contract.jti] = self.answer(contract, **claims)
        return known

    def answer(self, contract: Contract, *, by: Signer | None = None, **claims: Any) -> Answer:
        """A response with its receipt; ``claims`` are what differs from a true one."""
        status = claims.pop("response_status", 200)
        body = claims.pop("body", BODY)
        receipt = Receipt(
            dom=contract.dom,
            iss=self.name,
            aud=contract.iss,
            jti=contract.jti,
            out="fulfilled",
            tok=contract.tok,
            status=status,
            dig=documents.digest(body),
            iat=int(self.market.clock()),
        )
        text = documents.sign(receipt._replace(**claims), by or self.signer)
        return Answer(status, {"Token-Receipt": text, "Content-Length": str(len(body))}, body)

    def void(self, contract: Contract | None, status: int = 500) -> Answer:
        """The handler failed: nothing is owed."""
        assert contract is not None
        known = self.ended.get(contract.jti)
        if known is None:
            self.ran[contract.jti] += 1
            known = self.answer(contract, out="void", tok=0, response_status=status, body=b"oops")
            self.ended[contract.jti] = known
        return known

    def receive(self, effect: Send | Ask) -> Answer:
        if isinstance(effect, Ask):
            if self.asks:
                return self.asks.popleft()(self, None)
            assert effect.url == URL + "/.well-known/tokenmesh/offers", effect
            document = {"service": self.name, "offers": self.offers}
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode())
        contract = None if effect.contract is None else documents.parse_contract(effect.contract).body
        if self.script:
            return self.script.popleft()(self, contract)
        return self.fulfil(contract)


# What a script is made of


def lost(payee: ScriptedPayee, contract: Contract | None) -> Answer:
    """The work is done; its response is lost on the way."""
    payee.fulfil(contract)
    raise TransportFailed("the connection was closed", sent=True)


def not_arrived(payee: ScriptedPayee, contract: Contract | None) -> Answer:
    """No answer, and no work either: the payer cannot tell the difference."""
    raise TransportFailed("timed out", sent=True)


def no_connection(payee: ScriptedPayee, contract: Contract | None) -> Answer:
    raise TransportFailed("connection refused", sent=False)


def fulfilled(**claims: Any) -> Step:
    return lambda payee, contract: payee.fulfil(contract, **claims)


def voided(status: int = 500) -> Step:
    return lambda payee, contract: payee.void(contract, status)


def plain(status: int, body: bytes = b"", **headers: str) -> Step:
    """An answer of something that knows no contracts: a proxy, a router."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda payee, contract: Answer(status, {"Content-Length": str(len(body)), **named}, body)


def problem(status: int, code: str, *, headers: dict[str, str] | None = None, **members: Any) -> Step:
    """A payee's refusal."""

    def answer(payee: ScriptedPayee, contract: Contract | None) -> Answer:
        body = json.dumps({"code": code, "title": "No.", "detail": "Because.", **members}).encode()
        return Answer(status, {"Content-Type": "application/problem+json", **(headers or {})}, body)

    return answer


def dear(tokens: int) -> dict[str, Any]:
    """The offer at another price."""
    return {**OFFER, "tokens": tokens}


class Wire:
    """Carries calls of one payer to one payee; ``sent`` has every contract (None: none) that went out."""

    def __init__(self, payer: Payer, payee: ScriptedPayee, clock: Clock) -> None:
        self.payer = payer
        self.payee = payee
        self.clock = clock
        self.sent: list[Contract | None] = []
        self.texts: list[str | None] = []
        self.asked: list[str] = []
        self.slept: list[float] = []

    def call(
        self,
        target: str = "/quote/ACME",
        *,
        method: str = "GET",
        body: bytes | None = b"",
        key: str | None = None,
        **options: Any,
    ) -> InResponse:
        """Make one call and give its response."""
        return self.run(self.steps(target, method=method, body=body, key=key, **options))

    def steps(
        self,
        target: str = "/quote/ACME",
        *,
        method: str = "GET",
        body: bytes | None = b"",
        key: str | None = None,
        **options: Any,
    ) -> Steps[InResponse]:
        request = OutRequest(method, URL + target, target, body, key)
        return self.payer.consumer.call(PAYEE, request, CallOptions(URL, **options))

    def run(self, steps: Steps[Any]) -> Any:
        """Carry out steps to their end."""
        try:
            effect = next(steps)
            while True:
                try:
                    result = self.carry_out(effect)
                except Exception as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    def kill_after_sending(self, steps: Steps[Any]) -> None:
        """Carry out steps until the contract has been sent; nobody is there when the answer comes."""
        effect = next(steps)
        while not (isinstance(effect, Send) and effect.contract is not None):
            effect = steps.send(self.carry_out(effect))
        self.carry_out(effect)

    def carry_out(self, effect: Any) -> Any:
        if isinstance(effect, Send | Ask):
            return self._send(effect)
        if isinstance(effect, ReadBody):
            return b"streamed"
        if isinstance(effect, Sleep):
            self.slept.append(effect.seconds)
            self.clock.forward(effect.seconds)
            return None
        future: Future[Any] = effect.future if isinstance(effect, Within) else effect
        return future.result(60)

    def _send(self, effect: Send | Ask) -> InResponse:
        if isinstance(effect, Ask):
            self.asked.append(effect.url)
        else:
            self.texts.append(effect.contract)
            self.sent.append(
                None if effect.contract is None else documents.parse_contract(effect.contract).body
            )
        answer = self.payee.receive(effect)
        body = None if answer.streamed else answer.content
        return InResponse(answer.status_code, Headers(answer.headers), body, answer)

    @property
    def contract(self) -> Contract:
        """The contract that was sent last."""
        last = self.sent[-1]
        assert last is not None
        return last


def wire(market: Market, clock: Clock, **settings: Any) -> Wire:
    """A payer, a payee by script, and the wire between them."""
    return Wire(market.payer(PAYER, **settings), ScriptedPayee(market), clock)
