"""What DigiCert published of the REST API of Trust Lifecycle Manager, as shapes to hold against.

From the API's own OpenAPI document ("Enterprise PKI Manager REST API", 1.0.0, the
name before it became Trust Lifecycle Manager), as it is kept in the repository of
a client generated from it: GitHub wanmail/digicert-mpki, ``api/openapi.yaml``.
Fields that came later are those of DigiCert's own Terraform provider (GitHub
digicert/terraform-provider-digicert, ``model/model.go``): ``status`` and
``request_id`` of a reply, ``tags`` of a request.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Serial = Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}){1,20}$")]
# The description has two words in two cases; the Terraform provider sends back
# the one that a profile shows, which is in the other case.
Form = Annotated[Literal["x509", "pkcs7"], BeforeValidator(lambda text: str(text).lower())]


class Shape(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Id(Shape):
    """Refers to something by its UUID."""

    id: UUID


class Named(Id):
    """The same, with a name for people."""

    name: str = ""


class Seat(Shape):
    """What a certificate is assigned to."""

    seat_id: str


class Validity(Shape):
    """How long a certificate is wanted for."""

    unit: Literal["years", "months", "days", "hours", "minutes"]
    duration: int


class IssueRequest(Shape):
    """Body of "Issue certificate"."""

    profile: Id
    csr: str
    seat: Seat | None = None
    attributes: dict[str, Any] = {}
    validity: Validity | None = None
    delivery_format: Form = "x509"
    include_ca_chain: bool = False
    tags: list[str] | None = None


class PickupRequest(Shape):
    """Body of "Certificate pickup"."""

    profile: Id


class RevokeRequest(Shape):
    """Body of "Revoke certificate"."""

    revocation_reason: Literal[
        "unspecified",
        "key_compromise",
        "ca_compromise",
        "affiliation_changed",
        "superseded",
        "cessation_of_operation",
        "certificate_hold",
        "remove_from_crl",
        "privilege_withdrawn",
        "aa_compromise",
    ]


class CertificateReply(Shape):
    """What "Issue certificate" and "Certificate pickup" answer."""

    serial_number: Serial | None = None
    delivery_format: Form | None = None
    certificate: str = ""
    status: str = ""
    request_id: str = ""


class Revocation(Shape):
    """Why and when a certificate was revoked."""

    reason: str
    revocation_date: datetime
    comments: str = ""


class Details(Shape):
    """What "Get certificate by serial number" answers; the certificate is Base64 without frame."""

    profile: Named
    seat: Seat
    common_name: str
    status: Literal["issued", "revoked", "expired", "suspended"]
    serial_number: Serial
    valid_from: datetime
    valid_to: datetime
    certificate: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]*$")] = ""
    account: Id | None = None
    business_unit: Named | None = None
    notes: str = ""
    revocation: Revocation | None = None
    thumbprint: str = ""


class Page(Shape):
    """What "Search certificates" answers."""

    total: int
    offset: int
    limit: int
    items: list[Details]


class SearchQuery(Shape):
    """Parameters of "Search certificates", as far as they are used here."""

    common_name: str = ""
    profile_id: UUID | None = None
    seat_id: str = ""
    serial_number: str = ""
    status: Annotated[
        Literal["", "issued", "expired", "revoked", "suspended"],
        BeforeValidator(lambda text: str(text).lower()),
    ] = ""
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=20, ge=1)


class Profile(Shape):
    """What "Get profile by ID" answers, as far as it is used here."""

    id: UUID
    name: str
    status: Literal["Active", "Deleted"]
    certificate_delivery_format: Form
    enrollment_method: Literal["rest_api"]
    override_cert_validity_via_api: bool
