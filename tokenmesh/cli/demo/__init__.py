"""``tokenmesh demo``: a shop of ten services that pay each other, with trouble made on purpose.

The command is in ``command``, what it does in ``run``. Nothing is imported here: each service of the shop
is a process of its own that comes through this package.
"""
