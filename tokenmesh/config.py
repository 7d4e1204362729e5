"""Settings: where things are, and every limit of the running parts, each with a name.

A setting comes from an argument, else from its ``TOKENMESH_*`` environment variable, else from the default
here. A value that cannot be right, or a variable that nothing reads, is a :class:`ConfigError` at start-up
that names it: a limit misspelt in a deployment must not become the default in silence.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tokenmesh.errors import ConfigError
from tokenmesh.places import EXAMPLE, Place, read_domains

HOME = ".tokenmesh"
PREFIX = "TOKENMESH_"
URL_PREFIX = "TOKENMESH_URL_"
OTHER_VARIABLES = frozenset({"TOKENMESH_PASSPHRASE"})
"""Read elsewhere: a passphrase is no setting, so that no listing of the settings shows it."""
TRACE_ID = "{trace_id}"
"""What stands for the trace's id in ``trace_url``."""
_KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""What Kubernetes puts into every pod's environment for a Service whose name begins with ``tokenmesh``."""


def _limit(default: float, minimum: float, maximum: float) -> Any:
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. ``NAME`` is read from the environment variable ``TOKENMESH_NAME``.

    Units stand last in a name: ``_s`` seconds, ``_ms`` milliseconds, ``_bytes`` bytes; ``_max`` is a bound.

    Where things are:

    ``service``: the name of this process's own wallet. Without it nothing can be paid or earned.
    ``home``: the directory with keys and, unless said otherwise, ledger and journal.
    ``ledger``: the ledger's url; left out, ``sqlite:///HOME/ledger.db``.
    ``journal``: the journal's url; left out, ``sqlite:///HOME/journal-SERVICE.db``.
    ``urls``: where services are found, by name: ``TOKENMESH_URL_SERVICE_B`` is that of ``service-b``. It goes
    before the ``url`` that the service's wallet has on the ledger.
    ``domains``: which services are paid on another ledger than ``ledger``: a mapping (in the variable a JSON
    object) from a pattern of their names to that ledger's url; the first that fits decides.
    ``trace_url``: where a trace is to be seen, with ``{trace_id}`` in it, as the command line links to it.

    Contracts and what pays for them (payer):

    ``contract_ttl_s``: how long a contract is good for; all tries of one call fall within it.
    ``clock_skew_s``: by how much the clocks of payer and payee may differ.
    ``hold_ttl_s``: how long a hold for one call stays open when nobody captures it.
    ``allowance_calls``: an allowance is opened for about so many calls at the payee's offer.
    ``allowance_tokens_max``: the most tokens set aside in one allowance.
    ``allowance_ttl_s``: how long an allowance is open; what is left comes back after it.
    ``allowance_refill_at``: the part of an allowance that is left when a refill starts in the background.
    ``allowances_max``: how many allowances (payees) one process keeps open.
    ``sweep_interval_s``: how often refunds and earnings are swept into the spendable balance.
    ``sweep_batch_max``: how many credits one sweep takes in.

    Calls (payer):

    ``offers_cache_s``: how long a payee's offers are believed before they are asked for again.
    ``offers_cache_max``: offers of how many services are kept.
    ``timeout_s``: how long one try may take.
    ``retry_attempts_max``: tries of one call, the first included.
    ``retry_s_max``: seconds after which no further try is started.
    ``retry_wait_s_max``: the longest wait between two tries; a longer ``Retry-After`` ends the call.
    ``unanswered_max``: of how many calls without an answer the contract is kept, for the next same call.
    ``unanswered_s``: for how long it is kept; 0 keeps none.

    Requests and responses (payee):

    ``request_bytes_max``: the largest body of a priced request.
    ``response_bytes_max``: the largest response kept for replay; of larger ones the digest is kept.
    ``receipt_cache_max``: how many receipts are kept ready in memory.
    ``wallet_cache_s``: how long a payer's wallet is believed before the ledger is asked again.
    ``wallet_cache_max``: how many wallets and allowances are kept in memory.
    ``unknown_asked_max``: how often in a second the ledger is asked for wallets that are not known; half as
    often for what one payer names that is not there. Five times as often at once.
    ``policy_cache_s``: how long the policy is believed before the ledger is asked again.
    ``ledger_wait_s``: how long a request waits for the ledger before it is answered 503.

    Journal (payee):

    ``on_crash``: what a retry finds after the process that worked on its contract was killed: ``refuse``
    (the contract is void) or ``rerun`` (the handler runs again).
    ``lease_s``: how long after its last sign of life a process counts as dead.
    ``retention_s``: how long answered contracts and their responses are kept.
    ``journal_bytes_max``: the size at which the oldest settled entries go before their time.
    ``unsettled_max``: contracts waiting for settlement at which no new one is taken.
    ``journal_synchronous``: SQLite's ``synchronous``: ``NORMAL`` is safe against a killed process, ``FULL``
    against a power cut.

    Settlement (payee):

    ``settle_interval_s``: how long fulfilled contracts are collected before they are settled.
    ``settle_batch_max``: contracts in one settlement. More take more memory, and settle faster where a
    settlement waits for a block.
    ``settle_backoff_s_max``: the longest wait between tries while the ledger cannot be reached.
    ``close_s_max``: how long closing waits for the last settlement.

    Ledger:

    ``ledger_batch_max``: operations in one ledger transaction.
    ``ledger_batch_bytes_max``: bytes of operations in one ledger transaction.
    ``ledger_queue_max``: operations that may wait for the ledger; beyond it callers get ``LedgerBusy``.
    ``ledger_in_flight_max``: transactions of one process that are on their way to Fabric at once.
    ``ledger_busy_s_max``: how long one writer waits for the others on the same file.
    ``ledger_synchronous``: SQLite's ``synchronous`` for the ledger; ``FULL`` is what makes it durable.
    """

    service: str | None = None
    home: Path = Path(HOME)
    ledger: str = ""
    journal: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, Place] = field(default_factory=dict)
    trace_url: str = ""

    contract_ttl_s: float = _limit(60, 1, 86_400)
    clock_skew_s: float = _limit(5, 0, 300)
    hold_ttl_s: float = _limit(300, 1, 86_400)
    allowance_calls: int = _limit(1_000, 1, 10**9)
    allowance_tokens_max: int = _limit(1_000_000, 1, 2**53 - 1)
    allowance_ttl_s: float = _limit(3_600, 10, 30 * 86_400)
    allowance_refill_at: float = _limit(0.5, 0.01, 0.99)
    allowances_max: int = _limit(1_000, 1, 10**6)
    sweep_interval_s: float = _limit(5, 0.01, 86_400)
    sweep_batch_max: int = _limit(500, 1, 2_000)

    offers_cache_s: float = _limit(60, 0, 86_400)
    offers_cache_max: int = _limit(1_000, 1, 10**6)
    timeout_s: float = _limit(10, 0.01, 3_600)
    retry_attempts_max: int = _limit(10, 1, 1_000)
    retry_s_max: float = _limit(30, 0, 3_600)
    retry_wait_s_max: float = _limit(5, 0, 3_600)
    unanswered_max: int = _limit(1_000, 1, 10**6)
    unanswered_s: float = _limit(120, 0, 3_600)

    request_bytes_max: int = _limit(8 * 2**20, 0, 2**31)
    response_bytes_max: int = _limit(2**20, 0, 2**30)
    receipt_cache_max: int = _limit(10_000, 1, 10**7)
    wallet_cache_s: float = _limit(5, 0, 3_600)
    wallet_cache_max: int = _limit(10_000, 1, 10**7)
    unknown_asked_max: int = _limit(20, 1, 10**6)
    policy_cache_s: float = _limit(5, 0, 3_600)
    ledger_wait_s: float = _limit(5, 0.01, 600)

    on_crash: Literal["refuse", "rerun"] = "refuse"
    lease_s: float = _limit(10, 1, 3_600)
    retention_s: float = _limit(86_400, 60, 366 * 86_400)
    journal_bytes_max: int = _limit(2**30, 2**20, 2**50)
    unsettled_max: int = _limit(100_000, 1, 10**8)
    journal_synchronous: Literal["NORMAL", "FULL"] = "NORMAL"

    settle_interval_s: float = _limit(0.5, 0, 3_600)
    settle_batch_max: int = _limit(500, 1, 2_000)
    settle_backoff_s_max: float = _limit(30, 0.01, 3_600)
    close_s_max: float = _limit(10, 0, 3_600)

    ledger_batch_max: int = _limit(1_000, 1, 100_000)
    ledger_batch_bytes_max: int = _limit(8 * 2**20, 2**16, 2**30)
    ledger_queue_max: int = _limit(10_000, 1, 10**7)
    ledger_in_flight_max: int = _limit(3, 1, 100)
    ledger_busy_s_max: float = _limit(30, 0.01, 3_600)
    ledger_synchronous: Literal["FULL", "NORMAL"] = "FULL"

    def __post_init__(self) -> None:
        home = Path(self.home).expanduser().absolute()
        # Absolute, so that a service that changes its directory later keeps its wallet and its ledger.
        object.__setattr__(self, "home", home)
        if not self.ledger:
            object.__setattr__(self, "ledger", f"sqlite:///{home}/ledger.db")
        if not self.journal and self.service:
            object.__setattr__(self, "journal", f"sqlite:///{home}/journal-{self.service}.db")
        for name, url in self.urls.items():
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"the url of {name} is {url!r}: it must begin with http:// or https://")
        object.__setattr__(self, "domains", read_domains(self.domains, self.ledger))
        _check_trace_url(self.trace_url)
        for item in dataclasses.fields(self):
            _check(item, getattr(self, item.name))

    def at(self, place: Place) -> Settings:
        """These settings for another domain of the same Mesh."""
        return dataclasses.replace(
            self,
            ledger=place.ledger,
            home=place.home or self.home,
            journal=place.journal or self.journal,
            domains={},
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """The settings ``given`` (None: not given), else those in ``environ``, else the defaults.

        Raises :class:`ConfigError` for a value that cannot be right and for a name that does not exist, with
        the nearest one that does.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        urls: dict[str, str] = {}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES or _KUBERNETES.search(variable):
                continue
            if variable.startswith(URL_PREFIX):
                urls[variable.removeprefix(URL_PREFIX).lower().replace("_", "-")] = text.rstrip("/")
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in _TYPES or name == "urls" or variable != variable.upper():
                raise ConfigError(_unknown(variable))
            if text.strip():
                values[name] = _parse(variable, text.strip(), _TYPES[name])
        for name in given:
            if name not in _TYPES:
                near = difflib.get_close_matches(name, _TYPES, n=1, cutoff=0.6)
                raise ConfigError(
                    f"there is no setting {name!r}" + (f": is {near[0]!r} meant?" if near else "")
                )
        values |= {name: value for name, value in given.items() if value is not None}
        values["urls"] = {**urls, **values.get("urls", {})}
        return cls(**values)


