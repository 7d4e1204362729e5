"""What every framework's adapter must show: one test class, and one application written in each framework.

A framework's own test file inherits :class:`FrameworkSuite` and gives ``build`` (the application below, in
that framework) and ``request`` (a way to send one request to it). ``price`` is ``priced(mesh=payee)``, or
something that does nothing: then it is the same application without tokenmesh, to compare with.

The application, by operation:

| GET /quote/{symbol}      | 5   | JSON with the symbol                                             |
| GET /cheap               | 1   | text                                                             |
| POST /other              | 5   | the request's body, as it came                                   |
| POST /render             | ≤50 | ``charge(2 * pages)``, pages from the JSON body                  |
| POST /job                | ≤50 | by hold; 201, or 200 if the body says so: then not fulfilled     |
| POST /form               | 5   | the form's field ``name``                                        |
| GET /async/{n}           | 5   | an async handler                                                 |
| GET /error               | 5   | raises ``ZeroDivisionError``                                     |
| GET /missing             | 5   | the framework's own 404                                          |
| GET /handled             | 5   | raises ``Handled``, which an error handler turns into a 200      |
| GET /stream              | 5   | three pieces                                                     |
| GET /endless             | 5   | pieces without an end                                            |
| GET /broken              | 5   | a piece, then an exception                                       |
| GET /shapes/{name}       | 5   | ``created``, ``cookies``, ``empty``, ``redirect``, ``bytes``     |
| GET, POST /item/{name}   | 3   | a class                                                          |
| GET /v1/deep/{path:path} | 2   | in a blueprint or router                                         |
| GET /sized/{n}           | n   | a price by request                                               |
| GET /probe               | 5   | free with the header ``X-Probe``                                 |
| GET /free                | 0   | free for all                                                     |
| GET /large               | 5   | 5,000 bytes                                                      |
| GET /contract            | 5   | ``current_contract().jti``                                       |
| GET /named               | 5   | offered as ``naming``                                            |
| GET /plain               | -   | not priced                                                       |

``ran`` counts how often each handler ran, by its operation's path.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import hmac
import http.client
import json
import socket
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.exchanges import Reply
from support.payee import PAYEE, PAYER, Payee
from tokenmesh import decorators
from tokenmesh.errors import JournalError, LedgerUnavailable, ServingError
from tokenmesh.provider import Answered
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import new_id

Headers = Sequence[tuple[str, str]]
LARGE = b"x" * 5_000
PIECES = [b"one\n", b"two\n", b"three\n"]
JSON = ("Content-Type", "application/json")
QUOTE = "GET /quote/{symbol}"


class Handled(Exception):
    """What an error handler of the application turns into a 200."""


class Case:
    """A payee, its application, and what ran."""

    def __init__(self, suite: FrameworkSuite, payee: Payee) -> None:
        self.payee = payee
        self.ran: Counter[str] = Counter()
        self.suite = suite
        self.app = suite.build(partial(decorators.priced, mesh=payee), self.ran)

    def send(self, method: str, target: str, contract: str | None = None, **options: Any) -> Reply:
        headers = list(options.pop("headers", ()))
        if contract is not None:
            headers.append(("Token-Contract", contract))
        return self.suite.request(self.app, method, target, headers=headers, **options)

    def pay(
        self, op: str, target: str | None = None, *, body: bytes = b"", headers: Headers = (), **claims: Any
    ) -> Reply:
        """One request with a good contract for it; ``claims`` differ."""
        contract = self.payee.contract(op, target=target, body=body, **claims)
        method, _, path = op.partition(" ")
        return self.send(method, target or path, contract, body=body, headers=headers)

    def quote(self, contract: str | None, **options: Any) -> Reply:
        return self.send("GET", "/quote/ACME", contract, **options)

    def quoted(self, **claims: Any) -> str:
        """A contract for ``GET /quote/ACME``."""
        return self.payee.contract(QUOTE, **{"target": "/quote/ACME", **claims})

    def receipt(self, reply: Reply) -> Any:
        text = reply.header("Token-Receipt")
        assert text is not None, reply
        return self.payee.receipt(text)

    def nothing_taken(self) -> None:
        """No handler ran, nothing is counted on the allowance, and the journal knows of nothing."""
        assert not self.ran
        assert self.payee.used() == 0
        assert self.payee.journal.stats().claims == 0


class FrameworkSuite(ABC):
    """Inherit this, and give ``build`` and ``request``."""

    @abstractmethod
    def build(self, price: Callable[..., Any], ran: Counter[str]) -> Any:
        """The application above. ``price`` takes what ``priced`` takes."""

    @abstractmethod
    def request(
        self,
        app: Any,
        method: str,
        target: str,
        *,
        headers: Headers,
        body: bytes = b"",
        leave_after: int | None = None,
    ) -> Reply:
        """One request; what the application raises may come out."""

    @abstractmethod
    def serve(self, app: Any) -> AbstractContextManager[int]:
        """Serve the application under a real server, on the port that this gives."""

    @pytest.fixture
    def payee(self, tmp_path: Path) -> Iterator[Payee]:
        payee = Payee(tmp_path, response_bytes_max=2_000, request_bytes_max=10_000)
        yield payee
        payee.close()

    @pytest.fixture
    def case(self, payee: Payee) -> Case:
        return Case(self, payee)

    @pytest.fixture(scope="class")
    @classmethod
    def idle(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
        """One case for all requests that must leave no trace: whatever one of them leaves fails the next."""
        payee = Payee(tmp_path_factory.mktemp("idle"), response_bytes_max=2_000, request_bytes_max=10_000)
        yield Case(cls(), payee)
        payee.close()

    # A paid call

    def test_a_paid_call_runs_once_and_gives_a_receipt(self, case: Case) -> None:
        """The response is the handler's; the receipt says what was charged, for what response."""
        reply = case.pay(QUOTE, "/quote/ACME")
        assert (reply.status, reply.json()) == (200, {"symbol": "ACME"})
        receipt = case.receipt(reply)
        assert (receipt.out, receipt.tok, receipt.status) == ("fulfilled", 5, 200)
        assert receipt.dig == documents.digest(reply.body)
        assert receipt.left == 10_000 - 5
        assert case.ran == {"/quote": 1}
        assert case.payee.used() == 5

    def test_a_contract_sent_again_gets_the_same_response(self, case: Case) -> None:
        """Status, headers, body and receipt are the stored ones; the handler does not run again."""
        contract = case.quoted()
        first, second = case.quote(contract), case.quote(contract)
        assert first == second
        assert case.ran == {"/quote": 1}
        assert case.payee.used() == 5

    def test_a_contract_is_answered_after_it_has_expired(self, case: Case) -> None:
        """Who has paid gets the response within its retention, however long the way was."""
        contract = case.quoted()
        first = case.quote(contract)
        case.payee.clock.forward(3_600)
        assert case.quote(contract) == first
        assert case.ran == {"/quote": 1}

    def test_a_contract_is_answered_after_its_payer_was_frozen(self, case: Case) -> None:
        contract = case.quoted()
        first = case.quote(contract)
        case.payee.domain.do("governance", "freeze", {"name": PAYER})
        case.payee.clock.forward(10)
        assert case.quote(contract) == first
        assert case.quote(case.quoted()).code == "wallet_frozen"

    def test_unpriced_and_free_routes_are_left_alone(self, case: Case) -> None:
        """No contract is asked for; one that comes along is not looked at, and not charged."""
        assert case.send("GET", "/plain").body == b"plain"
        for contract in (None, case.payee.contract("GET /free"), "nonsense"):
            reply = case.send("GET", "/free", contract)
            assert (reply.status, reply.body, reply.header("Token-Receipt")) == (200, b"free", None)
        assert case.send("GET", "/probe", headers=[("X-Probe", "1")]).body == b"probed"
        assert case.payee.used() == 0

    @pytest.mark.parametrize("name", ["created", "cookies", "empty", "redirect", "bytes"])
    def test_nobody_sees_that_a_handler_is_priced(self, case: Case, name: str) -> None:
        """Status, headers and body are those of the same application without tokenmesh; in replays too."""
        bare = self.build(lambda *_args, **_options: lambda function: function, Counter())
        plain = self.request(bare, "GET", f"/shapes/{name}", headers=())
        contract = case.payee.contract("GET /shapes/{name}", target=f"/shapes/{name}")
        for _ in range(2):
            reply = case.send("GET", f"/shapes/{name}", contract)
            assert case.receipt(reply).out == "fulfilled"
            assert reply.without("token-receipt") == plain.without()

    @pytest.mark.parametrize(
        ("method", "target", "body"),
        [
            ("GET", "/quote/ACME", b""),
            ("POST", "/other", b"\x00\xff body"),
            ("GET", "/missing", b""),
            ("GET", "/handled", b""),
            ("GET", "/stream", b""),
            ("GET", "/nowhere", b""),
            ("DELETE", "/other", b""),
        ],
    )
    def test_nor_for_failures_and_streams(self, case: Case, method: str, target: str, body: bytes) -> None:
        bare = self.build(lambda *_args, **_options: lambda function: function, Counter())
        plain = self.request(bare, method, target, headers=(), body=body)
        op = QUOTE if target.startswith("/quote") else f"{method} {target}"
        reply = case.pay(op, target, body=body)
        assert reply.without("token-receipt") == plain.without()

    def test_a_query_belongs_to_the_request(self, case: Case) -> None:
        assert case.pay(QUOTE, "/quote/ACME?x=1&y=%20").status == 200
        assert case.pay(QUOTE, "/quote/A%20B?x=a+b&x=%2F").json() == {"symbol": "A B"}
        assert case.pay(QUOTE, "/quote/%C3%A9").json() == {"symbol": "é"}

    def test_the_handler_sees_the_body_as_it_came(self, case: Case) -> None:
        body = bytes(range(256)) * 20
        reply = case.pay("POST /other", body=body)
        assert reply.body == body

    def test_a_form_can_be_read(self, case: Case) -> None:
        """Though the body was read before, for its digest."""
        body = b"name=Ada&other=1"
        form = ("Content-Type", "application/x-www-form-urlencoded")
        assert case.pay("POST /form", body=body, headers=[form]).body == b"Ada"

    def test_an_async_handler(self, case: Case) -> None:
        assert case.pay("GET /async/{n}", "/async/7").json() == {"n": 7}
        assert case.payee.used() == 5

    def test_a_class_with_priced_methods(self, case: Case) -> None:
        assert case.pay("GET /item/{name}", "/item/a", tok=3).body == b"got a"
        assert case.pay("POST /item/{name}", "/item/a", tok=3).body == b"posted a"
        assert case.payee.used() == 6
        assert case.send("GET", "/item/a").code == "contract_required"

    def test_a_route_under_a_prefix(self, case: Case) -> None:
        """The operation is the whole template, as consumers see it."""
        assert case.pay("GET /v1/deep/{path:path}", "/v1/deep/a/b", tok=2).body == b"a/b"
        assert case.send("GET", "/v1/deep/x").json()["offers"][0]["path"] == "/v1/deep/{path:path}"

    def test_the_running_contract_is_known_inside(self, case: Case) -> None:
        contract = case.payee.terms("GET /contract")
        reply = case.send("GET", "/contract", case.payee.sign(contract))
        assert reply.body.decode() == contract.jti
        with pytest.raises(ServingError, match="priced call"):
            decorators.current_contract()
        with pytest.raises(ServingError, match="priced call"):
            decorators.charge(1)

    # Prices

    def test_charge_says_what_is_owed(self, case: Case) -> None:
        """At most ``up_to``; without it, all of ``up_to``."""
        for pages, charged in ((3, 6), (0, 0), (25, 50), (None, 50)):
            before = case.payee.used()
            body = json.dumps({"pages": pages}).encode()
            reply = case.pay("POST /render", body=body, headers=[JSON], tok=50)
            assert reply.status == 200
            receipt = case.receipt(reply)
            assert (receipt.out, receipt.tok) == ("fulfilled", charged)
            assert case.payee.used() - before == charged
            assert receipt.left == 10_000 - case.payee.used()

    def test_charging_too_much_is_the_handlers_mistake(self, case: Case) -> None:
        """The handler fails, so nothing at all is owed."""
        reply = case.pay("POST /render", body=b'{"pages": 26}', headers=[JSON], tok=50)
        assert (reply.status, reply.body) == (418, b"caught")
        assert case.receipt(reply).out == "void"
        assert case.payee.used() == 0

    def test_a_price_by_request(self, case: Case) -> None:
        assert case.send("GET", "/sized/7").json()["offers"][0]["tokens"] == 7
        assert case.pay("GET /sized/{n}", "/sized/7", tok=6).code == "too_few_tokens"
        assert case.pay("GET /sized/{n}", "/sized/7", tok=9).status == 200
        assert case.payee.used() == 7
        assert case.send("GET", "/sized/0").status == 200

    def test_a_hold_pays_for_one_call(self, case: Case) -> None:
        """``via="hold"`` wants one; its work counts only if ``fulfilled_when`` says so."""
        jti = case.payee.hold(50)
        contract = case.payee.contract("POST /job", tok=50, jti=jti, via="hold")
        reply = case.send("POST", "/job", contract)
        assert reply.status == 201
        assert (case.receipt(reply).out, case.receipt(reply).left) == ("fulfilled", None)
        assert case.send("POST", "/job", case.payee.contract("POST /job", tok=50)).code == "hold_required"
        assert (
            case.send("POST", "/job", case.payee.contract("POST /job", tok=50, via="hold")).code
            == "hold_unknown"
        )
        assert case.ran == {"/job": 1}

    def test_work_that_does_not_count_is_void(self, case: Case) -> None:
        """The response goes out as it is, with a receipt that says void; a retry gets the same."""
        jti = case.payee.hold(50)
        contract = case.payee.contract("POST /job", tok=50, jti=jti, via="hold", body=b"no")
        first = case.send("POST", "/job", contract, body=b"no")
        assert first.status == 200
        assert (case.receipt(first).out, case.receipt(first).tok) == ("void", 0)
        assert case.send("POST", "/job", contract, body=b"no") == first
        assert case.ran == {"/job": 1}

    def test_any_operation_may_be_paid_by_a_hold(self, case: Case) -> None:
        contract = case.quoted(jti=case.payee.hold(5), via="hold")
        assert case.quote(contract).status == 200

    # Failures

    def test_a_handler_that_raises_owes_nothing(self, case: Case) -> None:
        """The exception goes its way, as always; a retry gets a 500 with the void receipt."""
        contract = case.payee.contract("GET /error")
        try:
            first: Reply | None = case.send("GET", "/error", contract)
        except ZeroDivisionError:
            first = None
        assert first is None or first.status == 500
        again = case.send("GET", "/error", contract)
        assert again.status == 500
        assert case.receipt(again).out == "void"
        assert case.ran == {"/error": 1}
        assert case.payee.used() == 0
        assert case.payee.state(contract) == "void"

    def test_an_error_response_owes_nothing(self, case: Case) -> None:
        contract = case.payee.contract("GET /missing")
        first = case.send("GET", "/missing", contract)
        assert first.status == 404
        assert case.receipt(first).out == "void"
        assert case.send("GET", "/missing", contract) == first
        assert case.ran == {"/missing": 1}

    def test_an_exception_is_a_failure_whatever_an_error_handler_makes_of_it(self, case: Case) -> None:
        reply = case.pay("GET /handled")
        assert (reply.status, reply.body) == (200, b"handled")
        assert case.receipt(reply).out == "void"
        assert case.payee.used() == 0

    # Streams

    def test_a_stream_is_fulfilled_at_its_end(self, case: Case) -> None:
        """It goes out as it comes, without a header; the receipt is at its own address then."""
        contract = case.payee.terms("GET /stream")
        reply = case.send("GET", "/stream", case.payee.sign(contract))
        assert (reply.status, reply.body, reply.complete) == (200, b"".join(PIECES), True)
        assert reply.header("Token-Receipt") is None
        kept = case.send("GET", f"/.well-known/tokenmesh/receipts/{contract.jti}?payer={PAYER}")
        assert (kept.status, kept.header("Content-Type")) == (200, "application/jose")
        receipt = case.payee.receipt(kept.body.decode())
        assert (receipt.out, receipt.dig) == ("fulfilled", documents.digest(reply.body))

    def test_a_stream_sent_again_comes_out_of_the_journal(self, case: Case) -> None:
        contract = case.payee.contract("GET /stream")
        first, second = (case.send("GET", "/stream", contract) for _ in range(2))
        assert (second.status, second.body) == (first.status, first.body)
        assert case.receipt(second).out == "fulfilled"
        assert case.ran == {"/stream": 1}

    def test_a_stream_nobody_reads_to_the_end_is_void(self, case: Case) -> None:
        contract = case.payee.contract("GET /endless")
        reply = case.send("GET", "/endless", contract, leave_after=2)
        assert not reply.complete
        assert case.payee.state(contract) == "void"
        assert case.payee.used() == 0

    def test_a_stream_that_breaks_off_is_void(self, case: Case) -> None:
        contract = case.payee.contract("GET /broken")
        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            case.send("GET", "/broken", contract)
        assert case.payee.state(contract) == "void"
        assert case.payee.used() == 0

    # What a bad request gets: the design, section 5

    def test_no_contract(self, idle: Case) -> None:
        """402, with the offer for this very request."""
        reply = idle.quote(None)
        assert (reply.status, reply.code) == (402, "contract_required")
        problem = reply.json()
        assert problem["offers"] == [
            {"operation": QUOTE, "method": "GET", "path": "/quote/{symbol}", "tokens": 5, "via": "allowance"}
        ]
        assert {"title", "status", "detail", "action"} < problem.keys()
        idle.nothing_taken()

    @pytest.mark.parametrize(
        "text",
        ["nonsense", "", "a.b.c", "a.b", "é", "\xff\xfe\xfd", "a" * 100_000, "." * 100_000, "e30.e30.AAAA"],
        ids=["word", "empty", "dots", "two", "accent", "not-utf8", "100kb", "100kb-dots", "json"],
    )
    def test_not_a_contract_at_all(self, idle: Case, text: str) -> None:
        reply = idle.quote(text)
        assert reply.status == 400
        assert reply.code in ("not_a_contract", "too_large", "unknown_algorithm")
        idle.nothing_taken()

    def test_two_contracts(self, idle: Case) -> None:
        contracts = [("Token-Contract", idle.quoted()) for _ in range(2)]
        reply = idle.quote(None, headers=contracts)
        assert (reply.status, reply.code) == (400, "not_a_contract")
        idle.nothing_taken()

    @pytest.mark.parametrize(
        ("header", "status", "code"),
        [
            ({"alg": "none"}, 400, "unknown_algorithm"),
            ({"alg": "HS256"}, 400, "unknown_algorithm"),
            ({"alg": "ES384"}, 400, "unknown_algorithm"),
            ({"typ": "JWT"}, 400, "not_a_contract"),
            ({"crit": ["b64"], "b64": False}, 400, "bad_header"),
            ({"kid": "other"}, 401, "other_signer"),
            ({"x5t#S256": "A" * 43}, 401, "certificate_unknown"),
        ],
    )
    def test_headers_that_are_not_ours(
        self, idle: Case, header: dict[str, Any], status: int, code: str
    ) -> None:
        """``alg: none``, HS256 with the public key as its secret, a ``kid`` of another wallet."""
        _, claims, signature = idle.quoted().split(".")
        mine = {
            "alg": "ES256",
            "typ": "tokenmesh-contract+jwt",
            "kid": PAYER,
            "x5t#S256": idle.payee.domain[PAYER].x5t,
        }
        head = _segment({**mine, **header})
        if header.get("alg") == "HS256":
            public = idle.payee.domain[PAYER].certificate_pem.encode()
            mac = hmac.digest(public, f"{head}.{claims}".encode(), "sha256")
            signature = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        if header.get("alg") == "none":
            signature = ""
        reply = idle.quote(f"{head}.{claims}.{signature}")
        assert (reply.status, reply.code) == (status, code)
        idle.nothing_taken()

    @pytest.mark.parametrize(
        ("claims", "status", "code"),
        [
            ({"tok": -1}, 400, "bad_claim"),
            ({"tok": 2.5}, 400, "bad_claim"),
            ({"tok": "5"}, 400, "bad_claim"),
            ({"tok": True}, 400, "bad_claim"),
            ({"tok": None}, 400, "bad_claim"),
            ({"tok": 10**30}, 400, "bad_claim"),
            ({"tok": 2**53}, 400, "bad_claim"),
            ({"tok": 2**53 - 1}, 402, "allowance_used_up"),
            ({"tok": 0}, 402, "too_few_tokens"),
            ({"tok": 4}, 402, "too_few_tokens"),
            ({"jti": ""}, 400, "bad_claim"),
            ({"jti": "x" * 65}, 400, "bad_claim"),
            ({"htm": "get"}, 400, "bad_claim"),
            ({"via": "hold"}, 400, "bad_claim"),
            ({"seq": -1}, 400, "bad_claim"),
            ({"dom": "A" * 43}, 401, "other_domain"),
            ({"aud": "other"}, 401, "other_payee"),
            ({"iss": "nobody"}, 401, "other_signer"),
            ({"htm": "POST"}, 422, "other_request"),
            ({"htu": "/quote/OTHER"}, 422, "other_request"),
            ({"htu": "/quote/ACME?x=1"}, 422, "other_request"),
            ({"dig": documents.digest(b"another body")}, 422, "other_request"),
            ({"op": "GET /cheap"}, 402, "other_operation"),
            ({"via": "A" * 22}, 402, "allowance_unknown"),
        ],
        ids=str,
    )
    def test_claims_that_are_not_right(
        self, idle: Case, claims: dict[str, Any], status: int, code: str
    ) -> None:
        """Each wrong claim, correctly signed, has its own answer; never a 500, never a charge."""
        body = {
            name: value
            for name, value in idle.payee.terms(QUOTE, target="/quote/ACME")._asdict().items()
            if value is not None
        }
        reply = idle.quote(_signed(idle.payee, {**body, **claims}))
        assert (reply.status, reply.code) == (status, code)
        idle.nothing_taken()

    @pytest.mark.parametrize(
        "missing",
        ["dom", "iss", "aud", "op", "htm", "htu", "dig", "tok", "jti", "iat", "exp", "via", "lane", "seq"],
    )
    def test_a_claim_is_missing(self, idle: Case, missing: str) -> None:
        body = idle.payee.terms(QUOTE, target="/quote/ACME")._asdict()
        claims = {name: value for name, value in body.items() if value is not None and name != missing}
        reply = idle.quote(_signed(idle.payee, claims))
        assert (reply.status, reply.code) == (400, "missing_claim")
        idle.nothing_taken()

    def test_a_claim_stands_twice(self, idle: Case) -> None:
        """Two readers could read two amounts."""
        body = idle.payee.terms(QUOTE, target="/quote/ACME")._asdict()
        text = json.dumps({k: v for k, v in body.items() if v is not None})
        reply = idle.quote(_signed(idle.payee, text[:-1] + ', "tok": 6}'))
        assert (reply.status, reply.code) == (400, "duplicate_claim")
        idle.nothing_taken()

    def test_a_signature_that_does_not_hold(self, idle: Case) -> None:
        signing, _, signature = idle.quoted().rpartition(".")
        other = idle.quoted().rpartition(".")[2]
        for forged in (other, ("B" if signature[0] == "A" else "A") + signature[1:], "A" * 86):
            reply = idle.quote(f"{signing}.{forged}")
            assert (reply.status, reply.code) == (401, "signature_invalid")
        # Signed by someone else in the payer's name.
        contract = idle.payee.terms(QUOTE, target="/quote/ACME")
        forger = _In(idle.payee.domain["other"], PAYER, idle.payee.domain[PAYER].x5t)
        reply = idle.quote(documents.sign(contract, forger))
        assert (reply.status, reply.code) == (401, "signature_invalid")
        idle.nothing_taken()

    def test_an_unknown_wallet(self, case: Case) -> None:
        stranger = case.payee.domain.wallets.new("stranger")
        contract = case.payee.terms(QUOTE, target="/quote/ACME", iss="stranger")
        reply = case.quote(documents.sign(contract, stranger))
        assert (reply.status, reply.code) == (401, "wallet_unknown")
        case.nothing_taken()

    @pytest.mark.parametrize(
        ("iat", "exp", "code"),
        [(-120, -60, "expired"), (-60, 0, "expired"), (60, 120, "not_yet_valid"), (0, 301, "lives_too_long")],
    )
    def test_time(self, idle: Case, iat: int, exp: int, code: str) -> None:
        now = idle.payee.domain.now
        reply = idle.quote(idle.quoted(iat=now + iat, exp=now + exp))
        assert (reply.status, reply.code) == (401, code)
        idle.nothing_taken()

    def test_clocks_may_differ_a_little(self, case: Case) -> None:
        now = case.payee.domain.now
        assert case.quote(case.quoted(iat=now + 4, exp=now + 64)).status == 200

    def test_a_contract_for_another_request(self, idle: Case) -> None:
        """One for ``GET /cheap`` buys no ``POST /other``, with another body or query it buys nothing."""
        cheap = idle.payee.contract("GET /cheap", tok=5)
        other = idle.payee.contract("POST /other", body=b"this")
        for reply in (
            idle.send("POST", "/other", cheap),
            idle.send("POST", "/other", other, body=b"that"),
            idle.send("POST", "/other", other),
            idle.send("POST", "/other?x=1", other, body=b"this"),
        ):
            assert (reply.status, reply.code) == (422, "other_request")
        idle.nothing_taken()

    def test_an_id_used_for_another_request(self, case: Case) -> None:
        jti = new_id()
        assert case.quote(case.quoted(jti=jti)).status == 200
        reply = case.pay("POST /other", jti=jti)
        assert (reply.status, reply.code) == (422, "other_request")
        assert case.ran == {"/quote": 1}

    def test_a_number_used_twice(self, case: Case) -> None:
        assert case.quote(case.quoted(seq=7)).status == 200
        reply = case.quote(case.quoted(seq=7))
        assert (reply.status, reply.code) == (402, "sequence_used")
        assert case.ran == {"/quote": 1}

    def test_a_number_used_again_and_again(self, case: Case) -> None:
        """Refused each time; the payer's good contracts are served in between, and the one that has the
        number gets its response."""
        worked = case.quoted(seq=7)
        first = case.quote(worked)
        for number in (8, 9):
            for _ in range(3):
                reply = case.quote(case.quoted(seq=7))
                assert (reply.status, reply.code) == (402, "sequence_used")
                assert reply.json()["offers"][0]["tokens"] == 5
            again = case.quote(worked)
            assert (again.status, again.body) == (200, first.body)
            assert case.receipt(again) == case.receipt(first)
            assert case.quote(case.quoted(seq=number)).status == 200
        assert case.ran == {"/quote": 3}

    def test_a_refusal_leaves_nothing_for_the_garbage_collector(self, case: Case) -> None:
        """Found out by the claim, deep inside the framework: the exception that leaves the handler goes away
        with the request, and with it all frames that it came through."""
        assert case.quote(case.quoted(seq=7)).status == 200
        again = case.quoted(seq=7)
        gc.collect()
        gc.disable()
        try:
            assert case.quote(again).status == 402
            assert not [one for one in gc.get_objects() if isinstance(one, Answered)]
        finally:
            gc.enable()

    def test_an_allowance_that_is_used_up(self, case: Case) -> None:
        """402; and after a refill it goes on, though the payee has an older answer of the ledger."""
        small = case.payee.open_allowance(12)
        replies = [case.quote(case.quoted(via=small, seq=number)) for number in (1, 2, 3)]
        assert [reply.status for reply in replies] == [200, 200, 402]
        assert replies[2].code == "allowance_used_up"
        assert "2 tokens left" in replies[2].json()["detail"]
        case.payee.domain.do(PAYER, "refill", {"id": small, "tokens": 5})
        assert case.quote(case.quoted(via=small, seq=4)).status == 200

    def test_an_allowance_of_somebody_else(self, case: Case) -> None:
        domain = case.payee.domain
        domain.grant("other", 100)
        theirs = {"id": new_id(), "payee": PAYEE, "tokens": 50, "exp": domain.now + 3600}
        domain.do("other", "open", theirs)
        elsewhere = {"id": new_id(), "payee": "other", "tokens": 50, "exp": domain.now + 3600}
        domain.do(PAYER, "open", elsewhere)
        for allowance in (theirs, elsewhere):
            assert case.quote(case.quoted(via=allowance["id"])).code == "allowance_unknown"
        case.nothing_taken()

    def test_an_allowance_that_ends(self, case: Case) -> None:
        """No contract is taken that could not be settled in time."""
        domain = case.payee.domain
        short = case.payee.open_allowance(50, exp=domain.now + 30)
        assert case.quote(case.quoted(via=short)).code == "allowance_ended"
        assert case.quote(case.quoted(via=short, exp=domain.now + 30)).status == 200
        closed = case.payee.open_allowance(50)
        case.payee.clock.forward(1)
        domain.do(PAYER, "close", {"id": closed})
        assert case.quote(case.quoted(via=closed, iat=domain.now - 1)).status == 200
        assert case.quote(case.quoted(via=closed, iat=domain.now + 1)).code == "allowance_ended"

    def test_a_frozen_wallet(self, case: Case) -> None:
        case.payee.domain.do("governance", "freeze", {"name": PAYER})
        reply = case.quote(case.quoted())
        assert (reply.status, reply.code) == (403, "wallet_frozen")
        case.nothing_taken()

    def test_a_freeze_is_noticed_in_time(self, case: Case) -> None:
        """An answer of the ledger is not believed for longer than the policy's propagation time."""
        assert case.quote(case.quoted()).status == 200
        case.payee.domain.do("governance", "freeze", {"name": PAYER})
        case.payee.clock.forward(5)
        assert case.quote(case.quoted()).code == "wallet_frozen"

    def test_what_policy_forbids(self, case: Case) -> None:
        rule = {"payer": PAYER, "payee": "*", "operation": "GET /quote/*", "effect": "deny"}
        domain = case.payee.domain
        policy = {**domain.ledger.policy().result(10), "rules": [rule]}
        domain.do("governance", "set_policy", {"policy": policy})
        reply = case.quote(case.quoted())
        assert (reply.status, reply.code) == (403, "forbidden")
        assert case.pay("GET /cheap").status == 200

    def test_a_body_that_is_too_large(self, idle: Case) -> None:
        body = b"x" * 10_001
        reply = idle.pay("POST /other", body=body)
        assert (reply.status, reply.code) == (400, "request_too_large")
        idle.nothing_taken()

    # Unknown, or not now

    def test_a_contract_that_is_being_worked_on(self, case: Case) -> None:
        """409, with a time to come back."""
        contract = case.quoted()
        provider = case.payee.provider
        from tokenmesh.provider import Request, Terms
        from tokenmesh.steps import run

        request = Request("GET", "/quote/ACME", QUOTE, "/quote/{symbol}", (contract.encode(),), lambda: b"")
        checked = run(provider.check(request, Terms(5)))
        assert checked is not None
        run(provider.claim(checked))
        reply = case.quote(contract)
        assert (reply.status, reply.code, reply.header("Retry-After")) == (409, "in_progress", "1")
        assert reply.json()["contract_id"] == checked.contract.jti
        assert not case.ran

    def test_a_ledger_that_cannot_be_reached(self, case: Case) -> None:
        """503, with the contract's id and a time to come back; never served free."""
        case.payee.provider = case.payee.new_provider(_Broken(case.payee.domain.ledger))
        reply = case.quote(case.quoted())
        assert (reply.status, reply.code) == (503, "ledger_unavailable")
        assert reply.header("Retry-After") is not None
        assert reply.json()["contract_id"]
        case.nothing_taken()

    @pytest.mark.parametrize("method", ["claim", "fulfil"])
    def test_a_journal_that_cannot_be_written(self, case: Case, method: str) -> None:
        """503 instead of the response; the contract is charged nothing, and may be sent again."""
        journal = _Failing(case.payee.journal, method)
        case.payee.provider = case.payee.new_provider(case.payee.domain.ledger, journal)
        contract = case.quoted()
        reply = case.quote(contract)
        assert (reply.status, reply.code) == (503, "journal_unavailable")
        assert reply.header("Retry-After") is not None
        assert b"ACME" not in reply.body
        journal.failing = ""
        again = case.quote(contract)
        if method == "claim":
            assert again.status == 200
        else:
            assert (again.status, again.code) == (402, "contract_void")
            assert case.receipt(again).out == "void"
            assert case.payee.used() == 0

    def test_work_that_took_too_long_is_not_owed(self, case: Case) -> None:
        """Past the time in which it could be settled the payer gets a 503, and the receipt says void."""
        case.suite.while_running = lambda: case.payee.clock.forward(290)
        try:
            reply = case.pay("GET /cheap", tok=1)
        finally:
            case.suite.while_running = None
        assert (reply.status, reply.code) == (503, "too_late")
        assert case.receipt(reply).out == "void"
        assert case.payee.used() == 0

    def test_a_journal_that_is_full(self, tmp_path: Path) -> None:
        payee = Payee(tmp_path, unsettled_max=2)
        try:
            case = Case(self, payee)
            statuses = [case.quote(case.quoted()).status for _ in range(3)]
            assert statuses == [200, 200, 503]
            assert case.quote(case.quoted()).code == "journal_full"
        finally:
            payee.close()

    def test_a_response_too_large_to_keep(self, case: Case) -> None:
        """The first time it goes out whole; a retry gets 410 and the receipt with its digest."""
        contract = case.payee.contract("GET /large")
        first = case.send("GET", "/large", contract)
        assert (first.status, first.body) == (200, LARGE)
        again = case.send("GET", "/large", contract)
        assert (again.status, again.code) == (410, "response_not_kept")
        assert case.receipt(again).dig == documents.digest(LARGE)
        assert case.ran == {"/large": 1}
        assert case.payee.used() == 5

    def test_no_refusal_reaches_the_applications_error_handlers(self, case: Case) -> None:
        """They catch everything in this application, and would make a 200 of it."""
        reply = case.quote("nonsense")
        assert reply.header("Content-Type") == "application/problem+json"

    # Under a real server

    def test_a_hundred_copies_at_once(self, case: Case) -> None:
        """The handler runs once, one charge; the others get 409 meanwhile, and the same response after."""
        copies, turned_away, enough = 100, threading.Semaphore(0), 50
        contract = case.payee.contract("GET /cheap", tok=1)

        def wait_for_others() -> None:
            for _ in range(enough):
                assert turned_away.acquire(timeout=30), "too few were told to come back"

        def ask(port: int) -> tuple[int, bytes, str | None]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.closing(connection):
                connection.request("GET", "/cheap", headers={"Token-Contract": contract})
                response = connection.getresponse()
                if response.status == 409:
                    assert response.getheader("Retry-After") == "1"
                    turned_away.release()
                return response.status, response.read(), response.getheader("Token-Receipt")

        self.while_running = wait_for_others
        with self.serve(case.app) as port, ThreadPoolExecutor(copies) as pool:
            answers = list(pool.map(lambda _: ask(port), range(copies)))
            last = ask(port)
        assert case.ran == {"/cheap": 1}
        assert case.payee.used() == 1
        assert Counter(status for status, _, _ in answers).keys() <= {200, 409}
        assert {answer for answer in answers if answer[0] == 200} == {last}
        assert sum(answer[0] == 409 for answer in answers) >= enough

    def test_a_client_that_hangs_up(self, case: Case) -> None:
        """In the middle of a stream: the server notices, and nothing is owed."""
        journal = _Telling(case.payee.journal)
        case.payee.provider = case.payee.new_provider(case.payee.domain.ledger, journal)
        contract = case.payee.contract("GET /endless")
        with self.serve(case.app) as port:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(
                    f"GET /endless HTTP/1.1\r\nHost: x\r\nToken-Contract: {contract}\r\n\r\n".encode()
                )
                assert connection.recv(12).endswith(b" 200")
            assert journal.voided.wait(30), "nobody noticed"
        assert case.payee.state(contract) == "void"
        assert case.payee.used() == 0

    # What is served beside

    def test_offers(self, case: Case) -> None:
        """Every priced operation, as consumers look for it; nothing that is free."""
        reply = case.send("GET", "/.well-known/tokenmesh/offers")
        assert (reply.status, reply.header("Content-Type")) == (200, "application/json")
        said = reply.json()
        assert (said["service"], said["domain"]) == (PAYEE, case.payee.domain.ledger.domain)
        offers = {offer["operation"]: offer for offer in said["offers"]}
        assert offers["POST /render"] == {
            "operation": "POST /render",
            "method": "POST",
            "path": "/render",
            "up_to": 50,
            "via": "allowance",
        }
        assert offers["POST /job"]["via"] == "hold"
        assert offers["GET /sized/{n}"]["tokens"] is None
        assert offers["GET /v1/deep/{path:path}"]["tokens"] == 2
        assert offers["GET /item/{name}"]["tokens"] == offers["POST /item/{name}"]["tokens"] == 3
        assert offers["naming"]["path"] == "/named"
        assert "GET /free" not in offers
        assert "GET /plain" not in offers
        assert not case.ran

    def test_an_operation_has_the_name_it_was_given(self, case: Case) -> None:
        contract = case.payee.terms("GET /named")._replace(op="naming")
        assert case.send("GET", "/named", case.payee.sign(contract)).status == 200
        assert case.pay("GET /named").code == "other_operation"

    def test_receipts_nobody_has(self, case: Case) -> None:
        for target in (f"/{new_id()}", f"/{new_id()}?payer={PAYER}", "/x?payer=%00"):
            reply = case.send("GET", f"/.well-known/tokenmesh/receipts{target}")
            assert (reply.status, reply.code) == (404, "receipt_unknown")

    # Mistakes

    def test_a_priced_handler_is_not_called_by_itself(self, case: Case) -> None:
        """Outside of a request it would be free."""

        @decorators.priced(tokens=5, mesh=case.payee)
        def handler() -> str:
            raise AssertionError("it ran")

        with pytest.raises(ServingError, match="no request to it"):
            handler()

    while_running: Callable[[], None] | None = None
    """What happens while the handler of ``GET /cheap`` runs."""

    def now_running(self) -> None:
        if self.while_running is not None:
            self.while_running()


