"""Every error of tokenmesh.fabric, as one tree of its own: the package stands alone.

FabricError
├── ProfileError            a profile is missing, unreadable, or one of its fields does not fit
├── CAError                 fabric-ca could not be reached, or refused; see ``status`` and ``code``
└── NetworkError            the local network could not do what was asked
    ├── ToolsMissing        Fabric's programs are neither installed nor can they be built here
    ├── NetworkBusy         another process is working on this very network
    └── NodeFailed          a node ended, or did not answer in time; ``log`` holds its last lines
"""

from __future__ import annotations

from typing import ClassVar


class FabricError(Exception):
    """Base of all errors of this package.

    ``retryable`` says whether the same thing, tried again later, may succeed.
    """

    retryable: ClassVar[bool] = False


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
