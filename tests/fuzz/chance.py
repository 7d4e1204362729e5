"""Where a fuzzed input comes from: choices that follow from one seed, and ways to spoil what was good.

One input is one :class:`Chance`. Its seed names it (``documents/7/123``: target, seed, number), so whatever
was found is found again by that name alone, on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

HOSTILE_TEXTS: Final = (
    "",
    " ",
    "\x00",
    "a" * 64,
    "a" * 65,
    "A" * 5_000,
    "hold",
    "..",
    "../../etc/passwd",
    "%00",
    "%",
    "%zz",
    "{}",
    "{symbol}",
    "null",
    "' OR 1=1 --",
    "\r\nX-Injected: 1",
    "\u2028",
    "é",
    "\U0001f600",
    "\ud800",
    "٣",
    "1e9",
    "-1",
    "NaN",
    "https://example.test",
)
HOSTILE_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**53 - 1,
    2**53,
    2**63,
    2**64,
    -(2**63) - 1,
    10**16,
    10**400,
    0.0,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [None],
    [[[[[[[[[[]]]]]]]]]],
    {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}},
)
HOSTILE_BYTES: Final = (
    b"",
    b"\x00",
    b"\xff",
    b"\x80",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b".",
    b"..",
    b"~",
    b"=",
    b"+/",
    b"\r\n",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[" * 9,
    b"[" * 2_000,
    b"{" * 9,
    b"0",
    b"-",
    b"1e5",
    b"NaN",
    b"null",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
)


class Chance:
    """The choices of one input."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._random = random.Random(name)

    def below(self, number: int) -> int:
        """A whole number from 0 up to, not with, ``number``; small ones are as likely as large ones."""
        if number <= 1:
            return 0
        if self._random.random() < 0.5:
            number = min(number, 1 << self._random.randrange(number.bit_length() + 1))
        return int(self._random.random() * number)

    def one_in(self, number: int) -> bool:
        return self._random.random() * number < 1

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._random.random() * len(choices))]

    def bytes(self, most: int) -> bytes:
        return self._random.randbytes(self.below(most + 1))

    def text(self) -> str:
        """Something that nobody would send who means well."""
        if self.one_in(3):
            return self.bytes(40).decode("latin-1")
        return self.pick(HOSTILE_TEXTS)

    def value(self) -> Any:
        """Something of JSON, of any type."""
        kind = self.below(4)
        if kind == 0:
            return self.text()
        if kind == 1:
            return self._random.randrange(-(2**20), 2**70) >> self._random.randrange(71)
        return self.pick(HOSTILE_VALUES)

    def spoil(self, data: bytes, times: int = 3) -> bytes:
        """``data`` with some of its bytes changed, taken away, doubled, moved or added to."""
        for _ in range(1 + self.below(times)):
            data = self.pick(_WAYS)(self, data)
        return data

    def spoil_json(self, value: Any) -> Any:
        """``value`` with something changed at one place in it; what was given is left as it was."""
        if isinstance(value, dict) and value and not self.one_in(8):
            name = self.pick(list(value))
            changed = dict(value)
            way = self.below(8)
            if way == 0:
                del changed[name]
            elif way == 1:
                changed[self.text()] = self.value()
            elif way == 2:
                changed[name + self.pick(("", " ", "\x00", "s"))] = changed.pop(name)
            elif way == 3:
                changed[name] = changed[self.pick(list(changed))]
            else:
                changed[name] = self.spoil_json(value[name])
            return changed
        if isinstance(value, list) and value and not self.one_in(8):
            at = self.below(len(value))
            way = self.below(5)
            if way == 0:
                return value[:at] + value[at + 1 :]
            if way == 1:
                return value[:at] + [value[at]] * (1 + self.below(40)) + value[at:]
            if way == 2:
                return [*value, self.value()]
            return [*value[:at], self.spoil_json(value[at]), *value[at + 1 :]]
        if isinstance(value, str) and value and self.one_in(2):
            return self.spoil(value.encode("utf-8", "surrogatepass"), 1).decode("utf-8", "surrogateescape")
        if type(value) is int and self.one_in(2):
            return value + self.pick((-1, 1, 256, -value, 2**32, 10**6))
        return self.value()


def _flip(chance: Chance, data: bytes) -> bytes:
    if not data:
        return b"\x00"
    at = chance.below(len(data))
    return data[:at] + bytes((data[at] ^ (1 << chance.below(8)),)) + data[at + 1 :]


def _set(chance: Chance, data: bytes) -> bytes:
    at = chance.below(len(data) + 1)
    return data[:at] + chance.bytes(1) + data[at + 1 :]


def _cut(chance: Chance, data: bytes) -> bytes:
    start = chance.below(len(data) + 1)
    return data[:start] + data[start + 1 + chance.below(len(data)) :]


def _truncate(chance: Chance, data: bytes) -> bytes:
    return data[: chance.below(len(data) + 1)]


def _insert(chance: Chance, data: bytes) -> bytes:
    at = chance.below(len(data) + 1)
    return data[:at] + chance.pick(HOSTILE_BYTES) + data[at:]


def _overwrite(chance: Chance, data: bytes) -> bytes:
    at, new = chance.below(len(data) + 1), chance.pick(HOSTILE_BYTES)
    return data[:at] + new + data[at + len(new) :]


def _double(chance: Chance, data: bytes) -> bytes:
    start = chance.below(len(data) + 1)
    piece = data[start : start + 1 + chance.below(64)]
    return data[:start] + piece * (1 + chance.below(8)) + data[start:]


def _swap(chance: Chance, data: bytes) -> bytes:
    first, second = sorted((chance.below(len(data) + 1), chance.below(len(data) + 1)))
    return data[second:] + data[first:second] + data[:first]


def _case(chance: Chance, data: bytes) -> bytes:
    at = chance.below(len(data) + 1)
    return data[:at] + data[at : at + 1].swapcase() + data[at + 1 :]


_WAYS: Final[tuple[Callable[[Chance, bytes], bytes], ...]] = (
    _flip,
    _set,
    _cut,
    _truncate,
    _insert,
    _overwrite,
    _double,
    _swap,
    _case,
)
