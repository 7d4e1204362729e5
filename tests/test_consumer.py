"""The consumer by script, on a held clock: one contract through all trouble, and what callers catch."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import Future
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import tenacity
from opentelemetry import trace

from support.market import PAYEE, PAYER, Market
from support.scripted import (
    BODY,
    OFFER,
    URL,
    Answer,
    ScriptedPayee,
    Wire,
    dear,
    fulfilled,
    lost,
    no_connection,
    not_arrived,
    plain,
    problem,
    voided,
    wire,
)
from support.wallets import Clock
from tokenmesh.consumer import CallOptions, OutRequest, Send, TransportFailed
from tokenmesh.errors import (
    CallError,
    InsufficientFunds,
    LedgerUnavailable,
    NotFunded,
    NotFundedYet,
    OfferTooHigh,
    OutcomeUnknown,
    ReceiptInvalid,
    Refused,
    ResponseNotKept,
    Unreachable,
    Voided,
)
from tokenmesh.retry import ATTEMPTS_MAX, Policy, never
from tokenmesh.steps import run
from tokenmesh_chaincode import documents

ONCE = Policy(retry=never)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def market(tmp_path: Path, clock: Clock) -> Iterator[Market]:
    market = Market(tmp_path, {PAYER: 1_000_000, PAYEE: 0, "other": 0}, clock=clock)
    yield market
    market.close()


@pytest.fixture
def shop(market: Market, clock: Clock) -> Wire:
    return wire(market, clock)


def left(shop: Wire) -> int:
    """What the payer's treasury counts as left with the payee."""
    return sum(each.left for each in shop.payer.treasury._accounts[PAYEE].allowances)


# The warm path


def test_a_warm_call_sends_one_request_and_asks_nobody_else(shop: Wire, market: Market) -> None:
    """After the first call: no offers, no ledger, only the request with its contract."""
    shop.call()
    before = market.domain.balance(PAYER)
    shop.payer.treasury._ledger = None  # type: ignore[assignment]
    response = shop.call()
    assert response.body == BODY
    assert len(shop.sent) == 2
    assert len(shop.asked) == 1
    assert market.domain.balance(PAYER) == before


def test_the_contract_says_what_the_request_is(shop: Wire) -> None:
    """Every claim binds the contract to this payee and this request."""
    shop.call("/quote/caf%c3%a9?a=1&b=%20", body=b"the body")
    contract = shop.contract
    assert (contract.iss, contract.aud, contract.op) == (PAYER, PAYEE, "GET /quote/{symbol}")
    assert (contract.htm, contract.htu) == ("GET", "/quote/caf%C3%A9?a=1&b=%20")
    assert contract.dig == documents.digest(b"the body")
    assert contract.tok == 5
    assert contract.exp - contract.iat == 60
    assert contract.tp is None


def test_what_became_of_the_call_is_with_its_response(shop: Wire) -> None:
    """Contract id, operation, charge, receipt and tries."""
    shop.payee.script.extend([lost, fulfilled()])
    info = shop.call().info
    assert info is not None
    assert info.receipt is not None
    assert (info.service, info.operation, info.charged, info.tries) == (PAYEE, OFFER["operation"], 5, 2)
    assert info.contract_id == info.receipt.jti == shop.contract.jti


def test_the_contract_carries_the_span_it_is_made_in(shop: Wire) -> None:
    """The ledger's history leads back to the trace."""
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        shop.call()
    assert shop.contract.tp == f"00-{0xABC:032x}-{0xDEF:016x}-01"


def test_a_body_that_is_a_stream_is_read_only_when_a_contract_must_bind_it(shop: Wire) -> None:
    """Read for a priced operation, left alone for any other."""
    shop.call(body=None)
    assert shop.contract.dig == documents.digest(b"streamed")
    steps = shop.steps("/plain", body=None)
    assert next(steps) == Send(None)
    steps.close()


# The same contract through every trouble


