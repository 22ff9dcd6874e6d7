"""What is asked of a CA, and what it answers: accounts, orders, authorizations, challenges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NewType, Self

OrderKey = NewType("OrderKey", str)
"""Our own reference to an order; unique for each request."""


class ChallengeKind(StrEnum):
    """How control of a name is proven (RFC 8555 section 8)."""

    DNS_01 = "dns-01"
    HTTP_01 = "http-01"


class OrderStatus(StrEnum):
    """State of an order, in the words of RFC 8555 section 7.1.6."""

    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    """State of an authorization, in the words of RFC 8555 section 7.1.6."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    REVOKED = "revoked"


class RevocationReason(StrEnum):
    """Why a certificate is revoked (RFC 5280 section 5.3.1); the value is the RFC's name."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"


@dataclass(frozen=True, slots=True)
class Account:
    """An account at a CA.

    Attributes:
        url: the account's URL or id at the CA.
        created: whether this call made it (False: found and verified).
        contact: what the CA has as contact, ``mailto:`` included.
    """

    url: str
    created: bool
    contact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """What is asked of a CA.

    Attributes:
        key: our reference.
        names: subject alternative names, canonical text, in the wanted order.
        profile: the CA's name for a certificate profile, "" for its default.
        replaces: ARI identifier of the certificate replaced (RFC 9773
            section 4.1), "" for none.
    """

    key: OrderKey
    names: tuple[str, ...]
    profile: str = ""
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """An order at a CA.

    Attributes:
        key: our reference.
        remote_id: the order's URL (ACME) or id; enough to ask for it again.
        status: as last seen.
        expires: when the CA forgets it, RFC 3339 text or "".
        replaces: the ARI identifier that the CA accepted, "" for none.
        data: whatever else the connector needs to go on; JSON values only, no secret.
    """

    key: OrderKey
    remote_id: str
    status: OrderStatus
    expires: str = ""
    replaces: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_json` reads back."""
        return {**asdict(self), "status": str(self.status), "data": dict(self.data)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**data, "status": OrderStatus(data["status"])})


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way, offered by the CA, to prove control of one name.

    Attributes:
        kind: dns-01 or http-01.
        url: the challenge at the CA.
        authorization: URL of the authorization it belongs to.
        name: the DNS name or IP address to prove, without ``*.``.
        token: the CA's token (file name of http-01).
        key_authorization: token and account key thumbprint (RFC 8555
            section 8.1); body of the http-01 file. Public, not a secret.
        txt_value: the TXT value of dns-01 (RFC 8555 section 8.4), "" for http-01.
        txt_name: where a CA without ACME looks for the value, "" for ACME's place.
    """

    kind: ChallengeKind
    url: str
    authorization: str
    name: str
    token: str
    key_authorization: str
    txt_value: str = ""
    txt_name: str = ""

    @property
    def record_name(self) -> str:
        """Where dns-01 looks, before any CNAME delegation."""
        return self.txt_name or f"_acme-challenge.{self.name}"


@dataclass(frozen=True, slots=True)
class Authorization:
    """The CA's record of control over one name.

    Attributes:
        name: as ordered, ``*.`` included.
        status: as last seen.
        url: the authorization at the CA.
        expires: end of its validity, None if the CA does not say.
        challenges: what is offered; only of use while pending.
        problem: the CA's words when a challenge failed, "" otherwise. A
            non-empty problem with status pending means failed too: some CAs
            never move the authorization on.
        problem_code: the CA's error type for it (``urn:ietf:params:acme:error:…``).
    """

    name: str
    status: AuthorizationStatus
    url: str
    expires: datetime | None = None
    challenges: tuple[Challenge, ...] = ()
    problem: str = ""
    problem_code: str = ""
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When a CA wants a certificate renewed (RFC 9773 section 4.2).

    Attributes:
        start, end: the suggested window, aware UTC.
        explanation_url: a page for people, "" if none.
        retry_after: how long to wait before asking again.
    """

    start: datetime
    end: datetime
    explanation_url: str
    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class TxtRecord:
    """One TXT value at one name; *fqdn* without a trailing dot."""

    fqdn: str
    value: str
