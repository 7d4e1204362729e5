"""Terms: what ``priced()`` may say, and what a request costs by it."""

from __future__ import annotations

from typing import Any

import pytest

from tokenmesh import decorators
from tokenmesh.errors import ServingError
from tokenmesh.provider import Offer, Request, Terms


def request(**params: Any) -> Request:
    return Request("GET", "/x", "GET /x", "/x", (), lambda: b"", params=params)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({}, "needs a price"),
        ({"tokens": -1}, "whole number"),
        ({"tokens": 2.5}, "whole number"),
        ({"tokens": True}, "whole number"),
        ({"tokens": 2**53}, "whole number"),
        ({"tokens": "5"}, "whole number"),
        ({"up_to": -1}, "whole number"),
        ({"up_to": 0}, "would be free"),
        ({"tokens": 6, "up_to": 5}, "less than tokens"),
        ({"tokens": 5, "via": "credit"}, "'allowance' or 'hold'"),
        ({"tokens": 5, "fulfilled_when": 1}, "is a function"),
        ({"tokens": 5, "exempt_when": True}, "is a function"),
        ({"tokens": 5, "private": 1}, "private is True or False"),
        ({"tokens": 5, "operation": "a\nb"}, "printable"),
        ({"tokens": 5, "operation": ""}, "printable"),
        ({"tokens": 5, "operation": "x" * 257}, "printable"),
    ],
)
def test_terms_that_cannot_be_right_are_an_error_where_they_stand(terms: dict[str, Any], says: str) -> None:
    """At the decorator, when the module is imported: not with the first request."""
    with pytest.raises(ServingError, match=says):
        decorators.priced(**terms)


@pytest.mark.parametrize(
    ("terms", "needed", "default"),
    [
        (Terms(5), 5, 5),
        (Terms(0), 0, 0),
        (Terms(up_to=50), 50, 50),
        (Terms(5, 50), 50, 5),
        (Terms(lambda request: request.params["n"]), 7, 7),
        (Terms(lambda _: 0), 0, 0),
        (Terms(lambda _: 7, 50), 50, 7),
        (Terms(5, exempt_when=lambda request: request.params["n"] == 7), 0, 0),
        (Terms(5, exempt_when=lambda request: request.params["n"] == 8), 5, 5),
    ],
)
def test_what_a_request_costs(terms: Terms, needed: int, default: int) -> None:
    """``needed`` must be offered, ``default`` is charged."""
    assert terms.check().price(request(n=7)) == (needed, default)


@pytest.mark.parametrize("price", [-1, 1.5, None, True, "7", 2**53])
def test_a_price_function_that_gives_no_price(price: Any) -> None:
    with pytest.raises(ServingError, match="whole number"):
        Terms(lambda _: price).price(request())


def test_a_price_above_up_to() -> None:
    with pytest.raises(ServingError, match="above its up_to"):
        Terms(lambda _: 51, 50).price(request())


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (Terms(5), {"operation": "GET /x", "tokens": 5, "via": "allowance"}),
        (Terms(up_to=50, via="hold"), {"operation": "GET /x", "up_to": 50, "via": "hold"}),
        (Terms(5, 50), {"operation": "GET /x", "up_to": 50, "via": "allowance"}),
        (Terms(lambda _: 1), {"operation": "GET /x", "tokens": None, "via": "allowance"}),
        (Terms(5, operation="naming"), {"operation": "naming", "tokens": 5, "via": "allowance"}),
        (Terms(5, private=True), {"operation": "GET /x", "tokens": 5, "via": "allowance", "private": True}),
    ],
)
def test_what_is_offered(terms: Terms, said: dict[str, Any]) -> None:
    assert Offer.of(terms, "GET", "/x").to_json() == {"method": "GET", "path": "/x", **said}


def test_what_can_be_priced() -> None:
    """Not a class, not something that is no function, nothing twice."""
    price = decorators.priced(tokens=5)
    for wrong in (int, "text", None):
        with pytest.raises(ServingError, match="stands above a handler"):
            price(wrong)
    with pytest.raises(ServingError, match="priced twice"):
        price(price(lambda: None))


def test_static_and_class_methods_stay_what_they_are() -> None:
    class Views:
        @decorators.priced(tokens=5)
        @staticmethod
        def static() -> None: ...

        @decorators.priced(tokens=5)
        @classmethod
        def of_class(cls) -> None: ...

    assert isinstance(vars(Views)["static"], staticmethod)
    assert isinstance(vars(Views)["of_class"], classmethod)
