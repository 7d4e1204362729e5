"""Free ports for a network, so that several run side by side and each keeps its own ports for good.

Ports are taken as one block, below the range from which the kernel gives outgoing connections theirs: else a
node that is down would lose its port to any passing connection. Blocks taken are noted in a file that all
networks of this user share, because a network that is down does not show by trying its ports.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.network.plan import HOST

LOWEST, HIGHEST = 10_000, 32_000
TRIES_MAX = 200


def take_ports(
    home: Path, count: int, *, base: int | None = None, environ: Mapping[str, str] = os.environ
) -> list[int]:
    """``count`` ports for the network in ``home``: from ``base`` on, or where so many are free in a row."""
    with _blocks(environ) as blocks:
        blocks.pop(str(home), None)
        if base is not None:
            _check_base(base, count, blocks)
        chosen = base if base is not None else _free_block(count, list(blocks.values()))
        blocks[str(home)] = (chosen, count)
    return list(range(chosen, chosen + count))


def give_back(home: Path, environ: Mapping[str, str] = os.environ) -> None:
    """The network in ``home`` is no more: others may have its ports."""
    with _blocks(environ) as blocks:
        blocks.pop(str(home), None)


def in_use(ports: list[int]) -> list[int]:
    """Those of ``ports`` on which something listens."""
    return [port for port in ports if not _is_free(port)]


def _check_base(base: int, count: int, blocks: Mapping[str, tuple[int, int]]) -> None:
    if not 1024 <= base <= 65_535 - count:
        raise NetworkError(
            f"base port {base}: the network needs {count} ports in a row between 1024 and 65535"
        )
    for other, block in blocks.items():
        if _overlap((base, count), block):
            raise NetworkError(
                f"base port {base}: {block[0]} to {sum(block) - 1} are ports of the network in {other}; "
                f"take --base-port {sum(block)}, or leave it out"
            )
    taken = in_use(list(range(base, base + count)))
    if taken:
        raise NetworkError(f"base port {base}: something else listens on {', '.join(map(str, taken))}")


def _free_block(count: int, taken: list[tuple[int, int]]) -> int:
    chooser = random.SystemRandom()
    for _ in range(TRIES_MAX):
        first = chooser.randrange(LOWEST, HIGHEST - count)
        if not any(_overlap((first, count), block) for block in taken) and not in_use(
            list(range(first, first + count))
        ):
            return first
    raise NetworkError(
        f"no {count} free ports in a row between {LOWEST} and {HIGHEST}; name some with --base-port"
    )


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < sum(other) and other[0] < sum(one)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextmanager
def _blocks(environ: Mapping[str, str]) -> Iterator[dict[str, tuple[int, int]]]:
    """The blocks taken, by the home of their network; locked while they are looked at and changed."""
    folder = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenmesh"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ports.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            kept = {home: (int(first), int(count)) for home, (first, count) in json.load(file).items()}
        except (ValueError, TypeError, AttributeError):
            kept = {}  # empty, or cut short by a crash: what listens is found all the same
        blocks = {home: block for home, block in kept.items() if Path(home).is_dir()}
        yield blocks
        file.seek(0)
        file.truncate()
        json.dump(blocks, file)
