"""docs/reference/chaincode.md has every function, question, error and operation that the chaincode knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.peers import MemoryPeer
from tokenmesh_chaincode import limits
from tokenmesh_chaincode.contract import ContractError, TokenmeshContract, batch, questions
from tokenmesh_chaincode.contract.state import INDEX

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "chaincode.md").read_text()


def first_cells(title: str) -> list[str]:
    """What stands in code in the first cells of the table under a heading."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return re.findall(r"^\| `(\w+)` \|", found[1], re.MULTILINE)


def test_every_function_and_every_error() -> None:
    peer = MemoryPeer(TokenmeshContract(), lambda: 0)
    with pytest.raises(ContractError) as caught:
        peer.simulate("nothing")
    functions = str(caught.value).partition("only ")[2].split(", ")
    codes = re.findall(r"``(\w+)``", ContractError.__doc__ or "")[1:]
    assert first_cells("Functions") == [*functions, *codes]


def test_every_question_with_as_many_arguments_as_it_has() -> None:
    assert first_cells("Questions") == list(questions._QUESTIONS)
    for name, (_, checks) in questions._QUESTIONS.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*?)\|", PAGE, re.MULTILINE)
        assert len([one for one in row.split(",") if one.strip()]) == len(checks), name


@pytest.mark.parametrize(
    "said",
    [
        f"`TX_TIME_SKEW_S_MAX` ({limits.TX_TIME_SKEW_S_MAX} s)",
        f"1 to {limits.APPLY_OPERATIONS_MAX:,} operations",
        f"at most {questions.LISTED_MAX} items",
        f"no more than {questions.SCANNED_MAX:,} records",
        f"at most {limits.SWEEP_ITEMS_MAX:,} |",
        f"up to {questions.DISCLOSED_MAX} `sd`",
        f"collection `{batch.COLLECTION}`",
        f"`{batch.TRANSIENT}`: a JSON object",
        f"`{INDEX}/{{payer}}/hold/{{id}}`",
    ],
)
def test_bounds_and_names_are_those_of_the_code(said: str) -> None:
    assert said in PAGE
