"""The evidence is what the ledger, the journals, the notes and the wire say, whatever anybody claims."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenmesh.cli.demo.auditor import Run, Settled, audit
from tokenmesh.cli.demo.economy import SUPPLY, Economy
from tokenmesh.cli.demo.evidence import gather, happened, published, read_history
from tokenmesh.cli.demo.notes import Notes
from tokenmesh.cli.demo.plan import GOVERNANCE, Paths
from tokenmesh.cli.demo.tally import Passage
from tokenmesh.cli.desk import Desk
from tokenmesh.identity import Wallet
from tokenmesh.journal import Journal, open_journal
from tokenmesh.journal.base import NewClaim, StoredResponse
from tokenmesh_chaincode.documents import Contract, Receipt, digest, new_id, sign


class Shop:
    """A frontend that pays a cart three tokens by a hold: the contract taken, fulfilled and settled."""

    def __init__(self, home: Path) -> None:
        self.paths = Paths(home)
        self.economy = Economy(home)
        self.economy.open_wallets({}, {"frontend": 100, "cart": 0})
        self.payer, self.payee = Wallet.load(home, "frontend"), Wallet.load(home, "cart")
        self.journal: Journal = open_journal(f"sqlite:///{home}/journal-cart.db")
        self.now = int(time.time())
        self.contract = Contract(
            dom=self.economy.ledger.domain,
            iss="frontend",
            aud="cart",
            op="GET /carts/{shopper}",
            htm="GET",
            htu="/carts/x",
            dig=digest(b""),
            tok=3,
            jti=new_id(),
            iat=self.now,
            exp=self.now + 4,
            via="hold",
            lane=None,
            seq=None,
            tp=None,
        )
        self.receipt = self.receipt_by(self.payee)

    def receipt_by(self, signer: Wallet) -> str:
        body = Receipt(
            dom=self.contract.dom,
            iss="cart",
            aud="frontend",
            jti=self.contract.jti,
            out="fulfilled",
            tok=3,
            status=200,
            dig=digest(b""),
            iat=self.now,
            tx=None,
            left=None,
        )
        return sign(body, signer)

    def pay(self) -> None:
        """Everything that happens to the contract, from the hold to the settlement."""
        text = sign(self.contract, self.payer)
        payer, payee = (Desk(self.economy.ledger, wallet, time.time) for wallet in (self.payer, self.payee))
        granted = self.economy.ledger.credits("frontend", 10).result()
        payer.do("sweep", {"credits": [credit.id for credit in granted]})
        hold = {"id": self.contract.jti, "payee": "cart", "tokens": 3, "exp": self.contract.exp}
        payer.do("hold", hold)
        claim = NewClaim(
            "frontend",
            self.contract.jti,
            text,
            "GET",
            "/carts/x",
            self.contract.dig,
            self.contract.op,
            3,
            "hold",
            None,
            None,
            self.contract.exp,
            self.now + 60.0,
            3,
        )
        self.journal.claim(claim, float(self.now))
        Notes(self.paths.runs("cart")).write(payer="frontend", jti=self.contract.jti)
        response = StoredResponse(200, [], b"", digest(b""))
        self.journal.fulfil("frontend", self.contract.jti, 3, response, self.receipt, float(self.now))
        # Beside it, two that the rules refuse: one with no hold behind it, one that is no contract.
        other = sign(self.contract._replace(jti=new_id()), self.payer)
        payee.do("settle", {"items": [["junk", 3], [text, 3], [other, 3]]})

    def passage(self, receipt: str) -> Passage:
        return Passage(
            "cart", "GET /x", "frontend", self.contract.jti, 200, 1.0, False, receipt, "fulfilled", 3
        )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.journal.close()
    shop.economy.ledger.close()


def test_history_is_read_from_the_signed_operations(shop: Shop) -> None:
    """What was settled, and what was refused is not; who was given what; how much was made."""
    shop.pay()
    history = read_history(shop.economy.ledger)
    jti = shop.contract.jti
    (appearance,) = (one for one in shop.economy.ledger.contract(jti).result() if one.code == "ok")
    assert history.settled == [Settled("frontend", "cart", jti, shop.contract.op, 3, 3, appearance.tx_id)]
    assert history.granted == {GOVERNANCE: SUPPLY - 100, "frontend": 100}
    assert history.minted == SUPPLY


def test_the_sources_agree_about_an_honest_call(shop: Shop) -> None:
    """One call through ledger, journal, notes and wire; only the journal is not told of the settlement."""
    shop.pay()
    evidence = gather(
        paths=shop.paths,
        ledger=shop.economy.ledger,
        journals={"cart": shop.journal},
        passages=[shop.passage(shop.receipt)],
        offers={},
        minted=shop.economy.minted,
        verify_findings=shop.economy.verify(lambda done, total: None),
    )
    assert evidence.runs == [Run("cart", "frontend", shop.contract.jti)]
    assert evidence.claims == {evidence.settled[0].key: 3}
    assert evidence.accounts["frontend"].granted == 100
    assert evidence.forged == []
    assert {check.name for check in audit(evidence) if not check.ok} == {"unsettled"}
    assert evidence.unsettled == {"cart": 1}


def test_a_receipt_that_someone_else_signed_is_forged(shop: Shop) -> None:
    """By another wallet's key, cut short, or for another contract than the one it came with."""
    shop.pay()
    good = shop.passage(shop.receipt)
    forgeries = [
        good._replace(receipt=shop.receipt_by(shop.payer)),
        good._replace(receipt=shop.receipt[:-8]),
        good._replace(receipt=shop.receipt_by(shop.payee), jti="another"),
    ]
    evidence = gather(
        paths=shop.paths,
        ledger=shop.economy.ledger,
        journals={"cart": shop.journal},
        passages=[good, *forgeries],
        offers={},
        minted=shop.economy.minted,
        verify_findings=[],
    )
    assert len(evidence.forged) == len(forgeries)


def test_offers_are_taken_as_published() -> None:
    """Fixed prices and bounds; what has no number, as a price that depends on the request, is left out."""
    offers = [
        {"operation": "GET /a", "tokens": 3},
        {"operation": "GET /b", "up_to": 9},
        {"operation": "GET /c"},
    ]
    documents = {"cart": {"offers": offers}, "ad": {"offers": None}}
    assert published(documents) == {("cart", "GET /a"): 3, ("cart", "GET /b"): 9}


def test_what_services_told_is_counted(tmp_path: Path) -> None:
    """By service, by what happened and by why; the payee's own word for a refusal goes before the class."""
    notes = Notes(Paths(tmp_path).happenings)
    for code in ("", "wallet_frozen", "wallet_frozen"):
        notes.write(service="frontend", what="could not serve", why="Refused", code=code)
    assert happened(Paths(tmp_path)) == {
        ("frontend", "could not serve", "Refused"): 1,
        ("frontend", "could not serve", "wallet_frozen"): 2,
    }