@pytest.mark.parametrize(
    "trouble",
    [
        lost,
        not_arrived,
        no_connection,
        problem(409, "in_progress", headers={"Retry-After": "1"}),
        problem(503, "ledger_unavailable", headers={"Retry-After": "1"}),
        plain(500),
        plain(502),
        plain(503),
        plain(504),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_trouble_is_met_with_the_same_contract(shop: Wire, method: str, trouble: Any) -> None:
    """Twice in a row, whatever the method: the very same document, one run, one charge."""
    shop.payee.offers = [{**OFFER, "method": method}]
    shop.payee.script.extend([trouble, trouble])
    response = shop.call(method=method)
    assert response.body == BODY
    assert len(shop.texts) == 3
    assert len(set(shop.texts)) == 1
    assert list(shop.payee.ran.values()) == [1]
    assert left(shop) == 5_000 - 5


def test_a_retry_after_is_waited_for(shop: Wire) -> None:
    """At least as long as the payee asks, in seconds or as a date."""
    later = formatdate(shop.clock() + 3, usegmt=True)
    shop.payee.script.extend(
        [problem(409, "in_progress", headers={"Retry-After": "2"}), plain(503, Retry_After=later)]
    )
    shop.call()
    assert shop.slept[0] >= 2
    assert sum(shop.slept) >= 3 - 1, "a date has no fractions of a second"


def test_a_retry_after_beyond_the_limit_ends_the_call(shop: Wire) -> None:
    """The caller hears at once, instead of waiting for a minute."""
    shop.payee.script.append(problem(503, "ledger_unavailable", headers={"Retry-After": "60"}))
    with pytest.raises(OutcomeUnknown):
        shop.call()
    assert shop.slept == []


def test_tries_are_bounded_in_number_and_in_time(shop: Wire) -> None:
    """So many tries by default; a shorter contract's life ends them before."""
    shop.payee.script.extend([not_arrived] * 100)
    with pytest.raises(OutcomeUnknown):
        shop.call()
    assert len(shop.sent) == ATTEMPTS_MAX
    forever = tenacity.Retrying(wait=tenacity.wait_fixed(7))
    with pytest.raises(OutcomeUnknown):
        shop.call(retry=Policy(stop=forever.stop, wait=forever.wait))
    assert len(shop.sent) == ATTEMPTS_MAX + 9
    assert len({contract.jti for contract in shop.sent[ATTEMPTS_MAX:] if contract}) == 1


# What callers catch


def test_no_answer_at_all_is_unknown_and_the_tokens_stay_reserved(shop: Wire) -> None:
    """The contract may still be taken: its tokens are not lent out again, and its number neither."""
    shop.call()
    seq = shop.contract.seq
    shop.payee.script.extend([not_arrived] * ATTEMPTS_MAX)
    with pytest.raises(OutcomeUnknown) as caught:
        shop.call()
    error = caught.value
    assert error.spent == "unknown"
    assert error.retryable
    assert (error.service, error.contract_id) == (PAYEE, shop.contract.jti)
    assert left(shop) == 5_000 - 5 - 5
    shop.call()
    assert shop.contract.seq == seq + 2


def test_no_connection_is_not_spent_and_everything_is_given_back(shop: Wire) -> None:
    """Nothing went out: the same number and the same tokens serve the next call."""
    shop.call()
    shop.payee.script.extend([no_connection] * ATTEMPTS_MAX)
    with pytest.raises(Unreachable) as caught:
        shop.call()
    assert caught.value.spent == "no"
    seq = shop.contract.seq
    assert left(shop) == 5_000 - 5
    shop.call()
    assert shop.contract.seq == seq


def test_one_unanswered_try_among_failed_connections_is_unknown(shop: Wire) -> None:
    """What may have been taken once is not certain to be unspent, whatever comes later."""
    shop.payee.script.extend([no_connection, not_arrived])
    shop.payee.script.extend([no_connection] * (ATTEMPTS_MAX - 2))
    with pytest.raises(OutcomeUnknown):
        shop.call()


def test_the_transports_own_error_is_the_cause(shop: Wire) -> None:
    """A caller that wants to know more finds it there."""

    def broken(payee: ScriptedPayee, contract: Any) -> Answer:
        raise TransportFailed("reset", sent=False) from ConnectionResetError("by peer")

    shop.payee.script.append(broken)
    with pytest.raises(Unreachable) as caught:
        shop.call(retry=ONCE)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "bad_claim"), (401, "signature_invalid"), (403, "wallet_frozen"), (422, "other_request")],
)
def test_a_refusal_is_not_spent_and_says_why(shop: Wire, status: int, code: str) -> None:
    """Once, without a second try; the payee's problem comes along."""
    shop.payee.script.append(problem(status, code, action="Do this."))
    with pytest.raises(Refused, match="Do this") as caught:
        shop.call()
    error = caught.value
    assert (error.spent, error.status, error.code) == ("no", status, code)
    assert error.contract_id == shop.contract.jti
    assert len(shop.sent) == 1
    assert left(shop) == 5_000


def test_a_refusal_that_looks_before_it_is_known_what_was_taken_is_unknown(shop: Wire) -> None:
    """401, 403 and 422 say nothing of an earlier copy: its answer was lost, or it is on its way still, and
    arrives when governance has changed its mind."""
    for earlier, refusal in (
        (lost, problem(401, "signature_invalid")),
        (not_arrived, problem(403, "forbidden")),
    ):
        shop.payee.script.extend([earlier, refusal])
        with pytest.raises(OutcomeUnknown) as caught:
            shop.call()
        assert isinstance(caught.value.__cause__, Refused)


def test_a_response_that_was_not_kept_is_spent(shop: Wire) -> None:
    """The work was done and charged; its response is gone."""

    def gone(payee: ScriptedPayee, contract: Any) -> Answer:
        receipt = payee.fulfil(contract).headers["Token-Receipt"]
        refusal = problem(410, "response_not_kept", headers={"Token-Receipt": receipt})
        return refusal(payee, contract)

    shop.payee.script.extend([lost, gone])
    with pytest.raises(ResponseNotKept) as caught:
        shop.call()
    assert caught.value.spent == "yes"
    assert left(shop) == 5_000 - 5


# Receipts


@pytest.mark.parametrize(
    "claims",
    [
        {"jti": "another"},
        {"iss": "other"},
        {"aud": "other"},
        {"dom": "x" * 43},
        {"tok": 6},
        {"out": "void"},
        {"status": 201},
        {"dig": documents.digest(b"another body")},
        {"by": "other"},
    ],
    ids=str,
)
def test_a_receipt_that_does_not_hold_is_reported_and_counts_as_spent(
    shop: Wire, market: Market, claims: dict[str, Any]
) -> None:
    """Contract, parties, ledger, charge, outcome, status, body, signer: each is checked."""
    if "by" in claims:
        claims = {"by": market.domain["other"]}
    shop.payee.script.append(fulfilled(**claims))
    with pytest.raises(ReceiptInvalid) as caught:
        shop.call()
    assert caught.value.spent == "yes"
    assert len(shop.sent) == 1
    assert left(shop) == 5_000 - 5


