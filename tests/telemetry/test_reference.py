"""docs/reference/telemetry.md names every span, attribute, event and log field, and none that isn't there."""

from __future__ import annotations

import re
from pathlib import Path

from tokenmesh.telemetry import names
from tokenmesh.telemetry.environment import DISABLED
from tokenmesh.telemetry.logs import FIELDS

PAGE = (Path(__file__).parents[2] / "docs/reference/telemetry.md").read_text()
NAMES = {name: value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
OF_METRICS = {names.LEDGER_KIND}
LOGGERS = {"consumer", "provider", "settlement", "treasury", "domain", "frameworks", "identity", "chaincode"}


def test_every_name_stands_on_the_page() -> None:
    assert not {value for value in NAMES.values() if f"`{value}`" not in PAGE} - OF_METRICS


def test_the_page_names_nothing_else() -> None:
    """In its tables; loggers and modules are no names of spans."""
    named = {
        name for row in re.findall(r"^\|.*$", PAGE, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    }
    ours = {name for name in named if name.startswith("tokenmesh")}
    assert ours - {"tokenmesh"} <= set(NAMES.values())


def test_the_fields_of_log_records_are_the_pages() -> None:
    """In the table of fields; and each logger is named."""
    table = PAGE.partition("## Log records")[2].partition("| field |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert tuple(re.findall(r"`(\w+)`", " ".join(cells))) == FIELDS
    assert set(re.findall(r"`tokenmesh\.(\w+)`", PAGE.partition("## Log records")[2])) >= LOGGERS
    assert f"`{DISABLED}`" in PAGE
