"""The command line on a ledger that a real Fabric network keeps: domains, wallets, and what goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from support.cli import Cli
from support.settled import PAYEE, PAYER, TP, TRACE, settle
from tokenmesh.cli.rules import deploy_rules
from tokenmesh.fabric.network import Network, available
from tokenmesh.identity import Wallet

pytestmark = pytest.mark.timeout(1200)  # the first time, Fabric is built


class FabricCli(Cli):
    """Runs ``tokenmesh`` in one home, on one channel of a network."""

    def __init__(self, home: Path, profile: Path, channel: str) -> None:
        super().__init__(home)
        self.profile = profile
        self.url = f"fabric:///{profile}?channel={channel}"

    def run(self, *args: str, stdin: str | None = None) -> object:  # type: ignore[override]
        ledger = [] if "--ledger" in args else ["--ledger", self.url]
        return super().run(*args, *ledger, stdin=stdin)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    missing = available()
    if missing is not None:
        pytest.skip(missing)
    network = Network(tmp_path_factory.mktemp("fabric"), channels=("mesh", "empty"), batch_timeout_ms=20)
    try:
        network.up()
        deploy_rules(network)
        yield network
    finally:
        network.clean()


@pytest.fixture(scope="module")
def cli(network: Network, tmp_path_factory: pytest.TempPathFactory) -> FabricCli:
    """A domain on the channel ``mesh``: governance has 1000 tokens, shop 10 of them."""
    cli = FabricCli(tmp_path_factory.mktemp("home"), network.layout.profile, "mesh")
    said = cli("init", "--supply", "1000")
    assert said.startswith(f"Made in {cli.home}: wallet 'governance', ledger, 1,000 tokens.")
    cli("wallet", "create", "shop", "--tokens", "10", "--url", "http://127.0.0.1:8000")
    return cli


def certificate(cli: Cli, name: str) -> x509.Certificate:
    pem = Wallet.load(cli.home, name).certificate_pem
    return x509.load_pem_x509_certificate(pem.encode())


def issued_by(network: Network, organisation: str, certificate: x509.Certificate) -> bool:
    authority = x509.load_pem_x509_certificate(network.layout.ca_certificate(organisation).read_bytes())
    return bool(authority.subject == certificate.issuer)


def test_wallets_get_their_certificates_from_the_organisations_authorities(
    cli: FabricCli, network: Network
) -> None:
    """The governor's from governance, the service's from services; the home has no authority of its own."""
    assert issued_by(network, "governance", certificate(cli, "governance"))
    assert issued_by(network, "services", certificate(cli, "shop"))
    assert Wallet.load(cli.home, "governance").role == "governor"
    assert Wallet.load(cli.home, "shop").role == "service"
    assert not (cli.home / "ca").exists()
    folder = network.layout.identity("services", "shop")
    assert sorted(file.name for file in folder.rglob("*") if file.is_file()) == [
        "ca.crt",
        "tls.crt",
        "tls.key",
    ]
    assert (folder / "tls" / "tls.key").stat().st_mode & 0o077 == 0


def test_what_reads_and_what_governs_works_as_on_any_ledger(cli: FabricCli) -> None:
    """Grants, freezes, policy, proposals, history, supply."""
    before = cli.total("shop")
    cli("grant", "shop", "5")
    assert cli.total("shop") == before + 5
    cli("freeze", "shop")
    frozen = cli.json("wallet", "show", "shop")
    assert frozen["frozen_since"] >= frozen["frozen_at"] > 0
    cli("unfreeze", "shop")
    assert cli.json("wallet", "show", "shop")["frozen_at"] is None
    cli("policy", "set", "propagation_s=7")
    policy = cli.json("policy", "show")
    assert policy["propagation_s"] == 7
    assert policy["since"] >= frozen["frozen_since"]
    assert cli.json("proposals") == []
    cli("mint", "100")
    cli("burn", "100")
    acts = [one["operations"][0]["act"] for one in cli.json("history", "--limit", "8")]
    assert acts == ["burn", "mint", "enforce", "set_policy", "unfreeze", "enforce", "freeze", "grant"]
    told = cli.json("balance")
    assert told["supply"]["conserved"]
    assert {one["name"] for one in cli.json("wallet", "list")} >= {"governance", "shop"}
    assert "no settlement carries" in cli.refused("contract", "show", "A" * 22)


def test_a_settled_contract_leads_to_its_trace(cli: FabricCli) -> None:
    """From Fabric's transaction, though its document is not in the listing, and from the contract."""
    cli("wallet", "create", PAYER, "--tokens", "300")
    cli("wallet", "create", PAYEE)
    ids = settle(cli.home, cli.url, 15, tps=[TP] * 12)
    template = "http://localhost:16686/trace/{trace_id}"
    (newest,) = cli.json("history", "--limit", "1", "--trace-url", template)
    (settlement,) = newest["operations"]
    assert settlement["arg"] is None
    link = f"http://localhost:16686/trace/{TRACE}"
    assert [(one["id"], one["trace_url"]) for one in settlement["contracts"]] == [(jti, link) for jti in ids]
    assert cli("history", "--limit", "1", "--trace-url", template).count(link) == 12
    (shown,) = cli.json("contract", "show", ids[0], "--trace-url", template)
    assert (shown["trace"], shown["trace_url"], shown["tx_id"]) == (TRACE, link, newest["tx_id"])
    shown_text = cli("contract", "show", ids[0], "--trace-url", template)
    assert link in shown_text
    assert newest["tx_id"] in shown_text


