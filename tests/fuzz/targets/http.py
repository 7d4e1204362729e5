"""Every header and body that a stranger can send to an application with priced routes, and to the well-known
addresses: never a 500, never a charge, never an exception that escapes.

The application is that of the frameworks' own suite. Contracts are good ones spoilt, so that inputs get as
far as a stranger's can; one that arrives untouched is paid for, as a check on the check.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from frameworks import test_fastapi, test_flask
from fuzz.chance import Chance
from fuzz.spoiling import header_of, sealed, spelled, spoilt
from fuzz.target import Target

from support.exchanges import Reply, asgi, over_wsgi
from support.payee import PAYER, Payee
from tokenmesh import decorators
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, new_id

FUNDS: Final = 90_000_000
METHODS: Final = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PRI")
TARGETS: Final = (
    "/quote/ACME",
    "/cheap",
    "/other",
    "/form",
    "/render",
    "/job",
    "/async/7",
    "/sized/3",
    "/probe",
    "/free",
    "/large",
    "/named",
    "/plain",
    "/item/a",
    "/v1/deep/a/b",
    "/error",
    "/stream",
    "/.well-known/tokenmesh/offers",
    "/.well-known/tokenmesh/receipts/abc",
    "/.well-known/tokenmesh/receipts/abc?payer=shop",
    "/nowhere",
)
HEADERS: Final = (
    "Token-Contract",
    "Token-Receipt",
    "Idempotency-Key",
    "traceparent",
    "tracestate",
    "baggage",
    "Content-Type",
    "Content-Encoding",
    "Transfer-Encoding",
    "X-Forwarded-For",
    "Authorization",
    "Cookie",
    "Range",
    "Expect",
    "Accept",
    "If-None-Match",
)
TYPES: Final = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/plain; charset=utf-7",
)
PAID: Final = "GET /quote/{symbol}"


class Request:
    """One request, as it goes out."""

    def __init__(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


class Http(Target):
    """What both frameworks have in common."""

    suite: ClassVar[Callable[[], Any]]

    def __init__(self, directory: Path) -> None:
        self.payee = Payee(directory, request_bytes_max=10_000, response_bytes_max=2_000)
        self.allowance = self.payee.open_allowance(tokens=FUNDS // 1_000)
        self.ran: Counter[str] = Counter()
        self.app = self.suite().build(partial(decorators.priced, mesh=self.payee), self.ran)
        self.signer = self.payee.domain[PAYER]
        self.number = 0

    def send(self, request: Request) -> Reply | None:
        """One request to the application; None if it was not answered, as nobody was there any more."""
        raise NotImplementedError

    def close(self) -> None:
        self.payee.close()

    # One input

    def one(self, chance: Chance) -> None:
        before = self.taken()
        terms = self.terms(chance)
        request, untouched = self.request(chance, terms)
        reply = self.send(request)
        assert reply is None or reply.status < 500, (reply, request.headers)
        if untouched:
            assert reply is not None
            assert reply.status == 200, reply
            assert self.payee.receipt(reply.header("Token-Receipt") or "").tok == 5
            assert self.taken() == (before[0] + 5, before[1] + 1)
            return
        assert self.taken() == before, (reply, request.headers)
        if reply is not None and reply.body and reply.header("Content-Type") == "application/problem+json":
            assert reply.json()["status"] == reply.status
            assert str(reply.json()["action"])

    def taken(self) -> tuple[int, int]:
        """Tokens that count as taken, and how often handlers ran that cost something."""
        return self.payee.used(self.allowance), sum(self.ran.values())

    def terms(self, chance: Chance) -> Contract:
        """A contract that pays for ``PAID``, with numbers that nobody has used."""
        self.number += 1
        return self.payee.terms(PAID, target="/quote/ACME", via=self.allowance, seq=self.number)

    def request(self, chance: Chance, terms: Contract) -> tuple[Request, bool]:
        """A request, and whether it is a good one, to be paid."""
        contract = self.payee.sign(terms)
        way = chance.below(64)
        if way == 63:
            return Request("GET", "/quote/ACME", [("Token-Contract", contract)], b""), True
        headers: list[tuple[str, str]] = []
        target, method, body = "/quote/ACME", "GET", b""
        if chance.one_in(3):
            method, target, body = self.other_request(chance, headers)
        path, _, query = target.partition("?")
        # The same target in another spelling is the same; and Flask takes ``get`` for ``GET``.
        elsewhere = method.upper() != "GET" or documents.target(path, query) != "/quote/ACME"
        presented = self.presented(chance, terms, contract, elsewhere=elsewhere)
        headers += [("Token-Contract", value) for value in presented]
        while chance.one_in(3):
            headers.append((chance.pick(HEADERS), self.header_value(chance)))
        return Request(method, target, headers, body), False

    def other_request(self, chance: Chance, headers: list[tuple[str, str]]) -> tuple[str, str, bytes]:
        target = chance.pick(TARGETS)
        if chance.one_in(2):
            target = "/" + chance.spoil(target.encode()).decode("latin-1").lstrip("/")
        target = "".join(one if "!" <= one <= "~" and one != "#" else f"%{ord(one):02x}" for one in target)
        method = (
            chance.pick(METHODS)
            if not chance.one_in(8)
            else chance.pick(("get", "FOO", "M-SEARCH", "A" * 40))
        )
        body = b""
        if chance.one_in(2):
            headers.append(("Content-Type", chance.pick(TYPES)))
            good = chance.pick(
                (b'{"pages": 3}', b"name=Ada&other=1", b"--x\r\n\r\nabc\r\n--x--", b"x" * 10_001)
            )
            body = good if chance.one_in(3) else chance.spoil(good)
        return method, target, body

    def presented(self, chance: Chance, terms: Contract, good: str, *, elsewhere: bool) -> list[str]:
        """What stands in ``Token-Contract``: never a good contract for the request it comes with."""
        typ = "tokenmesh-contract+jwt"
        way = chance.below(8)
        if way == 0:
            return []
        if way == 1:
            return [chance.text().encode("utf-8", "surrogatepass").decode("latin-1")]
        if way == 2:
            return [good, good] if not elsewhere else [good]
        if way == 3:  # it holds, and is not enough
            changed = chance.pick(self.not_enough(chance))
            return [self.payee.sign(terms._replace(**changed))]
        if way == 4:  # claims of any form, well sealed
            body = {name: value for name, value in terms._asdict().items() if value is not None}
            body["via"] = new_id()  # whatever else it says: there is no such allowance
            name = chance.pick([name for name in body if name != "via"])
            header = spelled_header(chance, header_of(typ, self.signer))
            data = sealed(header, spelled(chance, {**body, name: chance.value()}), self.signer)
            return [data]
        if way == 5:  # with a disclosure that it never had, or not its own
            private, disclosure = documents.conceal(terms._replace(via=new_id()), documents.new_salt())
            text = self.payee.sign(private)
            spoiled = chance.spoil(disclosure.encode()).decode("latin-1")
            return [chance.pick((text, f"{text}~{spoiled}", f"{text}~{disclosure}", f"{good}~{disclosure}"))]
        spoiled_text, _ = spoilt(chance, self.payee.sign(terms._replace(via=new_id())), self.signer, typ)
        return [self.wire(spoiled_text)]

    def not_enough(self, chance: Chance) -> list[dict[str, Any]]:
        now = self.payee.domain.now
        return [
            {"tok": chance.below(5)},
            {"aud": "other"},
            {"dom": "d" * 43},
            {"iss": "other"},
            {"op": "GET /cheap"},
            {"htm": "POST"},
            {"htu": "/quote/acme"},
            {"dig": documents.digest(b"x")},
            {"iat": now - 60 - chance.below(10**6), "exp": now - chance.below(50)},
            {"iat": now + 100, "exp": now + 160},
            {"exp": now + 301 + chance.below(2**40)},
            {"via": "hold", "lane": None, "seq": None},
            {"via": new_id()},
            {"via": self.allowance, "tok": 2**53 - 1},
        ]

    def header_value(self, chance: Chance) -> str:
        good = chance.pick(
            (
                b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                b"order-17",
                b"bytes=0-1",
                b"gzip",
                b"chunked",
                b"k=v;p=1,k2=v2",
            )
        )
        return self.wire(chance.spoil(good))

    def wire(self, data: bytes) -> str:
        """A header's value as a server hands it over: servers refuse control characters themselves."""
        return "".join(chr(byte) for byte in data if byte >= 32 and byte != 127)


def spelled_header(chance: Chance, header: dict[str, Any]) -> bytes:
    return spelled(chance, header if chance.one_in(2) else chance.spoil_json(header))


class OnFlask(Http):
    name = "flask"
    share = 80
    suite = test_flask.TestFlask

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.app.config["PROPAGATE_EXCEPTIONS"] = True

    def send(self, request: Request) -> Reply:
        return over_wsgi(self.app, request.method, request.target, headers=request.headers, body=request.body)


class OnFastAPI(Http):
    name = "fastapi"
    share = 67
    suite = test_fastapi.TestFastAPI

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.runner = asyncio.Runner()

    def send(self, request: Request) -> Reply:
        return self.runner.run(
            asgi(self.app, request.method, request.target, headers=request.headers, body=request.body)
        )

    def close(self) -> None:
        self.runner.close()
        super().close()
