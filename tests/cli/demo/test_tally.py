"""Counts of what went over the wire: a contract counts once, however often it is tried."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from json import dumps

from tokenmesh.cli.demo.tally import Passage, Tally, percentile


def note(jti: str | None = "c1", out: str | None = "fulfilled", tok: int = 3, **changed: object) -> Passage:
    """A passage as it is read from the wire's notes."""
    receipt = None
    if out is not None:
        claims = dumps({"jti": jti, "out": out, "tok": tok}).encode()
        receipt = f"e30.{urlsafe_b64encode(claims).rstrip(b'=').decode()}.sig"
    wire = {
        "service": "cart",
        "request": "GET /carts/x",
        "payer": "frontend" if jti else None,
        "jti": jti,
        "status": 200,
        "ms": 2.0,
        "lost": False,
        "receipt": receipt,
    }
    return Passage.read({**wire, **changed})


def tally(*passages: Passage) -> Tally:
    counts = Tally()
    for passage in passages:
        counts.add(passage)
    return counts


def test_a_retry_is_no_second_call_and_no_second_payment() -> None:
    """The first response was lost, the second try brought the same receipt."""
    counts = tally(note(lost=True), note())
    assert (counts.calls["cart"], counts.tries["cart"], counts.retries) == (1, 2, 1)
    assert (counts.earned["cart"], counts.spent["frontend"], counts.lost["cart"]) == (3, 3, 1)


def test_the_same_id_of_another_payer_is_another_contract() -> None:
    """A payee knows a contract by payer and id."""
    counts = tally(note(), note(payer="shopper"))
    assert (counts.calls["cart"], counts.retries, counts.earned["cart"]) == (2, 0, 6)


def test_what_is_void_or_carries_no_contract_pays_nothing() -> None:
    """A void receipt, a 502 without one, and a question for the offers."""
    counts = tally(note(out="void"), note("c2", out=None, status=502), note(None, out=None))
    assert (counts.calls["cart"], counts.tries["cart"], counts.earned["cart"]) == (2, 2, 0)
    assert len(counts.ms["cart"]) == 3


def test_percentiles() -> None:
    """Nearest rank; nothing measured is 0, not an error."""
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, part) for part in (0.5, 0.95, 0.99, 1.0)] == [51, 96, 100, 100]
    assert percentile([], 0.5) == 0
    assert percentile([7.0], 0.99) == 7
