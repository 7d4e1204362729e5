"""The time of a transaction: its sender has chosen it, so each endorser holds it to its own clock."""

from __future__ import annotations

from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.limits import TX_TIME_SKEW_S_MAX


def time_of(stub: Stub) -> float:
    """The proposal's time in Unix seconds, cut to the millisecond; an integer if it is whole."""
    seconds, rest = divmod(stub.timestamp_ns // 1_000_000, 1_000)
    return seconds if rest == 0 else seconds + rest / 1_000


def check_skew(what: str, moment: float, now: float) -> None:
    """Refuse what is not from about now."""
    if abs(moment - now) > TX_TIME_SKEW_S_MAX:
        raise ContractError(
            "clock_skewed",
            f"{what} is from {moment:.0f}, and here it is {now:.0f}: at most {TX_TIME_SKEW_S_MAX} s may lie "
            "between them; set the clock of the one that is wrong",
        )
