"""The tracing backend that tests ask what has arrived: a real Jaeger, fed by OpenTelemetry's exporters."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, format_span_id, format_trace_id

from support.jaeger import ENDPOINTS, Jaeger
from support.jaeger_build import VERSION, available, find_jaeger
from tokenmesh.fabric.errors import ToolsMissing

TESTS = Path(__file__).parent
END_S_MAX = 10

EXPORTERS: dict[str, Callable[[Jaeger], SpanExporter]] = {
    "http": lambda jaeger: HttpExporter(f"{jaeger.otlp_http}/v1/traces"),
    "grpc": lambda jaeger: GrpcExporter(jaeger.otlp_grpc, insecure=True),
}

RUN_AND_WAIT = """
import sys
from pathlib import Path
from support.jaeger import ENDPOINTS, Jaeger
jaeger = Jaeger(Path(sys.argv[1]), Path(sys.argv[2]))
jaeger.start()
print(jaeger.url, flush=True)
sys.stdin.read()
"""


def provider(service: str, exporter: SpanExporter) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.mark.parametrize("protocol", EXPORTERS)
def test_spans_are_found_by_their_transaction(jaeger: Jaeger, protocol: str) -> None:
    """What an exporter has sent is found by ``tokenmesh.tx.id``, as a tree, with all that stood on it."""
    payer, payee = f"payer-by-{protocol}", f"payee-by-{protocol}"
    sending, working = (provider(name, EXPORTERS[protocol](jaeger)) for name in (payer, payee))
    try:
        tracer, other = sending.get_tracer("test"), working.get_tracer("test")
        for number in range(3):
            with tracer.start_as_current_span("tokenmesh call", kind=SpanKind.CLIENT) as call:
                call.set_attributes({"tokenmesh.tokens": 5, "tokenmesh.free": False})
                call.add_event("tried again", {"attempt": 2})
                with other.start_as_current_span("tokenmesh fulfil") as fulfil:
                    fulfil.set_attribute("tokenmesh.tx.id", f"{protocol}-{number}")
                    fulfil.set_status(Status(StatusCode.ERROR, "on purpose"))
            with other.start_as_current_span("tokenmesh settle", links=[Link(call.get_span_context())]):
                """A trace of its own."""
    finally:
        sending.shutdown()
        working.shutdown()

    (trace,) = jaeger.wait_for(payee, {"tokenmesh.tx.id": f"{protocol}-2"}, until=lambda all_: len(all_) == 1)
    assert trace.id == format_trace_id(call.get_span_context().trace_id)
    assert str(trace) == f"{payer}: tokenmesh call (client)\n  {payee}: tokenmesh fulfil (internal, error)"
    asked, done = trace.only("tokenmesh call"), trace.only("tokenmesh fulfil", payee)
    assert (asked.parent, done.parent) == (None, asked.id)
    assert asked.start <= done.start <= done.end <= asked.end
    assert asked.attributes["tokenmesh.tokens"] == 5
    assert asked.attributes["tokenmesh.free"] is False
    assert [(event.name, event.attributes["attempt"]) for event in asked.events] == [("tried again", 2)]
    assert [span.name for span in trace.under(asked)] == ["tokenmesh call", "tokenmesh fulfil"]
    settled = jaeger.wait_for(payee, operation="tokenmesh settle", until=lambda all_: len(all_) == 3)
    links = {link for trace in settled for link in trace.only("tokenmesh settle").links}
    assert (trace.id, format_span_id(call.get_span_context().span_id)) in links


def test_attributes_of_other_kinds_than_text_are_found_too(jaeger: Jaeger) -> None:
    """All of them have to fit; what nobody sent is not found."""
    sending = provider("searched", EXPORTERS["http"](jaeger))
    with sending.get_tracer("test").start_as_current_span("span") as span:
        span.set_attributes({"tokenmesh.tokens": 5, "tokenmesh.free": True, "tokenmesh.payer": "payer"})
    sending.shutdown()
    jaeger.wait_for("searched", {"tokenmesh.tokens": 5, "tokenmesh.free": True, "tokenmesh.payer": "payer"})
    assert jaeger.traces("searched", {"tokenmesh.tokens": 5, "tokenmesh.free": False}) == []
    assert jaeger.traces("searched", {"tokenmesh.tokens": 6}) == []
    assert jaeger.traces("nobody") == []
    assert jaeger.trace("0" * 31 + "1") is None
    assert "searched" in jaeger.services()
    assert "jaeger" not in jaeger.services()


def test_a_trace_that_does_not_come_is_said_with_what_did(jaeger: Jaeger) -> None:
    """The failure of a test shows the spans that are there."""
    sending = provider("incomplete", EXPORTERS["http"](jaeger))
    with sending.get_tracer("test").start_as_current_span("alone"):
        pass
    sending.shutdown()
    jaeger.wait_for("incomplete")
    with pytest.raises(AssertionError, match=r"(?s)after 0.2 s there is.*incomplete: alone \(internal\)"):
        jaeger.wait_for("incomplete", until=lambda traces: len(traces) == 2, within_s=0.2)


def test_it_listens_on_loopback_only(jaeger: Jaeger) -> None:
    """On the four ports of its configuration, and nothing of it can be reached from another machine."""
    listening = [
        connection.laddr
        for connection in _process_at(jaeger.url).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"] * len(ENDPOINTS)


@pytest.mark.parametrize("killed", [True, False])
def test_it_ends_with_the_process_that_started_it(jaeger: Jaeger, tmp_path: Path, killed: bool) -> None:
    """Also when that was killed, and could do nothing about it."""
    program = str(find_jaeger(lambda what, done: None))
    with subprocess.Popen(
        [sys.executable, "-c", RUN_AND_WAIT, program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        assert session.stdout is not None
        running = _process_at(session.stdout.readline().strip())
        if killed:
            session.send_signal(signal.SIGKILL)
        else:
            session.communicate()
    running.wait(END_S_MAX)
    assert not running.is_running()


def _process_at(url: str) -> psutil.Process:
    """The process that listens there."""
    port = int(url.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            return psutil.Process(connection.pid)
    raise AssertionError(f"nothing listens at {url}")


def test_a_program_that_fails_is_said_with_its_log(tmp_path: Path) -> None:
    """At once, not when all the time to start is over."""
    program = tmp_path / "jaeger"
    program.write_text("#!/bin/sh\necho it is broken; exit 3\n")
    program.chmod(0o755)
    with pytest.raises(AssertionError, match="it is broken"):
        Jaeger(program, tmp_path).start()


# How it is built. A script plays Go here; the fixture really builds.

GO = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$1" in
  version) echo "go version go${GO_VERSION:-1.25.4} linux/amd64";;
  mod) echo "{\\"Dir\\": \\"$MODULE\\"}";;
  list) printf 'a\\nb\\n';;
  build) [ -z "$GO_FAILS" ] || { echo "it went wrong" >&2; exit 1; }
    cp go.sum "$SEEN"
    while [ "$1" != -o ]; do shift; done; mkdir -p "$2"; echo "$3" >&2; echo '#!/bin/sh' >"$2/jaeger";;
esac
"""


