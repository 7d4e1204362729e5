"""A payer and a payee in one process that know nothing of OpenTelemetry: for ``opentelemetry-instrument``.

``python untraced_shop.py HOME CALLS``, with the wallets ``shop`` and ``quotes``.
"""

from __future__ import annotations

import sys

import flask

from support.serving import serve_wsgi
from tokenmesh import Mesh, priced


def main(home: str, calls: int) -> None:
    with Mesh("quotes", home=home) as payee:
        app = flask.Flask("quotes")

        @app.get("/quote/<symbol>")
        @priced(tokens=5, mesh=payee)
        def quote(symbol: str) -> str:
            return symbol

        with (
            serve_wsgi(app) as url,
            Mesh("shop", home=home, urls={"quotes": url}) as payer,
            payer.client("quotes") as client,
        ):
            for _ in range(calls):
                client.get("/quote/ACME").raise_for_status()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
