"""The commands of ``tokenmesh``, put together."""

from __future__ import annotations

import click

from tokenmesh.cli import checking, fabric, governance, reading, revoking, wallets
from tokenmesh.cli.demo.command import demo
from tokenmesh.cli.options import MeshGroup


@click.group(
    cls=MeshGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="tokenmesh-fabric", prog_name="tokenmesh")
def tokenmesh() -> None:
    """Wallets for services: calls that cost tokens, and the ledger on which they are paid.

    Exit codes: 0 fine, 1 a finding (verify), 2 anything else that goes wrong.
    """


wallets.wallet.add_command(revoking.revoke)

for _command in (
    wallets.init,
    wallets.wallet,
    governance.mint,
    governance.burn,
    governance.grant,
    governance.freeze,
    governance.unfreeze,
    governance.policy,
    governance.enforce,
    governance.proposals,
    governance.approve,
    reading.balance,
    reading.history,
    reading.contract,
    checking.verify,
    checking.bench,
    demo,
    fabric.fabric,
):
    tokenmesh.add_command(_command)
