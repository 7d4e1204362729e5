"""Settings: where they come from, what is refused, and that each one is documented."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tokenmesh.config import Settings, variables
from tokenmesh.errors import ConfigError
from tokenmesh.places import Place

NAMES = [item.name for item in dataclasses.fields(Settings)]
LIMITS = [item for item in dataclasses.fields(Settings) if item.metadata]
PACKAGE = Path(__file__).parent.parent / "tokenmesh"
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"


def with_value(name: str, value: Any) -> Settings:
    given: dict[str, Any] = {name: value}
    return Settings(**given)


def test_an_argument_goes_before_the_environment_and_that_before_the_default() -> None:
    environ = {
        "TOKENMESH_LEASE_S": "3",
        "TOKENMESH_SERVICE": "from-outside",
        "TOKENMESH_UNSETTLED_MAX": "1_000",
    }
    settings = Settings.from_environment(environ, service="given", ledger=None)
    assert settings.service == "given"
    assert settings.lease_s == 3.0
    assert settings.unsettled_max == 1_000
    assert settings.on_crash == "refuse"


def test_ledger_and_journal_lie_in_the_home_unless_said_otherwise(tmp_path: Path) -> None:
    settings = Settings.from_environment({"TOKENMESH_HOME": str(tmp_path), "TOKENMESH_SERVICE": "a"})
    assert settings.ledger == f"sqlite:///{tmp_path}/ledger.db"
    assert settings.journal == f"sqlite:///{tmp_path}/journal-a.db"
    elsewhere = Settings.from_environment({}, ledger="sqlite:////x.db", journal="sqlite:////y.db")
    assert (elsewhere.ledger, elsewhere.journal) == ("sqlite:////x.db", "sqlite:////y.db")


def test_a_relative_home_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / ".tokenmesh"


def test_service_urls_come_by_name() -> None:
    environ = {"TOKENMESH_URL_SERVICE_B": "http://b:8000/", "TOKENMESH_URL_C": "https://c"}
    assert Settings.from_environment(environ).urls == {"service-b": "http://b:8000", "c": "https://c"}
    with pytest.raises(ConfigError, match=r"service-b.*http://"):
        Settings.from_environment({"TOKENMESH_URL_SERVICE_B": "b:8000"})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TOKENMESH_LEASE_S", "soon", "TOKENMESH_LEASE_S is 'soon': it must be a number"),
        ("TOKENMESH_LEASE_S", "nan", "from 1 to 3600"),
        ("TOKENMESH_LEASE_S", "inf", "from 1 to 3600"),
        ("TOKENMESH_UNSETTLED_MAX", "1.5", "whole number"),
        ("TOKENMESH_UNSETTLED_MAX", "0", "TOKENMESH_UNSETTLED_MAX.*from 1 to"),
        ("TOKENMESH_ON_CRASH", "ignore", "one of refuse, rerun"),
        ("TOKENMESH_TRACE_URL", "http://jaeger/trace/", "TOKENMESH_TRACE_URL.*with {trace_id} in it"),
        ("TOKENMESH_TRACE_URL", "javascript:{trace_id}", "TOKENMESH_TRACE_URL.*http://"),
        ("TOKENMESH_TRACE_URL", "http://jaeger/{trace_id}\x1b]8;;", "TOKENMESH_TRACE_URL.*x1b"),
        ("TOKENMESH_LEDGER_SYNCHRONOUS", "OFF", "one of FULL, NORMAL"),
    ],
)
def test_a_value_that_cannot_be_right_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.from_environment({variable: value})


def test_a_misspelt_variable_is_an_error_with_the_one_that_is_meant() -> None:
    with pytest.raises(ConfigError, match="TOKENMESH_LEASES: is TOKENMESH_LEASE_S meant"):
        Settings.from_environment({"TOKENMESH_LEASES": "3"})
    with pytest.raises(ConfigError, match="is TOKENMESH_PASSPHRASE meant"):
        Settings.from_environment({"TOKENMESH_PASSFRASE": "x"})
    with pytest.raises(ConfigError, match=r"configuration\.md"):
        Settings.from_environment({"TOKENMESH_QQQQQQ": "x"})
    with pytest.raises(ConfigError, match="is TOKENMESH_HOME meant"):
        Settings.from_environment({"TOKENMESH_home": "x"})


def test_a_misspelt_argument_is_an_error_too() -> None:
    with pytest.raises(ConfigError, match="'leases': is 'lease_s' meant"):
        Settings.from_environment({}, leases=3)


def test_what_kubernetes_and_others_put_there_is_left_alone() -> None:
    """A Service called tokenmesh-x gives every pod such variables; they are no settings of anybody."""
    environ = {
        "TOKENMESH_PORT": "tcp://10.0.0.1:80",
        "TOKENMESH_X_SERVICE_HOST": "10.0.0.1",
        "TOKENMESH_X_SERVICE_PORT_HTTP": "80",
        "TOKENMESH_X_PORT_80_TCP_ADDR": "10.0.0.1",
        "TOKENMESH_PASSPHRASE": "secret",
        "PATH": "/bin",
    }
    assert Settings.from_environment(environ) == Settings.from_environment({})


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert Settings.from_environment({"TOKENMESH_LEASE_S": "", "TOKENMESH_LEDGER": " "}) == Settings()


@pytest.mark.parametrize("item", LIMITS, ids=lambda item: item.name)
def test_every_limit_is_bounded_and_its_default_lies_within(item: dataclasses.Field[float]) -> None:
    """Both ends of the range are taken, the next value past either is not."""
    low, high = item.metadata["minimum"], item.metadata["maximum"]
    assert math.isfinite(high)
    for value in (low, high, item.default):
        assert getattr(with_value(item.name, value), item.name) == value
    for value in (low - 1, high + 1, True, "7"):
        with pytest.raises(ConfigError, match=item.name):
            with_value(item.name, value)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_read_from_the_environment(name: str) -> None:
    item = {item.name: item for item in dataclasses.fields(Settings)}[name]
    samples = {
        "service": "a",
        "home": "/h",
        "ledger": "sqlite:////l",
        "journal": "sqlite:////j",
        "urls": "http://x",
        "domains": '{"b-*": "sqlite:////b"}',
        "trace_url": "http://jaeger/trace/{trace_id}",
    }
    text = samples.get(name) or str(item.default)
    changed = Settings.from_environment({variables()[name]: text})
    domains = {"b-*": Place("sqlite:////b")}
    expected = {"home": Path("/h"), "urls": {"service": "http://x"}, "domains": domains}.get(name)
    assert getattr(changed, name) == (expected or samples.get(name) or item.default)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_read_by_a_running_part(name: str) -> None:
    """A limit that nothing reads would be promised and not kept."""
    parts = [path for path in PACKAGE.rglob("*.py") if path.name != "config.py"]
    assert any(re.search(rf"settings\.{name}\b", path.read_text()) for path in parts)


def test_every_setting_is_documented_in_the_docstring_and_on_its_page() -> None:
    """A setting without its line in both places, or a line without its setting, fails here."""
    documented = set(re.findall(r"^    ``(\w+)``:", Settings.__doc__ or "", re.MULTILINE))
    assert documented == set(NAMES)
    rows = dict(re.findall(r"^\| `(\w+)` \| `(TOKENMESH_\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert rows == variables()


def test_the_pages_defaults_and_bounds_are_the_real_ones() -> None:
    for item in LIMITS:
        row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{item.name}` |"))
        low, high = item.metadata["minimum"], item.metadata["maximum"]
        assert f"| {item.default:_} | {low:_} to {high:_} |" in row
