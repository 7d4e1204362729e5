"""From the ledger to the trace: the trace of a contract, and links to it, for people and for programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import Cli
from support.settled import TP, TRACE, UNSAMPLED, settle
from tokenmesh.cli.output import Link, print_facts, print_table
from tokenmesh.cli.traces import SHOWN_MAX

TEMPLATE = "http://localhost:16686/trace/{trace_id}"
LINK = f"http://localhost:16686/trace/{TRACE}"


@pytest.fixture
def trade(cli: Cli) -> Cli:
    cli("wallet", "create", "service-a", "--tokens", "900")
    cli("wallet", "create", "service-b")
    return cli


def settled(cli: Cli, *tps: str | None, charged: int = 15) -> list[str]:
    return settle(cli.home, f"sqlite:///{cli.ledger}", charged, tps=tps)


def test_a_contract_leads_to_its_trace_and_its_transaction(trade: Cli) -> None:
    """The id always, the link where it is said where traces are to be seen."""
    (jti,) = settled(trade, TP)
    shown = trade("contract", "show", jti)
    assert TRACE in shown
    assert "http" not in shown
    assert LINK in trade("contract", "show", jti, "--trace-url", TEMPLATE).split()
    (plain,) = trade.json("contract", "show", jti)
    assert (plain["trace"], plain["trace_url"]) == (TRACE, None)
    (linked,) = trade.json("contract", "show", jti, "--trace-url", TEMPLATE)
    assert (linked["trace"], linked["trace_url"]) == (TRACE, LINK)
    assert linked["tx_id"] == trade.json("history", "--limit", "1")[0]["tx_id"]


def test_history_links_each_contract_that_has_a_trace(trade: Cli) -> None:
    """One that was not sampled has nothing to be seen; one of a payer without tracing has no trace."""
    traced, unsampled, untraced = settled(trade, TP, UNSAMPLED, None)
    lines = trade("history", "--trace-url", TEMPLATE).splitlines()
    by_id = {words[1]: words for words in map(str.split, lines) if len(words) > 1}
    number = str(trade.json("history", "--limit", "1")[0]["number"])
    assert by_id[traced] == [number, traced, "service-a", "15", "tokens", LINK]
    assert by_id[unsampled][-3:] == [TRACE[::-1], "(not", "sampled)"]
    assert untraced not in by_id
    (settlement,) = trade.json("history", "--limit", "1", "--trace-url", TEMPLATE)[0]["operations"]
    told = {
        one["id"]: (one["charged"], one["code"], one["trace"], one["trace_url"])
        for one in settlement["contracts"]
    }
    assert told == {
        traced: (15, "ok", TRACE, LINK),
        unsampled: (15, "ok", TRACE[::-1], None),
        untraced: (15, "ok", None, None),
    }


def test_without_a_template_history_is_as_it_was(trade: Cli) -> None:
    settled(trade, TP)
    assert TRACE not in trade("history")
    assert "contracts" not in trade.json("history")[0]["operations"][0]


def test_a_large_settlement_is_cut_for_people_and_whole_for_programs(trade: Cli) -> None:
    """Its document is not in the listing; what is left out is counted."""
    ids = settled(trade, *[TP] * (SHOWN_MAX + 3))
    shown = trade("history", "--limit", "1", "--trace-url", TEMPLATE)
    assert [jti in shown for jti in ids] == [True] * SHOWN_MAX + [False] * 3
    assert "has 3 more: --json gives them all" in shown
    (settlement,) = trade.json("history", "--limit", "1", "--trace-url", TEMPLATE)[0]["operations"]
    assert settlement["arg"] is None
    assert [one["id"] for one in settlement["contracts"]] == ids


def test_a_contract_that_was_refused_has_its_trace_too(trade: Cli) -> None:
    (jti,) = settled(trade, TP, charged=21)
    words = trade("history", "--trace-url", TEMPLATE).split()
    assert words[words.index(jti) :][:4] == [jti, "service-a", "charged_too_much", LINK]


def test_a_history_without_traces_says_so(cli: Cli) -> None:
    result = cli.run("history", "--trace-url", TEMPLATE)
    assert result.exit_code == 0
    assert "No contract that was settled here has a trace." in result.stderr
    assert "mint" in result.stdout


def test_the_template_may_come_from_the_environment(trade: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option goes before it, and an empty one means none."""
    (jti,) = settled(trade, TP)
    monkeypatch.setenv("TOKENMESH_TRACE_URL", TEMPLATE)
    assert LINK in trade("history")
    assert LINK in trade("contract", "show", jti)
    elsewhere = trade("contract", "show", jti, "--trace-url", "https://grafana/explore?x={trace_id}&y={b}")
    assert f"https://grafana/explore?x={TRACE}&y={{b}}" in elsewhere
    assert "http" not in trade("contract", "show", jti, "--trace-url", "")


@pytest.mark.parametrize("command", [["history"], ["contract", "show", "some-id"]], ids=" ".join)
@pytest.mark.parametrize("template", ["http://localhost:16686/trace/", "ftp://{trace_id}", "{trace_id}"])
def test_a_template_that_links_nowhere_is_wrong_use(cli: Cli, command: list[str], template: str) -> None:
    said = cli.refused(*command, "--trace-url", template)
    assert "{trace_id}" in said
    assert "http://localhost:16686/trace/{trace_id}" in said


def test_a_terminal_gets_a_link_to_click_on_and_a_pipe_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The URL stands there to be read in either case."""
    print_facts([("to be seen at", Link(LINK))])
    assert capsys.readouterr().out.split() == ["to", "be", "seen", "at", LINK]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    print_table(["trace"], [[Link(LINK)]], empty="")
    shown = capsys.readouterr().out
    assert f";{LINK}\x1b\\{LINK}\x1b]8;;\x1b\\" in shown
