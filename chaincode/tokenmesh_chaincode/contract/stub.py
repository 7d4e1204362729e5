"""What the rules need of a chaincode's stub: the shim's has it, and so has a recorded transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Identity(Protocol):
    """Who has sent the proposal: a client of one of the channel's organisations."""

    @property
    def mspid(self) -> str: ...

    @property
    def units(self) -> Sequence[str]:
        """The organisational units that the certificate names, Fabric's node roles among them."""
        ...

    @property
    def attributes(self) -> Mapping[str, str]:
        """What fabric-ca has written into the certificate."""
        ...


class Row(Protocol):
    """A key and its value, as a range gives them."""

    @property
    def key(self) -> str: ...

    @property
    def value(self) -> bytes: ...


class Page(Protocol):
    """Some rows of a range; ``bookmark`` is where the rest begins, ``""`` if there is none."""

    @property
    def items(self) -> Sequence[Row]: ...

    @property
    def bookmark(self) -> str: ...


class Stub(Protocol):
    """One invocation. Reads give what was committed before it, never what it has written itself."""

    @property
    def function(self) -> str: ...

    @property
    def parameters(self) -> Sequence[bytes]: ...

    @property
    def tx_id(self) -> str: ...

    @property
    def timestamp_ns(self) -> int:
        """The proposal's time, which its sender has chosen, in nanoseconds since 1970."""
        ...

    @property
    def transient(self) -> Mapping[str, bytes]: ...

    @property
    def identity(self) -> Identity: ...

    def get_states(self, keys: Sequence[str]) -> Sequence[bytes | None]: ...

    def put_state(self, key: str, value: bytes) -> None: ...

    def del_state(self, key: str) -> None: ...

    def get_private_datas(self, collection: str, keys: Sequence[str]) -> Sequence[bytes | None]: ...

    def put_private_data(self, collection: str, key: str, value: bytes) -> None: ...

    def get_state_by_range_with_pagination(
        self, start: str, end: str, page_size: int, bookmark: str
    ) -> Page: ...
