"""The summary: all figures in one object, a verdict that is honest, and a table of who paid whom."""

from __future__ import annotations

import json
from collections import Counter
from io import StringIO
from typing import Any

from rich.console import Console

from tokenmesh.cli.demo.auditor import Account, Evidence, Run, Settled, audit
from tokenmesh.cli.demo.plan import GOVERNANCE, NAMES, SHOPPER
from tokenmesh.cli.demo.scenes import Deed
from tokenmesh.cli.demo.summary import Summary, Visit
from tokenmesh.cli.demo.tally import Passage, Tally
from tokenmesh.cli.demo.traced import ORDER, Traced

PROMISED = {
    *("ok", "calls", "paid", "retries", "overcharged", "double_runs", "stranded_tokens", "verify"),
    *("p50_ms", "p99_ms", "wallets"),
}


def summary(*, traced: Traced | None = None, **spoilt: Any) -> Summary:
    """One call of twelve tokens whose first response was lost; ``spoilt`` replaces parts of the evidence."""
    settled = Settled(SHOPPER, "frontend", "c1", "GET /", 12, 12)
    passages = [
        Passage("frontend", "GET /", SHOPPER, "c1", 200, 9.0, lost, "r", "fulfilled", 12)
        for lost in (True, False)
    ]
    accounts = dict.fromkeys((*NAMES, GOVERNANCE), Account(0, 0, 0, 0, 0))
    accounts |= {SHOPPER: Account(50, 38, 0, 0, 0), "frontend": Account(0, 10, 2, 0, 0)}
    honest = Evidence(
        settled=[settled],
        runs=[Run("frontend", SHOPPER, "c1")],
        passages=passages,
        forged=[],
        claims={settled.key: 12},
        unsettled={},
        offers={},
        accounts=accounts,
        minted=50,
        supply=50,
        accounted=50,
        verify=[],
    )
    evidence = honest._replace(**spoilt)
    tally = Tally()
    for passage in passages:
        tally.add(passage)
    return Summary(
        options={"seed": 3, "seconds": 5.0, "shoppers": 1},
        evidence=evidence,
        checks=audit(evidence),
        tally=tally,
        visits=[Visit("home", 20.0, "ok"), Visit("order", 40.0, "HTTPStatusError 424")],
        deeds=[Deed("killed and restarted", "cart", 1.0, 3.0)],
        happenings=Counter({("frontend", "served without an ad", "Unreachable"): 2}),
        shopping_s=5.0,
        total_s=30.0,
        traced=traced,
    )


def printed(of: Summary) -> str:
    out = StringIO()
    of.print(Console(file=out, width=110, color_system=None))
    return out.getvalue()


def test_all_that_is_promised_is_in_the_object() -> None:
    """Names and figures, as JSON."""
    found = json.loads(json.dumps(summary().to_json()))
    assert found.keys() >= PROMISED
    figures = {name: found[name] for name in ("ok", "calls", "paid", "tokens", "retries", "verify")}
    assert figures == {"ok": True, "calls": 1, "paid": 1, "tokens": 12, "retries": 1, "verify": True}
    assert found["wallets"]["frontend"] == {"balance": 12, "granted": 0, "earned": 12, "spent": 0}
    assert found["who_paid_whom"] == [{"payer": SHOPPER, "payee": "frontend", "contracts": 1, "tokens": 12}]
    assert (found["p50_ms"], found["p99_ms"]) == (40.0, 40.0)


def test_people_see_the_same() -> None:
    """A check mark for each invariant, the trouble, what it did, and the pages that failed."""
    text = printed(summary())
    assert text.count("✓") == len(audit(summary()._evidence)) == 7
    for part in ("Who paid whom", "cart killed and restarted", "served without an ad", "1 of 2", "424"):
        assert part in text
    assert "All held: 1 calls paid with 12 tokens" in text


def test_one_broken_invariant_spoils_the_verdict() -> None:
    """Not ok, a cross where it stands, with what was found."""
    spoilt = summary(verify=["transaction 7: a changed amount"])
    assert not spoilt.ok
    assert spoilt.to_json()["verify"] is False
    assert "✗" in printed(spoilt)
    assert "transaction 7: a changed amount" in printed(spoilt)


def test_a_run_without_calls_shows_nothing_and_says_so() -> None:
    """All invariants hold of nothing: that is no success."""
    accounts = dict.fromkeys((SHOPPER, *NAMES, GOVERNANCE), Account(0, 0, 0, 0, 0))
    empty = summary(settled=[], runs=[], passages=[], claims={}, accounts=accounts)
    assert not empty.ok
    assert "Not one call was paid" in printed(empty)


def test_where_the_traces_are() -> None:
    """An order if there was one, its contract and its transaction; nothing about traces if there are none."""
    page = Settled(SHOPPER, "frontend", "c1", "GET /", 12, 12, "t1")
    order = Settled(SHOPPER, "frontend", "c2", ORDER, 30, 30, "t2")
    traced = Traced.of("http://127.0.0.1:4318", True, [page, order, page._replace(jti="c3", tx_id="t2")])
    shown = printed(summary(traced=traced))
    assert "Traces went to http://127.0.0.1:4318" in shown
    assert "tokenmesh.contract.id=c2" in shown
    assert "settled it, of 2 calls: service frontend, tags\n    tokenmesh.tx.id=t2\n" in shown
    assert summary(traced=traced).to_json()["traces"] == {
        "endpoint": "http://127.0.0.1:4318",
        "reached": True,
        "contract": "c2",
        "tx": "t2",
    }
    assert "tokenmesh.contract.id=c1" in printed(summary(traced=Traced.of("http://x", True, [page])))
    assert "Traces" not in printed(summary())
    assert summary().to_json()["traces"] is None


def test_a_collector_that_was_not_there() -> None:
    """Is said, with what to do, and changes nothing about the verdict."""
    seen = summary(traced=Traced.of("http://127.0.0.1:4318", False, []))
    assert "nothing takes spans at http://127.0.0.1:4318\n  start a collector there first" in printed(seen)
    assert seen.ok