def test_init_again_changes_nothing_and_another_home_is_refused(cli: FabricCli, tmp_path: Path) -> None:
    minted = cli.json("balance")["supply"]["minted"]
    assert cli("init").startswith(f"Already there, nothing changed: {cli.url} with {minted:,} tokens")
    stranger = FabricCli(tmp_path / "other", cli.profile, "mesh")
    assert "governed by another key" in stranger.refused("init")


def test_a_second_governor_approves(cli: FabricCli) -> None:
    """With a threshold of two, nobody mints alone: both governors sign, with keys of governance's CA."""
    cli("wallet", "create", "deputy", "--governor")
    cli("policy", "set", "threshold=2")
    said = cli("mint", "3")
    proposal = re.search(r"as (\S+)\.", said)
    assert proposal is not None
    minted = cli.json("balance")["supply"]["minted"]
    cli("approve", proposal[1], "--as", "deputy")
    assert cli.json("balance")["supply"]["minted"] == minted + 3
    said = cli("policy", "set", "threshold=1")
    proposal = re.search(r"as (\S+)\.", said)
    assert proposal is not None
    cli("approve", proposal[1], "--as", "deputy")


def test_rotation_enrolls_anew(cli: FabricCli, network: Network) -> None:
    """Another key and certificate by the same CA, known to the ledger; for TLS the key stays."""
    tls = network.layout.identity("services", "shop") / "tls"
    before, key, connected = (
        certificate(cli, "shop"),
        (tls / "tls.key").read_text(),
        (tls / "tls.crt").read_text(),
    )
    cli("wallet", "rotate", "shop")
    after = certificate(cli, "shop")
    assert before.public_key() != after.public_key()
    assert issued_by(network, "services", after)
    assert cli.json("wallet", "show", "shop")["certificates"][-1]["x5t"] == Wallet.load(cli.home, "shop").x5t
    assert (tls / "tls.key").read_text() == key
    assert (tls / "tls.crt").read_text() != connected
    cli("wallet", "rotate", "shop", "--as", "governance")
    assert certificate(cli, "shop").serial_number != after.serial_number
    assert Wallet.load(cli.home, "shop").role == "service"