@pytest.mark.parametrize("text", ["nonsense", "a.b.c", "x" * 5_000])
def test_what_is_no_receipt_is_reported_too(shop: Wire, text: str) -> None:
    shop.payee.script.append(plain(200, BODY, Token_Receipt=text))
    with pytest.raises(ReceiptInvalid):
        shop.call()


def test_a_forged_signature_does_not_hold(shop: Wire) -> None:
    """The right header, claims and certificate, another signature."""

    def forged(payee: ScriptedPayee, contract: Any) -> Answer:
        answer = payee.answer(contract)
        head, claims, _ = answer.headers["Token-Receipt"].split(".")
        other = payee.answer(contract, iat=1).headers["Token-Receipt"].split(".")[2]
        return answer._replace(headers={**answer.headers, "Token-Receipt": f"{head}.{claims}.{other}"})

    shop.payee.script.append(forged)
    with pytest.raises(ReceiptInvalid, match="signature"):
        shop.call()


def test_a_body_that_was_compressed_on_the_way_still_fits_its_receipt(shop: Wire) -> None:
    """The payee signed what its handler gave; a proxy compressed it."""

    def packed(payee: ScriptedPayee, contract: Any) -> Answer:
        answer = payee.answer(contract)
        return answer._replace(
            headers={**answer.headers, "Content-Encoding": "gzip"}, content=gzip.compress(answer.content)
        )

    def swapped(payee: ScriptedPayee, contract: Any) -> Answer:
        answer = packed(payee, contract)
        return answer._replace(content=gzip.compress(b"something else"))

    shop.payee.script.extend([packed, swapped])
    assert shop.call().status == 200
    with pytest.raises(ReceiptInvalid):
        shop.call()


def test_a_rotated_payee_is_believed_and_its_old_key_is_not(shop: Wire, market: Market, clock: Clock) -> None:
    """The new certificate is looked up when it is met; the old one ends when the ledger says so."""
    old = market.domain[PAYEE]
    shop.call()
    clock.forward(2)
    new = market.domain.wallets.new(PAYEE)
    market.domain.do(old, "rotate", {"name": PAYEE, "cert": new.certificate_pem})
    shop.payee.script.append(fulfilled(by=new))
    assert shop.call().status == 200
    clock.forward(700)
    shop.payee.script.append(fulfilled(by=old))
    with pytest.raises(ReceiptInvalid, match="certificate"):
        shop.call()


def test_a_payee_whose_certificate_is_revoked_is_believed_and_paid_no_more(
    shop: Wire, market: Market, clock: Clock
) -> None:
    """Its receipts do not hold from then on, and nothing more is set aside or sent, until it has another."""
    old = market.domain[PAYEE]
    shop.call()
    market.domain.do("governance", "revoke", {"name": PAYEE, "x5t": old.x5t})
    clock.forward(700)
    sent = len(shop.sent)
    shop.payee.script.append(fulfilled(by=old))
    with pytest.raises(ReceiptInvalid, match="revoked"):
        shop.call()
    with pytest.raises(NotFunded, match="no wallet"):
        shop.call()
    assert len(shop.sent) == sent + 1
    new = market.domain.wallets.new(PAYEE)
    market.domain.do("governance", "rotate", {"name": PAYEE, "cert": new.certificate_pem})
    shop.payee.script.append(fulfilled(by=new))
    assert shop.call().status == 200


# Handlers that fail


def test_a_handlers_own_error_is_an_ordinary_response_and_costs_nothing(shop: Wire) -> None:
    """Status and body as the handler gave them; not repeated."""
    shop.payee.script.append(voided(500))
    response = shop.call()
    assert (response.status, response.body) == (500, b"oops")
    assert response.info is not None
    assert response.info.charged == 0
    assert len(shop.sent) == 1
    assert left(shop) == 5_000


def test_a_handler_that_is_down_for_a_moment_gets_a_new_contract_if_that_is_safe(shop: Wire) -> None:
    """503 of the handler itself: a GET is made again under a new id, a POST is not."""
    shop.payee.offers = [OFFER, {**OFFER, "method": "POST"}]
    shop.payee.script.append(voided(503))
    assert shop.call().status == 200
    assert len({contract.jti for contract in shop.sent if contract}) == 2
    shop.payee.script.append(voided(503))
    response = shop.call(method="POST")
    assert response.status == 503
    assert len(shop.sent) == 3


def test_the_callers_policy_may_say_that_repeating_is_right(shop: Wire) -> None:
    """A predicate on the response, as tenacity has it; each run has its contract, and the last is paid."""
    shop.payee.offers = [{**OFFER, "method": "POST"}]
    shop.payee.script.extend([voided(500), voided(500)])
    retry = Policy(retry=tenacity.retry_if_result(lambda response: response.status_code == 500))
    response = shop.call(method="POST", retry=retry)
    assert response.status == 200
    assert len({contract.jti for contract in shop.sent if contract}) == 3
    assert left(shop) == 5_000 - 5


def test_a_fulfilled_call_is_never_repeated(shop: Wire) -> None:
    """Not even for a policy that repeats everything: it would be paid twice."""
    response = shop.call(retry=Policy(retry=lambda state: True))
    assert response.status == 200
    assert len(shop.sent) == 1


