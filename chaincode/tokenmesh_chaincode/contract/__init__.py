"""The rules as a Fabric chaincode. It knows no shim: any object with what :class:`Stub` names will do."""

from tokenmesh_chaincode.contract.chaincode import TokenmeshContract, replay
from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.stub import Identity, Page, Row, Stub

__all__ = ["ContractError", "Identity", "Page", "Row", "Stub", "TokenmeshContract", "replay"]
