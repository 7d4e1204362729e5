"""What ``@priced`` says about an operation, and one request to it as every framework hands it over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

from tokenmesh.errors import ServingError
from tokenmesh_chaincode.documents import is_form
from tokenmesh_chaincode.limits import OPERATION_NAME_LENGTH_MAX, TOKENS_MAX

Via: TypeAlias = Literal["allowance", "hold"]


class Request(NamedTuple):
    """One request.

    ``target`` is path and query as the client sent them (``documents.target``); ``alias`` is the same with
    the prefix that a proxy took away, where the framework knows it. ``path`` is the route's template,
    ``operation`` the name under which it is offered. ``contracts`` are the raw values of its Token-Contract
    headers. ``body`` gives the whole body. ``native`` is the framework's own request (None in frameworks
    that need not make one), ``params`` are the values of the template.
    """

    method: str
    target: str
    operation: str
    path: str
    contracts: Sequence[bytes]
    body: Callable[[], bytes]
    native: Any = None
    params: Mapping[str, Any] = {}
    alias: str | None = None


class Price(NamedTuple):
    """What one request costs: ``needed`` must be offered by its contract, ``default`` is charged when the
    handler does not say otherwise."""

    needed: int
    default: int


class Terms(NamedTuple):
    """What one priced operation asks; see :func:`tokenmesh.priced`."""

    tokens: int | Callable[[Request], int] | None = None
    up_to: int | None = None
    operation: str | None = None
    via: Via = "allowance"
    fulfilled_when: Callable[[Any], object] | None = None
    exempt_when: Callable[[Request], object] | None = None
    private: bool = False

    def check(self) -> Terms:
        """Give these terms back if they can be right; :class:`ServingError` says what is wrong."""
        if self.tokens is None and self.up_to is None:
            raise ServingError(
                "priced() needs a price: tokens=5, tokens=a function of the request, or up_to=50"
            )
        for name, value in (("tokens", self.tokens), ("up_to", self.up_to)):
            if value is not None and not callable(value):
                _whole(name, value)
        if self.up_to == 0:
            raise ServingError("priced(up_to=0) would be free: leave priced() out, or say tokens=0")
        if isinstance(self.tokens, int) and self.up_to is not None and self.tokens > self.up_to:
            raise ServingError(f"priced(tokens={self.tokens}, up_to={self.up_to}): up_to is less than tokens")
        if self.via not in ("allowance", "hold"):
            raise ServingError(f"priced(via={self.via!r}): via is 'allowance' or 'hold'")
        for name, function in (("fulfilled_when", self.fulfilled_when), ("exempt_when", self.exempt_when)):
            if function is not None and not callable(function):
                raise ServingError(f"priced({name}={function!r}): {name} is a function")
        if not isinstance(self.private, bool):
            raise ServingError(f"priced(private={self.private!r}): private is True or False")
        if self.operation is not None and not is_form("op", self.operation):
            raise ServingError(
                f"priced(operation={self.operation!r}): an operation's name is printable text of at most "
                f"{OPERATION_NAME_LENGTH_MAX} characters"
            )
        return self

    @property
    def asks(self) -> bool:
        """Whether the price depends on the request."""
        return self.exempt_when is not None or callable(self.tokens)

    def price(self, request: Request) -> Price:
        """What ``request`` costs; ``needed`` is 0 when it is free.

        What the price function raises comes out as it is. :class:`ServingError` if it gives no whole number,
        or more than ``up_to``.
        """
        if self.exempt_when is not None and self.exempt_when(request):
            return FREE
        tokens = self.tokens
        if callable(tokens):
            tokens = _whole("tokens", tokens(request))
            if self.up_to is not None and tokens > self.up_to:
                raise ServingError(
                    f"the price of {request.operation} is {tokens}, above its up_to={self.up_to}"
                )
        return _price(tokens, self.up_to)


FREE = Price(0, 0)


@lru_cache(maxsize=1_024)
def _price(tokens: int | None, up_to: int | None) -> Price:
    if tokens == 0:
        return FREE
    needed = tokens if up_to is None else up_to
    assert needed is not None, "terms have a price"
    return Price(needed, needed if tokens is None else tokens)


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        raise ServingError(f"{name} is {value!r}: tokens are a whole number from 0 to {TOKENS_MAX}")
    return value