def test_a_handler_that_keeps_failing_ends_with_its_response(shop: Wire) -> None:
    """The last one, as it came, after as many tries as the policy allows."""
    shop.payee.script.extend([voided(503)] * ATTEMPTS_MAX)
    assert shop.call().status == 503
    assert len(shop.sent) == ATTEMPTS_MAX
    assert left(shop) == 5_000


def _abandoned(payee: ScriptedPayee, contract: Any) -> Answer:
    """A payee whose process was killed at its work: void, with a receipt for no response."""
    receipt = payee.answer(contract, out="void", tok=0, status=500, dig=documents.digest(b""))
    refusal = problem(
        402, "contract_void", headers={"Token-Receipt": receipt.headers["Token-Receipt"]}, offers=[OFFER]
    )
    return refusal(payee, contract)


def test_work_that_a_killed_payee_left_is_begun_anew_only_if_that_is_safe(shop: Wire) -> None:
    """A GET under a new contract; for a POST the caller hears that nothing is owed."""
    shop.payee.offers = [OFFER, {**OFFER, "method": "POST"}]
    shop.payee.script.extend([not_arrived, _abandoned])
    assert shop.call().status == 200
    assert len({contract.jti for contract in shop.sent if contract}) == 2
    shop.payee.script.extend([not_arrived, _abandoned])
    with pytest.raises(Voided) as caught:
        shop.call(method="POST")
    assert caught.value.spent == "no"
    assert caught.value.contract_id == shop.contract.jti


# 402: the same id, other terms


def test_a_price_that_rose_is_paid_under_the_same_id(shop: Wire) -> None:
    """Old copies of the first contract can no longer do harm: the payee takes one of one id."""
    shop.call()
    shop.payee.offers = [dear(7)]
    shop.payee.script.append(problem(402, "too_few_tokens", offers=[dear(7)]))
    assert shop.call(max_tokens=10).status == 200
    first, second = shop.sent[1:]
    assert first is not None
    assert second is not None
    assert (first.jti, first.tok, second.tok) == (second.jti, 5, 7)
    assert (first.lane, first.seq) == (second.lane, second.seq) or second.seq == first.seq + 1
    assert shop.call().status == 200
    assert shop.contract.tok == 7, "the new offer is remembered"
    assert len(shop.asked) == 1


def test_an_offer_above_max_tokens_is_refused_unsent(shop: Wire) -> None:
    """Before the first request, and when the price rises above it later."""
    with pytest.raises(OfferTooHigh, match="max_tokens is 4") as caught:
        shop.call(max_tokens=4)
    assert caught.value.spent == "no"
    assert shop.sent == []
    shop.payee.script.append(problem(402, "too_few_tokens", offers=[dear(11)]))
    with pytest.raises(OfferTooHigh):
        shop.call(max_tokens=10)
    assert len(shop.sent) == 1
    assert left(shop) == 5_000


def test_a_payee_that_keeps_raising_its_price_is_not_followed_for_ever(shop: Wire) -> None:
    """Twice, then the caller hears."""
    shop.payee.script.extend(problem(402, "too_few_tokens", offers=[dear(n)]) for n in range(6, 50))
    with pytest.raises(Refused, match="too_few_tokens"):
        shop.call()
    assert [contract.tok for contract in shop.sent if contract] == [5, 6, 7]


def test_a_price_that_depends_on_the_request_is_asked_for(shop: Wire) -> None:
    """Without max_tokens the payee is asked first; with it, it takes what the request costs, at most that."""
    shop.payee.offers = [{**OFFER, "tokens": None}]
    shop.payee.script.append(problem(402, "contract_required", offers=[dear(9)]))
    shop.call()
    assert shop.sent[0] is None
    assert shop.contract.tok == 9
    shop.payee.script.append(fulfilled(tok=3))
    response = shop.call(max_tokens=20)
    assert shop.contract.tok == 20
    assert response.info is not None
    assert response.info.charged == 3


def test_an_allowance_that_is_used_up_is_followed_by_another(shop: Wire) -> None:
    """Another process of this service used it: the same call goes on with more, under the same id."""
    shop.call()
    shop.payee.script.append(problem(402, "allowance_used_up", offers=[OFFER]))
    assert shop.call().status == 200
    first, second = shop.sent[1:]
    assert first is not None
    assert second is not None
    assert first.jti == second.jti
    assert (first.lane, first.seq) != (second.lane, second.seq)


@pytest.mark.parametrize("code", ["allowance_ended", "sequence_used", "allowance_unknown"])
def test_an_allowance_that_cannot_pay_any_more_is_left(shop: Wire, code: str) -> None:
    """Closed, expired, or numbered by someone else: the call goes on under the same id."""
    shop.call()
    times = 2 if code == "allowance_unknown" else 1  # it may be that the payee is behind the ledger
    shop.payee.script.extend([problem(402, code, offers=[OFFER])] * times)
    assert shop.call().status == 200
    before, after = shop.sent[1], shop.sent[-1]
    assert before is not None
    assert after is not None
    assert before.jti == after.jti
    assert (before.via, before.seq) != (after.via, after.seq)


