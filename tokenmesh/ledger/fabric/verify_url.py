"""Verifying the ledger that a url names: by which peers' blocks, and from which first block on.

The hash of the channel's first block is all that is trusted. It stands in the profile
(``channels.NAME.genesis``); where it does not, the first one seen is noted under the home, and demanded from
then on.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tokenmesh.errors import ConfigError, LedgerError, LedgerUnavailable
from tokenmesh.fabric.blocks import ledger_info, read_block_files
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import Gateway, Tls, connect, read_identity, read_signer
from tokenmesh.fabric.profile import ChannelProfile, Profile, load_profile
from tokenmesh.ledger.fabric.opening import Place, find_channel, read_url
from tokenmesh.ledger.fabric.verify import Progress, Verified, verify_blocks, verify_fabric

NOTED = "first-blocks.json"
NOTED_BYTES_MAX = 2**20
WITNESSES_MAX = 16


class Anchor(NamedTuple):
    """What is trusted, and why: ``profile``, ``noted`` (when the channel was verified first), or ``seen``
    (just now, for the first time)."""

    genesis: str
    why: str


def verify_url(
    url: str, home: Path, progress: Progress | None = None, *, blocks: Path | None = None
) -> tuple[Verified, str]:
    """Verify the ledger at ``fabric:///profile.yaml?channel=…``; what was found, and :attr:`Anchor.why`.

    By the blocks of a peer of the client's own organisation, with the peers of all others as witnesses; or
    by those in the file or folder ``blocks``. Raises ``ConfigError`` and ``LedgerError``.
    """
    place = read_url(url)
    try:
        profile = load_profile(place.profile)
        channel = find_channel(profile, place.channel)
        noted = home / "fabric" / NOTED
        anchor = _anchor(profile, channel, noted)
        if blocks is not None:
            given = read_block_files(blocks)
            verified = verify_blocks(given, channel.chaincode, progress, genesis=anchor.genesis)
        else:
            with _peers(profile, place) as witnesses:
                gateway = witnesses.pop(_first_that_answers(witnesses, channel.name))
                verified = verify_fabric(
                    gateway,
                    channel.name,
                    channel.chaincode,
                    progress,
                    genesis=anchor.genesis,
                    witnesses=witnesses,
                )
    except FabricError as error:
        raise ConfigError(str(error)) from error
    except sqlite3.OperationalError as error:
        raise LedgerError(
            f"the state cannot be kept while it is replayed ({error}): is there room for temporary files? "
            "TMPDIR names another folder"
        ) from error
    if anchor.why == "seen" and verified.report.ok:
        # Where nothing can be written nothing is noted, and the next time says "seen" again.
        with suppress(OSError):
            _note(profile, channel, noted, verified.genesis)
    return verified, anchor.why


@contextmanager
def _peers(profile: Profile, place: Place) -> Iterator[dict[str, Gateway]]:
    """A gateway to each peer, by its name; those of the client's own organisation first."""
    files = profile.client(place.organisation, place.identity)
    identity = read_identity(files.msp_id, files.certificate)
    signer = read_signer(files.key)
    with ExitStack() as stack:
        yield {
            peer.name: stack.enter_context(
                connect(peer.address, identity, signer, tls=Tls.of(peer, files), commit_stream=False)
            )
            for peer in profile.peers[:WITNESSES_MAX]
        }


def _first_that_answers(gateways: Mapping[str, Gateway], channel: str) -> str:
    failure: FabricError | None = None
    for name, gateway in gateways.items():
        try:
            ledger_info(gateway.get_network(channel))
        except FabricError as error:
            failure = failure or error
        else:
            return name
    raise LedgerUnavailable(
        f"none of {', '.join(gateways) or 'no peers'} could be asked for the blocks of channel {channel}: "
        f"{failure}"
    )


def _anchor(profile: Profile, channel: ChannelProfile, noted: Path) -> Anchor:
    if channel.genesis:
        return Anchor(channel.genesis, "profile")
    genesis = _read(noted).get(_name(profile, channel), "")
    return Anchor(genesis, "noted" if genesis else "seen")


def _note(profile: Profile, channel: ChannelProfile, noted: Path, genesis: str) -> None:
    noted.parent.mkdir(parents=True, exist_ok=True)
    content = {**_read(noted), _name(profile, channel): genesis}
    noted.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _read(noted: Path) -> dict[str, str]:
    try:
        if noted.stat().st_size > NOTED_BYTES_MAX:
            raise ConfigError(f"{noted} is larger than {NOTED_BYTES_MAX} bytes: that is not what was noted")
        content = json.loads(noted.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{noted}, where first blocks are noted, cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{noted}, where first blocks are noted, holds something else")
    return {str(name): str(genesis) for name, genesis in content.items()}


def _name(profile: Profile, channel: ChannelProfile) -> str:
    return f"{profile.path}#{channel.name}"
