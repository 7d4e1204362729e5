"""Chance with a seed: the same seed brings the same shoppers, the same losses and the same victim."""

from __future__ import annotations

import random


def seeded(*parts: object) -> random.Random:
    """A source of chance of its own for whatever ``parts`` name, so that none disturbs another."""
    return random.Random(":".join(map(str, parts)))  # noqa: S311 - a demo's dice, nothing secret