def test_a_wallet_without_tokens_is_not_spent(market: Market, clock: Clock) -> None:
    """Nothing goes out; the message says what to do."""
    market.domain.open_wallet("poor", 4)
    poor = wire(market, clock)
    poor.payer = market.payer("poor")
    with pytest.raises(InsufficientFunds, match="tokenmesh grant") as caught:
        poor.call()
    assert caught.value.spent == "no"
    assert poor.sent == []
    market.domain.grant("poor", 6)
    assert poor.call().status == 200


# The clock


def test_a_clock_that_is_ahead_follows_the_payees(shop: Wire, clock: Clock) -> None:
    """not_yet_valid, with the payee's Date: the same id, signed for the payee's time, and so from then on."""
    date = formatdate(clock() - 40, usegmt=True)
    shop.payee.script.append(problem(401, "not_yet_valid", headers={"Date": date}))
    assert shop.call().status == 200
    first, second = shop.sent
    assert first is not None
    assert second is not None
    assert first.jti == second.jti
    assert second.iat == first.iat - 40
    shop.call()
    assert shop.contract.iat == int(clock()) - 40


def test_a_payee_far_ahead_gets_contracts_that_outlast_its_clock(
    shop: Wire, market: Market, clock: Clock
) -> None:
    """Also near the end of an allowance: the next one is opened in time, by the payee's clock."""
    date = formatdate(clock() + 200, usegmt=True)
    shop.payee.script.append(problem(401, "expired", headers={"Date": date}))
    shop.call()
    first = shop.contract.via
    clock.forward(3_600 - 150)
    shop.call()
    assert shop.contract.via != first
    assert shop.contract.exp - shop.contract.iat == 60
    short = wire(market, clock, allowance_ttl_s=20)
    short.payee.script.append(problem(401, "expired", headers={"Date": formatdate(clock() + 200)}))
    with pytest.raises(NotFunded, match="clock of quotes"):
        short.call()


def test_a_clock_that_is_wildly_wrong_is_not_followed(shop: Wire, clock: Clock) -> None:
    """Not by an hour: then the caller hears, soon."""
    date = formatdate(clock() - 3_600, usegmt=True)
    shop.payee.script.extend([problem(401, "not_yet_valid", headers={"Date": date})] * 50)
    with pytest.raises(Refused):
        shop.call()
    assert all(contract.iat == int(clock()) for contract in shop.sent if contract)


# Idempotency keys


def test_a_key_names_the_contract_also_after_a_restart(shop: Wire, market: Market, clock: Clock) -> None:
    """The consumer is killed before the answer comes; the one started anew gets it, and it is paid once."""
    shop.payee.offers = [{**OFFER, "method": "POST"}]
    shop.kill_after_sending(shop.steps(method="POST", key="order-17"))
    again = Wire(market.payer(), shop.payee, clock)
    response = again.call(method="POST", key="order-17")
    assert response.body == BODY
    assert list(shop.payee.ran.values()) == [1]
    expected = documents.derived_id(market.domain.ledger.domain, PAYER, PAYEE, "order-17")
    assert again.contract.jti == expected == next(iter(shop.payee.ran))


def test_a_key_gets_the_next_id_after_a_void_and_finds_it_again(
    shop: Wire, market: Market, clock: Clock
) -> None:
    """A restarted consumer passes the void contract and reaches the one that was fulfilled."""
    shop.payee.script.append(voided(503))
    assert shop.call(key="report").status == 200
    again = Wire(market.payer(), shop.payee, clock)
    shop.payee.script.append(lambda payee, contract: payee.void(contract, 503))
    assert again.call(key="report").status == 200
    assert sum(shop.payee.ran.values()) == 2
    domain = market.domain.ledger.domain
    ids = [documents.derived_id(domain, PAYER, PAYEE, "report", n) for n in (0, 1)]
    assert [contract.jti for contract in again.sent if contract] == ids


def test_what_a_key_stands_for_is_not_unspent_because_nobody_is_there_now(
    shop: Wire, market: Market, clock: Clock
) -> None:
    """The work was done and its answer lost; then the payee is away. Neither the same consumer nor one
    started anew, which has not even its offers, says that nothing was spent: it may have been."""
    shop.payee.script.extend([lost] + [no_connection] * 2 * ATTEMPTS_MAX)
    with pytest.raises(OutcomeUnknown):
        shop.call(key="order-17")
    with pytest.raises(OutcomeUnknown) as unknown:
        shop.call(key="order-17")
    assert shop.payee.ran[unknown.value.contract_id or ""] == 1
    again = Wire(market.payer(), shop.payee, clock)
    shop.payee.asks.extend([no_connection] * ATTEMPTS_MAX)
    with pytest.raises(OutcomeUnknown) as unknown:
        again.call(key="order-17")
    assert shop.payee.ran[unknown.value.contract_id or ""] == 1
    shop.payee.script.clear()
    assert again.call(key="order-17").status == 200
    assert list(shop.payee.ran.values()) == [1]


def test_generations_are_bounded(shop: Wire) -> None:
    """A handler that fails for ever is not run for ever, whatever the policy says."""
    shop.payee.script.extend([voided(503)] * 100)
    always = Policy(stop=lambda state: False, wait=lambda state: 0, retry=lambda state: True)
    assert shop.call(key="doomed", retry=always).status == 503
    assert len(shop.sent) == 17


def test_two_calls_without_a_key_are_two_contracts(shop: Wire) -> None:
    shop.call()
    shop.call()
    assert len({contract.jti for contract in shop.sent if contract}) == 2


# Offers


