"""What an organisation's admin asks of its orderer: join a channel (osnadmin's work), and how it is."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from tokenmesh.fabric.errors import NetworkError, NodeFailed
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.msp import tls_files
from tokenmesh.fabric.network.organisations import ADMIN
from tokenmesh.fabric.network.plan import HOST, Node

REQUEST_TIMEOUT_S = 10.0
LEADS = re.compile(r'^consensus_\w+_is_leader\{channel="([^"]+)"\} 1$', re.MULTILINE)
"""In the metrics of Raft and of BFT alike."""


class ChannelState(NamedTuple):
    """How an orderer sees a channel."""

    name: str
    status: str
    height: int


class OrdererAdmin:
    """The channel participation API of one orderer, by mutual TLS as its organisation's admin."""

    def __init__(self, layout: Layout, node: Node) -> None:
        files = tls_files(layout.identity(node.organisation, ADMIN) / "tls")
        context = ssl.create_default_context(cafile=str(files.ca))
        context.load_cert_chain(files.certificate, files.key)
        self._node = node
        self._url = f"https://{HOST}:{node.ports['admin']}/participation/v1/channels"
        self._metrics = f"https://{HOST}:{node.ports['operations']}/metrics"
        self._http = httpx.Client(verify=context, timeout=REQUEST_TIMEOUT_S, trust_env=False)

    def answers(self) -> bool:
        """Whether the admin port answers yet."""
        try:
            return self._http.get(self._url).status_code == 200
        except httpx.TransportError:
            return False

    def channels(self) -> list[str]:
        return [str(one["name"]) for one in self._ask("GET", self._url)["channels"] or ()]

    def channel(self, name: str) -> ChannelState:
        told = self._ask("GET", f"{self._url}/{name}")
        return ChannelState(str(told["name"]), str(told["status"]), int(told["height"]))

    def join(self, block: bytes) -> None:
        """Take part in the channel whose first block this is."""
        self._ask("POST", self._url, files={"config-block": ("config.block", block)})

    def leads(self) -> set[str]:
        """The channels that this orderer leads now, by its metrics; none if it does not answer."""
        try:
            told = self._http.get(self._metrics).text
        except httpx.TransportError:
            return set()
        return set(LEADS.findall(told))

    def close(self) -> None:
        self._http.close()

    def _ask(
        self, method: str, url: str, files: Mapping[str, tuple[str, bytes]] | None = None
    ) -> dict[str, Any]:
        try:
            response = self._http.request(method, url, files=files)
        except httpx.HTTPError as error:
            raise NodeFailed(
                f"{self._node.name} does not answer on its admin port: {error}", node=self._node.name
            ) from error
        told: dict[str, Any] = response.json()
        if response.status_code >= 400:
            raise NetworkError(f"{self._node.name} refused: {told.get('error', response.status_code)}")
        return told
