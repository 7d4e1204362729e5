"""A Jaeger of the tests' own, on loopback only, and its traces as records that are good to compare.

It keeps everything in memory, so it may be killed. It ends with :meth:`Jaeger.stop`, and with the process
that started it, however that ends: a shell between them waits for the end of a pipe.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from support.servers import free_port

CONFIGURATION = Path(__file__).parent.parent.parent / "docs" / "how-to" / "jaeger.yaml"
ENDPOINTS = (
    "receivers.otlp.protocols.http",
    "receivers.otlp.protocols.grpc",
    "extensions.jaeger_query.http",
    "extensions.jaeger_query.grpc",
)
START_S_MAX = 30.0
STARTS_MAX = 3
"""Ports are free when they are chosen; now and then another process is quicker."""
ARRIVE_S_MAX = 20.0
ANSWER_S_MAX = 60.0
TRACES_MAX = 1_500
POLL_S = 0.02
UNTIL_THE_PIPE_ENDS = (
    'exec 3<&0; "$@" </dev/null 3<&- & jaeger=$!; { cat <&3 >/dev/null; kill -9 $jaeger; } & wait $jaeger'
)


class Event(NamedTuple):
    """Something that happened in the time of a span; ``at`` in unix seconds."""

    name: str
    at: float
    attributes: Mapping[str, Any]


class Link(NamedTuple):
    """Another span that a span leads to."""

    trace_id: str
    span_id: str


class Span(NamedTuple):
    """A span. ``kind`` is ``client``, ``server``, ``internal``...; ``start`` and ``end`` in unix seconds."""

    trace_id: str
    id: str
    parent: str | None
    name: str
    service: str
    kind: str
    start: float
    end: float
    attributes: Mapping[str, Any]
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    error: bool


class Trace(NamedTuple):
    """The spans of one trace, in the order in which they began."""

    id: str
    spans: tuple[Span, ...]

    def all(self, name: str, service: str | None = None) -> list[Span]:
        """The spans of that name."""
        return [span for span in self.spans if span.name == name and service in (None, span.service)]

    def only(self, name: str, service: str | None = None) -> Span:
        """The one span of that name."""
        found = self.all(name, service)
        assert len(found) == 1, f"{len(found)} spans {name!r} of {service or 'any service'} in\n{self}"
        return found[0]

    def children(self, span: Span | None) -> list[Span]:
        """What hangs under a span; of None, the spans whose parent isn't in this trace."""
        known = {one.id for one in self.spans}
        return [
            one
            for one in self.spans
            if (one.parent == span.id if span is not None else one.parent not in known)
        ]

    def under(self, span: Span) -> Iterator[Span]:
        """All that hangs under a span, itself included."""
        yield span
        for child in self.children(span):
            yield from self.under(child)

    def __str__(self) -> str:
        """The tree, a line for each span: what a failing test shows."""

        def lines(span: Span | None, depth: int) -> Iterator[str]:
            for one in self.children(span):
                yield f"{'  ' * depth}{one.service}: {one.name} ({one.kind}{', error' if one.error else ''})"
                yield from lines(one, depth + 1)

        return "\n".join(lines(None, 0))


