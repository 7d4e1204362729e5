"""A client for the Gateway of Hyperledger Fabric's peers: for threads (``connect``), for asyncio
(``connect_async``).
"""

from tokenmesh.fabric.errors import (
    CommitError,
    CommitStatusError,
    EndorseError,
    ErrorDetail,
    GatewayError,
    IdentityError,
    SubmitError,
)
from tokenmesh.fabric.gateway._async_session import AsyncEvents
from tokenmesh.fabric.gateway._session import Events
from tokenmesh.fabric.gateway.aio import (
    AsyncCommit,
    AsyncContract,
    AsyncEventsRequest,
    AsyncGateway,
    AsyncNetwork,
    AsyncProposal,
    AsyncSubmittedTransaction,
    AsyncTransaction,
    connect_async,
    connect_profile_async,
)
from tokenmesh.fabric.gateway.checkpoint import Checkpoint, FileCheckpointer, InMemoryCheckpointer
from tokenmesh.fabric.gateway.events import ChaincodeEvent
from tokenmesh.fabric.gateway.failover import connect_any
from tokenmesh.fabric.gateway.flows import Status
from tokenmesh.fabric.gateway.identity import (
    AsyncSigner,
    Hash,
    Identity,
    Signer,
    hash_none,
    hash_sha256,
    new_private_key_signer,
    read_identity,
    read_signer,
)
from tokenmesh.fabric.gateway.options import NO_RETRY, Deadlines, Retry, Tls
from tokenmesh.fabric.gateway.sync import (
    Commit,
    Contract,
    EventsRequest,
    Gateway,
    Network,
    Proposal,
    SubmittedTransaction,
    Transaction,
    connect,
    connect_profile,
)

__all__ = [
    "NO_RETRY",
    "AsyncCommit",
    "AsyncContract",
    "AsyncEvents",
    "AsyncEventsRequest",
    "AsyncGateway",
    "AsyncNetwork",
    "AsyncProposal",
    "AsyncSigner",
    "AsyncSubmittedTransaction",
    "AsyncTransaction",
    "ChaincodeEvent",
    "Checkpoint",
    "Commit",
    "CommitError",
    "CommitStatusError",
    "Contract",
    "Deadlines",
    "EndorseError",
    "ErrorDetail",
    "Events",
    "EventsRequest",
    "FileCheckpointer",
    "Gateway",
    "GatewayError",
    "Hash",
    "Identity",
    "IdentityError",
    "InMemoryCheckpointer",
    "Network",
    "Proposal",
    "Retry",
    "Signer",
    "Status",
    "SubmitError",
    "SubmittedTransaction",
    "Tls",
    "Transaction",
    "connect",
    "connect_any",
    "connect_async",
    "connect_profile",
    "connect_profile_async",
    "hash_none",
    "hash_sha256",
    "new_private_key_signer",
    "read_identity",
    "read_signer",
]