def test_a_revoked_key_is_refused_by_the_rules_and_by_fabric_itself(cli: FabricCli, network: Network) -> None:
    """The channel has the CA's list; a governor gives the wallet a new key, with which it goes on."""
    cli("wallet", "create", "stolen", "--tokens", "5")
    x5t = Wallet.load(cli.home, "stolen").x5t
    said = cli("wallet", "revoke", "stolen")
    assert f"Certificate {x5t} of stolen is revoked" in said
    assert "The CA of services has it on its revocation list.\nThe channels refuse it too." in said
    update = ("wallet", "update", "stolen", "--url", "http://127.0.0.1:1", "--as", "stolen")
    assert "Traceback" not in cli.refused(*update)
    cli("wallet", "rotate", "stolen", "--as", "governance")
    assert Wallet.load(cli.home, "stolen").role == "service"
    cli(*update)
    assert cli.json("wallet", "show", "stolen")["url"] == "http://127.0.0.1:1"


def test_a_key_with_a_passphrase_lies_nowhere_in_the_open(
    cli: FabricCli, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENMESH_PASSPHRASE", "secret")
    cli("wallet", "create", "vault")
    public = Wallet.load(cli.home, "vault").certificate_pem
    own = x509.load_pem_x509_certificate(public.encode()).public_key()
    for file in (*cli.home.rglob("*.pem"), *network.home.rglob("identities/vault/**/*")):
        text = file.read_bytes() if file.is_file() else b""
        if b"PRIVATE KEY" in text and b"ENCRYPTED" not in text:
            assert load_pem_private_key(text, None).public_key() != own
    cli("wallet", "update", "vault", "--url", "http://127.0.0.1:1", "--as", "vault")


def test_the_organisation_of_a_wallet_can_be_said(cli: FabricCli, network: Network) -> None:
    cli("wallet", "create", "auditor", "--organisation", "governance")
    assert issued_by(network, "governance", certificate(cli, "auditor"))
    own = Cli(cli.home / "embedded")
    own("init")
    said = own.refused("wallet", "create", "a", "--organisation", "services")
    assert "--organisation is for ledgers on Fabric" in said


def test_an_init_that_broke_off_is_finished(network: Network, tmp_path: Path) -> None:
    """The wallet was there, the ledger wasn't. On the second channel, beside the ledger on the first."""
    cli = FabricCli(tmp_path / "home", network.layout.profile, "empty")
    assert "no ledger has begun in chaincode tokenmesh on channel empty" in cli.refused("balance")
    missing = network.layout.profile.parent / "nowhere.yaml"
    assert "there is no profile" in cli.refused("init", "--ledger", f"fabric:///{missing}")
    cli.refused("init", "--ledger", changed(cli, tmp_path, channels__mesh__chaincode="other"))
    key = Wallet.load(cli.home, "governance").x5t
    assert cli("init", "--supply", "0").startswith(f"Made in {cli.home}: ledger.")
    assert cli("init", "--supply", "5").startswith(f"Made in {cli.home}: 5 tokens.")
    assert Wallet.load(cli.home, "governance").x5t == key


def test_a_home_of_another_authority_cannot_govern(network: Network, tmp_path: Path) -> None:
    """A wallet that the home's own authority has issued is none of a Fabric ledger's."""
    Cli(tmp_path / "home")("init")
    cli = FabricCli(tmp_path / "home", network.layout.profile, "mesh")
    assert "governed by another key" in cli.refused("init")
    assert "which is no organisation's CA" in cli.refused("wallet", "rotate", "governance")


def test_names_that_the_authority_knows_otherwise_are_not_taken_over(
    cli: FabricCli, network: Network
) -> None:
    """Nobody becomes the organisation's admin by way of a wallet; the admin's own identity is untouched."""
    for name in ("admin", "registrar"):
        said = cli.refused("wallet", "create", name)
        assert f"{name} is known to https://127.0.0.1:" in said
        assert "and is no wallet: take another name" in said
        assert not (cli.home / "wallets" / name).exists()
    network.restart("peer0.services")
    cli("wallet", "update", "shop", "--url", "http://127.0.0.1:2")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?channel=other", "has no channel 'other'"),
        ("", "say which by ?channel="),
        ("?chanel=mesh", "is 'channel' meant?"),
        ("?channel=mesh&organisation=nobody", "no organisation nobody; there are governance, services"),
        ("?channel=mesh&identity=nobody", "has no identity nobody"),
    ],
)
def test_a_url_that_does_not_fit_is_said(cli: FabricCli, query: str, message: str) -> None:
    assert message in cli.refused("balance", "--ledger", f"fabric:///{cli.profile}{query}")


