"""The two gateways, for threads and for asyncio, have the same names and take the same arguments."""

from __future__ import annotations

import inspect

import pytest

from tokenmesh.fabric import gateway

PAIRS = [name for name in gateway.__all__ if f"Async{name}" in gateway.__all__ and name != "Signer"]
FUNCTIONS = ("connect", "connect_profile")


def surface(kind: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(value).parameters) if callable(value) else []
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("name", PAIRS)
def test_classes_have_the_same_surface(name: str) -> None:
    assert surface(getattr(gateway, name)) == surface(getattr(gateway, f"Async{name}"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_the_same_arguments(name: str) -> None:
    plain, awaited = (getattr(gateway, one) for one in (name, f"{name}_async"))
    assert list(inspect.signature(plain).parameters) == list(inspect.signature(awaited).parameters)


def test_every_class_has_its_counterpart() -> None:
    assert {"Gateway", "Network", "Contract", "Proposal", "Transaction", "Commit", "Events"} <= set(PAIRS)