class _In:
    """A signer that signs in another's name."""

    def __init__(self, signer: Any, name: str, x5t: str) -> None:
        self.name, self.x5t, self.sign = name, x5t, signer.sign


class _Broken:
    """A ledger that does not answer."""

    def __init__(self, ledger: Any) -> None:
        self.domain = ledger.domain

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any) -> Any:
            raise LedgerUnavailable("nobody answers")

        return fail


class _Telling:
    """A journal that says when something was voided."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        self.voided = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def void(self, *args: Any, **options: Any) -> Any:
        ended = self._journal.void(*args, **options)
        self.voided.set()
        return ended


class _Failing:
    """A journal, one of whose methods fails."""

    def __init__(self, journal: Any, failing: str) -> None:
        self._journal = journal
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        if name == self.failing or (self.failing and name == "void"):
            return self._fail
        return getattr(self._journal, name)

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise JournalError("the disk is full")


def _segment(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _signed(payee: Payee, claims: Any) -> str:
    """Claims as they are, correctly signed by the payer."""
    signer = payee.domain[PAYER]
    head = _segment({"alg": "ES256", "typ": "tokenmesh-contract+jwt", "kid": PAYER, "x5t#S256": signer.x5t})
    signing = f"{head}.{_segment(claims)}"
    signature = base64.urlsafe_b64encode(signer.sign(signing.encode())).rstrip(b"=").decode()
    return f"{signing}.{signature}"
