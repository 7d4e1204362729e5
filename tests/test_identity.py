"""Identities: what is in the certificates, who can read the keys, and rotation under the feet of signers."""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tokenmesh import keyfiles
from tokenmesh.errors import ConfigError, IdentityError
from tokenmesh.identity import (
    CA_DAYS,
    EXPIRY_WARNING_DAYS,
    WALLET_DAYS,
    CertificateAuthority,
    Wallet,
    check_name,
    expiry_warning,
    finish_rotation,
    prepare_rotation,
    wallet_path,
)
from tokenmesh_chaincode.certificates import check_certificate

NOW = 1_800_000_000.0


def clock() -> float:
    return NOW


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def authority(home: Path) -> CertificateAuthority:
    return CertificateAuthority.create(home)


def holds(certificate_pem: str, signature: bytes, data: bytes) -> bool:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("name", ["a", "service-b", "x" * 63, "7", "a--b"])
def test_a_dns_label_names_a_wallet(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 64, "-a", "a-", "Service", "a_b", "a.b", "a/b", "..", "a\n", "ü", "a b", "a\x00"]
)
def test_anything_else_does_not_and_reaches_no_path(name: str, home: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name a wallet"):
        check_name(name)
    with pytest.raises(ConfigError):
        wallet_path(home, name)


def test_a_wallets_certificate_says_name_and_role_and_holds_for_a_year(home: Path) -> None:
    """CN and OU carry name and role, and the ledger's own check of certificates accepts it."""
    authority = CertificateAuthority.create(home, clock=clock)
    wallet = Wallet.create(home, "governance", authority, "governor")
    certificate = x509.load_pem_x509_certificate(wallet.certificate_pem.encode())
    assert certificate.subject.rfc4514_string() == "OU=governor,CN=governance"
    assert (wallet.name, wallet.role) == ("governance", "governor")
    assert wallet.not_after == datetime.fromtimestamp(NOW, UTC) + timedelta(days=WALLET_DAYS)
    assert authority.not_after == datetime.fromtimestamp(NOW, UTC) + timedelta(days=CA_DAYS)
    check_certificate(wallet.certificate_pem, [authority.certificate_pem], "governance", int(NOW))


def test_a_signature_is_64_bytes_that_the_certificate_verifies(
    home: Path, authority: CertificateAuthority
) -> None:
    wallet = Wallet.create(home, "a", authority)
    signature = wallet.sign(b"data")
    assert len(signature) == 64
    assert holds(wallet.certificate_pem, signature, b"data")
    assert not holds(wallet.certificate_pem, signature, b"other")


def test_a_loaded_wallet_is_the_one_that_was_made(home: Path, authority: CertificateAuthority) -> None:
    made = Wallet.create(home, "a", authority)
    loaded = Wallet.load(home, "a")
    assert (loaded.x5t, loaded.role) == (made.x5t, "service")
    assert holds(made.certificate_pem, loaded.sign(b"x"), b"x")


def test_no_wallet_outlives_its_authority(home: Path) -> None:
    """A certificate issued in the authority's last days ends with it, and afterwards none is issued."""
    CertificateAuthority.create(home, clock=clock)
    day = 86_400
    late = CertificateAuthority.load(home, clock=lambda: NOW + (CA_DAYS - 10) * day)
    assert late.new_identity("a").not_after == late.not_after
    over = CertificateAuthority.load(home, clock=lambda: NOW + (CA_DAYS + 1) * day)
    with pytest.raises(IdentityError, match="can issue nothing more"):
        over.new_identity("a")


def test_keys_and_directories_are_for_their_owner_only_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        Wallet.create(home, "a", CertificateAuthority.create(home))
    finally:
        os.umask(before)
    modes = {
        path.relative_to(home.parent).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in [home, *home.rglob("*")]
    }
    assert modes == {
        "home": 0o700,
        "home/ca": 0o700,
        "home/ca/identity.pem": 0o600,
        "home/wallets": 0o700,
        "home/wallets/a": 0o700,
        "home/wallets/a/identity.pem": 0o600,
    }


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(
    home: Path, authority: CertificateAuthority, mode: int
) -> None:
    path = Wallet.create(home, "a", authority).path
    path.chmod(mode)
    with pytest.raises(IdentityError) as caught:
        Wallet.load(home, "a")
    assert f"chmod 600 {path}" in str(caught.value)
    path.chmod(0o600)
    assert Wallet.load(home, "a").name == "a"


def test_a_key_that_others_could_replace_is_refused(home: Path, authority: CertificateAuthority) -> None:
    path = Wallet.create(home, "a", authority).path
    path.parent.chmod(0o770)
    with pytest.raises(IdentityError, match=f"chmod 700 {path.parent}"):
        Wallet.load(home, "a")


def test_nothing_is_overwritten(home: Path, authority: CertificateAuthority) -> None:
    first = Wallet.create(home, "a", authority)
    with pytest.raises(IdentityError, match="there already"):
        Wallet.create(home, "a", authority)
    with pytest.raises(IdentityError, match="there already"):
        CertificateAuthority.create(home)
    assert Wallet.load(home, "a").x5t == first.x5t
    assert [path.name for path in first.path.parent.iterdir()] == ["identity.pem"]


def test_a_write_that_fails_leaves_no_file(home: Path, authority: CertificateAuthority) -> None:
    """A full disk, say: neither half an identity nor a temporary file with a key stays behind."""
    with pytest.MonkeyPatch.context() as patch:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(IdentityError, match="No space left"):
            Wallet.create(home, "a", authority)
    assert list((home / "wallets" / "a").iterdir()) == []


def test_with_a_passphrase_the_key_is_encrypted(home: Path) -> None:
    authority = CertificateAuthority.create(home, passphrase=lambda: "open sesame")
    path = Wallet.create(home, "a", authority, passphrase=lambda: "open sesame").path
    assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    assert Wallet.load(home, "a", passphrase=lambda: "open sesame").name == "a"
    with pytest.raises(IdentityError, match="passphrase does not open"):
        Wallet.load(home, "a", passphrase=lambda: "wrong")
    with pytest.raises(IdentityError, match="set TOKENMESH_PASSPHRASE"):
        Wallet.load(home, "a", passphrase=lambda: None)


def test_the_passphrase_comes_from_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMESH_PASSPHRASE", "from outside")
    Wallet.create(home, "a", CertificateAuthority.create(home))
    assert Wallet.load(home, "a").name == "a"
    monkeypatch.delenv("TOKENMESH_PASSPHRASE")
    with pytest.raises(IdentityError, match="set TOKENMESH_PASSPHRASE"):
        Wallet.load(home, "a")


def test_a_key_without_encryption_asks_for_no_passphrase(home: Path, authority: CertificateAuthority) -> None:
    Wallet.create(home, "a", authority)

    def asked() -> str:
        raise AssertionError("asked for a passphrase that nothing needs")

    assert Wallet.load(home, "a", passphrase=asked).name == "a"


def test_a_file_that_is_no_identity_of_this_wallet_is_named(
    home: Path, authority: CertificateAuthority
) -> None:
    """Rubbish, another wallet's file, another key, another kind of key, too large, gone: each says what."""
    path = Wallet.create(home, "a", authority).path
    other = Wallet.create(home, "b", authority).path.read_bytes()
    rsa_key = rsa.generate_private_key(65_537, 2_048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    key, _, certificate = path.read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    cases = {
        b"": "does not hold a PEM key",
        b"\xff" * 100: "does not hold a PEM key",
        key: "does not hold a PEM key",
        other: "certificate of 'b', not of 'a'",
        other.partition(b"-----BEGIN CERTIFICATE-----")[0]
        + b"-----BEGIN CERTIFICATE-----"
        + certificate: "belongs to another key",
        rsa_key + b"-----BEGIN CERTIFICATE-----" + certificate: "not a P-256 key",
        b" " * (keyfiles.KEY_FILE_BYTES_MAX + 1): "larger than",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(IdentityError, match=message):
            Wallet.load(home, "a")
    path.unlink()
    with pytest.raises(IdentityError, match="tokenmesh wallet create a"):
        Wallet.load(home, "a")


def rotate(home: Path, wallet: Wallet, authority: CertificateAuthority) -> str:
    following = prepare_rotation(home, wallet, authority)
    finish_rotation(home, wallet.name)
    return following.x5t


def test_a_running_service_takes_up_a_rotated_identity(home: Path, authority: CertificateAuthority) -> None:
    """The file is looked at once a second at most; then the new key signs under the same name and role."""
    held = Clock()
    Wallet.create(home, "a", authority)
    wallet = Wallet.load(home, "a", clock=held)
    old = wallet.x5t
    new = rotate(home, wallet, authority)
    held.now += 0.9
    assert (wallet.reload(), wallet.x5t) == (False, old)
    held.now += 0.2
    assert (wallet.reload(), wallet.x5t) == (True, new)
    assert new != old
    assert holds(wallet.certificate_pem, wallet.sign(b"x"), b"x")
    held.now += 2
    assert wallet.reload() is False


def test_a_header_written_before_a_rotation_gets_the_signature_it_names(
    home: Path, authority: CertificateAuthority
) -> None:
    """x5t read, another thread reloads, then sign: the signature is the old key's; the next pair is new."""
    held = Clock()
    Wallet.create(home, "a", authority)
    wallet = Wallet.load(home, "a", clock=held)
    old_certificate, old_x5t = wallet.certificate_pem, wallet.x5t
    new_x5t = rotate(home, wallet, authority)
    held.now += 2
    reloader = threading.Thread(target=wallet.reload)
    reloader.start()
    reloader.join()
    assert old_x5t != new_x5t
    assert holds(old_certificate, wallet.sign(b"body"), b"body")
    assert wallet.x5t == new_x5t
    assert holds(wallet.certificate_pem, wallet.sign(b"body"), b"body")


def test_a_damaged_or_missing_file_leaves_a_running_service_its_identity(
    home: Path, authority: CertificateAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    held = Clock()
    Wallet.create(home, "a", authority)
    wallet = Wallet.load(home, "a", clock=held)
    x5t = wallet.x5t
    for damage in (lambda: wallet.path.write_bytes(b"rubbish"), wallet.path.unlink):
        damage()
        held.now += 2
        assert wallet.reload() is False
        assert (wallet.x5t, len(wallet.sign(b"x"))) == (x5t, 64)
        assert "goes on with the identity it has" in caplog.text
        caplog.clear()
        held.now += 2
        assert wallet.reload() is False
        assert caplog.text == ""


def test_a_rotation_that_broke_off_is_taken_up_with_the_same_key(
    home: Path, authority: CertificateAuthority
) -> None:
    """The ledger may know the new certificate already, so a second one would shut the wallet out."""
    wallet = Wallet.create(home, "a", authority)
    first = prepare_rotation(home, wallet, authority)
    assert Wallet.load(home, "a").x5t == wallet.x5t
    assert prepare_rotation(home, wallet, authority).x5t == first.x5t
    finish_rotation(home, "a")
    assert Wallet.load(home, "a").x5t == first.x5t
    assert [path.name for path in wallet.path.parent.iterdir()] == ["identity.pem"]


def test_rotation_keeps_role_and_encryption(home: Path) -> None:
    authority = CertificateAuthority.create(home)
    secret = Wallet.create(home, "boss", authority, "governor", passphrase=lambda: "secret")
    prepare_rotation(home, secret, authority, passphrase=lambda: "secret")
    finish_rotation(home, "boss")
    assert b"ENCRYPTED" in secret.path.read_bytes()
    assert Wallet.load(home, "boss", passphrase=lambda: "secret").role == "governor"
    plain = Wallet.create(home, "a", authority)
    prepare_rotation(home, plain, authority, passphrase=lambda: "set later")
    finish_rotation(home, "a")
    assert b"ENCRYPTED" not in plain.path.read_bytes()


def test_a_certificate_near_its_end_is_told_in_time() -> None:
    end = datetime.fromtimestamp(NOW, UTC)
    day = 86_400
    assert expiry_warning("a", end, NOW - (EXPIRY_WARNING_DAYS + 1) * day) is None
    soon = expiry_warning("a", end, NOW - 12.5 * day)
    assert soon is not None
    assert "in 12 days" in soon
    assert "tokenmesh wallet rotate a" in soon
    assert "ended on" in (expiry_warning("a", end, NOW + 1) or "")
