"""naming.json: digests, targets, derived ids and canonical JSON."""

from __future__ import annotations

from typing import Any

from vectors.parties import DOMAIN, segment

from tokenmesh_chaincode.documents import canonical, derived_id, digest, target

_BODIES = [b"", b"{}", b"hello", bytes(range(256))]
_TARGETS = [
    ("/quote/ACME", ""),
    ("", ""),
    ("/quote/%41CME", "a=1&b=%20"),
    ("/quote/a%2fb", ""),
    ("/caf%c3%a9", ""),
    ("/a%2541", ""),
    ("/a%zz", ""),
    ("/~a-b_c.d!$&'()*+,;=:@", "q=a+b&q=%2B"),
    ("/x", "?"),
]
_JOBS: list[tuple[str, str, str, int]] = [
    ("alice", "bob", "order-17", 0),
    ("alice", "bob", "order-17", 1),
    ("alice", "bob", 'quotes " and \\ and \u00e9 and \U0001f600', 0),
    ("bob", "alice", "order-17", 0),
]
_VALUES: list[Any] = [
    {},
    {"b": 1, "a": [True, None, "x"]},
    {"\u00e9": "line\nbreak\u0001", "e": {}},
    [2**53 - 1, -1],
]


def naming() -> dict[str, Any]:
    return {
        "about": "How both sides come to the same names. body is base64url; path and query as on the wire.",
        "digest": [{"body": segment(body), "digest": digest(body)} for body in _BODIES],
        "target": [{"path": path, "query": query, "target": target(path, query)} for path, query in _TARGETS],
        "derived_id": [
            {
                "dom": DOMAIN,
                "payer": payer,
                "payee": payee,
                "key": key,
                "generation": generation,
                "id": derived_id(DOMAIN, payer, payee, key, generation),
            }
            for payer, payee, key, generation in _JOBS
        ],
        "canonical": [{"value": value, "text": canonical(value).decode()} for value in _VALUES],
    }
