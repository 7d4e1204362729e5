"""A facilitator for the peers of the lossy scoreboard: x402's HTTP interface, with the books in memory.

    python lossy_facilitator.py '{"port": 4021, "balances": {"0x...": 1000000}}'

It stands in for the chain as well: it takes EIP-3009 authorizations (USDC on Base Sepolia), checks signature,
recipient, amount, time, nonce and balance as the token's contract does, and moves the amount at once. That is
kinder than a real chain, where a settlement takes seconds in which a second use still looks good. Runs in the
environment of a peer: standard library and eth-account.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data

NETWORK = "eip155:84532"
CHAIN_ID = 84532
ASSET = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
DOMAIN = {"name": "USDC", "version": "2", "chainId": CHAIN_ID, "verifyingContract": ASSET}
TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


class Books:
    """Who has how much, and which authorizations were used."""

    def __init__(self, balances: dict[str, int]) -> None:
        self._lock = threading.Lock()
        self.balances = {address.lower(): amount for address, amount in balances.items()}
        self.settled: dict[str, int] = {}

    def fault(self, payload: dict[str, Any], requirements: dict[str, Any]) -> str | None:
        """Why an authorization would not be taken now, in x402's words; None if it would."""
        authorization = payload["payload"]["authorization"]
        if (requirements["scheme"], requirements["network"]) != ("exact", NETWORK):
            return "unsupported_scheme"
        if requirements["asset"].lower() != ASSET.lower():
            return "invalid_exact_evm_asset"
        if authorization["to"].lower() != requirements["payTo"].lower():
            return "invalid_exact_evm_payload_recipient_mismatch"
        if int(authorization["value"]) != int(requirements["amount"]):
            return "invalid_exact_evm_payload_authorization_value"
        if not int(authorization["validAfter"]) <= time.time() < int(authorization["validBefore"]):
            return "invalid_exact_evm_payload_authorization_valid_before"
        if _signer(authorization, payload["payload"]["signature"]) != authorization["from"].lower():
            return "invalid_exact_evm_payload_signature"
        if authorization["nonce"].lower() in self.settled:
            return "invalid_exact_evm_nonce_already_used"
        if self.balances.get(authorization["from"].lower(), 0) < int(authorization["value"]):
            return "insufficient_funds"
        return None

    def settle(self, payload: dict[str, Any], requirements: dict[str, Any]) -> str | None:
        """Move the amount, once for each authorization; why not, if it was not moved."""
        authorization = payload["payload"]["authorization"]
        with self._lock:
            fault = self.fault(payload, requirements)
            if fault is None:
                value, payee = int(authorization["value"]), authorization["to"].lower()
                self.balances[authorization["from"].lower()] -= value
                self.balances[payee] = self.balances.get(payee, 0) + value
                self.settled[authorization["nonce"].lower()] = value
        return fault


def _signer(authorization: dict[str, Any], signature: str) -> str:
    message = {
        **{name: authorization[name] for name in ("from", "to")},
        **{name: int(authorization[name]) for name in ("value", "validAfter", "validBefore")},
        "nonce": bytes.fromhex(authorization["nonce"].removeprefix("0x")),
    }
    signable = encode_typed_data(domain_data=DOMAIN, message_types=TYPES, message_data=message)
    return str(Account.recover_message(signable, signature=signature)).lower()


class Facilitator(BaseHTTPRequestHandler):
    """``/supported``, ``/verify`` and ``/settle`` as x402 has them, and ``/books`` for the judge."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    books: Books

    def do_GET(self) -> None:
        kind = {"x402Version": 2, "scheme": "exact", "network": NETWORK}
        self._answer(
            {"balances": self.books.balances, "settled": self.books.settled}
            if self.path == "/books"
            else {"kinds": [kind], "extensions": [], "signers": {}}
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        payload, requirements = body["paymentPayload"], body["paymentRequirements"]
        payer = payload["payload"]["authorization"]["from"]
        if self.path == "/verify":
            fault = self.books.fault(payload, requirements)
            reason = {"invalidReason": fault} if fault else {}
            self._answer({"isValid": fault is None, "payer": payer, **reason})
            return
        fault = self.books.settle(payload, requirements)
        reason = {"errorReason": fault} if fault else {}
        nonce = payload["payload"]["authorization"]["nonce"]
        transaction = "" if fault else "0x" + hashlib.sha256(nonce.encode()).hexdigest()
        settled = {"success": fault is None, "transaction": transaction, "network": NETWORK, "payer": payer}
        self._answer({**settled, **reason})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    Facilitator.books = Books(chosen["balances"])
    _Server(("127.0.0.1", chosen["port"]), Facilitator).serve_forever()