@pytest.fixture
def with_go(tmp_path: Path) -> dict[str, str]:
    """A machine with Go and no Jaeger."""
    for name, content in {"go/go": GO, "module/go.sum": "example.org/part v1.0.0 h1:part=\n"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    (tmp_path / "go" / "go").chmod(0o755)
    named = {"CALLS": "calls", "MODULE": "module", "SEEN": "seen", "XDG_CACHE_HOME": "cache"}
    return {
        "PATH": f"{tmp_path / 'go'}:/usr/bin:/bin",
        **{key: str(tmp_path / name) for key, name in named.items()},
    }


def test_it_is_built_once(with_go: dict[str, str], tmp_path: Path) -> None:
    """By one of those who want it; with Jaeger's hash from here, and the others from Jaeger's own module."""
    told: list[tuple[str, float | None]] = []
    assert available(with_go) is None
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: find_jaeger(lambda *what: told.append(what), with_go), range(4)))
    (program,) = found
    assert program.is_relative_to(tmp_path / "cache" / "tokenmesh")
    assert program.is_file()
    assert (tmp_path / "calls").read_text().count("build ") == 1
    assert (f"Building Jaeger {VERSION} (once; about five minutes)", 1.0) in told
    assert (tmp_path / "seen").read_text() == (TESTS / "jaeger" / "go.sum").read_text() + (
        "example.org/part v1.0.0 h1:part=\n"
    )


def test_a_build_that_fails_says_why_and_leaves_nothing(with_go: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ToolsMissing, match=r"(?s)Go could not build Jaeger.*it went wrong"):
        find_jaeger(lambda *_: None, {**with_go, "GO_FAILS": "1"})
    assert [path.suffix for path in (tmp_path / "cache" / "tokenmesh").iterdir()] == [".lock"]
    assert find_jaeger(lambda *_: None, with_go).is_file()


def test_without_go_one_line_says_what_to_do(with_go: dict[str, str], tmp_path: Path) -> None:
    """It is the reason of the skip. ``JAEGER_BIN`` goes before everything."""
    without = {**with_go, "PATH": "/nowhere"}
    assert available(without) == (
        "Jaeger is missing, and so is Go to build with: install Go 1.24 or newer, "
        f"or set JAEGER_BIN to the program of Jaeger {VERSION}"
    )
    assert "too old to build with" in str(available({**with_go, "GO_VERSION": "1.19.8"}))
    program = tmp_path / "mine"
    chosen = {**without, "JAEGER_BIN": str(program)}
    with pytest.raises(ToolsMissing, match=r"JAEGER_BIN is .*, and there is no program"):
        find_jaeger(lambda *_: None, chosen)
    program.touch()
    assert available(chosen) is None
    assert find_jaeger(lambda *_: None, chosen) == program


def test_what_is_built_is_what_is_said() -> None:
    """The pins are of the version that the messages name: Jaeger 2.N is v1.(N + 63) as a Go module."""
    pinned = re.search(r"jaeger v1\.(\d+)\.(\d+)$", (TESTS / "jaeger" / "go.mod").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"2.{int(pinned[1]) - 63}.{pinned[2]}" == VERSION
