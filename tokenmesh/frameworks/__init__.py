"""Adapters for web frameworks: a request in, a response out; no rule of ours lives here.

Each is an entry point of the group ``tokenmesh.frameworks``, named as the framework's package is, and passes
the same tests as the others.
"""
