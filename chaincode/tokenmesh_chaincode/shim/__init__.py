"""A server for Fabric chaincode in Python: chaincode as a service, for the rules and for anyone's own.

A chaincode is a callable that takes a :class:`Stub` and returns bytes; :func:`serve` serves it.
"""

from .errors import ChaincodeError, PeerError, StreamEnded
from .identity import ClientIdentity
from .keys import create_composite_key, split_composite_key
from .options import Options
from .policies import key_policy
from .response import Response
from .results import KV, KeyModification, Page, Results
from .server import Server, serve
from .stream import Chaincode
from .stub import Stub

__all__ = [
    "KV",
    "Chaincode",
    "ChaincodeError",
    "ClientIdentity",
    "KeyModification",
    "Options",
    "Page",
    "PeerError",
    "Response",
    "Results",
    "Server",
    "StreamEnded",
    "Stub",
    "create_composite_key",
    "key_policy",
    "serve",
    "split_composite_key",
]
