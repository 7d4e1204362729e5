"""What the demo is made of: the shop's services, what they start with, and when the trouble comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from tokenmesh.cli.demo.chance import seeded

GOVERNANCE = "governance"
SHOPPER = "shopper"

LOSS = 1 / 20
"""Of all responses, so many are lost on the wire."""

CONTRACT_TTL_S = 4
ALLOWANCE_TTL_S = 8
"""Short, so that what is set aside comes back while people still watch."""
GRACE_S = 6
"""Long enough for the slowest order, which waits for a service that is being restarted, to be settled."""


class Service(NamedTuple):
    """One service of the shop: where its app is, what serves it, and what its wallet starts with."""

    name: str
    app: str
    server: Literal["gunicorn", "uvicorn"]
    pays: tuple[str, ...]
    tokens: int
    workers: int = 1


_SHOP = "tokenmesh.cli.demo.shop"

SERVICES = (
    Service(
        "frontend",
        f"{_SHOP}.frontend:app",
        "uvicorn",
        ("ad", "recommendation", "productcatalog", "cart", "shipping", "currency", "checkout"),
        200_000,
    ),
    Service("productcatalog", f"{_SHOP}.window:productcatalog", "gunicorn", (), 0),
    Service("recommendation", f"{_SHOP}.window:recommendation", "gunicorn", ("productcatalog",), 0),
    Service("ad", f"{_SHOP}.window:ad", "gunicorn", (), 0),
    Service("currency", f"{_SHOP}.till:currency", "gunicorn", (), 0, workers=2),
    Service("payment", f"{_SHOP}.till:payment", "gunicorn", (), 0),
    Service("cart", f"{_SHOP}.counter:cart", "uvicorn", (), 0),
    Service(
        "checkout",
        f"{_SHOP}.counter:checkout",
        "uvicorn",
        ("productcatalog", "cart", "currency", "payment", "shipping", "email"),
        100_000,
    ),
    Service("shipping", f"{_SHOP}.dispatch:shipping", "uvicorn", (), 0),
    Service("email", f"{_SHOP}.dispatch:email", "uvicorn", (), 0),
)
NAMES = tuple(service.name for service in SERVICES)
SHOPPER_TOKENS = 500_000

RUNS_DRY = "recommendation"
"""It pays the catalogue more than it earns, and starts with little: it is the one that runs dry."""
DRY_TOKENS_PER_S = 3
"""What it starts with, for each second of the demo: so little that it runs dry about half way."""
TOP_UP_TOKENS = 50_000
IS_FROZEN = "checkout"
CAN_BE_KILLED = tuple(name for name in NAMES if name not in (RUNS_DRY, IS_FROZEN))


class Trouble(NamedTuple):
    """When what goes wrong, in seconds from the first shopper."""

    killed: str
    kill_s: float
    down_s: float
    freeze_s: float
    unfreeze_s: float
    top_up_s: float
    """The wallet that ran dry is topped up so long after it was seen dry, ..."""
    top_up_latest_s: float
    """... and no later than this, seen or not."""


def trouble(seed: int, seconds: float) -> Trouble:
    """The trouble of one run: the victim and the moments come from the seed."""
    dice = seeded(seed, "trouble")
    return Trouble(
        killed=dice.choice(CAN_BE_KILLED),
        kill_s=seconds * dice.uniform(0.15, 0.30),
        down_s=1.0,
        freeze_s=seconds * dice.uniform(0.45, 0.55),
        unfreeze_s=seconds * dice.uniform(0.65, 0.75),
        top_up_s=seconds * 0.12,
        top_up_latest_s=seconds * 0.85,
    )


def starting_tokens(seconds: float) -> dict[str, int]:
    """What each wallet is granted for a demo of so many seconds."""
    tokens = {service.name: service.tokens for service in SERVICES}
    return {**tokens, SHOPPER: SHOPPER_TOKENS, RUNS_DRY: int(seconds * DRY_TOKENS_PER_S)}


class Paths(NamedTuple):
    """Where the demo keeps its files, all below one home."""

    home: Path

    @property
    def wire(self) -> Path:
        """What went over the wire: one line a response, written by the proxy."""
        return self.home / "wire.jsonl"

    @property
    def wire_config(self) -> Path:
        return self.home / "wire.json"

    @property
    def happenings(self) -> Path:
        """What the services and shoppers tell: a page served without its recommendations, and why."""
        return self.home / "happenings.jsonl"

    @property
    def visits(self) -> Path:
        """What each shopper asked for and how long it took."""
        return self.home / "visits.jsonl"

    @property
    def settled(self) -> Path:
        """Each contract that the ledger's history has settled, and in which transaction."""
        return self.home / "settled.jsonl"

    @property
    def door(self) -> Path:
        """A file that the shoppers wait for: once it is there, the shop is open."""
        return self.home / "open"

    def runs(self, service: str) -> Path:
        """Each run of a handler of this service, by contract: a record beside the journal."""
        return self.home / f"runs-{service}.jsonl"

    def log(self, child: str) -> Path:
        return self.home / "logs" / f"{child}.log"


def policy(default: dict[str, Any]) -> dict[str, Any]:
    """The demo's policy: the default one with short times."""
    return {
        **default,
        "contract_ttl_s_max": CONTRACT_TTL_S,
        "hold_ttl_s_max": CONTRACT_TTL_S,
        "allowance_ttl_s_max": ALLOWANCE_TTL_S,
        "grace_s": GRACE_S,
        "propagation_s": 1,
    }
