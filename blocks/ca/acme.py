"""Any CA that speaks ACME: Let's Encrypt, ZeroSSL, Google, step-ca, OpenBao and so on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import Field, SecretStr, field_validator

from blocks._base import CaBlock, open_secret
from certrail.acme import ca
from certrail.acme.account import parse_contacts
from certrail.acme.origin import Origins
from certrail.errors import InvalidRequest
from certrail.store.acme_accounts import DatabaseAccountKeeper


class AcmeCa(CaBlock):
    """Order certificates by ACME (RFC 8555). The account is made and kept by Certrail."""

    _block_type_name = "Certrail CA: ACME"
    _block_type_slug = "ca-acme"

    directory_url: str = Field(
        description="Address of the CA's ACME directory; https, or http on this machine."
    )
    contact: str = Field(
        default="",
        description="E-mail address the CA may write to; several are separated by commas.",
    )
    eab_kid: str = Field(
        default="", description="Key id for external account binding, where the CA asks for it."
    )
    eab_hmac_key: SecretStr | None = Field(
        default=None, description="HMAC key that belongs to the key id, as the CA shows it."
    )
    ca_bundle: str = Field(
        default="",
        description="PEM text, or path of a PEM file on the worker, that the directory's own TLS "
        "certificate is verified against; the system's trust store if empty.",
    )
    preferred_chain: str = Field(
        default="",
        description="Common name of the issuer that the chain shall end at, where the CA offers "
        "several chains; the CA's default chain if empty.",
    )
    allowed_origins: list[str] = Field(
        default_factory=list,
        description="Further origins (https://host:port) that the CA's URLs may have, beside the "
        "directory's own.",
    )

    lifetime_hours: int = Field(
        default=0,
        ge=0,
        le=24 * 400,
        description="Hours that certificates shall be valid, where the CA takes such a wish "
        "(step-ca and Caddy do, Let's Encrypt does not); 0 leaves it to the CA.",
    )

    @field_validator("directory_url", "allowed_origins")
    @classmethod
    def _check_addresses(cls, value: str | list[str]) -> str | list[str]:
        with _field_errors():
            for url in [value] if isinstance(value, str) else value:
                Origins(url)
        return value

    @field_validator("contact")
    @classmethod
    def _check_contact(cls, contact: str) -> str:
        with _field_errors():
            parse_contacts(contact)
        return contact

    @contextmanager
    def connect(self) -> Iterator[ca.AcmeCa]:
        """Open the CA; connections and the directory are kept for the next time."""
        yield ca.AcmeCa(
            self.directory_url,
            keeper=DatabaseAccountKeeper(self.label, self.directory_url),
            contact=self.contact,
            eab_kid=self.eab_kid,
            eab_hmac_key=open_secret(self.eab_hmac_key),
            ca_bundle=self.ca_bundle,
            preferred_chain=self.preferred_chain,
            allowed_origins=self.allowed_origins,
            lifetime=timedelta(hours=self.lifetime_hours) if self.lifetime_hours else None,
            label=self.label,
        )


@contextmanager
def _field_errors() -> Iterator[None]:
    """Let pydantic name the field that our own check refused."""
    try:
        yield
    except InvalidRequest as exc:
        raise ValueError(f"{exc}. {exc.remedy}") from exc