class Jaeger:
    """Runs ``program`` as docs/how-to/jaeger.yaml has it, on other ports, with a log in ``folder``.

    ``otlp_http`` and ``otlp_grpc`` are where spans are taken, ``url`` is where it is asked.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._log = folder / "jaeger.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.otlp_http = self.otlp_grpc = self.url = ""

    def start(self) -> None:
        """Start it, and return once it takes spans and answers questions."""
        for _ in range(STARTS_MAX):
            self._client = httpx.Client(timeout=ANSWER_S_MAX)
            places = [f"127.0.0.1:{free_port()}" for _ in ENDPOINTS]
            self.otlp_http, self.otlp_grpc, self.url = (f"http://{place}" for place in places[:3])
            command = [str(self._program), "--config", str(CONFIGURATION)]
            for endpoint, place in zip(ENDPOINTS, places, strict=True):
                command.append(f"--set={endpoint}.endpoint={place}")
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", UNTIL_THE_PIPE_ENDS, "sh", *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            if self._is_ready():
                return
            self.stop()
            said = self._log.read_text()[-4000:]
            assert "address already in use" in said, f"Jaeger did not start:\n{said}"
        raise AssertionError(f"{STARTS_MAX} times another process was quicker to take Jaeger's ports")

    def stop(self) -> None:
        """End it, and with it all that it knows."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.wait(START_S_MAX)
        self._client.close()

    def _is_ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                # An export of nothing: the receivers start before or after the part that answers.
                nothing: dict[str, Any] = {"resourceSpans": []}
                taken = self._client.post(f"{self.otlp_http}/v1/traces", json=nothing).is_success
                if taken and self._client.get(f"{self.url}/api/services").is_success:
                    return True
            except httpx.TransportError:
                time.sleep(POLL_S)
        return False

    # What it knows

    def services(self) -> list[str]:
        """The services that have sent spans."""
        return sorted(self._ask("/api/services") or [])

    def traces(
        self,
        service: str,
        tags: Mapping[str, Any] | None = None,
        *,
        operation: str | None = None,
        limit: int = TRACES_MAX,
    ) -> list[Trace]:
        """The traces in which a span of ``service`` (named ``operation``) has all these attributes."""
        question: dict[str, str | int] = {"service": service, "limit": limit}
        if operation is not None:
            question["operation"] = operation
        if tags:
            question["tags"] = json.dumps({key: _text(value) for key, value in tags.items()})
        return [_trace(one) for one in self._ask("/api/traces", question)]

    def trace(self, trace_id: str) -> Trace | None:
        """The trace with that id (32 hex digits), as far as it has arrived."""
        found = self._ask(f"/api/traces/{trace_id}")
        return _trace(found[0]) if found else None

    def wait_for(
        self,
        service: str,
        tags: Mapping[str, Any] | None = None,
        *,
        operation: str | None = None,
        until: Callable[[list[Trace]], bool] = bool,
        within_s: float = ARRIVE_S_MAX,
    ) -> list[Trace]:
        """:meth:`traces`, once they are as ``until`` wants them: what is sent takes its time to arrive."""
        deadline = time.monotonic() + within_s
        while not until(found := self.traces(service, tags, operation=operation)):
            trees = "\n\n".join(map(str, found))
            assert time.monotonic() < deadline, f"{service} {tags}: after {within_s} s there is\n{trees}"
            time.sleep(POLL_S)
        return found

    def _ask(self, path: str, question: Mapping[str, str | int] | None = None) -> Any:
        answer = self._client.get(f"{self.url}{path}", params=question)
        if answer.status_code == 404:
            return []
        assert answer.is_success, f"{answer.url} gave {answer.status_code}: {answer.text[:1000]}"
        return answer.json()["data"]


def _text(value: Any) -> str:
    """An attribute's value as it is searched for."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _trace(found: Mapping[str, Any]) -> Trace:
    services = {key: process["serviceName"] for key, process in found["processes"].items()}
    spans = [_span(span, services[span["processID"]]) for span in found["spans"]]
    return Trace(found["traceID"], tuple(sorted(spans, key=lambda span: span.start)))


def _span(found: Mapping[str, Any], service: str) -> Span:
    attributes = _values(found["tags"])
    parents = [one for one in found["references"] if one["refType"] == "CHILD_OF"]
    return Span(
        found["traceID"],
        found["spanID"],
        parents[0]["spanID"] if parents else None,
        found["operationName"],
        service,
        attributes.pop("span.kind", "internal"),
        found["startTime"] / 1e6,
        (found["startTime"] + found["duration"]) / 1e6,
        attributes,
        tuple(_event(log) for log in found["logs"]),
        tuple(Link(one["traceID"], one["spanID"]) for one in found["references"] if one not in parents),
        attributes.get("otel.status_code") == "ERROR",
    )


def _event(log: Mapping[str, Any]) -> Event:
    attributes = _values(log["fields"])
    return Event(attributes.pop("event", ""), log["timestamp"] / 1e6, attributes)


def _values(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: pair["value"] for pair in pairs}