def test_a_literal_path_goes_before_a_parameter(shop: Wire) -> None:
    """Whatever their order; a parameter is one segment, a path parameter any number."""

    def offer(path: str, tokens: int) -> dict[str, Any]:
        return {**OFFER, "operation": path, "path": path, "tokens": tokens}

    shop.payee.offers = [
        offer("/{rest:path}", 1),
        offer("/quote/{symbol}", 2),
        offer("/{kind}/ACME", 3),
        offer("/quote/ACME", 4),
        offer("/quote/{symbol}/day", 6),
    ]
    prices = {"/quote/ACME": 4, "/quote/X": 2, "/other/ACME": 3, "/a/b/c/d": 1, "/quote/X/day": 6}
    for path, tokens in prices.items():
        shop.call(path)
        assert shop.contract.tok == tokens, path


def test_an_operation_that_is_not_offered_goes_out_without_a_contract(shop: Wire) -> None:
    """An ordinary request with an ordinary answer."""
    response = shop.call("/plain")
    assert shop.sent == [None]
    assert response.info is not None
    assert response.info.contract_id is None


@pytest.mark.parametrize(
    ("method", "trouble", "tries"),
    [
        ("GET", not_arrived, 2),
        ("GET", plain(503), 2),
        ("POST", no_connection, 2),
        ("POST", not_arrived, 1),
        ("POST", plain(503), 1),
    ],
)
def test_a_free_request_is_repeated_as_plain_http_allows(
    shop: Wire, method: str, trouble: Any, tries: int
) -> None:
    """Idempotent methods, and what never made a connection."""
    shop.payee.script.append(trouble)
    if tries == 1 and trouble is not_arrived:
        with pytest.raises(Unreachable):
            shop.call("/plain", method=method)
    else:
        shop.call("/plain", method=method)
    assert len(shop.sent) == tries


def test_an_operation_that_became_priced_is_paid(shop: Wire) -> None:
    """The 402 says what it costs, and the offers are asked for again the next time."""
    shop.payee.offers = []
    shop.call()
    shop.payee.offers = [OFFER]
    shop.payee.script.append(problem(402, "contract_required", offers=[OFFER]))
    assert shop.call().status == 200
    assert shop.contract.tok == 5
    shop.call()
    assert len(shop.sent) == 4
    assert len(shop.asked) == 2


def test_offers_are_asked_for_again_when_they_are_old(shop: Wire, clock: Clock) -> None:
    """And the old ones do while the service cannot say."""
    shop.call()
    clock.forward(61)
    shop.payee.offers = [dear(6)]
    shop.payee.asks.append(no_connection)
    shop.call()
    assert shop.contract.tok == 5
    clock.forward(6)
    shop.call()
    assert shop.contract.tok == 6
    assert len(shop.asked) == 3


@pytest.mark.parametrize(
    "answer", [plain(404), plain(200, b"not json"), plain(200, b'{"offers": 7}'), plain(503)]
)
def test_a_service_that_offers_nothing_readable_is_called_plainly(shop: Wire, answer: Any) -> None:
    """If it is priced after all, the 402 says so."""
    shop.payee.asks.append(answer)
    shop.payee.script.append(problem(402, "contract_required", offers=[OFFER]))
    assert shop.call().status == 200
    assert shop.sent[0] is None
    assert shop.contract.tok == 5


def test_offers_that_make_no_sense_are_passed_over(shop: Wire) -> None:
    """Negative, fractional or huge prices, paths that are none, unknown ways to pay: none of them, never."""
    bad = [{**OFFER, "tokens": tokens} for tokens in (-1, 1.5, True, 2**60, "5")]
    bad += [{**OFFER, "path": "quote"}, {**OFFER, "via": "barter"}, {**OFFER, "operation": 5}, "offer", {}]
    shop.payee.offers = [*bad, dear(8)]
    shop.call()
    assert shop.contract.tok == 8


def test_a_service_that_cannot_be_reached_at_first_is_tried_again(shop: Wire) -> None:
    """The question for its offers is a try like any other."""
    shop.payee.asks.extend([no_connection, no_connection])
    assert shop.call().status == 200
    shop.payee.asks.extend([no_connection] * ATTEMPTS_MAX)
    other = Wire(shop.payer, shop.payee, shop.clock)
    options = CallOptions("http://elsewhere.test")
    request = OutRequest("GET", "http://elsewhere.test/x", "/x", b"")
    with pytest.raises(Unreachable):
        other.run(shop.payer.consumer.call(PAYEE, request, options))


def test_concurrent_calls_ask_for_the_offers_once(shop: Wire) -> None:
    """The second waits for the first one's answer; if the first is cancelled, it asks itself."""
    first, second = shop.steps(), shop.steps()
    asking = next(first)
    waiting = next(second)
    assert not waiting.done()
    first.close()
    assert waiting.done()
    assert second.send(waiting.result()) == asking
    second.close()


def test_offers_of_many_services_are_bounded(market: Market, clock: Clock) -> None:
    """The one used least goes."""
    shop = wire(market, clock, offers_cache_max=2)
    book = shop.payer.consumer.book
    shelves = [book.shelf(PAYEE, f"http://{n}") for n in range(3)]
    assert book.shelf(PAYEE, "http://2") is shelves[2]
    assert book.shelf(PAYEE, "http://0") is not shelves[0]


# Where a service is


