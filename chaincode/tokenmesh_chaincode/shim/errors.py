"""What goes wrong in an invocation::

ChaincodeError      raised by a chaincode that refuses; its message and status are the answer
└── PeerError       the peer refused what the chaincode asked of it
    └── StreamEnded the peer is gone, or has not answered in time
"""

from __future__ import annotations

STATUS_ERROR = 500
"""A response with this status, or any of 400 and over, is an error: nothing of it is endorsed."""


class ChaincodeError(Exception):
    """A refusal. The client sees the message and the status, so the message is to hold no secret."""

    def __init__(self, message: str, status: int = STATUS_ERROR) -> None:
        super().__init__(message)
        self.status = status


class PeerError(ChaincodeError):
    """The peer refused a request of the chaincode: no access to a collection, a write after a query, …"""


class StreamEnded(PeerError):
    """The peer's stream has ended, or an answer did not come in time. Nothing can be asked any more."""


class BadMessage(Exception):
    """The other side of a stream does not speak the protocol: the connection ends."""
