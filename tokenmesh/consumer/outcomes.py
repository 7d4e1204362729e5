"""How a try ends when it does not end the call, and what a call's end is called."""

from __future__ import annotations

from tokenmesh.consumer.messages import InResponse
from tokenmesh.errors import CallError


class Again(Exception):
    """Not the end, if the policy allows another try: ``error``, or ``response``, is what the caller gets if
    it does not. ``retry_after`` is what the payee asked for, in seconds."""

    def __init__(
        self,
        error: CallError | None = None,
        response: InResponse | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__()
        self.error = error
        self.response = response
        self.retry_after = retry_after

    def give(self) -> InResponse:
        """Let this be the end after all: give the response, or raise the error."""
        if self.response is not None:
            return self.response
        assert self.error is not None
        raise self.error from self.error.__cause__


class Resign(Exception):
    """The contract was certainly not taken, and what was wrong with it can be put right: at once, but not
    often. ``error`` is what the caller gets when it was often enough."""

    def __init__(self, error: CallError) -> None:
        super().__init__()
        self.error = error


def why(error: BaseException | None, response: InResponse | None) -> str:
    """What a try that failed is counted under: the error's class, or the response's status."""
    if error is None:
        return "" if response is None else str(response.status)
    return type(error).__name__


def outcome_of(error: BaseException) -> str:
    """What an error says of the tokens, in one word; one that is none of ours leaves that open."""
    return _OUTCOMES[error.spent] if isinstance(error, CallError) else "unknown"


_OUTCOMES = {"no": "not_spent", "yes": "spent", "unknown": "unknown"}
