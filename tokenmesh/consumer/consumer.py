"""The payer's side of a call, for any transport: everything that waits is a step (:mod:`tokenmesh.steps`).

Besides futures and sleeps, a call yields ``Send``, ``Ask`` and ``ReadBody``, which its driver carries out
(:mod:`tokenmesh.clients.base`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from urllib.parse import urlsplit

from tokenmesh.config import Settings
from tokenmesh.consumer.answers import Answers, Pending
from tokenmesh.consumer.call import Call
from tokenmesh.consumer.messages import (
    Ask,
    CallOptions,
    InResponse,
    OutRequest,
    TransportFailed,
)
from tokenmesh.consumer.offers import NO_OFFERS, OFFERS_PATH, Offer, OfferBook, Offers, Shelf, parse_offers
from tokenmesh.consumer.outcomes import Again, outcome_of, why
from tokenmesh.consumer.receipts import ReceiptChecker
from tokenmesh.consumer.unanswered import Unanswered
from tokenmesh.errors import LedgerError, Unreachable
from tokenmesh.identity import Wallet
from tokenmesh.ledger.base import Ledger
from tokenmesh.places import without_secrets
from tokenmesh.retry import FullJitter, Policy, Tries, stop_by_default
from tokenmesh.steps import Steps, wait
from tokenmesh.telemetry import CallWatch, about, log
from tokenmesh.treasury import Treasury
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract

OFFERS_AGAIN_S = 5.0
"""How soon a service's offers are asked for again after that gave nothing."""

_log = log("tokenmesh.consumer")


