"""A certificate in Azure Key Vault, imported through its REST API.

Every import is a new version of the certificate object; consumers that ask
for no version get the newest. The vault takes no condition, so a writer that
comes between our look and our import is only seen when it is read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

from pydantic import Field

from blocks._base import DeliveryBlock
from blocks._keyvault import LONGEST_NAME, KeyVaultAccess, Vault, import_of, name_of
from certrail.connectors import DeliveryTarget, Traits
from certrail.delivery.settings import ServerSettings
from certrail.log import effect
from certrail.model import Bundle, Fingerprint, Site


class AzureKeyVault(KeyVaultAccess, DeliveryBlock):
    """Store certificates in Azure Key Vault."""

    _block_type_name = "Certrail delivery: Azure Key Vault"
    _block_type_slug = "delivery-azure-keyvault"

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the vault; the token is got with the first call."""
        with self.opened(self.label) as vault:
            yield _KeyVaultDelivery(vault)


class KeyVaultSettings(ServerSettings):
    """How the certificate is imported."""

    what: ClassVar[str] = "Azure Key Vault"

    format: Literal["pkcs12", "pem"] = Field(
        "pkcs12", description="How consumers get it as a secret; App Service wants pkcs12."
    )
    exportable: bool = Field(True, description="Whether the private key can be read back.")


class _KeyVaultDelivery(DeliveryTarget):
    traits: ClassVar[Traits] = Traits(
        transactional=True,
        restores_by="the vault keeps every version",
        longest_name=LONGEST_NAME,
    )

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def check(self) -> str:
        return self._vault.check()

    def delivered(self, site: Site) -> Fingerprint | None:
        KeyVaultSettings.parse(site.settings)
        found = self._vault.certificate(name_of(site))
        return found.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        settings, name = KeyVaultSettings.parse(site.settings), name_of(site)
        body = import_of(bundle, settings.format, settings.exportable)
        found = self._vault.certificate(name)
        if found and found.fingerprint == bundle.chain.fingerprint:
            return f"the certificate {name} had it already"
        version = self._vault.import_certificate(name, body).version
        effect("keyvault.deliver", connector=self._vault.label, name=name, version=version)
        return f"the certificate {name}, version {version}"
