"""tokenmesh: every service has a wallet, and a call costs tokens.

>>> from tokenmesh import calls, priced

:func:`priced` makes a Flask or FastAPI handler cost tokens, :func:`calls` pays for it. :class:`Mesh` is one
service's wallet, ledger and journal, for code that wants to say where they are. Errors are one tree, in
:mod:`tokenmesh.errors`.
"""

from tokenmesh.decorators import calls, charge, current_contract, priced
from tokenmesh.mesh import Mesh, default_mesh

__all__ = ["Mesh", "calls", "charge", "current_contract", "default_mesh", "priced"]
