"""A key on a token (SoftHSM) signs what a real network takes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.x509 import load_pem_x509_certificate

from tokenmesh.fabric.errors import IdentityError
from tokenmesh.fabric.gateway import Tls, connect, hash_sha256, read_identity
from tokenmesh.fabric.gateway.hsm import HsmSigner, subject_key_identifier
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.signing import CURVE_ORDERS

LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
PIN = "98765432"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SoftHSM with the token ``fabric``, in a folder of its own."""
    pytest.importorskip("pkcs11", reason="needs python-pkcs11: pip install 'tokenmesh-fabric[hsm]'")
    found = [path for path in LIBRARIES if Path(path).is_file()]
    if not found or shutil.which("softhsm2-util") is None:
        pytest.skip("needs SoftHSM: install Debian's softhsm2")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        util("--init-token", "--free", "--label", "fabric", "--so-pin", "1234", "--pin", PIN)
        yield found[0]


def util(*arguments: str) -> None:
    done = subprocess.run(["softhsm2-util", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_key_on_a_token_signs_for_a_network(kv: Network, library: str) -> None:
    files, peer = kv.profile.client(), kv.profile.peers[0]
    identity = read_identity(files.msp_id, files.certificate)
    ski = subject_key_identifier(identity)
    util(
        "--import",
        str(files.key),
        "--token",
        "fabric",
        "--label",
        "admin",
        "--id",
        ski.hex(),
        "--pin",
        PIN,
    )
    with HsmSigner(library, "fabric", PIN, ski) as sign:
        public = load_pem_x509_certificate(identity.credentials).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        for number in range(32):
            digest = hash_sha256(f"{number}".encode())
            signature = sign(digest)
            assert decode_dss_signature(signature)[1] <= CURVE_ORDERS["secp256r1"] // 2
            public.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        with connect(peer.address, identity, sign, tls=Tls.of(peer, files)) as gateway:
            contract = gateway.get_network("mesh").get_contract("kv")
            assert contract.submit_transaction("put", "hsm", "signed") == b"signed"


def test_what_is_not_on_the_token_is_named(library: str) -> None:
    with pytest.raises(IdentityError, match="no private key 0102"):
        HsmSigner(library, "fabric", PIN, b"\x01\x02")
    with pytest.raises(IdentityError, match="token absent"):
        HsmSigner(library, "absent", PIN, b"\x01\x02")
    with pytest.raises(IdentityError, match="token fabric"):
        HsmSigner(library, "fabric", "11111111", b"\x01\x02")