class Consumer:
    """Makes paying calls for one wallet. Any number of threads and event loops may use it at once."""

    def __init__(
        self,
        wallet: Wallet,
        ledger: Ledger,
        treasury: Treasury,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
        ids: Callable[[], str] = documents.new_id,
        salts: Callable[[], str] = documents.new_salt,
    ) -> None:
        self.settings = settings or Settings()
        self.payer = wallet.name
        self.domain = ledger.domain
        self.treasury = treasury
        self.clock = clock
        self.ids = ids
        self.book = OfferBook(self.settings.offers_cache_max)
        self.unanswered = Unanswered(self.settings.unanswered_max, self.settings.unanswered_s, monotonic)
        self.receipts = ReceiptChecker(wallet.name, ledger, self.settings, clock)
        self.answers = Answers(treasury, self.receipts, clock)
        self._wallet = wallet
        self._salts = salts
        self._ledger = ledger
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._policy = Policy(
            stop=stop_by_default(
                self.settings.retry_attempts_max, self.settings.retry_s_max, self.settings.retry_wait_s_max
            ),
            wait=FullJitter(longest=self.settings.retry_wait_s_max, chance=chance),
        )

    def call(
        self, service: str, request: OutRequest, options: CallOptions, *, follow_up: bool = True
    ) -> Steps[InResponse]:
        """Send ``request`` to ``service``, with a contract if the operation is priced, until it is answered.

        ``follow_up``: whether a request of the mesh's own may come after the response to this one, as the
        question for a stream's receipt. Raises :class:`tokenmesh.errors.CallError`, which says whether
        tokens were spent.
        """
        tries = Tries(options.retry or self._policy, request.method, self._monotonic)
        call = Call(self, service, request, options, tries, follow_up=follow_up)
        watch = call.watch = CallWatch.begin(self.payer, service)
        if watch is None:
            try:
                return (yield from call.run())
            finally:
                call.end()
        try:
            response = yield from call.run()
        except BaseException as error:
            watch.end(why(error, None), outcome_of(error))
            raise
        else:
            if response.pending is None:
                watch.end(why(None, response) if response.status >= 400 else None)
            return response
        finally:
            watch.leave()
            call.end()

    def conclude(self, pending: Pending) -> Steps[None]:
        """Check a streamed response that was read to its end. Raises :class:`ReceiptInvalid`."""
        watch = pending.call.watch
        if watch is None:
            return (yield from self.answers.conclude(pending))
        watch.enter()
        try:
            yield from self.answers.conclude(pending)
        except BaseException as error:
            watch.end(why(error, None), outcome_of(error))
            raise
        finally:
            watch.leave()
            watch.end(otherwise="unknown")

    def abandon(self, pending: Pending) -> None:
        """Let go of a streamed response that was not read to its end."""
        self.answers.abandon(pending)
        if pending.call.watch is not None:
            pending.call.watch.end(otherwise="unknown")

    def url_of(self, service: str, url: str | None = None) -> Steps[str]:
        """Where ``service`` is: ``url`` if given, else as set in the environment, else its wallet's url.

        Raises :class:`Unreachable`.
        """
        found = url or self.settings.urls.get(service)
        cause = None
        if not found:
            try:
                record = yield from wait(self._ledger.wallet(service))
                found = None if record is None else record.url
            except LedgerError as error:
                cause = error
        if found and found.startswith(("http://", "https://")):
            return found.rstrip("/")
        variable = f"TOKENMESH_URL_{service.upper().replace('-', '_')}"
        said = f" (the ledger did not answer: {cause})" if cause else ""
        raise Unreachable(
            f"no url of {service!r} is known{said}: give url='http://...' where the client is made, set "
            f"{variable}, or register it with 'tokenmesh wallet create {service} --url ...' on the ledger "
            f"{self.ledger_url}, where its calls are paid",
            service=service,
        ) from cause

    def sign(self, contract: Contract, *, private: bool = False) -> str:
        """The contract, signed with the wallet's newest key; a ``private`` one with its disclosure."""
        self._wallet.reload()
        if not private:
            return documents.sign(contract, self._wallet)
        concealed, disclosure = documents.conceal(contract, self._salts())
        return documents.present(documents.sign(concealed, self._wallet), disclosure)

    @property
    def ledger_url(self) -> str:
        """Which ledger this consumer pays on, for messages."""
        return without_secrets(self.settings.ledger)

    # Offers

    def find_offer(self, call: Call) -> Steps[Offer | None]:
        """What the payee asks for a call, None if it offers no such operation."""
        offers = yield from self._offers(call, call.shelf)
        path = call.path
        prefix = urlsplit(call.options.url).path.rstrip("/")
        if prefix and path.startswith(prefix + "/"):
            # Behind a proxy that takes a prefix away, the service knows nothing of it.
            found = offers.match(call.request.method, path.removeprefix(prefix))
            if found is not None:
                return found
        return offers.match(call.request.method, path)

    def _offers(self, call: Call, shelf: Shelf) -> Steps[Offers]:
        """What the payee offers: as known, or asked for once for all who want to know at the same time."""
        while True:
            if shelf.offers is not None and self.clock() - shelf.read_at < self.settings.offers_cache_s:
                return shelf.offers
            with self._lock:
                asking = shelf.asking
                if asking is None:
                    shelf.asking = mine = Future[TransportFailed | None]()
            if asking is None:
                return (yield from self._ask(call, shelf, mine))
            if shelf.offers is not None:
                return shelf.offers  # a little old, and someone else is at it
            failure = yield from wait(asking)
            if failure is not None:
                raise Again(call.unreachable(failure)) from failure

    def _ask(self, call: Call, shelf: Shelf, asking: Future[TransportFailed | None]) -> Steps[Offers]:
        """Ask for the offers. Whoever waits for ``asking`` is told, even if this call is cancelled."""
        failed = None
        try:
            response: InResponse = yield Ask(call.options.url + OFFERS_PATH)
            return self._read(call, shelf, response)
        except TransportFailed as failure:
            failed = failure
            if shelf.offers is None:
                raise Again(call.unreachable(failure)) from failure
            shelf.read_at = self.clock() - self.settings.offers_cache_s + OFFERS_AGAIN_S
            return shelf.offers
        finally:
            shelf.asking = None
            asking.set_result(failed)

    def _read(self, call: Call, shelf: Shelf, response: InResponse) -> Offers:
        now = self.clock()
        try:
            if response.status == 200:
                shelf.offers, shelf.read_at = parse_offers(response.body or b""), now
                domains = shelf.offers.domains
                shelf.elsewhere = "" if domains is None or self.domain in domains else " and ".join(domains)
                if shelf.elsewhere:  # look again soon: a payee may begin to take another domain's contracts
                    shelf.read_at = now - self.settings.offers_cache_s + OFFERS_AGAIN_S
                return shelf.offers
        except ValueError as error:
            _log.warning(
                "the offers of %s at %s make no sense: %s",
                *(call.service, call.options.url, error),
                extra=about(payer=self.payer, payee=call.service),
            )
        if response.status == 404:
            shelf.offers, shelf.read_at = NO_OFFERS, now
            return shelf.offers
        # Without them a priced operation answers 402, which says what it costs.
        shelf.offers = shelf.offers or NO_OFFERS
        shelf.read_at = now - self.settings.offers_cache_s + OFFERS_AGAIN_S
        return shelf.offers
