"""A local Fabric network: brought up, looked at, taken down."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenmesh.fabric.ca import Attribute
from tokenmesh.fabric.errors import NetworkBusy, NetworkError
from tokenmesh.fabric.files import private_folder
from tokenmesh.fabric.lifecycle import CHANNEL_POLICY, Collection
from tokenmesh.fabric.network import configuration, logs, organisations, ports, processes
from tokenmesh.fabric.network.bringup import Bringup, each, leader
from tokenmesh.fabric.network.chaincodes import give_keys
from tokenmesh.fabric.network.deploying import Deployment
from tokenmesh.fabric.network.gobuild import Progress
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.plan import (
    Chaincode,
    Node,
    Plan,
    Spec,
    msp_id,
    organisation_names,
    ports_needed,
)
from tokenmesh.fabric.network.profile import write_profile
from tokenmesh.fabric.network.status import NodeStatus, node_status
from tokenmesh.fabric.network.tools import find_tools
from tokenmesh.fabric.profile import Profile, load_profile

UPDATE_S = 30.0
"""How long a new configuration may take to reach every peer."""


def _quiet(what: str, done: float | None) -> None:
    """Progress that nobody looks at."""


class Network:
    """A network on this machine, all of it below ``home``.

    What is left out is as the network in ``home`` has it already, or else: organisations governance and
    services, one Raft orderer, one peer each, the channel ``mesh``. ``orgs`` is a number or names. A network
    keeps what it was made with: to ask for something else is an error until :meth:`clean`.
    Further ``options`` are the fields of :class:`~tokenmesh.fabric.network.plan.Spec`.
    """

    def __init__(
        self,
        home: str | Path,
        *,
        orgs: int | Sequence[str] | None = None,
        orderers: int | None = None,
        consensus: str | None = None,
        channels: Sequence[str] | None = None,
        environ: Mapping[str, str] = os.environ,
        **options: Any,
    ) -> None:
        self.layout = Layout(Path(home).resolve())
        self._environ = environ
        if orgs is not None:
            options["organisations"] = organisation_names(orgs) if isinstance(orgs, int) else tuple(orgs)
        if channels is not None:
            options["channels"] = tuple(channels)
        if consensus == "bft" and orderers is None:
            orderers = 4
        given = {"orderers": orderers, "consensus": consensus, **options}
        self._asked = {name: value for name, value in given.items() if value is not None}
        Spec(**self._asked).check()

    @property
    def home(self) -> Path:
        return self.layout.home

    @property
    def plan(self) -> Plan:
        """What the network consists of; :class:`NetworkError` before the first ``up``."""
        plan = Plan.load(self.layout.plan)
        if plan is None:
            raise NetworkError(f"there is no network in {self.home}; `tokenmesh fabric up` makes one")
        return plan

    @property
    def profile(self) -> Profile:
        """The network's profile, as its users load it."""
        return load_profile(self.layout.profile)

    # The network as a whole

    def up(self, progress: Progress = _quiet) -> Profile:
        """Bring all nodes up, make and join the channels that aren't there yet; the answer is the profile.

        Returns when each channel has a leader and each peer sees every organisation on it. Safe to repeat,
        also after a crash.
        """
        tools = find_tools(progress, self._environ)
        with self._locked():
            made = self.layout.profile.exists()
            if not made:
                self._begin()
            plan = self._planned()
            bringup = Bringup(self.layout, plan, tools, self._environ)
            progress("Starting the organisations' certificate authorities", 0.05)
            if made:
                bringup.start(plan.of("ca"))
            else:
                bringup.found()
                progress("Making the channels", 0.3)
                bringup.make_channels()
            progress("Starting orderers and peers", 0.4)
            bringup.start([*plan.of("orderer"), *plan.of("peer"), *self._services(plan)])
            progress("Joining the channels", 0.6)
            bringup.join()
            progress("Waiting until orderers and peers have found each other", 0.8)
            bringup.await_work()
            write_profile(self.layout, plan)
            logs.keep_short(self.layout)
            Deployment(self.layout, plan, tools, self._environ).take_up()
            progress("The network is up", 1.0)
        return self.profile

    def down(self) -> list[str]:
        """Stop all nodes; what they know stays. The answer names those that did not end and were killed."""
        if not self.layout.home.is_dir():
            return []
        with self._locked():
            return self._stop()

    def clean(self) -> None:
        """Stop all nodes and remove all they know: ledgers, keys, certificates."""
        if not self.layout.home.is_dir():
            return
        with self._locked():
            self._stop()
            self._remove()
        (self.home / "lock").unlink(missing_ok=True)
        if not any(self.home.iterdir()):
            self.home.rmdir()
        ports.give_back(self.home, self._environ)

    def status(self) -> list[NodeStatus]:
        """Every node as it is now. True after any crash."""
        plan = Plan.load(self.layout.plan)
        return [node_status(self.layout, node) for node in plan.everything] if plan is not None else []

    # One node

    def kill(self, name: str) -> None:
        """SIGKILL a node, as a crash would: for tests of what goes on without it."""
        processes.kill(self.plan.node(name).name, self.layout.run)

    def stop(self, name: str) -> None:
        """Stop one node in good order."""
        processes.stop([self.plan.node(name).name], self.layout.run)

    def start(self, name: str) -> None:
        """Start a node that isn't running, and wait until it answers."""
        plan = self.plan
        node = plan.node(name)
        tools = find_tools(_quiet, self._environ)
        with self._locked():
            Bringup(self.layout, plan, tools, self._environ).start([node])

    def restart(self, name: str) -> None:
        """Stop a node if it runs, start it, and wait until it answers."""
        self.stop(name)
        self.start(name)

    def leader(self, channel: str) -> str | None:
        """The orderer that leads a channel now, if one does."""
        return leader(self.layout, self.plan, channel)

    def identity(
        self, organisation: str, name: str, attributes: Iterable[Attribute] = (), kind: str = "client"
    ) -> Path:
        """The folder (``msp/``, ``tls/``) of an identity; enrolled at the CA if it isn't there yet."""
        return organisations.identity(
            self.layout, self.plan, organisation, name, attributes=attributes, kind=kind
        )

    def update_channel(self, channel: str, edit: Callable[[Any], None]) -> None:
        """Change a channel's configuration: ``edit`` gets its ``common.ConfigGroup``, and all admins sign.

        Returns when every peer goes by it.
        """
        plan = self.plan
        sequence = configuration.update(self.layout, plan, channel, edit)
        for node in plan.of("peer"):
            processes.wait_until(
                partial(configuration.has_sequence, self.layout, node, channel, sequence),
                f"going by configuration {sequence} of {channel}",
                name=node.name,
                run=self.layout.run,
                log=self.layout.log(node.name),
                within_s=UPDATE_S,
            )

    def revoke(self, organisation: str, name: str) -> None:
        """Revoke an identity at its CA, and have every channel refuse its certificates."""
        crl = organisations.revoke(self.layout, self.plan, organisation, name)
        for channel in self.plan.spec.channels:
            self.update_channel(channel, configuration.set_revoked(msp_id(organisation), crl))

    def peer_environment(self, organisation: str, name: str = organisations.ADMIN) -> dict[str, str]:
        """What Fabric's own ``peer`` program needs in its environment, to speak to the first peer."""
        peer = self.plan.of("peer", organisation)[0]
        folder = self.layout.identity(organisation, name)
        return {
            "FABRIC_CFG_PATH": str(self.layout.node(peer)),
            "CORE_PEER_ADDRESS": peer.address,
            "CORE_PEER_LOCALMSPID": msp_id(organisation),
            "CORE_PEER_MSPCONFIGPATH": str(folder / "msp"),
            "CORE_PEER_TLS_ENABLED": "true",
            "CORE_PEER_TLS_ROOTCERT_FILE": str(folder / "tls" / "ca.crt"),
            "CORE_PEER_TLS_CLIENTAUTHREQUIRED": "true",
            "CORE_PEER_TLS_CLIENTCERT_FILE": str(folder / "tls" / "tls.crt"),
            "CORE_PEER_TLS_CLIENTKEY_FILE": str(folder / "tls" / "tls.key"),
        }

    # Chaincode

    def deploy(
        self,
        name: str,
        *,
        command: Sequence[str],
        channels: Sequence[str] | None = None,
        endorsement_policy: str = CHANNEL_POLICY,
        collections: Sequence[Collection] = (),
        version: str = "1",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Run a chaincode: ``command`` as a service for each organisation, agreed on by all of them.

        On ``channels``, or on all. From then on the services are nodes as others are
        (``chaincode.NAME.ORGANISATION``). ``command`` finds what it has to know in ``CHAINCODE_ID``,
        ``CHAINCODE_SERVER_ADDRESS`` and ``CHAINCODE_TLS_…``, and in ``environ``. Returns when all peers can
        plan its endorsement. Safe to repeat; another command is taken up, another definition is for
        :meth:`upgrade`.
        """
        with self._locked():
            self._deployment(self.plan).give_up(name)
            plan = self.plan
            asked = Chaincode(
                name,
                tuple(command),
                tuple(plan.spec.channels if channels is None else channels),
                version,
                endorsement_policy,
                tuple(collections),
                dict(environ or {}),
            )
            asked.check(plan.spec)
            before = plan.chaincode(name)
            if before is not None and before.definition != asked.definition:
                raise NetworkError(
                    f"chaincode {name} is deployed with another definition (version {before.version}): "
                    "`Network.upgrade` changes it"
                )
            self._deployment(plan).put(asked)

    def upgrade(
        self,
        name: str,
        *,
        version: str,
        command: Sequence[str] | None = None,
        channels: Sequence[str] | None = None,
        endorsement_policy: str | None = None,
        collections: Sequence[Collection] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Agree on a new definition of a chaincode while it is in use. What is left out stays as it is.

        A new version has services of its own: they run beside those there are until it is in force on every
        channel. With the version that there is, only the definition changes. If it fails, the version before
        goes on; do it again, or with another command.
        """
        with self._locked():
            # One that broke off, perhaps because its command does not serve, gives way to this one.
            self._deployment(self.plan).give_up(name)
            plan = self.plan
            before = plan.in_force(name)
            given = {
                "command": tuple(command) if command is not None else None,
                "channels": tuple(channels) if channels is not None else None,
                "endorsement_policy": endorsement_policy,
                "collections": tuple(collections) if collections is not None else None,
                "environ": dict(environ) if environ is not None else None,
            }
            changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
            after = replace(before, version=version, **changes)
            after.check(plan.spec)
            deployment = self._deployment(plan)
            if version == before.version:
                deployment.put(after)
            else:
                deployment.replace(before, after)

    def undeploy(self, name: str) -> None:
        """End the services of a chaincode, and forget them. Its definition and state stay on the channels."""
        with self._locked():
            self._deployment(self.plan).remove(name)

    # What these stand on

    def _deployment(self, plan: Plan) -> Deployment:
        return Deployment(self.layout, plan, find_tools(_quiet, self._environ), self._environ)

    def _services(self, plan: Plan) -> list[Node]:
        """The services to be started with their peers, with the keys that a broken off `deploy` did not make.

        Where a version is on its way, :meth:`Deployment.take_up` starts them.
        """
        settled = [one for one in plan.chaincodes if plan.chaincode(one.name, following=True) is None]
        services = [service for one in settled for service in one.services]
        each(partial(give_keys, self.layout, plan), services)
        return services

    def _begin(self) -> None:
        """Nothing, or the remains of an ``up`` that did not come to its end: begin with an empty folder."""
        self._stop()
        self._remove()

    def _planned(self) -> Plan:
        plan = Plan.load(self.layout.plan)
        if plan is not None:
            self._check_unchanged(plan.spec)
            return plan
        spec = Spec(**self._asked)
        numbers = ports.take_ports(self.home, ports_needed(spec), base=spec.base_port, environ=self._environ)
        plan = Plan.make(spec, numbers)
        plan.save(self.layout.plan)
        return plan

    def _check_unchanged(self, kept: Spec) -> None:
        wanted = replace(kept, **self._asked)
        for name in self._asked:
            if getattr(wanted, name) != getattr(kept, name):
                raise NetworkError(
                    f"the network in {self.home} was made with {name} {_words(getattr(kept, name))}, not "
                    f"{_words(getattr(wanted, name))}; take another --home, or `tokenmesh fabric clean` first"
                )

    def _stop(self) -> list[str]:
        logs.stop_keeping(self.layout)
        names = [path.stem for path in self.layout.run.glob("*.pid")]
        return processes.stop(names, self.layout.run)

    def _remove(self) -> None:
        for folder in (
            self.layout.organisations,
            self.layout.channels,
            self.layout.builders,
            self.layout.run,
        ):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.home / "logs", ignore_errors=True)
        for file in (self.layout.profile, self.layout.plan):
            file.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time works on a network."""
        private_folder(self.home)
        with (self.home / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NetworkBusy(
                    f"another process works on the network in {self.home}; try again when it is done"
                ) from error
            try:
                yield
            finally:
                # At once: a process that is being forked just now holds the file open a moment longer.
                fcntl.flock(lock, fcntl.LOCK_UN)


def _words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