def changed(cli: FabricCli, tmp_path: Path, **places: object) -> str:
    """The url of a profile in which something else stands at the places named ``a__b``."""
    content = yaml.safe_load(cli.profile.read_text())
    for organisation in content["organisations"].values():
        for field in ("tls_ca", "identities"):
            organisation[field] = str(cli.profile.parent / organisation[field])
    for path, value in places.items():
        *above, last = path.split("__")
        target = content
        for part in above:
            target = target[part]
        target[last] = value
    profile = tmp_path / "changed.yaml"
    profile.write_text(yaml.safe_dump(content))
    return f"fabric:///{profile}?channel=mesh"


def test_a_wrong_ca_is_said(cli: FabricCli, network: Network, tmp_path: Path) -> None:
    """TLS of fabric-ca signed by another authority than the profile says; peers: tests/fabric."""
    wrong = network.layout.ca_certificate("governance").read_text()
    url = changed(cli, tmp_path, organisations__services__ca__tls_ca=wrong)
    said = cli.refused("wallet", "create", "cart", "--ledger", url)
    assert "cannot be reached" in said
    assert "is tls_ca the certificate that signed its own?" in said


def test_a_profile_without_ca_registrar_or_folder_is_said(cli: FabricCli, tmp_path: Path) -> None:
    content = yaml.safe_load(cli.profile.read_text())["organisations"]["services"]
    without = {key: value for key, value in content.items() if key in ("msp_id", "peers", "orderers")}
    tls_ca = str(cli.profile.parent / content["tls_ca"])
    url = changed(cli, tmp_path, organisations__services={**without, "tls_ca": tls_ca})
    assert "does not say where services's fabric-ca is" in cli.refused(
        "wallet", "create", "x", "--ledger", url
    )
    with_ca = {**without, "tls_ca": tls_ca, "ca": content["ca"]}
    url = changed(cli, tmp_path, organisations__services=with_ca)
    assert "no folder of identities" in cli.refused("wallet", "create", "x", "--ledger", url)
    (tmp_path / "identities").mkdir()
    url = changed(
        cli, tmp_path, organisations__services={**with_ca, "identities": str(tmp_path / "identities")}
    )
    assert "has no identity registrar" in cli.refused("wallet", "create", "x", "--ledger", url)


def test_a_ca_that_is_down_is_said(cli: FabricCli, network: Network) -> None:
    """And nothing is left behind: once it is back, the same works."""
    network.stop("ca.services")
    try:
        assert "is it running" in cli.refused("wallet", "create", "cart")
        assert "is it running" in cli.refused("wallet", "rotate", "shop")
        assert cli.json("wallet", "show", "shop")
    finally:
        network.start("ca.services")
    cli("wallet", "create", "cart")
    cli("wallet", "rotate", "shop")


def test_chaincode_and_peers_that_are_down_are_said(cli: FabricCli, network: Network) -> None:
    """With one of both gone it can still be asked; with both gone each is named, and what to do."""
    for node in ("chaincode.tokenmesh.governance", "peer0.governance"):
        other = node.replace("governance", "services")
        network.stop(node)
        assert cli.json("balance", "shop")
        network.stop(other)
        said = cli.refused("balance", "shop")
        assert "cannot reach the chaincode: start it" in said or "the peer could not be reached" in said
        network.start(node)
        network.start(other)
    cli("grant", "shop", "1")


def test_a_wallet_that_is_revoked_gets_no_other_certificate(cli: FabricCli, network: Network) -> None:
    """Not by itself, for the channel does not know it any more; nor by a governor, for the CA refuses."""
    cli("wallet", "create", "thief")
    network.revoke("services", "thief")
    assert "revoked" in cli.refused("wallet", "rotate", "thief")
    assert "fabric-ca refused" in cli.refused("wallet", "rotate", "thief", "--as", "governance")
