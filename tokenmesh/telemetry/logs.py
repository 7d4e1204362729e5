"""Log records with the ids of the trace and of the contract that they are about.

All of tokenmesh logs below the logger ``tokenmesh``, one name a room. What becomes of records is the
application's choice: nothing here adds a handler, sets a level or changes how records are made. Our own
records have the ids; the application's own get them from :class:`ContractIds`.

Fields, as attributes of a record: ``trace_id`` and ``span_id`` (hexadecimal), ``contract_id``, ``tx_id``,
``payer``, ``payee``, ``operation``. Never a body, a key or a signature.
"""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from opentelemetry import trace

from tokenmesh.errors import CallError
from tokenmesh.telemetry import switch
from tokenmesh_chaincode.documents import Contract, DocumentError, parse_contract, take_presented

FIELDS: Final = ("trace_id", "span_id", "contract_id", "tx_id", "payer", "payee", "operation")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records have the ids of what is under way; ``extra`` adds to them, and goes before."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**under_way(), **(kwargs.get("extra") or {})}}


def log(name: str) -> Log:
    """The logger of one of our rooms."""
    return Log(logging.getLogger(name))


def about(contract: Contract | str | None = None, **known: str | None) -> dict[str, str]:
    """The fields of a record about ``contract`` (or its signed text) and what else is ``known``."""
    fields = known if contract is None else {**_of_contract(contract), **known}
    return {name: value for name, value in fields.items() if value}


def under_way() -> dict[str, str]:
    """The fields of what is under way here: the current span, and the contract of the call or the handler."""
    fields = of_span(trace.get_current_span().get_span_context())
    paid = switch.paid_here()
    if paid is not None and paid.contract is not None:
        fields |= about(**_terms(paid.contract))
    return fields


def _of_contract(contract: Contract | str) -> dict[str, str | None]:
    """The trace is that of its call, whoever's thread this is."""
    if isinstance(contract, str):
        try:
            contract = parse_contract(take_presented(contract)[0]).body
        except DocumentError:
            return {}
    return {**of_span(switch.span_context(contract.tp)), **_terms(contract)}


def _terms(contract: Contract) -> dict[str, str | None]:
    return {
        "contract_id": contract.jti,
        "payer": contract.iss,
        "payee": contract.aud,
        "operation": contract.op,
    }


def of_span(context: trace.SpanContext | None) -> dict[str, str]:
    """The fields of a span."""
    if context is None or not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


# For applications


class ContractIds(logging.Filter):
    """Gives every record the fields that it has not yet: those of what is under way, "" where there is none.

    It belongs on a handler, so that it sees the records of all loggers; on a ``QueueHandler``, so that it
    runs where they are made. Of an error of a call that is logged (``exc_info``) the ids are taken too.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        # As long as somebody wants to know, contracts are in the context even without spans and metrics.
        switch.want_ids_in_logs(1)
        weakref.finalize(self, switch.want_ids_in_logs, -1).atexit = False

    def filter(self, record: logging.LogRecord) -> bool:
        fields = under_way()
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, CallError):
            fields |= about(contract_id=error.contract_id, tx_id=error.tx_id, payee=error.service)
        for field in FIELDS:
            if not hasattr(record, field):
                setattr(record, field, fields.get(field, ""))
        return super().filter(record)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: ``time`` (UTC), ``level``, ``logger``, ``message``, the fields that it
    has, what the application gave as ``extra``, and ``exception`` with its trace."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line |= {name: given.pop(name) for name in FIELDS if given.get(name)}
        line |= {name: value for name, value in given.items() if name not in FIELDS and name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str, ensure_ascii=False)


def json_handler(stream: TextIO | None = None) -> logging.Handler:
    """A handler that writes JSON lines with all ids to ``stream``, by default stderr::

    logging.basicConfig(level="INFO", handlers=[json_handler()])
    """
    handler = logging.StreamHandler(stream)
    handler.addFilter(ContractIds())
    handler.setFormatter(JsonFormatter())
    return handler