def test_where_a_service_is(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given, else the environment, else its wallet; else an error that names all three."""
    payer = market.payer()
    with pytest.raises(Unreachable) as caught:
        run(payer.consumer.url_of(PAYEE))
    for way in ("url=", "TOKENMESH_URL_QUOTES", "tokenmesh wallet create quotes --url"):
        assert way in str(caught.value)
    market.domain.do("governance", "update", {"name": PAYEE, "url": "http://ledger.test"})
    assert run(payer.consumer.url_of(PAYEE)) == "http://ledger.test"
    settled = market.payer(urls={PAYEE: "http://env.test/"})
    assert run(settled.consumer.url_of(PAYEE)) == "http://env.test"
    assert run(settled.consumer.url_of(PAYEE, "http://given.test/b/")) == "http://given.test/b"


def test_a_service_behind_a_prefix_is_found_in_its_offers(shop: Wire) -> None:
    """The proxy takes the prefix away; the contract binds the request as it is sent."""
    options = CallOptions(URL + "/b")
    request = OutRequest("GET", URL + "/b/quote/ACME", "/b/quote/ACME", b"")

    def offers(payee: ScriptedPayee, _: Any) -> Answer:
        return Answer(200, {}, json.dumps({"offers": [OFFER]}).encode())

    shop.payee.asks.append(offers)
    shop.run(shop.payer.consumer.call(PAYEE, request, options))
    assert shop.asked == [URL + "/b/.well-known/tokenmesh/offers"]
    assert (shop.contract.op, shop.contract.htu) == ("GET /quote/{symbol}", "/b/quote/ACME")


def test_a_payee_without_a_wallet_is_not_paid(shop: Wire) -> None:
    """Nobody could check its receipts: nothing is sent, nothing set aside."""
    request = OutRequest("GET", URL + "/quote/ACME", "/quote/ACME", b"")
    with pytest.raises(NotFunded, match="no wallet 'stranger'"):
        shop.run(shop.payer.consumer.call("stranger", request, CallOptions(URL)))
    assert shop.sent == []


# Holds


def test_a_hold_pays_for_one_contract(shop: Wire, market: Market) -> None:
    """Asked for by the offer or by the caller: set aside on the ledger under the contract's id."""
    shop.payee.offers = [{**OFFER, "via": "hold"}]
    shop.call()
    contract = shop.contract
    assert (contract.via, contract.lane, contract.seq) == ("hold", None, None)
    hold = market.domain.ledger.hold(PAYER, contract.jti).result(10)
    assert hold is not None
    assert (hold.tokens, hold.payee, hold.state) == (5, PAYEE, "open")
    assert contract.exp <= hold.exp
    shop.payee.offers = [OFFER]
    shop.clock.forward(61)
    shop.call(via="hold")
    assert shop.contract.via == "hold"


def test_a_hold_is_found_again_after_a_restart(shop: Wire, market: Market, clock: Clock) -> None:
    """The same key, the same hold: tokens are set aside once."""
    shop.payee.offers = [{**OFFER, "via": "hold"}]
    shop.payee.script.extend([not_arrived] * ATTEMPTS_MAX)
    with pytest.raises(OutcomeUnknown):
        shop.call(key="job")
    again = Wire(market.payer(), shop.payee, clock)
    assert again.call(key="job").status == 200
    assert market.domain.balance(PAYER).held == 5


def test_a_hold_that_became_too_small_is_followed_by_another(shop: Wire, market: Market) -> None:
    """A hold is tied to its id and cannot grow, so the call goes on under a new one."""
    shop.payee.offers = [{**OFFER, "via": "hold"}]
    rise = {**OFFER, "via": "hold", "tokens": 8}
    shop.payee.script.append(problem(402, "too_few_tokens", offers=[rise]))
    assert shop.call().status == 200
    assert market.domain.balance(PAYER).held == 13


def test_a_hold_that_cannot_pay_is_followed_by_another(shop: Wire, market: Market) -> None:
    """Expired before the contract arrived, say: a new hold under a new id, unless a copy may be out."""
    shop.payee.offers = [{**OFFER, "via": "hold"}]
    shop.payee.script.append(problem(402, "hold_ended", offers=shop.payee.offers))
    assert shop.call().status == 200
    assert len({contract.jti for contract in shop.sent if contract}) == 2
    shop.payee.script.extend([not_arrived, problem(402, "hold_ended", offers=shop.payee.offers)])
    with pytest.raises(Refused):
        shop.call()


def test_a_payee_that_does_not_see_a_hold_yet_is_asked_again(shop: Wire) -> None:
    """It may be behind the ledger: the same contract, once more."""
    shop.payee.offers = [{**OFFER, "via": "hold"}]
    shop.payee.script.append(problem(402, "hold_unknown", offers=shop.payee.offers))
    assert shop.call().status == 200
    assert len(set(shop.texts)) == 1
    assert shop.slept[0] >= 0.3


@pytest.mark.parametrize("code", ["wallet_unknown", "certificate_unknown"])
def test_a_payee_that_has_not_asked_for_this_wallet_is_asked_again(shop: Wire, code: str) -> None:
    """Many strangers come, and it says when it will know better: the same contract, once more, then."""
    shop.payee.script.append(problem(401, code, headers={"Retry-After": "2"}))
    assert shop.call().status == 200
    assert len(set(shop.texts)) == 1
    assert shop.slept[0] >= 2
    shop.payee.script.extend([problem(401, "wallet_unknown", headers={"Retry-After": "2"})] * 2)
    with pytest.raises(Refused, match="wallet_unknown"):
        shop.call()


def test_a_payee_that_has_asked_for_this_wallet_is_believed(shop: Wire) -> None:
    shop.payee.script.append(problem(401, "wallet_unknown"))
    with pytest.raises(Refused, match="wallet_unknown"):
        shop.call()
    assert shop.slept == []


# A ledger that is away


def _away(name: str) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(LedgerUnavailable("gone"))
    return future


def test_a_ledger_that_is_away_at_the_first_call_is_waited_for(
    shop: Wire, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the policy allows; nothing is sent before the payee's certificate is known."""
    wallet = market.domain.ledger.wallet
    times = iter(range(100))

    def away_twice(name: str) -> Any:
        return _away(name) if next(times) < 2 else wallet(name)

    monkeypatch.setattr(market.domain.ledger, "wallet", away_twice)
    assert shop.call().status == 200
    assert len(shop.slept) == 2
    monkeypatch.setattr(market.domain.ledger, "wallet", _away)
    fresh = Wire(market.payer(), shop.payee, shop.clock)
    with pytest.raises(NotFundedYet):
        fresh.call()
    assert fresh.sent == []


def test_receipts_are_checked_while_the_ledger_is_away(
    shop: Wire, market: Market, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the certificates known so far; one that is not among them cannot be believed."""
    shop.call()
    clock.forward(30)
    monkeypatch.setattr(market.domain.ledger, "wallet", _away)
    assert shop.call().status == 200
    shop.payee.script.append(fulfilled(by=market.domain["other"]))
    with pytest.raises(ReceiptInvalid):
        shop.call()


# Free after all


def test_a_priced_operation_that_was_free_this_time_costs_nothing(shop: Wire) -> None:
    """The payee did not take the contract: a whole response without a receipt."""
    shop.payee.script.append(plain(200, BODY))
    response = shop.call()
    assert response.body == BODY
    assert response.info is not None
    assert (response.info.charged, response.info.receipt) == (0, None)
    assert left(shop) == 5_000
    assert len(shop.asked) == 1


@pytest.mark.parametrize("status", [404, 405, 429])
def test_what_answers_before_the_payee_does_is_an_ordinary_response(shop: Wire, status: int) -> None:
    """A router, a rate limiter: nothing was taken."""
    shop.payee.script.append(plain(status))
    response = shop.call()
    assert response.status == status
    assert left(shop) == 5_000
    shop.payee.script.extend([lost, *[plain(status)] * 50])
    with pytest.raises(OutcomeUnknown):
        shop.call()


# Being cancelled


def test_a_call_cancelled_while_it_is_sent_leaves_its_contract_unknown(shop: Wire) -> None:
    """Its tokens stay reserved, its number is not used again."""
    shop.call()
    steps = shop.steps()
    assert isinstance(next(steps), Send)
    steps.close()
    assert left(shop) == 5_000 - 10
    shop.call()
    assert shop.contract.seq == 2


def test_a_call_cancelled_while_it_waits_gives_everything_back(shop: Wire) -> None:
    """No copy of its contract is anywhere: number and tokens serve the next call."""
    shop.call()
    shop.payee.script.append(no_connection)
    steps = shop.steps()
    effect = next(steps)
    with pytest.raises(TransportFailed) as caught:
        shop.carry_out(effect)
    steps.throw(caught.value)
    steps.close()
    assert left(shop) == 5_000 - 5
    shop.call()
    assert shop.contract.seq == 1


def test_concurrent_calls_do_not_disturb_each_other(shop: Wire) -> None:
    """Forty calls in all stages at once, each with troubles of its own: forty runs, forty charges."""
    shop.call()
    calls = [shop.steps(f"/quote/S{n}", key=f"k{n}") for n in range(40)]
    effects = [next(steps) for steps in calls]
    answers: dict[int, Any] = {}
    for turn in range(3):
        for n, steps in enumerate(calls):
            if n in answers:
                continue
            try:
                if isinstance(effects[n], Send):
                    shop.payee.script.append(lost if (n + turn) % 2 else fulfilled())
                try:
                    result = shop.carry_out(effects[n])
                except TransportFailed as failure:
                    effects[n] = steps.throw(failure)
                else:
                    effects[n] = steps.send(result)
            except StopIteration as stop:
                answers[n] = stop.value
    for n, steps in enumerate(calls):
        if n not in answers:
            while not isinstance(effects[n], Send):
                effects[n] = steps.send(shop.carry_out(effects[n]))
            with pytest.raises(StopIteration) as stop_info:
                steps.send(shop.carry_out(effects[n]))
            answers[n] = stop_info.value.value
    assert {answers[n].info.contract_id for n in range(40)} == {
        documents.derived_id(shop.payer.consumer.domain, PAYER, PAYEE, f"k{n}") for n in range(40)
    }
    assert sorted(shop.payee.ran.values()) == [1] * 41
    assert left(shop) == 5_000 - 5 * 41


def test_every_call_error_knows_its_service(shop: Wire) -> None:
    """Whatever goes wrong, a caller of many services can tell which."""
    for trouble in (not_arrived, no_connection, problem(403, "forbidden"), fulfilled(tok=99)):
        shop.payee.script.append(trouble)
        with pytest.raises(CallError) as caught:
            shop.call(retry=ONCE)
        assert caught.value.service == PAYEE
