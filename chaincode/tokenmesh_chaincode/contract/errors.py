"""Why a transaction or a question as a whole is refused; a single operation's refusal is an outcome."""

from __future__ import annotations


class ContractError(Exception):
    """The peer answers with an error, and nothing is endorsed. The message begins with ``code`` and a colon.

    Codes: ``unknown_function``, ``bad_argument``, ``clock_skewed`` (the proposal's time is too far from the
    endorser's own), ``not_administrator``, ``bad_genesis``, ``begun_already``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
