"""From a ledger's url to the ledger: ``fabric:///profile.yaml?channel=mesh``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import Gateway
from tokenmesh.fabric.profile import ChannelProfile, Profile, load_profile
from tokenmesh.ledger.fabric.carrier import connect_carrier, find_carrier
from tokenmesh.ledger.fabric.history import History, history_path
from tokenmesh.ledger.fabric.ledger import FabricLedger
from tokenmesh_chaincode.documents import Signer

SCHEME = "fabric:///"
PARAMETERS = ("channel", "organisation", "identity")


class Place(NamedTuple):
    """What a url says. ``channel`` need not be said where there is one; the others only if they differ."""

    profile: str
    channel: str | None = None
    organisation: str | None = None
    identity: str | None = None


def read_url(url: str) -> Place:
    """Take a url apart; four slashes are for an absolute path. Raises ``ConfigError``."""
    path, _, query = url.removeprefix(SCHEME).partition("?")
    if not url.startswith(SCHEME) or not path:
        raise ConfigError(f"the ledger's url is {url!r}: it must be fabric:///path/to/profile.yaml")
    given = parse_qsl(query, keep_blank_values=True)
    for name, value in given:
        if name not in PARAMETERS:
            raise ConfigError(f"the ledger's url has a parameter {name!r}: {_near(name, PARAMETERS)}")
        if not value:
            raise ConfigError(f"the ledger's url leaves {name} empty: name it, or leave it out")
    return Place(path, **dict(given))


def connect_place(place: Place, signer: Signer | None) -> tuple[Gateway, ChannelProfile, Profile]:
    """A gateway to the network at ``place``, as the wallet ``signer`` or as the profile's client.

    The connection is made at the first call. Raises ``ConfigError``.
    """
    try:
        profile = load_profile(place.profile)
        channel = find_channel(profile, place.channel)
        carrier = find_carrier(profile, signer, place.organisation, place.identity)
        return connect_carrier(profile, carrier), channel, profile
    except FabricError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"the profile {place.profile} cannot be used: {error}") from error


def open_fabric(url: str, signer: Signer | None, settings: Settings | None = None) -> FabricLedger:
    """The ledger at ``fabric:///path/to/profile.yaml``, with ``?channel=NAME`` where there are several.

    ``&organisation=`` and ``&identity=`` choose who of the profile's identities carries operations there.
    """
    gateway, channel, profile = connect_place(read_url(url), signer)
    options: dict[str, Any] = {"reading": signer is None, "wallet": signer.name if signer else None}
    if settings is not None:
        options |= {
            "batch_max": settings.ledger_batch_max,
            "batch_bytes_max": settings.ledger_batch_bytes_max,
            "queue_max": settings.ledger_queue_max,
            "in_flight_max": settings.ledger_in_flight_max,
            "history": History(
                gateway,
                channel.name,
                channel.chaincode,
                history_path(settings.home, channel.name, channel.chaincode, profile.path),
            ),
        }
    try:
        return FabricLedger(gateway, channel.name, channel.chaincode, **options)
    except BaseException:
        gateway.close()
        raise


def find_channel(profile: Profile, name: str | None) -> ChannelProfile:
    """The channel that is named, or the only one. Raises ``ConfigError``."""
    channels = profile.channels
    if name is None and len(channels) == 1:
        return next(iter(channels.values()))
    if name is None:
        raise ConfigError(
            f"{profile.path} has the channels {', '.join(channels)}: "
            "say which by ?channel= in the ledger's url"
        )
    if name not in channels:
        raise ConfigError(f"{profile.path} has no channel {name!r}: {_near(name, channels)}")
    return channels[name]


def _near(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"is {near[0]!r} meant?" if near else f"there are {', '.join(known)}"
