"""What is fuzzed: a target takes one input after another, and raises when something is wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from fuzz.chance import Chance


class Target(ABC):
    """One door that strangers can knock at.

    ``share``: how many of a thousand inputs are for it. What :meth:`one` raises is a finding, whatever it
    is; refusals are caught in it. A target must do with one input what it does without those before.
    """

    name: ClassVar[str]
    share: ClassVar[int]

    @abstractmethod
    def __init__(self, directory: Path) -> None:
        """``directory`` is the target's own, and empty."""

    @abstractmethod
    def one(self, chance: Chance) -> None: ...

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back what was opened."""
