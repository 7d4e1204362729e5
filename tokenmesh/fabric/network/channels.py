"""Channels of a local network: their first block, made with configtxgen from ``channel.yaml``."""

from __future__ import annotations

import copy
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.files import write_public
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.msp import CERTIFICATE, tls_files
from tokenmesh.fabric.network.plan import HOST, Plan, msp_id
from tokenmesh.fabric.network.tools import Tools, assets

Settings = dict[str, Any]

CONFIGTXGEN_TIMEOUT_S = 60
ABSOLUTE_BYTES = 64 * 2**20
"""The largest block; a single transaction may be as large."""


def write_first_block(layout: Layout, plan: Plan, channel: str, tools: Tools) -> None:
    """Make the first block of ``channel`` with configtxgen."""
    layout.channels.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.channels) as folder:
        made = Path(folder) / "first.block"
        write_public(Path(folder) / "configtx.yaml", yaml.safe_dump(_configtx(layout, plan), sort_keys=False))
        command = [str(tools.configtxgen), "-configPath", folder, "-profile", "Channel"]
        done = subprocess.run(
            [*command, "-channelID", channel, "-outputBlock", str(made)],
            capture_output=True,
            text=True,
            timeout=CONFIGTXGEN_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise NetworkError(f"configtxgen could not make channel {channel}: {done.stderr[-1500:].strip()}")
        write_public(layout.block(channel), made.read_bytes())


def _configtx(layout: Layout, plan: Plan) -> Settings:
    """``configtx.yaml``: the profile of every channel with this network's organisations and orderers."""
    base: Settings = yaml.safe_load((assets() / "channel.yaml").read_text())
    policies, capabilities = base["Policies"], base["Capabilities"]
    orderers = plan.of("orderer")
    ordering = list(dict.fromkeys(node.organisation for node in orderers))
    signed_by = ", ".join(f"'{msp_id(name)}.orderer'" for name in ordering)
    orderer: Settings = {
        "OrdererType": "BFT" if plan.spec.consensus == "bft" else "etcdraft",
        "BatchTimeout": f"{plan.spec.batch_timeout_ms}ms",
        "BatchSize": {
            "MaxMessageCount": plan.spec.batch_messages,
            "AbsoluteMaxBytes": ABSOLUTE_BYTES,
            "PreferredMaxBytes": plan.spec.batch_bytes,
        },
        "Organizations": [_organisation(layout, plan, name, base, orders=True) for name in ordering],
        "Policies": {
            **policies["Orderer"],
            "BlockValidation": {"Type": "Signature", "Rule": f"OR({signed_by})"},
        },
        "Capabilities": capabilities["Orderer"],
        **_consensus(layout, plan, base),
    }
    application = {
        "Organizations": [_organisation(layout, plan, name, base) for name in plan.spec.organisations],
        "Policies": policies["Application"],
        "Capabilities": capabilities["Application"],
    }
    profile = {
        "Policies": policies["Channel"],
        "Capabilities": capabilities["Channel"],
        "Orderer": orderer,
        "Application": application,
    }
    # Written without anchors: the tool reads the file more strictly than YAML is.
    return copy.deepcopy({"Profiles": {"Channel": profile}})


def _organisation(layout: Layout, plan: Plan, name: str, base: Settings, *, orders: bool = False) -> Settings:
    policies = base["OrganisationPolicies"]["Orderer" if orders else "Application"]
    organisation: Settings = {
        "Name": msp_id(name),
        "ID": msp_id(name),
        "MSPDir": str(layout.msp(name)),
        "Policies": {
            use: {**policy, "Rule": policy["Rule"].format(msp=msp_id(name))}
            for use, policy in policies.items()
        },
    }
    if orders:
        organisation["OrdererEndpoints"] = [node.address for node in plan.of("orderer", name)]
    else:
        organisation["AnchorPeers"] = [{"Host": HOST, "Port": node.port} for node in plan.of("peer", name)]
    return organisation


def _consensus(layout: Layout, plan: Plan, base: Settings) -> Settings:
    orderers = plan.of("orderer")
    consenters = []
    for number, node in enumerate(orderers, start=1):
        certificate = str(tls_files(layout.node(node) / "tls").certificate)
        consenter: Settings = {"Host": HOST, "Port": node.port}
        consenter |= {"ClientTLSCert": certificate, "ServerTLSCert": certificate}
        if plan.spec.consensus == "bft":
            identity = str(layout.node(node) / "msp" / CERTIFICATE)
            consenter |= {"ID": number, "MSPID": msp_id(node.organisation), "Identity": identity}
        consenters.append(consenter)
    if plan.spec.consensus == "bft":
        options = {
            "RequestBatchMaxInterval": f"{plan.spec.batch_timeout_ms}ms",
            "RequestBatchMaxCount": plan.spec.batch_messages,
            # Not batch_bytes: a request above this one would never get into any batch.
            "RequestBatchMaxBytes": ABSOLUTE_BYTES,
        }
        return {"ConsenterMapping": consenters, "SmartBFT": {**base["BFT"], **options}}
    raft = base["Raft"]["Alone" if len(orderers) == 1 else "Several"]
    return {"EtcdRaft": {"Consenters": consenters, "Options": raft}}
