"""Settings of CertCentral."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from blocks._base import CaBlock, open_secret
from blocks.ca.certcentral.ca import CertCentralCa
from certrail.connectors import CertificateAuthority
from certrail.remote import http

_Replacing = Literal["renew", "reissue", "duplicate"]


class CertCentral(CaBlock):
    """Order OV, EV and private TLS certificates from DigiCert CertCentral.

    Domains are validated by a DNS TXT record through the profile's DNS connector.
    A profile's ca_profile names another product.
    """

    _block_type_name = "Certrail CA: DigiCert CertCentral"
    _block_type_slug = "ca-certcentral"

    url: str = Field(
        default="https://www.digicert.com/services/v2",
        description="Address of the Services API; https://certcentral.digicert.eu/services/v2 for "
        "accounts in Europe.",
    )
    api_key: SecretStr = Field(description="API key (X-DC-DEVKEY), or a reference to it.")
    organization_id: int = Field(ge=1, description="Id of the validated organization.")
    product: str = Field(
        default="ssl_basic",
        pattern=r"^[a-z0-9_]+$",
        description="Product identifier, such as ssl_basic, ssl_ev_basic or private_ssl_flex.",
    )
    validity_days: int = Field(
        default=90, ge=1, le=397, description="Validity of certificates in days."
    )
    order_years: int = Field(
        default=1, ge=1, le=3, description="Validity of orders in years (multi-year plans)."
    )
    replacing: _Replacing = Field(
        default="renew",
        description="How a certificate of CertCentral is replaced: by an order that renews its "
        "order (renew), or within its order (reissue, duplicate).",
    )
    payment_method: Literal["balance", "profile"] = Field(
        default="balance", description="What orders are paid from."
    )
    container_id: int | None = Field(default=None, ge=1, description="Division to order in.")
    ca_cert_id: str = Field(
        default="", description="Id of the issuing CA certificate; the product's own if empty."
    )
    skip_approval: bool = Field(
        default=True,
        description="Let orders pass without approval, where the key's user may do that.",
    )
    dcv_label: str = Field(
        default="",
        pattern=r"^[a-z0-9_-]*$",
        description="Label below the domain for the TXT record, such as _dnsauth; empty: the "
        "domain itself.",
    )
    poll_interval: float = Field(
        default=5.0, ge=0.02, le=600, description="Seconds between two questions to the CA."
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the API; empty: system."
    )
    timeout: int = Field(default=30, ge=1, le=120, description="Seconds the API may take.")

    @field_validator("url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @contextmanager
    def connect(self) -> Iterator[CertificateAuthority]:
        """Open the CA."""
        with http.client(
            self.url + "/",
            headers={"X-DC-DEVKEY": open_secret(self.api_key), "Accept": "application/json"},
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield CertCentralCa(client, self)