_TYPES: Mapping[str, Any] = get_type_hints(Settings)


def variables() -> dict[str, str]:
    """The environment variable of every setting, by the setting's name."""
    return {name: URL_PREFIX + "SERVICE" if name == "urls" else PREFIX + name.upper() for name in _TYPES}


def _parse(variable: str, text: str, kind: Any) -> Any:
    """``text`` as the setting's type; whether it is in bounds is checked with all other values."""
    if get_origin(kind) is Mapping:
        return _parse_object(variable, text)
    if kind not in (int, float):
        return text
    try:
        return kind(text.replace("_", "") if kind is int else text)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{variable} is {text!r}: it must be {wanted}") from error


def _parse_object(variable: str, text: str) -> dict[str, Any]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ConfigError(f"{variable} names {repeated!r} twice")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=without_repeats)
    except ValueError as error:
        raise ConfigError(f"{variable} is no JSON: {error}. It is an object, as {EXAMPLE}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{variable} is {text!r}: it must be a JSON object, as {EXAMPLE}")
    return value


def _check(item: dataclasses.Field[Any], value: Any) -> None:
    kind = _TYPES[item.name]
    variable = PREFIX + item.name.upper()
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ConfigError(
            f"{item.name} ({variable}) is {value!r}: it must be one of {', '.join(get_args(kind))}"
        )
    if kind not in (int, float):
        return
    numbers = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise ConfigError(f"{item.name} ({variable}) is {value!r}: it must be a number")
    low, high = item.metadata["minimum"], item.metadata["maximum"]
    if not low <= value <= high:  # false for NaN too
        raise ConfigError(f"{item.name} ({variable}) is {value:g}: it must be from {low:g} to {high:g}")


def _check_trace_url(template: str) -> None:
    if not template:
        return
    good = template.startswith(("http://", "https://")) and template.isprintable() and " " not in template
    if not good or TRACE_ID not in template:
        raise ConfigError(
            f"trace_url (TOKENMESH_TRACE_URL, --trace-url) is {template!a}: it must be an http:// or "
            f"https:// URL with {TRACE_ID} in it, as http://localhost:16686/trace/{TRACE_ID}"
        )


def _unknown(variable: str) -> str:
    known = {name.removeprefix(PREFIX): name for name in (*variables().values(), *OTHER_VARIABLES)}
    near = difflib.get_close_matches(variable.upper().removeprefix(PREFIX), known, n=1, cutoff=0.6)
    advice = (
        f"is {known[near[0]]} meant?" if near else "docs/reference/configuration.md lists those that exist"
    )
    return f"tokenmesh reads no environment variable {ascii(variable)[1:-1]}: {advice}"
