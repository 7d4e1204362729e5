"""Many signatures checked at once: by however many threads, the answers are those of one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.economy import START, Economy, wallet
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import parse_contract
from tokenmesh_chaincode.prepared import Item, Prepared, apply_prepared, check_ahead
from tokenmesh_chaincode.rules import Context
from tokenmesh_chaincode.verifiers import SEQUENTIAL_MAX, Verifiers


def some(count: int) -> list[Item]:
    """Every third signature is somebody else's."""
    economy = Economy()
    key = public_key(wallet("alice").pem)
    signers = [wallet("bob" if at % 3 == 1 else "alice") for at in range(count)]
    bodies = [economy.contract_body(jti=f"c{at}") for at in range(count)]
    return [(parse_contract(documents.sign(body, by)), key) for body, by in zip(bodies, signers, strict=True)]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, SEQUENTIAL_MAX, SEQUENTIAL_MAX + 1])
def test_the_answers_are_in_the_order_of_the_questions(threads: int, count: int) -> None:
    verifiers = Verifiers(threads)
    items = some(count)
    assert verifiers(items) == [at % 3 != 1 for at in range(count)] == documents.verify_many(items)
    verifiers.close()


def test_few_are_checked_by_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past SEQUENTIAL_MAX others help; up to it nobody waits for another thread."""
    seen: list[tuple[str, int]] = []

    def verify_many(items: list[Item]) -> list[bool]:
        seen.append((threading.current_thread().name, len(items)))
        return [True] * len(items)

    monkeypatch.setattr(documents, "verify_many", verify_many)
    verifiers = Verifiers(2)
    mine = threading.current_thread().name
    verifiers([some(1)[0]] * SEQUENTIAL_MAX)
    assert seen == [(mine, SEQUENTIAL_MAX)]
    seen.clear()
    verifiers([some(1)[0]] * (SEQUENTIAL_MAX + 2))
    assert sorted(size for _, size in seen) == [SEQUENTIAL_MAX // 2 + 1] * 2
    assert {name for name, _ in seen} > {mine}
    verifiers.close()


def test_several_may_ask_at_once() -> None:
    verifiers = Verifiers(2)
    items = some(SEQUENTIAL_MAX + 50)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: verifiers(items), range(8)))
    assert answers == [documents.verify_many(items)] * 8
    verifiers.close()


def test_checked_ahead_an_operation_comes_to_the_same() -> None:
    """Good ones and forged ones; and of an unknown signer nothing is checked that the rules would not ask."""
    economy = Economy(tokens=100)
    assert economy.submit("alice", "open", id="a", payee="bob", tokens=50, exp=START + 600).ok
    keys = {("alice", wallet("alice").x5t): public_key(wallet("alice").pem)}
    good = economy.contract(via="a", lane="l", seq=0)
    forged = good.rpartition(".")[0] + "." + "A" * 86
    for by, items in (("bob", [good, forged]), ("alice", []), ("carol", [good])):
        text = economy.operation(by, "settle", _jti="s", items=[[one, 5] for one in items])
        asked: list[int] = []

        def counting(pairs: list[Item], asked: list[int] = asked) -> list[bool]:
            asked.append(len(pairs))
            return documents.verify_many(pairs)

        one = Prepared(text)
        check_ahead([one], lambda name, x5t: keys.get((name, x5t)), counting)
        assert asked == [len(items) + (by == "alice")]
        assert apply_prepared(economy.state, one, Context(economy.now)) == Economy.apply(economy, text)
