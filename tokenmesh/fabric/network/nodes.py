"""The configuration of peers and orderers: Fabric's samples, with what this network needs put over them."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tokenmesh.fabric.files import private_folder, write_private
from tokenmesh.fabric.network.chaincodes import service_environment
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.msp import tls_files
from tokenmesh.fabric.network.plan import HOST, Node, Plan, msp_id
from tokenmesh.fabric.network.tools import Tools, assets

Settings = dict[str, Any]

LOGGING = "warning"
PASSED_ON = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "TZ",
    "FABRIC_LOGGING_SPEC",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
)


def write_node(layout: Layout, plan: Plan, node: Node, tools: Tools) -> None:
    """Write ``core.yaml`` or ``orderer.yaml`` into the folder of the node."""
    name, over = (
        ("core.yaml", _peer(layout, plan, node))
        if node.kind == "peer"
        else ("orderer.yaml", _orderer(layout, plan, node))
    )
    sample: Settings = yaml.safe_load((tools.samples / name).read_text())
    settings = overlaid(sample, over)
    for path, value in (
        plan.spec.peer_settings if node.kind == "peer" else plan.spec.orderer_settings
    ).items():
        settings = overlaid(settings, _nested(path, value))
    private_folder(layout.node(node))
    write_private(layout.node(node) / name, yaml.safe_dump(settings, sort_keys=False))


def write_builders(layout: Layout) -> None:
    """The external builder for chaincode that runs as a service; executable, whatever unpacked it."""
    shutil.copytree(assets() / "builders", layout.builders, dirs_exist_ok=True)
    for program in layout.builders.glob("*/bin/*"):
        program.chmod(0o755)


def command(layout: Layout, plan: Plan, node: Node, tools: Tools) -> list[str]:
    """The command line of a node; all else is in its configuration."""
    if node.kind == "chaincode":
        return list(plan.served(node).command)
    if node.kind == "ca":
        return [str(tools.fabric_ca_server), "start", "--home", str(layout.node(node))]
    return [str(tools.peer), "node", "start"] if node.kind == "peer" else [str(tools.orderer)]


def environment(layout: Layout, plan: Plan, node: Node, environ: Mapping[str, str]) -> dict[str, str]:
    """What a node sees of the environment: none of the variables that would override its configuration."""
    kept = {name: environ[name] for name in PASSED_ON if name in environ}
    if node.kind == "chaincode":
        return {**kept, **service_environment(layout, plan.served(node), node)}
    return {"FABRIC_LOGGING_SPEC": LOGGING, **kept, "FABRIC_CFG_PATH": str(layout.node(node))}


def overlaid(below: Settings, over: Settings) -> Settings:
    """``below``, with the values of ``over`` put over it, mapping by mapping."""
    merged = copy.deepcopy(below)
    for name, value in over.items():
        under = merged.get(name)
        merged[name] = (
            overlaid(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
        )
    return merged


def _nested(path: str, value: object) -> Settings:
    """``peer.limits.x`` and a value, as mappings within mappings."""
    nested = value
    for part in reversed(path.split(".")):
        nested = {part: nested}
    return {**nested} if isinstance(nested, dict) else {}


def _peer(layout: Layout, plan: Plan, node: Node) -> Settings:
    tls = tls_files(layout.node(node) / "tls")
    data = layout.node(node) / "data"
    neighbours = [other.address for other in plan.of("peer", node.organisation) if other != node]
    roots = _paths(layout.ca_certificate(name) for name in plan.spec.organisations)
    return {
        "peer": {
            "id": node.name,
            "networkId": "tokenmesh",
            "listenAddress": node.address,
            "address": node.address,
            "chaincodeListenAddress": f"{HOST}:{node.ports['chaincode_listen']}",
            "gossip": {
                "bootstrap": neighbours or [node.address],
                "externalEndpoint": node.address,
                "useLeaderElection": False,
                "orgLeader": True,
                **GOSSIP,
            },
            "tls": {
                "enabled": True,
                "clientAuthRequired": plan.spec.mutual_tls,
                "cert": {"file": str(tls.certificate)},
                "key": {"file": str(tls.key)},
                "rootcert": {"file": str(tls.ca)},
                "clientRootCAs": {"files": roots},
                "clientCert": {"file": str(tls.certificate)},
                "clientKey": {"file": str(tls.key)},
            },
            "fileSystemPath": str(data),
            "mspConfigPath": str(layout.node(node) / "msp"),
            "localMspId": msp_id(node.organisation),
        },
        "vm": {"endpoint": ""},  # no Docker: chaincode runs as a service
        "chaincode": {
            "externalBuilders": [
                {"name": "ccaas", "path": str(layout.builders / "ccaas"), "propagateEnvironment": ["PATH"]}
            ]
        },
        "ledger": {"snapshots": {"rootDir": str(data / "snapshots")}},
        "operations": {
            "listenAddress": f"{HOST}:{node.ports['operations']}",
            "tls": {
                "enabled": True,
                "cert": {"file": str(tls.certificate)},
                "key": {"file": str(tls.key)},
                "clientAuthRequired": True,
                "clientRootCAs": {"files": [str(tls.ca)]},
            },
        },
        "metrics": {"provider": "prometheus"},
    }


GOSSIP: Settings = {
    # The defaults are for peers that are continents apart; here they would only make `up` slower.
    "aliveTimeInterval": "1s",
    "reconnectInterval": "2s",
    "membershipTrackerInterval": "2s",
    "publishStateInfoInterval": "1s",
    "requestStateInfoInterval": "1s",
    "publishCertPeriod": "2s",
}


def _orderer(layout: Layout, plan: Plan, node: Node) -> Settings:
    tls = tls_files(layout.node(node) / "tls")
    data = layout.node(node) / "data"
    roots = _paths(layout.ca_certificate(name) for name in plan.spec.organisations)
    own = {"Enabled": True, "Certificate": str(tls.certificate), "PrivateKey": str(tls.key)}
    return {
        "General": {
            "ListenAddress": HOST,
            "ListenPort": node.port,
            "TLS": {
                **own,
                "RootCAs": roots,
                "ClientAuthRequired": plan.spec.mutual_tls,
                "ClientRootCAs": roots,
            },
            "Cluster": {
                "ClientCertificate": str(tls.certificate),
                "ClientPrivateKey": str(tls.key),
                # Fabric 3.1.1's other policy asks for blocks without the hash of its TLS certificate, which
                # orderers refuse under mutual TLS: an orderer that was down would never catch up.
                "ReplicationPolicy": "simple" if plan.spec.mutual_tls else "consensus",
            },
            "LocalMSPDir": str(layout.node(node) / "msp"),
            "LocalMSPID": msp_id(node.organisation),
        },
        "FileLedger": {"Location": str(data)},
        "Operations": {
            "ListenAddress": f"{HOST}:{node.ports['operations']}",
            "TLS": {**own, "ClientAuthRequired": True, "ClientRootCAs": [str(tls.ca)]},
        },
        "Metrics": {"Provider": "prometheus"},
        "Admin": {
            "ListenAddress": f"{HOST}:{node.ports['admin']}",
            "TLS": {**own, "ClientAuthRequired": True, "ClientRootCAs": [str(tls.ca)]},
        },
        "ChannelParticipation": {"Enabled": True},
        "Consensus": {
            "WALDir": str(data / "etcdraft" / "wal"),
            "SnapDir": str(data / "etcdraft" / "snapshot"),
        },
    }


def _paths(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]
