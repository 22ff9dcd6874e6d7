"""Everything that can go wrong, and whether trying again can help.

A failed step shows three facts: the cause (``str(error)``), the remedy
(``error.remedy``) and whether a retry makes sense (``error.retryable``).

CertrailError
├── InvalidRequest            can never work as written
├── DomainNotValidated        the CA looked and was not convinced
├── NotPropagated             *  record not visible in time
├── NotIssued                 *  the CA was still working when time was up
├── ActivationRefused         target said no; the old certificate is still live
├── ProbeFailed               *  installed, but a client sees something else
├── JournalConflict           *  another run holds this request
├── KeyUnavailable            the sealing key is missing or is not the one used
│   └── SealingKeyMissing     *  what was read may have been sealed anew since
└── ConnectorError
    ├── Unreachable           *  no usable answer from the network
    ├── Throttled             *  asked to come back later
    ├── Busy                  *  locked by someone else's change
    ├── AuthenticationFailed
    ├── HostKeyMismatch       the server is not the one that was pinned
    ├── PermissionRefused
    ├── NotFound
    ├── Conflict              remote state is not what we were told
    ├── StorageFull           *  no room left on the target
    ├── Rejected              understood and refused; carries a code
    └── UnexpectedReply       outside the documented protocol

* retryable
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar


class CertrailError(Exception):
    """Base of every error raised on purpose.

    The message is the only positional argument and the rest have defaults,
    so that instances survive pickling on their way through Prefect.

    Attributes:
        remedy: what a person can do about it; never empty.
        retryable: whether the same call can succeed later unchanged.
    """

    retryable: ClassVar[bool] = False
    default_remedy: ClassVar[str] = "Look at the step's log, correct the cause, then retry."

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy or self.default_remedy


class InvalidRequest(CertrailError):
    """The request can never succeed as written."""

    default_remedy = "Correct the configuration; nothing was changed."


class DomainNotValidated(CertrailError):
    """The CA looked for the proof of control and was not convinced."""

    default_remedy = "Check that the names point where the challenge is published, then retry."


class NotPropagated(CertrailError):
    """A DNS record did not become visible in time."""

    retryable = True
    default_remedy = "Check that every authoritative server gets zone updates, then retry."


class NotIssued(CertrailError):
    """The CA was still working when time was up."""

    retryable = True
    default_remedy = "Retry: the same order is asked again, nothing is ordered twice."


class ActivationRefused(CertrailError):
    """The target refused the certificate and still serves the old one."""

    default_remedy = "Correct what the server complains about, then retry: no new order is made."


class ProbeFailed(CertrailError):
    """The endpoint presents something other than what was installed."""

    retryable = True
    default_remedy = "Check listener, load balancer and trust, then retry: no new order is made."


class JournalConflict(CertrailError):
    """Another run holds this request."""

    retryable = True
    default_remedy = "Wait for the other run to end; its lease expires by itself if it died."


class KeyUnavailable(CertrailError):
    """The sealing key is missing, unreadable, or not the one that sealed the value."""

    default_remedy = "Set CERTRAIL_KEY or CERTRAIL_KEY_FILE to the key that was used for sealing."


class SealingKeyMissing(KeyUnavailable):
    """A value was sealed by a key that is not here, perhaps retired since the value was read."""

    retryable = True
    default_remedy = (
        "Retry: a value that was sealed anew meanwhile is read again. If it stays, put the key "
        "back into the key file: nothing else opens what it sealed."
    )


class ConnectorError(CertrailError):
    """The other side did not do what was asked.

    Attributes:
        connector: name of the connector, for people.
        code: the remote's own word for the failure, or "".
        retry_after: how long the remote asks to be left alone, if it said so.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        connector: str = "",
        code: str = "",
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.connector = connector
        self.code = code
        self.retry_after = retry_after


class Unreachable(ConnectorError):
    """No usable answer came from the network."""

    retryable = True
    default_remedy = "Check address, route, firewall and that the service runs, then retry."


class Throttled(ConnectorError):
    """The remote asked us to come back later; see ``retry_after``."""

    retryable = True
    default_remedy = "Wait as long as the remote asks, then retry."


class Busy(ConnectorError):
    """Someone else holds the remote's change lock."""

    retryable = True
    default_remedy = "Wait until the other change is finished, then retry."


class AuthenticationFailed(ConnectorError):
    """The credential was refused."""

    default_remedy = "Correct the credential of the connector, then retry."


class HostKeyMismatch(ConnectorError):
    """The server's host key is unknown or is not the pinned one."""

    default_remedy = (
        "If the host was reinstalled on purpose, put its new key into the known hosts file; "
        "otherwise treat this as an attack."
    )


class PermissionRefused(ConnectorError):
    """The credential is good but not good enough."""

    default_remedy = "Give the connector's account the permission named, then retry."


class NotFound(ConnectorError):
    """The named zone, site, file or object does not exist."""

    default_remedy = "Check the name in the configuration, or create the object, then retry."


class Conflict(ConnectorError):
    """The remote state is not what the caller was told it was."""

    default_remedy = "Look at who changed it, then retry: the present state is read again."


class StorageFull(ConnectorError):
    """There is no room left where something has to be written."""

    retryable = True
    default_remedy = "Free space on the target, then retry: no new order is made."


class Rejected(ConnectorError):
    """The remote understood and refused; ``code`` is its own word for why."""


class UnexpectedReply(ConnectorError):
    """The reply is outside the documented protocol."""

    default_remedy = "Check that the address is that of the service meant, and its version."
