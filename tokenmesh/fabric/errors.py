"""Every error of tokenmesh.fabric, as one tree of its own: the package stands alone.

FabricError
├── IdentityError           a certificate or key cannot be read, or cannot sign
├── GatewayError            a peer's gateway refused, failed or did not answer; see ``details``
│   ├── EndorseError        a proposal was not endorsed: nothing happened
│   ├── SubmitError         a transaction was not taken for ordering, or it is unknown whether it was
│   └── CommitStatusError   it could not be learned what became of a transaction
├── CommitError             a transaction was ordered and then found invalid: it changed nothing
├── BlockError              a block, or what stands in it, cannot be read
├── LifecycleError          a chaincode's package or definition is not as it is to be
├── ProfileError            a profile is missing, unreadable, or one of its fields does not fit
├── CAError                 fabric-ca could not be reached, or refused; see ``status`` and ``code``
└── NetworkError            the local network could not do what was asked
    ├── ToolsMissing        Fabric's programs are neither installed nor can they be built here
    ├── NetworkBusy         another process is working on this very network
    └── NodeFailed          a node ended, or did not answer in time; ``log`` holds its last lines
"""

from __future__ import annotations

from typing import NamedTuple


class FabricError(Exception):
    """Base of all errors of this package.

    ``retryable`` says whether the same thing, tried again later, may succeed.
    """

    retryable: bool = False

    def add(self, more: str) -> None:
        """Add to the message what only somebody further up knows."""
        self.args = (f"{self} | {more}", *self.args[1:])


class ProfileError(FabricError):
    """A profile is missing, unreadable, or one of its fields does not fit; the message names the field."""


class CAError(FabricError):
    """fabric-ca could not be reached (``status`` is 0), or refused what was asked.

    ``code`` is fabric-ca's own number of the error, 0 where there is none.
    """

    def __init__(self, message: str, *, status: int = 0, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class NetworkError(FabricError):
    """The local network could not do what was asked; the message says what to do."""


class ToolsMissing(NetworkError):
    """Fabric's programs are neither installed nor can they be built here."""


class NetworkBusy(NetworkError):
    """Another process is working on this very network."""

    retryable = True


class NodeFailed(NetworkError):
    """A node ended, or did not answer in time. ``log`` holds the last lines of what it wrote."""

    def __init__(self, message: str, *, node: str, log: str = "") -> None:
        super().__init__(f"{message}\n{log}" if log else message)
        self.node = node
        self.log = log


class IdentityError(FabricError):
    """A certificate or key cannot be read, or is of a kind that Fabric does not know."""


class ErrorDetail(NamedTuple):
    """What one peer or orderer said, as the gateway passes it on."""

    address: str
    msp_id: str
    message: str


class GatewayError(FabricError):
    """A peer's gateway refused, failed or did not answer.

    ``code`` is gRPC's name of the status (``"ABORTED"``), ``status_message`` what came with it, ``details``
    what each peer or orderer said, and ``transaction_id`` the transaction it is about ("" for events).
    ``outcome_unknown`` says that the call may have taken effect all the same.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status_message: str = "",
        details: tuple[ErrorDetail, ...] = (),
        transaction_id: str = "",
        retryable: bool = False,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status_message = status_message
        self.details = details
        self.transaction_id = transaction_id
        self.retryable = retryable
        self.outcome_unknown = outcome_unknown


class EndorseError(GatewayError):
    """A proposal was not endorsed. Nothing happened on the ledger."""


class SubmitError(GatewayError):
    """An endorsed transaction was not taken for ordering; or, if ``outcome_unknown``, it may have been.

    Then ask for its commit status, or send the very same transaction again: it is committed once.
    """


class CommitStatusError(GatewayError):
    """What became of a submitted transaction could not be learned. It may be committed yet: ask again."""


class CommitError(FabricError):
    """A transaction was ordered and then found invalid by the peers: it changed nothing.

    ``code`` is the validation code's name (``"MVCC_READ_CONFLICT"``), ``number`` its number.
    """

    def __init__(
        self, message: str, *, transaction_id: str, code: str, number: int, block_number: int, retryable: bool
    ) -> None:
        super().__init__(message)
        self.transaction_id = transaction_id
        self.code = code
        self.number = number
        self.block_number = block_number
        self.retryable = retryable


class BlockError(FabricError):
    """A block, or what stands in it, cannot be read; or a file is no file of blocks."""


class LifecycleError(FabricError):
    """A chaincode's package or definition is not as it is to be; the message says what to do."""
