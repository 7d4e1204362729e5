"""What a stranger can make a payee do: next to nothing. A request that is refused leaves no trace on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from frameworks.test_fastapi import TestFastAPI as FastAPISuite
from frameworks.test_flask import TestFlask as FlaskSuite

from support.payee import PAYER, Payee
from tokenmesh.decorators import priced
from tokenmesh_benchmarks.refusals import LIMIT_US, REFUSALS, measure
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import new_id

OP = "GET /quote/{symbol}"
SUITES = {"flask": FlaskSuite, "fastapi": FastAPISuite}
del FlaskSuite, FastAPISuite


@pytest.fixture
def payee(tmp_path: Path) -> Iterator[Payee]:
    payee = Payee(tmp_path, request_bytes_max=1_000)
    yield payee
    payee.close()


def contents(directory: Path) -> dict[str, bytes]:
    """Every byte of every file: journal, ledger, and their logs of what is written. What SQLite's connections
    share in memory (``-shm``) is mapped from a file, too, and changes with every reader."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.suffix != ".db-shm"]
    return {str(path): path.read_bytes() for path in files}


def refused(payee: Payee, spent: str) -> dict[str, tuple[int, dict[str, Any]]]:
    """A request for each class of refusal, and its status; ``spent`` is an allowance with nothing left, whose
    first number is used."""
    good = payee.terms(OP, target="/quote/ACME")
    sign, domain = payee.sign, payee.domain
    signed = sign(good)
    stranger = domain.wallets.authority.new_identity("stranger")
    unsigned = f"{signed.rpartition('.')[0]}.{'A' * 86}"

    def contract(text: str) -> dict[str, Any]:
        return {"headers": [("Token-Contract", text)]}

    return {
        "no contract": (402, {}),
        "rubbish": (400, contract("rubbish")),
        "too large": (400, contract("a" * 9_000)),
        "two contracts": (400, {"headers": [("Token-Contract", signed)] * 2}),
        "a bad signature": (401, contract(unsigned)),
        "an unknown wallet": (401, contract(_of(good._replace(iss="stranger"), stranger))),
        "expired": (401, contract(sign(good._replace(iat=good.iat - 100, exp=good.iat - 40)))),
        "from the future": (401, contract(sign(good._replace(iat=good.iat + 900, exp=good.iat + 960)))),
        "for another payee": (401, contract(sign(good._replace(aud="other")))),
        "too few tokens": (402, contract(sign(good._replace(tok=4)))),
        "no such allowance": (402, contract(sign(good._replace(via=new_id())))),
        "no such hold": (402, contract(sign(good._replace(via="hold", lane=None, seq=None)))),
        "a number that is used": (402, contract(sign(good._replace(via=spent, seq=1)))),
        "an allowance that is used up": (402, contract(sign(good._replace(via=spent, seq=2)))),
        "another target": (422, contract(sign(good._replace(htu="/quote/OTHER")))),
        "a certificate that is made up": (401, contract(_of(good, _Named(PAYER, stranger)))),
    }


class _Named:
    """An identity under another name."""

    def __init__(self, name: str, identity: Any) -> None:
        self.name, self.x5t, self.sign = name, identity.x5t, identity.sign


def _of(contract: Any, signer: Any) -> str:
    return documents.sign(contract, signer)


@pytest.mark.parametrize("framework", SUITES)
def test_a_refused_request_writes_nothing(payee: Payee, tmp_path: Path, framework: str) -> None:
    """Not a byte in any file of the payee's, for any way to be refused; and no handler runs. A request that
    is paid shows that the files are where writing would be seen."""
    suite, ran = SUITES[framework](), Counter[str]()
    app = suite.build(partial(priced, mesh=payee), ran)

    def send(**options: Any) -> Any:
        return suite.request(app, "GET", "/quote/ACME", **{"headers": (), **options})

    spent = payee.open_allowance(5)
    # What comes first opens what there is to open.
    last = payee.contract(OP, target="/quote/ACME", via=spent, seq=1)
    assert send(headers=[("Token-Contract", last)]).status == 200
    before = contents(tmp_path)
    for name, (status, request) in refused(payee, spent).items():
        for _ in range(3):
            assert send(**request).status == status, name
        assert contents(tmp_path) == before, name
    assert ran.total() == 1
    assert payee.used() == 0
    assert send(headers=[("Token-Contract", payee.contract(OP, target="/quote/ACME"))]).status == 200
    assert contents(tmp_path) != before


def test_the_answers_tell_a_stranger_nothing_about_the_payer(payee: Payee) -> None:
    """Whether a wallet has tokens or is frozen is said only to who holds its key: before that, the signature
    has to hold."""
    suite = SUITES["flask"]()
    app = suite.build(partial(priced, mesh=payee), Counter())
    payee.domain.do("governance", "freeze", {"name": PAYER})
    payee.clock.forward(10)
    good = payee.terms(OP, target="/quote/ACME")
    forged = f"{payee.sign(good).rpartition('.')[0]}.{'A' * 86}"
    empty = f"{payee.sign(good._replace(via=new_id())).rpartition('.')[0]}.{'A' * 86}"
    for text in (forged, empty):
        reply = suite.request(app, "GET", "/quote/ACME", headers=[("Token-Contract", text)])
        assert reply.code == "signature_invalid"


def test_the_cost_of_each_refusal_is_measured() -> None:
    """``benchmarks/refusals.py`` gives a figure for each class and both frameworks; what they are on a given
    machine is in the docs."""
    figures = measure(rounds=1, calls=10)
    assert figures.keys() == SUITES.keys()
    assert all(added.keys() == REFUSALS.keys() for added in figures.values())
    assert LIMIT_US == 150
