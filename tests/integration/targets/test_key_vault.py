"""What is peculiar to certificates of Azure Key Vault: versions, keys that stay, no address."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blocks.targets.azure_keyvault import AzureKeyVaultTarget, KeyInVaultTarget, KeyVaultTarget
from certrail.errors import Conflict, InvalidRequest
from certrail.model import Bundle, Csr, KeyAlgorithm, Site, Staged, SubjectSpec
from tests.contract.appliance_cases import vault_of
from tests.support.cloud_api import served
from tests.support.device import SITE
from tests.support.key_vault_api import NAME, KeyVault, VaultGateway
from tests.support.nginx import TestCa
from tests.support.own_environment import own_environment

WWW = Site(NAME, names=(SITE,))
SUBJECT = SubjectSpec((SITE, "shop.example.test"))


@pytest.fixture
def gateway() -> Iterator[VaultGateway]:
    """A vault and what serves from it."""
    with VaultGateway().running() as device:
        yield device


@contextmanager
def keyed(device: VaultGateway, *, exportable: bool = False) -> Iterator[KeyInVaultTarget]:
    """Open it with keys that the vault makes."""
    with vault_of(device) as vault:
        yield KeyInVaultTarget(vault, exportable=exportable)


def merged(device: VaultGateway, target: KeyInVaultTarget) -> Staged:
    """Let the vault make a key, and merge a certificate for it."""
    csr = target.generate_csr(WWW, SUBJECT)
    staged = target.stage(WWW, Bundle(device.ca.signed(csr, *SUBJECT.names), None), None)
    target.activate(staged)
    return staged


def test_the_key_stays_in_the_vault(gateway: VaultGateway) -> None:
    """The request is for the names ordered, and nobody gets the key."""
    with keyed(gateway) as target:
        csr = target.generate_csr(WWW, SUBJECT)
        assert csr == target.generate_csr(WWW, SUBJECT), "a repeated call finds the same key"
        staged = merged(gateway, target)

    newest = gateway.vault.versions[NAME][-1]["shown"]
    assert gateway.served() == staged.fingerprint
    assert newest["policy"]["key_props"]["exportable"] is False
    assert gateway.vault.pending[NAME]["status"] == "completed"


def test_going_back_needs_a_key_that_the_vault_gives_out(gateway: VaultGateway) -> None:
    """The newest version is what consumers get, and an old one can only be imported again."""
    with keyed(gateway) as target:
        merged(gateway, target)
        second = merged(gateway, target)
        before = len(gateway.vault.versions[NAME])

        with pytest.raises(InvalidRequest, match="does not give out the key") as caught:
            target.restore(second)

    assert "exportable" in caught.value.remedy
    assert len(gateway.vault.versions[NAME]) == before


def test_a_first_certificate_is_taken_back_by_disabling_it(gateway: VaultGateway) -> None:
    """Nothing was there before; a version cannot be deleted by itself."""
    with vault_of(gateway) as vault:
        target = KeyVaultTarget(vault)
        staged = target.stage(Site("new"), gateway.ca.bundle(SITE), None)
        target.activate(staged)
        assert target.serving(Site("new")) == staged.fingerprint

        target.restore(staged)

        assert target.serving(Site("new")) is None


def test_what_somebody_else_began_is_left_alone(gateway: VaultGateway) -> None:
    """A pending certificate for other names is not ours to throw away."""
    with keyed(gateway) as target:
        target.generate_csr(WWW, SubjectSpec(("other.example.test",)))
        with pytest.raises(Conflict) as caught:
            target.generate_csr(WWW, SUBJECT)
        assert "certificate operation" in caught.value.remedy
        with pytest.raises(Conflict):
            target.generate_csr(WWW, SubjectSpec(("other.example.test",), KeyAlgorithm.ECDSA_P384))


def test_a_certificate_for_another_key_is_refused(gateway: VaultGateway) -> None:
    """Before it is merged: the vault has only the key that it made."""
    with keyed(gateway) as target:
        with pytest.raises(InvalidRequest, match="keeps its keys"):
            target.stage(WWW, gateway.ca.bundle(SITE), None)
        with pytest.raises(InvalidRequest, match="no longer has the key"):
            target.stage(WWW, Bundle(gateway.ca.bundle(SITE).chain, None), None)
        with pytest.raises(InvalidRequest, match="IP addresses"):
            target.generate_csr(WWW, SubjectSpec(("192.0.2.1",)))


@pytest.mark.parametrize(
    ("name", "told"), [("a_b", "not a name"), ("", "not a name"), ("x" * 112, "too long")]
)
def test_names_are_checked_first(gateway: VaultGateway, name: str, told: str) -> None:
    """A name that is too long for what is staged beside it is told before anything is sent."""
    before = gateway.snapshot()
    with vault_of(gateway) as vault, pytest.raises(InvalidRequest, match=told) as caught:
        KeyVaultTarget(vault).stage(Site(name), gateway.ca.bundle(SITE), None)

    assert caught.value.remedy
    assert before == gateway.snapshot()


def test_sites_are_the_certificates_of_others_too(gateway: VaultGateway) -> None:
    """But not what waits beside one."""
    with vault_of(gateway) as vault:
        target = KeyVaultTarget(vault)
        target.stage(WWW, gateway.ca.bundle(SITE), None)

        assert [(site.id, site.names) for site in target.sites()] == [(NAME, (SITE,))]


def test_the_block_says_who_makes_the_key() -> None:
    """One setting decides, and the step then asks the vault for a request."""
    fields = {"vault_url": "https://vault.example", "tenant_id": "t", "client_id": "c"}
    for key_in_vault in (False, True):
        block = AzureKeyVaultTarget(
            client_secret="lab-secret",
            key_in_vault=key_in_vault,
            **fields,
        )
        with block.connect() as target:
            assert isinstance(target, KeyInVaultTarget) is key_in_vault
            assert target.traits.key_on_device is key_in_vault


def test_azures_own_client_goes_the_same_way(tmp_path: Path) -> None:
    """The vault is a fake; that Azure's client creates, merges and disables keeps it true."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trust = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trust))
    python = own_environment("azure-keyvault") / "bin" / "python"
    program = Path(__file__).parents[2] / "support" / "run_key_vault_client.py"
    with served(KeyVault(tokens={"token-of-theirs"}), tls) as api:

        def run(*arguments: str) -> dict[str, object]:
            argv = [str(python), str(program), api.url, str(trust), "token-of-theirs", *arguments]
            done = subprocess.run(argv, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            found: dict[str, object] = json.loads(done.stdout)
            return found

        made = run("create", "theirs")
        request = x509.load_der_x509_csr(base64.b64decode(str(made.pop("csr"))))
        csr = Csr(request.public_bytes(Encoding.PEM).decode())
        leaf = TestCa().signed(csr, "theirs.example.test").leaf
        merged_ = run("merge", "theirs", base64.b64encode(leaf.public_bytes(Encoding.DER)).decode())

    assert made == {"issuer": "Unknown", "status": "inProgress", "again": "refused"}
    assert merged_ == {"merged": "theirs", "status": "completed", "enabled": False}
