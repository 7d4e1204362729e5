"""A ledger by its url: where it is, who carries operations there, and why it cannot be opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import Domain, now_of
from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError, LedgerError
from tokenmesh.fabric.network.msp import read_msp
from tokenmesh.fabric.profile import load_profile
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger import open_ledger
from tokenmesh.ledger.base import Ledger
from tokenmesh.ledger.fabric.carrier import find_carrier
from tokenmesh.ledger.fabric.opening import Place, read_url


@pytest.fixture(scope="module")
def domain(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> Domain:
    """One domain for all tests here: they leave it as it was, but for some tokens."""
    domain = make_fabric_domain(rules, tmp_path_factory.mktemp("domain"))
    yield domain
    domain.ledger.close()


@pytest.fixture(scope="module")
def profile(rules: Rules, domain: Domain) -> Path:
    return rules.profile_of(domain.ledger.chaincode)


@pytest.fixture(scope="module")
def member(rules: Rules) -> Identity:
    """A wallet whose certificate an organisation of the network has issued: the services' own CA."""
    enrollment = read_msp(rules.network.identity("services", "service-m") / "msp")
    return Identity(enrollment.key, x509.load_pem_x509_certificate(enrollment.certificate.encode()))


def signer_of(ledger: Ledger, domain: Domain) -> str:
    """Who carried a transfer to the ledger."""
    text = domain.operation("service-a", "transfer", {"to": "service-b", "tokens": 1})
    (result,) = now_of(ledger.submit([text]))
    assert result.outcome.ok
    transaction = now_of(ledger.transaction(result.tx_id))
    assert transaction is not None
    return transaction.signer


def test_a_url_says_where_and_who() -> None:
    assert read_url("fabric:///a/profile.yaml") == Place("a/profile.yaml")
    assert read_url("fabric:////a/profile.yaml?channel=mesh&organisation=o&identity=i") == Place(
        "/a/profile.yaml", "mesh", "o", "i"
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("fabric://profile.yaml", "fabric:///path"),
        ("fabric:///", "fabric:///path"),
        ("fabric:///p.yaml?chanel=mesh", "is 'channel' meant"),
        ("fabric:///p.yaml?channel=", "channel empty"),
        ("fabric:///nowhere/p.yaml", "there is no profile"),
    ],
)
def test_a_url_that_cannot_be_right_is_named(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_ledger(url, None)


def test_a_wallet_of_the_network_carries_its_own_operations(
    profile: Path, domain: Domain, member: Identity, tmp_path: Path
) -> None:
    """By its own certificate and key; and the index of the history lies in its home."""
    settings = Settings(home=tmp_path)
    with open_ledger(f"fabric:///{profile}", member, settings) as ledger:
        assert ledger.domain == domain.ledger.domain
        assert signer_of(ledger, domain) == "service-m"
    assert list((tmp_path / "fabric").glob("history-mesh-*.db"))


def test_for_any_other_wallet_the_profiles_client_does(profile: Path, domain: Domain) -> None:
    """One that no organisation of the network has issued a certificate for only signs its operations."""
    with open_ledger(f"fabric:///{profile}", domain["service-a"]) as ledger:
        assert signer_of(ledger, domain) == "admin"


def test_an_identity_of_the_profile_can_be_chosen(profile: Path, domain: Domain, member: Identity) -> None:
    with open_ledger(
        f"fabric:///{profile}?organisation=services&identity=service-m", domain["service-a"]
    ) as one:
        assert signer_of(one, domain) == "service-m"
    with open_ledger(f"fabric:///{profile}?organisation=governance", member) as other:
        assert signer_of(other, domain) == "admin", "governance has not issued this wallet's certificate"


def test_without_a_wallet_a_ledger_is_for_reading(profile: Path, domain: Domain) -> None:
    with open_ledger(f"fabric:///{profile}", None) as ledger:
        assert now_of(ledger.balance("service-b")).spendable == 0
        with pytest.raises(LedgerError, match="without a wallet"):
            now_of(
                ledger.submit([domain.operation("service-a", "transfer", {"to": "service-b", "tokens": 1})])
            )


def test_the_wallets_own_organisation_and_tls_pair_go_first(
    profile: Path, member: Identity, rules: Rules
) -> None:
    """Whichever organisation the profile's client is of; a rotated key has a certificate of the same CA."""
    loaded = load_profile(profile)
    carrier = find_carrier(loaded, member)
    assert (carrier.organisation, carrier.identity.msp_id) == ("services", "ServicesMSP")
    assert carrier.tls is not None
    assert carrier.tls.tls_certificate is not None
    assert carrier.tls.tls_certificate.is_relative_to(rules.network.layout.identity("services", "service-m"))


def test_a_wallet_whose_folder_is_not_at_hand_is_known_by_its_certificate(
    profile: Path, member: Identity, tmp_path: Path
) -> None:
    """Its organisation's CA is known from others; the TLS pair is that of the profile's client."""
    home = tmp_path / "copy"
    shutil.copytree(profile.parent, home, ignore=shutil.ignore_patterns("service-m", "*.sock"))
    carrier = find_carrier(load_profile(home / profile.name), member)
    assert (carrier.organisation, carrier.identity.msp_id) == ("services", "ServicesMSP")
    client = load_profile(home / profile.name).client()
    assert carrier.tls is not None
    assert (carrier.tls.tls_certificate, carrier.tls.tls_key) == (client.tls_certificate, client.tls_key)


def test_of_several_channels_one_is_to_be_named(profile: Path, domain: Domain) -> None:
    content = yaml.safe_load(profile.read_text())
    content["channels"]["bank"] = {"chaincode": "other"}
    path = profile.with_name("several.yaml")
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"bank, mesh.*\?channel="):
        open_ledger(f"fabric:///{path}", None)
    with pytest.raises(ConfigError, match="is 'mesh' meant"):
        open_ledger(f"fabric:///{path}?channel=mes", None)
    with open_ledger(f"fabric:///{path}?channel=mesh", None) as ledger:
        assert ledger.domain == domain.ledger.domain


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("organisation=nobody", "no organisation nobody; there are governance, services"),
        ("identity=nobody", "no identity nobody"),
    ],
)
def test_an_identity_that_is_not_there_is_named(profile: Path, query: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_ledger(f"fabric:///{profile}?{query}", None)


def test_a_chaincode_without_a_ledger_says_how_to_begin_one(rules: Rules) -> None:
    with pytest.raises(ConfigError, match="tokenmesh init"):
        open_ledger(f"fabric:///{rules.profile_of(rules.define())}", None)
