"""Who of an organisation may begin a ledger: its administrators, as its certificate authority names them."""

from __future__ import annotations

from typing import Final

from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.stub import Identity

ADMINISTRATOR: Final = "admin"
TYPE_ATTRIBUTE: Final = "hf.Type"


def check_administrator(identity: Identity) -> None:
    """Refuse all but administrators: by the certificate's OU (Fabric's NodeOUs), or fabric-ca's attribute.

    The peer has checked that the organisation's authority issued the certificate before it asks us.
    """
    if ADMINISTRATOR in identity.units or identity.attributes.get(TYPE_ATTRIBUTE) == ADMINISTRATOR:
        return
    raise ContractError(
        "not_administrator",
        f"a ledger is begun by an administrator of an organisation, and this identity of {identity.mspid} is "
        f"none: its certificate has neither the OU {ADMINISTRATOR} nor {TYPE_ATTRIBUTE}={ADMINISTRATOR}",
    )
