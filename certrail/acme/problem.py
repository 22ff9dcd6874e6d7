"""Problem documents (RFC 8555 section 6.7, RFC 9457) turned into our errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    Conflict,
    ConnectorError,
    DomainNotValidated,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Throttled,
    Unreachable,
)
from certrail.log import plain

_Kind = type[CertrailError]

PREFIX = "urn:ietf:params:acme:error:"
_MOST_SUBPROBLEMS = 100
_LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Problem:
    """What a CA says went wrong.

    Attributes:
        type: the CA's word for it, normally ``urn:ietf:params:acme:error:…``, "" if none.
        detail: its sentence for people, one line.
        status: the HTTP status; 0 for a problem inside an object.
        identifier: the name it is about, "" if the whole request.
        instance: URL of a page for people, "" if none.
        subproblems: the problems of single names.
    """

    type: str = ""
    detail: str = ""
    status: int = 0
    identifier: str = ""
    instance: str = ""
    subproblems: tuple[Problem, ...] = ()

    @classmethod
    def parse(cls, data: object, status: int = 0) -> Problem:
        """Read a problem document; fields of the wrong kind are as good as absent."""
        if not isinstance(data, Mapping):
            return cls(status=status)
        below = data.get("subproblems")
        below = below[:_MOST_SUBPROBLEMS] if isinstance(below, list) else []
        identifier = data.get("identifier")
        return cls(
            type=_text(data, "type"),
            detail=_text(data, "detail") or _text(data, "title"),
            status=status,
            identifier=_text(identifier, "value") if isinstance(identifier, Mapping) else "",
            instance=_text(data, "instance"),
            subproblems=tuple(
                # One level only: subproblems have none of their own (section 6.7.1).
                cls.parse({**item, "subproblems": None})
                for item in below
                if isinstance(item, Mapping)
            ),
        )

    @property
    def code(self) -> str:
        """The type without the URN prefix: ``rateLimited``."""
        return self.type.removeprefix(PREFIX)

    def __str__(self) -> str:
        text = self.detail or self.code or f"HTTP status {self.status}"
        if self.identifier:
            text = f"{self.identifier}: {text}"
        if self.code and self.detail:
            text += f" ({self.code})"
        if self.subproblems:
            text += "; " + "; ".join(str(problem) for problem in self.subproblems)
        return text[:_LONGEST_TEXT]

    def error(
        self, doing: str, *, connector: str = "", retry_after: timedelta | None = None
    ) -> CertrailError:
        """Return the error to raise for it.

        Args:
            doing: what was asked, for the message: ``"new order"``.
            connector: name of the connector, for people.
            retry_after: the pause asked for, if one was.
        """
        message = f"{doing}: {self}"
        kind, remedy = self._kind(retry_after)
        if self.code == "userActionRequired" and self.instance:
            remedy = f"Open {self.instance}, do what it asks for, then retry."
        if not issubclass(kind, ConnectorError):
            return kind(message, remedy=remedy)
        return kind(
            message,
            remedy=remedy,
            connector=connector,
            code=self.type or (f"HTTP {self.status}" if self.status else ""),
            retry_after=retry_after,
        )

    def _kind(self, retry_after: timedelta | None) -> tuple[_Kind, str]:
        known = _TABLE.get(self.code)
        # "No such order" comes as status 404 with the type malformed.
        if known is None or (self.code == "malformed" and self.status in (404, 410, 429)):
            return _by_status(self.status, retry_after)
        return known


def remedy_for(problem_type: str) -> str:
    """Return what a person can do about an error type, "" where nothing special is known.

    *problem_type* is given with or without ``urn:ietf:params:acme:error:``.
    """
    found = _TABLE.get(problem_type.removeprefix(PREFIX))
    return found[1] if found else ""


def validation_remedy(problem_type: str) -> str:
    """Return what a person can do about a failed validation.

    *problem_type* is ``Authorization.problem_code``, with or without
    ``urn:ietf:params:acme:error:``.
    """
    code = problem_type.removeprefix(PREFIX)
    # In a validation, "unauthorized" means that what was found is not the proof.
    found = None if code == "unauthorized" else _TABLE.get(code)
    return found[1] if found else _PUBLISHED


_ACCOUNT = (
    "Retry the request from its first step, which finds the account or makes it again; if the CA "
    "closed the account, remove the connector's stored account with `certrail connector "
    "forget-account` so that a new one is made."
)
_EAB = (
    "Set eab_kid and eab_hmac_key of the connector to a pair that the CA issued and still accepts."
)
_PUBLISHED = (
    "Check that the name points where the challenge is published, from outside as well, then retry."
)
_LIBRARY = (
    "Retry; if it stays, report it with the log: the CA and Certrail disagree on the protocol."
)

_TABLE: Mapping[str, tuple[_Kind, str]] = {
    # account
    "accountDoesNotExist": (AuthenticationFailed, _ACCOUNT),
    "externalAccountRequired": (AuthenticationFailed, _EAB),
    "unauthorized": (
        PermissionRefused,
        "Check that the account is still in force at the CA and may order these names. If the CA "
        "closed it, `certrail connector forget-account` lets a retry make a new one.",
    ),
    "userActionRequired": (
        Rejected,
        "Read and accept the CA's present terms of service for this account, then retry.",
    ),
    "invalidContact": (
        Rejected,
        "Correct the contact of the connector: a reachable e-mail address.",
    ),
    "unsupportedContact": (Rejected, "Use an e-mail address as contact of the connector."),
    "badPublicKey": (Rejected, "Use a key that the CA accepts: ECDSA P-256 or RSA 2048 and up."),
    "badSignatureAlgorithm": (Rejected, "Use an account key of a kind that the CA accepts."),
    # order
    "rejectedIdentifier": (
        Rejected,
        "Take the named name out of the request, or ask the CA to allow it; then retry.",
    ),
    "unsupportedIdentifier": (
        Rejected,
        "This CA issues for no such kind of name: remove it or choose another CA.",
    ),
    "invalidProfile": (InvalidRequest, "Choose a profile that the CA offers."),
    "alreadyReplaced": (
        Rejected,
        "The certificate has a successor already: look for it before ordering again.",
    ),
    "rateLimited": (
        Throttled,
        "Wait as long as the CA asks; spread renewals or use ARI, which some CAs exempt.",
    ),
    "orderNotReady": (Conflict, "Finish the validation of every name of the order, then retry."),
    "badCSR": (
        Rejected,
        "Check key type, key size and names of the request against the CA's rules; then reissue.",
    ),
    # validation
    "caa": (
        Rejected,
        "Add a CAA record that allows this CA for the name, or remove the one that forbids it.",
    ),
    "connection": (
        DomainNotValidated,
        "Let the CA reach the name on port 80 (http-01), or use dns-01; then retry.",
    ),
    "dns": (
        DomainNotValidated,
        "Check that every authoritative server of the zone answers for the name, then retry.",
    ),
    "dnssec": (DomainNotValidated, "Repair the zone's DNSSEC signatures, then retry."),
    "incorrectResponse": (DomainNotValidated, _PUBLISHED),
    "tls": (DomainNotValidated, "Repair TLS where the challenge is fetched, then retry."),
    "unknownHost": (DomainNotValidated, "Publish an address record for the name, then retry."),
    # revocation
    "alreadyRevoked": (Rejected, "Nothing is left to do: the certificate is revoked."),
    "badRevocationReason": (Rejected, "Choose another revocation reason; this CA refuses it."),
    # the exchange itself
    "badNonce": (
        Unreachable,
        "The CA keeps refusing its own nonces: several of its servers may not share them. Retry.",
    ),
    "malformed": (Rejected, _LIBRARY),
    "compound": (
        Rejected,
        "Correct the names listed, or take them out of the request; then retry.",
    ),
    "serverInternal": (Unreachable, "The CA failed; retry. If it stays, look at the CA's log."),
}


def _by_status(status: int, retry_after: timedelta | None) -> tuple[_Kind, str]:
    """Choose by HTTP status where the type says nothing we know."""
    if status == 429 or (status == 503 and retry_after is not None):
        return Throttled, ""
    if status >= 500:
        return Unreachable, "The CA failed; retry. If it stays, look at the CA's log."
    by_status: Mapping[int, tuple[_Kind, str]] = {
        401: (AuthenticationFailed, _ACCOUNT),
        403: (PermissionRefused, ""),
        404: (NotFound, ""),
        409: (Conflict, ""),
        410: (NotFound, ""),
    }
    return by_status.get(status, (Rejected, _LIBRARY))


def _text(data: Mapping[str, Any], field: str) -> str:
    value = data.get(field)
    return plain(value)[:_LONGEST_TEXT].strip() if isinstance(value, str) else ""
