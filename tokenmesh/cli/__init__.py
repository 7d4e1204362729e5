"""The command line ``tokenmesh``: one file a group of commands."""

from __future__ import annotations


def main() -> None:
    """Run the command line; the entry point of the script ``tokenmesh``."""
    # Here, so that the demo's services, which live in this package, load no command they never run.
    from tokenmesh.cli.app import tokenmesh

    tokenmesh()
