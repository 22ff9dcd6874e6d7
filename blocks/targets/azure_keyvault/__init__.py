"""A certificate in Azure Key Vault that others serve: App Service, Application Gateway, AKS.

Consumers ask for no version and get the newest one, so a new version is the switch, and
there is no other: versions cannot change or be chosen as current, and a newest version
that is disabled is refused to consumers instead of skipped. Therefore

* a certificate with a key of ours is staged as another object of the vault
  (``certrail-staged-NAME``), and imported from there;
* a key that is made in the vault waits as a pending certificate, which nobody sees until
  the certificate is merged;
* the one before comes back by being imported again as the newest version, which needs a
  key that the vault gives out.

Azure Key Vault REST reference, API version 7.4: "Create Certificate", "Get Certificate
Operation", "Merge Certificate", "Import Certificate", "Update Certificate", "Get Secret";
"Monitor and manage certificate creation"; read November 2026. Tried against an imitation
made from these that Azure's own client works with; Azure itself was not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import Field

from blocks._base import TargetBlock
from blocks._keyvault import KeyVaultAccess
from blocks.targets.azure_keyvault.in_vault import KeyInVaultTarget
from blocks.targets.azure_keyvault.target import KeyVaultTarget
from certrail.connectors import InstallTarget

__all__ = ["AzureKeyVaultTarget", "KeyInVaultTarget", "KeyVaultTarget"]


class AzureKeyVaultTarget(KeyVaultAccess, TargetBlock):
    """Renew certificates of an Azure Key Vault that others serve from there.

    The site is the certificate's name. With `key_in_vault` the vault makes the key, and
    it never leaves it. Give the endpoint an `address` of what serves the certificate, and
    the installation is tested there; without one, it is read back from the vault.
    """

    _block_type_name = "Certrail target: Azure Key Vault"
    _block_type_slug = "target-azure-keyvault"

    key_in_vault: bool = Field(
        default=False, description="Let the vault make the key instead of importing one."
    )
    exportable: bool = Field(
        default=True,
        description="Whether the vault gives out the private key; App Service, Application "
        "Gateway and going back to the version before need that.",
    )
    format: Literal["pkcs12", "pem"] = Field(
        default="pkcs12", description="How consumers get it as a secret; App Service wants pkcs12."
    )

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the vault."""
        kind = KeyInVaultTarget if self.key_in_vault else KeyVaultTarget
        with self.opened(self.label) as vault:
            yield kind(vault, exportable=self.exportable, form=self.format)
