"""`tokenmesh verify --ledger fabric:///…`: what is trusted, who is asked, and what it says when it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cli import Cli
from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import GOVERNANCE, Domain
from support.wallets import Clock
from tokenmesh.fabric.blocks import read_blocks, write_blocks
from tokenmesh.ledger.fabric.verify_url import NOTED

_numbers = count()


@pytest.fixture(scope="module")
def domain(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    domain = make_fabric_domain(rules, tmp_path_factory.mktemp("domain"), clock=Clock())
    domain.do(GOVERNANCE, "burn", {"tokens": 7})
    yield domain
    domain.ledger.close()


@contextmanager
def profile(rules: Rules, domain: Domain, **edits: Any) -> Iterator[str]:
    """The url of a profile beside the network's own, with the ledger's chaincode and what differs."""
    own = rules.network.layout.profile
    content = yaml.safe_load(own.read_text())
    content["channels"]["mesh"]["chaincode"] = domain.ledger.chaincode
    for path, value in edits.items():
        *above, last = path.split("__")
        place = content
        for name in above:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    file = own.with_name(f"profile-{next(_numbers)}.yaml")
    file.write_text(yaml.safe_dump(content))
    yield f"fabric:///{file}"
    file.unlink()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


def test_the_profile_says_what_to_trust(cli: Cli, rules: Rules, domain: Domain) -> None:
    """Exit 0, and in words what was replayed, on what it rests, and which other peers agree."""
    with profile(rules, domain) as url:
        said = cli("verify", "--ledger", url)
        assert "The ledger holds: " in said
        assert "the first block is the one that the profile names" in said
        assert "Peers with the same blocks: peer0.services." in said
        report = cli.json("verify", "--ledger", url)
    assert report["ok"] is True
    assert report["trust"] == "profile"
    assert report["genesis"] == rules.profile.channels["mesh"].genesis
    assert report["witnesses"] == ["peer0.services"]
    assert not (cli.home / "fabric" / NOTED).exists()


def test_another_first_block_than_the_trusted_one(cli: Cli, rules: Rules, domain: Domain) -> None:
    """That is no finding about the ledger: it is another channel. One line, exit 2."""
    with profile(rules, domain, channels__mesh__genesis="ab" * 32) as url:
        assert "another one than the one that is trusted" in cli.refused("verify", "--ledger", url)


def test_the_first_block_seen_is_noted_and_then_demanded(cli: Cli, rules: Rules, domain: Domain) -> None:
    """Where the profile does not name it: taken as it comes, which is said, and from then on the same."""
    with profile(rules, domain, channels__mesh__genesis=None) as url:
        assert cli.json("verify", "--ledger", url)["trust"] == "seen"
        assert cli.json("verify", "--ledger", url)["trust"] == "noted"
        noted = cli.home / "fabric" / NOTED
        noted.write_text(json.dumps(dict.fromkeys(json.loads(noted.read_text()), "00" * 32)))
        assert "another one than the one that is trusted" in cli.refused("verify", "--ledger", url)
        noted.write_text("nothing of that kind")
        assert "cannot be read" in cli.refused("verify", "--ledger", url)


def test_a_peer_that_is_gone_is_no_witness(cli: Cli, rules: Rules, domain: Domain) -> None:
    """Another peer is asked in its place; that it said nothing is a warning."""
    peers = {"peer0.governance": {"address": "127.0.0.1:1"}}
    with profile(rules, domain, organisations__governance__peers=peers) as url:
        result = cli.run("verify", "--ledger", url)
    assert result.exit_code == 0
    assert "the peer peer0.governance could not be asked" in result.stderr


def test_no_peer_at_all(cli: Cli, rules: Rules, domain: Domain) -> None:
    gone = {"peer": {"address": "127.0.0.1:1"}}
    edits = {f"organisations__{name}__peers": gone for name in ("governance", "services")}
    with profile(rules, domain, **edits) as url:
        assert "could be asked" in cli.refused("verify", "--ledger", url)


def test_blocks_from_a_file(cli: Cli, rules: Rules, domain: Domain, tmp_path: Path) -> None:
    """No peer is asked; a finding is exit 1 and names block and transaction."""
    with rules.connect() as gateway:
        blocks = list(read_blocks(gateway.get_network("mesh")))
    file = tmp_path / "blocks"
    write_blocks(file, iter(blocks))
    gone = {"peer": {"address": "127.0.0.1:1"}}
    with profile(rules, domain, organisations__governance__peers=gone) as url:
        assert cli.json("verify", "--ledger", url, "--blocks", str(file))["ok"] is True
        file.write_bytes(file.read_bytes().replace(b'{"tokens":-7}', b'{"tokens":-6}'))
        result = cli.run("verify", "--ledger", url, "--blocks", str(file))
    assert result.exit_code == 1
    assert "its transactions are not those that its header names" in result.stdout


def test_blocks_are_for_fabric(cli: Cli) -> None:
    cli("init")
    assert "--blocks is for a ledger on Fabric" in cli.refused("verify", "--blocks", str(cli.home))
